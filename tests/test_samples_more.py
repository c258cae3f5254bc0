"""The bundled rows for instructions, preferences, ratings and worked answers hold what `suites/samples/README.md` promises.

They stand in for real data where no hub is at hand, so the short cuts are measured too: a pair that
the longer answer wins, or a right option that is the longest, would be learnt before the task is.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.tree import DecisionTreeClassifier

FOLDER = Path(__file__).resolve().parent.parent / "suites" / "samples"
SIZES = {
    "instructions": (96, 32),
    "preferences": (96, 48),
    "ratings": (120, 80),
    "word_problems": (32, 40),
    "commonsense": (24, 32),
    "yes_no": (24, 32),
    "summaries": (32, 24),
    "entities": (64, 40),
}
COLUMNS = {  # columns of running text, with the least and most words they may hold
    "instructions": {"instruction": (2, 20), "input": (0, 45), "output": (1, 35)},
    "preferences": {"prompt": (3, 30), "chosen": (1, 35), "rejected": (1, 35)},
    "ratings": {"text": (5, 30)},
    "word_problems": {"question": (15, 45), "rationale": (10, 40)},
    "commonsense": {"question": (8, 25), "rationale": (8, 25)},
    "yes_no": {"question": (8, 25), "rationale": (10, 40)},
    "summaries": {"text": (50, 120), "summary": (10, 25)},
    "entities": {"text": (5, 25)},
}
OTHER = {
    "instructions": {"kind"},
    "ratings": {"rating"},
    "word_problems": {"answer"},
    "commonsense": {"choices", "answer"},
    "yes_no": {"answer"},
    "entities": {"entities"},
}
HELD_OUT = {"classify_tone": ["angry", "grateful", "worried", "amused"], "check_claim": ["true", "false"]}
TYPES = {"person", "place", "organisation", "date"}
WORDS = re.compile(r"[a-z0-9']+")
NUMBER = r"-?\d+(?:\.\d+)?"
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def load(name: str) -> list[dict]:
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    apart = {"commonsense": with_choices, "word_problems": with_rationale}.get(name, dict)
    return [apart(row) for row in rows]


def with_rationale(row: dict) -> dict:
    """Reasoning and answer stand in one column, as in GSM8K's rows."""
    rationale, answer = row["answer"].split("\n#### ")
    return row | {"rationale": rationale, "answer": answer}


def with_choices(row: dict) -> dict:
    """Options stand in the question, one a line, as in ECQA's rows, and the answer is one of them: taken apart again."""
    question, listed = row["question"].split("\nOptions:\n")
    choices = [line.removeprefix("- ") for line in listed.split("\n")]
    return row | {"question": question, "choices": choices, "answer": choices.index(row["answer"])}


def words(text: str) -> list[str]:
    return WORDS.findall(text.lower())


def split(rows: list[dict], name: str) -> list[dict]:
    return [row for row in rows if row["split"] == name]


def column(name: str, of: str) -> list[str]:
    return [row[of] for row in load(name) if row[of]]


def is_label(name: str, of: str, row: dict) -> bool:
    return name == "instructions" and of == "output" and row["kind"] in HELD_OUT


PARTS = [(name, part) for name in SIZES for part in ("train", "test")]
TEXTS = [(name, of) for name, columns in COLUMNS.items() for of in columns]


# ---- every file


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_columns(name):
    rows = load(name)
    assert [row["split"] for row in rows] == ["train"] * SIZES[name][0] + ["test"] * SIZES[name][1]
    assert [row["idx"] for row in rows] == list(range(len(rows)))
    for row in rows:
        assert list(row)[:2] == ["split", "idx"], row
        assert set(row) == {"split", "idx", *COLUMNS[name], *OTHER.get(name, ())}, row


@pytest.mark.parametrize(("name", "of"), TEXTS)
def test_lengths(name, of):
    least, most = COLUMNS[name][of]
    bad = [row[of] for row in load(name) if not least <= len(row[of].split()) <= most]
    assert bad == []


@pytest.mark.parametrize(("name", "of"), TEXTS)
def test_lengths_vary(name, of):
    lengths = [len(text.split()) for text in column(name, of)]
    assert np.std(lengths) / np.mean(lengths) >= 0.15, (np.std(lengths), np.mean(lengths))


