"""Perturbations: right answers move as they must, what is changed is known, and nothing depends on chance."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from data_rows import make, pool

from bench.config.schema import Task
from bench.data.arithmetic import choice, problem
from bench.data.prompts import fill
from bench.data.rows import Rows
from bench.probes.perturb import LabelWords, Numbers, OptionOrder, Rephrased, perturbations
from bench.probes.wording import paraphrase, slips

LABELS = ["A", "B", "C", "D"]
TEXT = "The film doesn't quite begin until its second hour, although everybody stays awake."


def choose(**more) -> Task:
    return make(labels=LABELS, columns={"question": "q", "options": "o", "label": "a"}, kind="choose", **more)


def questions(n: int = 4) -> Rows:
    fields = [{"question": f"q{i}", **{label: f"{label}{i}" for label in LABELS}} for i in range(n)]
    return Rows(fields, [i % 4 for i in range(n)], [10 + i for i in range(n)])


@pytest.mark.parametrize(
    ("option", "touched"),
    [
        ("Both A and B", False), ("(A) or (C)", False), ("None of the above", False), ("All the choices above", False),
        ("AB and BA", True), ("A band", True), ("above all", True), ("vitamin A and iron", True),
    ],
)  # fmt: skip
def test_options_that_speak_of_places_are_not_compared(option, touched):
    """Moved by one, "Both A and B" would name other options: its right answer is not the one that moved along."""
    rows = questions(2)
    rows.fields[0]["D"] = option
    for variant in OptionOrder().apply(rows, choose(), 0):
        assert variant.touched == [touched, True] and len(variant.rows) == 2


def problems(n: int = 16) -> tuple[Task, Rows]:
    task = make(data={"arithmetic": 20}, labels=LABELS, columns={"question": "q", "label": "a"}, kind="choose")
    made = [choice("question", LABELS, i, "test") for i in range(n)]
    return task, Rows([f for f, _ in made], [right for _, right in made], list(range(n)))


def names(task: Task, wordings=None) -> list[str]:
    return [one.name for one in perturbations(task, wordings)]


def test_which_apply_to_what():
    style = ["typos", "lower case", "upper case", "paraphrase"]
    assert names(make()) == ["label words", *style]
    assert names(make(judges="form")) == ["label words"], "another wording may have another label"
    assert names(choose()) == ["option order", *style]
    assert names(problems()[0]) == ["option order", "numbers", *style]
    assert names(choose(), {0: {"question": "x"}}) == ["option order", "rephrased", *style]
    kinds = Counter(one.kind for one in perturbations(make()))
    assert kinds == {"invariant": 4, "directional": 1}


def test_all_are_the_same_for_the_same_seed():
    task, rows = problems()
    for one in perturbations(task):
        assert one.apply(rows, task, 3) == one.apply(rows, task, 3)
        part = one.apply(rows.take([5, 2]), task, 3)
        whole = one.apply(rows, task, 3)
        assert [v.rows for v in part] == [v.rows.take([5, 2]) for v in whole], "of the row alone"
    typos = next(one for one in perturbations(task) if one.name == "typos")
    assert typos.apply(rows, task, 3) != typos.apply(rows, task, 4)


def test_every_order_of_options_keeps_the_right_one():
    rows = questions()
    variants = OptionOrder().apply(rows, choose(), 0)
    assert len(variants) == 3
    for variant in variants:
        assert variant.rows.index == rows.index and variant.template is None and all(variant.touched)
        for before, after, old, new in zip(
            rows.fields, variant.rows.fields, rows.labels, variant.rows.labels, strict=True
        ):
            assert after[LABELS[new]] == before[LABELS[old]] and after["question"] == before["question"]
            assert sorted(after.values()) == sorted(before.values())
    places = [[rows.labels[0], *(v.rows.labels[0] for v in variants)]]
    assert sorted(places[0]) == [0, 1, 2, 3], "the right option stands at every place once: a constant gets 1 in 4"


def test_other_numbers_have_their_own_answer():
    task, rows = problems()
    (variant,) = Numbers().apply(rows, task, 0)
    for n, (fields, right) in enumerate(zip(variant.rows.fields, variant.rows.labels, strict=True)):
        text, answer = problem(n, "test", 1)
        assert fields["question"] == text and fields[LABELS[right]] == str(answer)
        assert str(problem(n, "test")[1]) != str(answer)
    assert all(variant.touched)


def test_rephrased_rows_are_those_that_have_another_wording():
    (variant,) = Rephrased({11: {"question": "so?"}}).apply(questions(), choose(), 0)
    assert variant.touched == [False, True, False, False]
    assert variant.rows.fields[1] == questions().fields[1] | {"question": "so?"} and variant.rows.labels == [0, 1, 2, 3]


def test_label_words_are_exchanged_in_the_prompt_and_in_what_is_right():
    rows = pool(["x", "y"], [0, 1])
    (variant,) = LabelWords().apply(rows, make(), 0)
    assert variant.rows.labels == [1, 0] and variant.rows.fields == rows.fields
    assert variant.template is not None
    prompt = fill(variant.template, rows.fields[0])
    assert prompt == 'The words are exchanged here: say "good" for "bad", say "bad" for "good".\nx:'
    assert variant.template.verbalizer == make().templates[0].verbalizer
    braces = make(templates=[{"pattern": "{text}", "verbalizer": {"bad": " {text}", "good": " good"}}])
    (variant,) = LabelWords().apply(rows, braces, 0)
    assert variant.template is not None
    assert fill(variant.template, {"text": "x"}).endswith('say "good" for "(text)", say "(text)" for "good".\nx')


def test_slips_keep_the_words_and_their_first_letters():
    random = np.random.default_rng(0)
    text = " ".join([TEXT] * 200)
    slipped = slips(text, random)
    assert len(slipped) == len(text) and len(slipped.split()) == len(text.split())
    for old, new in zip(text.split(), slipped.split(), strict=True):
        assert old[0] == new[0] and (len(old) >= 4 or old == new)
    long = [m.span() for m in re.finditer(r"[^\W\d_]{4,}", text)]
    hit = sum(text[a:b] != slipped[a:b] for a, b in long) / len(long)
    assert 0.15 < hit < 0.35
    assert slips("42 4711 cat", np.random.default_rng(0), 1.0) == "42 4711 cat", "digits and short words stay"
    assert slips("WORDS", np.random.default_rng(0), 1.0).isupper()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("It is a film.", "It's a movie."),
        ("it's a Movie", "it is a Film"),
        ("He did n't like it , as he could n't .", "He did not like it , as he could not ."),
        ("it's been long", "it's been long"),
        ("a film-maker", "a film-maker"),
        ("nothing here to say", "nothing here to say"),
    ],
)
def test_paraphrase_by_rule(text, said):
    assert paraphrase(text) == said


@pytest.mark.parametrize("text", ["ÇOK GÜZEL BİR FİLM", "a ſad ſtory"])
def test_letters_without_a_plain_lower_one_stay(text):
    """A dotted capital I meets "film" where case is not looked at; it has no entry of its own."""
    assert paraphrase(text) == text
    assert paraphrase(f"{text}, a film") == f"{text}, a movie"


def test_only_rows_a_rule_meets_are_touched():
    paraphrased = next(one for one in perturbations(make()) if one.name == "paraphrase")
    (variant,) = paraphrased.apply(pool(["a film", "a song"]), make(), 0)
    assert variant.touched == [True, False]
    upper = next(one for one in perturbations(make()) if one.name == "upper case")
    (variant,) = upper.apply(pool(["a film", "A SONG"]), make(), 0)
    assert variant.touched == [True, False] and variant.rows.fields[0] == {"text": "A FILM"}


def test_options_are_left_as_they_are_by_changes_of_wording():
    rows = questions()
    for one in perturbations(choose()):
        if one.name in ("typos", "lower case", "upper case", "paraphrase"):
            (variant,) = one.apply(rows, choose(), 0)
            assert [{k: f[k] for k in LABELS} for f in variant.rows.fields] == [
                {k: f[k] for k in LABELS} for f in rows.fields
            ]
