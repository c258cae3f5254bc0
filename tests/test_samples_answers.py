"""The bundled rows for instructions, preferences, ratings and worked answers: what each file promises of its answers.

They stand in for real data where no hub is at hand, so the short cuts are measured too: a pair that
the longer answer wins, or a right option that is the longest, would be learnt before the task is.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from decimal import Decimal

import numpy as np
import pytest
from sample_rows import HELD_OUT, SENTENCE_END, column, load, split, words
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.tree import DecisionTreeClassifier

TYPES = {"person", "place", "organisation", "date"}
NUMBER = r"-?\d+(?:\.\d+)?"


# ---- instructions


def test_two_kinds_of_instruction_are_held_out():
    rows = load("instructions")
    kinds = {part: Counter(row["kind"] for row in split(rows, part)) for part in ("train", "test")}
    assert len(kinds["train"]) == 6 and set(kinds["test"]) == set(HELD_OUT)
    assert set(kinds["train"].values()) | set(kinds["test"].values()) == {16}
    assert not set(kinds["train"]) & set(kinds["test"])


def test_held_out_instructions_name_their_labels_and_are_balanced():
    for kind, labels in HELD_OUT.items():
        rows = [row for row in load("instructions") if row["kind"] == kind]
        assert Counter(row["output"] for row in rows) == {label: len(rows) // len(labels) for label in labels}
        for row in rows:
            asked = words(row["instruction"])
            assert all(asked.count(label) == 1 for label in labels), row


def test_kinds_are_mixed_in_file_order():
    """So that the first rows of the train split hold every kind."""
    assert len({row["kind"] for row in load("instructions")[:32]}) == 6


def test_instruction_inputs_and_outputs_fit_their_kind():
    for row in load("instructions"):
        given, output = row["input"], row["output"]
        assert given or row["kind"] == "explain_simply", row
        if row["kind"] == "extract_names":
            at = [re.search(rf"\b{re.escape(name)}\b", given).start() for name in output.split(", ")]
            assert at == sorted(at), row
        elif row["kind"] == "reorder_steps":
            steps = given.split("; ") if ";" in output else re.findall(r"(\w): ", given)
            got = output.split("; " if ";" in output else ", ")
            assert sorted(got) == sorted(steps) and got != steps, row
        elif row["kind"] == "summarise_one_sentence":
            assert len(SENTENCE_END.split(output)) == 1 and len(output) < 0.7 * len(given), row
        elif row["kind"] == "rewrite_formal":
            assert not re.search(r"\w'(t|m|re|ve|ll|d)\b", output), row  # no contractions


# ---- preferences

MEASURES = {"words": lambda text: len(text.split()), "characters": len}


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("measure", MEASURES)
def test_the_length_of_an_answer_does_not_give_it_away(part, measure):
    rows, size = split(load("preferences"), part), MEASURES[measure]
    chosen, rejected = (np.array([size(row[c]) for row in rows]) for c in ("chosen", "rejected"))
    assert 0.45 <= np.mean(chosen > rejected) <= 0.55, np.mean(chosen > rejected)
    assert abs(chosen.mean() / rejected.mean() - 1) <= 0.10, (chosen.mean(), rejected.mean())


@pytest.mark.parametrize("measure", MEASURES)
def test_a_tree_on_lengths_does_not_find_the_chosen_answer(measure):
    size = MEASURES[measure]

    def features(rows, first, second):
        pairs = [(size(row[first]), size(row[second])) for row in rows]
        return np.array([(a, b, a - b) for a, b in pairs])

    def both(rows):
        x = np.vstack([features(rows, "chosen", "rejected"), features(rows, "rejected", "chosen")])
        return x, np.repeat([1, 0], len(rows))

    train, test = (split(load("preferences"), part) for part in ("train", "test"))
    scores = {
        d: DecisionTreeClassifier(max_depth=d, random_state=0).fit(*both(train)).score(*both(test)) for d in (1, 3)
    }
    assert max(scores.values()) < 0.75, scores


def pair_accuracy() -> dict[str, float]:
    """Test pairs whose chosen answer scores higher, by regressions on single answers and on differences of two."""
    rows = load("preferences")
    train, test = split(rows, "train"), split(rows, "test")
    scores = {}
    for kind, vectorizer in {"counts": CountVectorizer(), "tfidf": TfidfVectorizer(ngram_range=(1, 2))}.items():
        vectorizer.fit([row[c] for row in train for c in ("chosen", "rejected")])
        good, bad, good_test, bad_test = (
            vectorizer.transform([row[c] for row in part]) for part in (train, test) for c in ("chosen", "rejected")
        )
        y = np.repeat([1, 0], len(train))
        single = LogisticRegression(max_iter=2000).fit(sparse.vstack([good, bad]), y)
        pair = LogisticRegression(max_iter=2000, fit_intercept=False).fit(sparse.vstack([good - bad, bad - good]), y)
        for how, model in {"single": single, "pair": pair}.items():
            margin = model.decision_function(good_test) - model.decision_function(bad_test)
            scores[f"{kind} {how}"] = float(np.mean(margin > 0))
    return scores


def test_a_bag_of_words_does_not_find_the_chosen_answer():
    scores = pair_accuracy()
    assert max(scores.values()) < 0.75, scores


# ---- ratings


@pytest.mark.parametrize("part", ["train", "test"])
def test_ratings_spread_over_the_whole_range(part):
    ratings = np.array([row["rating"] for row in split(load("ratings"), part)])
    assert all(isinstance(row["rating"], float) for row in load("ratings"))
    assert np.allclose(ratings, ratings.round(1)) and ratings.min() >= -4 and ratings.max() <= 4
    assert np.mean(ratings < -1.5) >= 0.25 and np.mean(ratings > 1.5) >= 0.25
    steps = np.histogram(ratings, bins=np.arange(-4, 5))[0]
    assert steps.min() >= 5, steps
    assert abs(ratings.mean()) < 0.3, ratings.mean()


def test_neither_length_nor_a_bag_of_words_gives_the_rating():
    train, test = (split(load("ratings"), part) for part in ("train", "test"))
    y, y_test = ([row["rating"] for row in part] for part in (train, test))
    lengths = [len(row["text"].split()) for row in train + test]
    assert abs(np.corrcoef(lengths, y + y_test)[0, 1]) < 0.25
    for vectorizer in (CountVectorizer(), TfidfVectorizer(ngram_range=(1, 2))):
        model = Ridge().fit(vectorizer.fit_transform([row["text"] for row in train]), y)
        r = np.corrcoef(model.predict(vectorizer.transform([row["text"] for row in test])), y_test)[0, 1]
        assert abs(r) < 0.5, r


# ---- worked answers


def test_a_word_problem_ends_in_its_answer():
    """The last number of the last sentence is the answer, as a reader of worked answers takes it."""
    for row in load("word_problems"):
        assert re.fullmatch(NUMBER, row["answer"]) and not re.search(r"\.\d*0$", row["answer"]), row
        sentences = SENTENCE_END.split(row["rationale"])
        assert 2 <= len(sentences) <= 4, row
        numbers = re.findall(rf"(?<![\w.]){NUMBER}", sentences[-1])
        assert Decimal(numbers[-1]) == Decimal(row["answer"]), row


def value(expression: str) -> Decimal:
    """`3 x 4 - 2`, products and quotients first."""
    tokens = expression.split()
    done = [Decimal(tokens[0])]
    signs = []
    for operator, token in zip(tokens[1::2], tokens[2::2], strict=True):
        if operator == "x":
            done[-1] *= Decimal(token)
        elif operator == "/":
            done[-1] /= Decimal(token)
        else:
            signs.append(1 if operator == "+" else -1)
            done.append(Decimal(token))
    return done[0] + sum(s * d for s, d in zip(signs, done[1:], strict=True))


def test_the_sums_written_in_rationales_hold():
    found = [
        (row["idx"], left, right)
        for row in load("word_problems")
        for left, right in re.findall(rf"((?:{NUMBER} [-+x/] )+{NUMBER}) = ({NUMBER})", row["rationale"])
    ]
    assert len(found) >= 60
    assert [(i, left, right) for i, left, right in found if value(left) != Decimal(right)] == []


def test_answers_of_word_problems_vary():
    answers = Counter(row["answer"] for row in load("word_problems"))
    assert max(answers.values()) <= 3, answers
    assert sum("." in answer for answer in answers) >= 4


@pytest.mark.parametrize("part", ["train", "test"])
def test_options_are_balanced_and_their_length_does_not_give_the_right_one_away(part):
    rows = split(load("commonsense"), part)
    assert Counter(row["answer"] for row in rows) == {place: len(rows) // 4 for place in range(4)}
    for row in rows:
        assert len(set(row["choices"])) == 4 and all(1 <= len(c.split()) <= 8 for c in row["choices"]), row
    for extreme in (max, min):
        hits = [len(row["choices"][row["answer"]]) == extreme(map(len, row["choices"])) for row in rows]
        assert np.mean(hits) <= 0.4, (extreme, np.mean(hits))


@pytest.mark.parametrize("part", ["train", "test"])
def test_yes_and_no_are_balanced(part):
    rows = split(load("yes_no"), part)
    assert Counter(row["answer"] for row in rows) == {"yes": len(rows) // 2, "no": len(rows) // 2}
    answers = [row["answer"] for row in rows]
    assert 0.25 < np.mean([a != b for a, b in itertools.pairwise(answers)]) < 0.75  # not in turns


def test_the_words_of_a_question_do_not_answer_yes_or_no():
    train, test = (split(load("yes_no"), part) for part in ("train", "test"))
    for vectorizer in (CountVectorizer(), TfidfVectorizer(ngram_range=(1, 2))):
        x = vectorizer.fit_transform([row["question"] for row in train])
        model = LogisticRegression(max_iter=2000).fit(x, [row["answer"] for row in train])
        score = model.score(vectorizer.transform([row["question"] for row in test]), [row["answer"] for row in test])
        assert score < 0.75, score


def test_yes_no_questions_take_more_than_one_step():
    assert [r for r in column("yes_no", "rationale") if not 3 <= len(SENTENCE_END.split(r)) <= 4] == []


# ---- summaries and entities


def test_a_summary_is_one_sentence_and_not_copied():
    for row in load("summaries"):
        assert row["summary"].endswith(".") and len(SENTENCE_END.split(row["summary"])) == 1, row
        text, summary = " ".join(words(row["text"])), words(row["summary"])
        assert not [i for i in range(len(summary) - 6) if " ".join(summary[i : i + 7]) in text], row


def test_entities_are_spans_of_their_text():
    """Each stands once in its text, in order and without overlap, so its place needs no offset."""
    for row in load("entities"):
        end = 0
        for entity in row["entities"]:
            assert set(entity) == {"type", "text"} and entity["type"] in TYPES, row
            assert row["text"].count(entity["text"]) == 1, row
            start = row["text"].index(entity["text"])
            assert start >= end, row
            end = start + len(entity["text"])


def test_no_name_or_number_is_left_unmarked():
    for row in load("entities"):
        rest = row["text"]
        for entity in row["entities"]:
            rest = rest.replace(entity["text"], "_")
        assert not re.search(r"\d", rest), row
        inside = [m.group() for m in re.finditer(r"(?<=[a-z,_] )[A-Z][A-Za-z']*", rest)]
        assert [word for word in inside if word != "I"] == [], row


@pytest.mark.parametrize("part", ["train", "test"])
def test_every_type_and_number_of_entities_occurs(part):
    rows = split(load("entities"), part)
    numbers = Counter(len(row["entities"]) for row in rows)
    assert set(numbers) == {0, 1, 2, 3, 4} and numbers[0] >= len(rows) // 6, numbers
    types = Counter(entity["type"] for row in rows for entity in row["entities"])
    assert min(types[t] for t in TYPES) >= 12, types


def test_no_entity_occurs_in_both_splits():
    seen = {p: {e["text"] for row in split(load("entities"), p) for e in row["entities"]} for p in ("train", "test")}
    assert seen["train"] & seen["test"] == set()