def test_no_text_twice_in_any_file_or_split():
    seen = Counter()
    for name, of in TEXTS:
        seen.update(" ".join(words(r[of])) for r in load(name) if r[of] and not is_label(name, of, r))
    assert [text for text, n in seen.items() if n > 1] == []


@pytest.mark.parametrize("name", SIZES)
def test_nothing_is_taken_from_the_older_samples(name):
    """No text of ten characters or more of these files stands in the sentences of the GLUE or MMLU sample."""
    older = [row for file in ("cola", "mmlu", "mrpc", "rte", "sst2") for row in load(file)]
    known = {" ".join(words(value)) for row in older for value in row.values() if isinstance(value, str)}
    ours = {" ".join(words(text)) for of in COLUMNS[name] for text in column(name, of)}
    assert {text for text in ours & known if len(text) >= 10} == set()


@pytest.mark.parametrize(("name", "of"), TEXTS)
def test_no_template(name, of):
    """No opening of three words, and no run of six words with its numbers masked, in more than 3 rows."""
    if name == "instructions" and of == "output":  # "C, B, D, A" and the labels have no wording
        texts = [row["output"] for row in load(name) if row["kind"] not in {*HELD_OUT, "reorder_steps"}]
    elif name == "instructions" and of == "instruction":  # the label sets are named in each, as they must be
        texts = [re.sub(r"angry,? .*amused|true (or|and) false", "_", text) for text in column(name, of)]
    else:
        texts = column(name, of)
    items = [["0" if w[0].isdigit() else w for w in words(text)] for text in texts]
    opening, count = Counter(" ".join(w[:3]) for w in items if len(w) > 3).most_common(1)[0]
    assert count <= 3, (opening, count)
    if (name, of) != ("word_problems", "rationale"):  # "0 x 0 0 that is" is arithmetic
        runs = Counter(run for w in items for run in {" ".join(w[i : i + 6]) for i in range(len(w) - 5)})
        assert [r for r, n in runs.items() if n > 3] == []


@pytest.mark.parametrize("name", SIZES)
def test_no_two_rows_ask_the_same(name):
    """No two rows share more than half of the word 5-grams of the shorter one."""
    of = next(iter(COLUMNS[name]))
    rows = [words(f"{row[of]} {row.get('input', '')}") for row in load(name)]
    grams = [{" ".join(w[i : i + 5]) for i in range(max(1, len(w) - 4))} for w in rows]
    bad = [(a, b) for a, b in itertools.combinations(grams, 2) if len(a & b) > 0.5 * min(len(a), len(b))]
    assert bad == []


@pytest.mark.parametrize("name", SIZES)
def test_no_near_duplicates(name):
    """Word-set Jaccard below 0.5 between any two rows, whichever split."""
    of = next(iter(COLUMNS[name]))
    sets = [set(words(f"{row[of]} {row.get('input', '')}")) for row in load(name)]
    bad = [(a, b) for a, b in itertools.combinations(sets, 2) if len(a & b) >= 0.5 * len(a | b)]
    assert bad == []


@pytest.mark.parametrize("name", SIZES)
def test_characters_and_spacing(name):
    """ASCII throughout, so straight quotes only; single spaces; no space before a comma or a full stop."""
    raw = (FOLDER / f"{name}.jsonl").read_bytes()
    assert raw.isascii() and b"\\u" not in raw and raw.endswith(b"\n") and b"\r" not in raw
    for row in load(name):
        strings = [v for v in row.values() if isinstance(v, str)] + row.get("choices", [])
        strings += [entity["text"] for entity in row.get("entities", [])]
        for text in strings:
            assert text == " ".join(text.split()), text
            assert not re.search(r"\s[,;:?!]|\s\.(?!\.)|,,|--", text), text
            assert text.count('"') % 2 == 0, text


@pytest.mark.parametrize("name", ["word_problems", "commonsense", "yes_no"])
def test_questions_end_as_questions(name):
    assert [q for q in column(name, "question") if not q.endswith("?")] == []
    assert [r for r in column(name, "rationale") if not r.endswith(".")] == []


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
