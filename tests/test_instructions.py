"""The instruction filter and the choice of rows: ROUGE-L against rouge-score, every rule, and plain slow doubles."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.instructions import (
    CHOOSING,
    NOT_TEXT,
    SIFTING,
    Dropped,
    choose,
    farthest,
    rouge_l,
    sift,
    words_of,
)

SAMPLES = [
    "Name three rivers that cross a border.",
    "List three rivers which cross some border, and say which.",
    "Write a letter to the city's parks office -- ask for 2 benches!",
    "Write a short letter to the parks office: ask for shade, benches and a fountain.",
    "Sort 12, 7 and 30 from small to large.",
    "large to small from 30 and 7, 12 sort",
    "Why does bread rise?",
    "",
]
short = st.lists(st.sampled_from("abcd"), max_size=9)


def row(instruction: str, given: str = "", output: str = "It does so, as everybody can see.") -> dict[str, str]:
    return {"instruction": instruction, "input": given, "output": output}


def slow(a: list[str], b: list[str]) -> int:
    if not a or not b:
        return 0
    return 1 + slow(a[1:], b[1:]) if a[0] == b[0] else max(slow(a[1:], b), slow(a, b[1:]))


def made(n: int, seed: int = 3) -> list[dict[str, str]]:
    """Rows of common and rare words, every fifth a copy of an earlier one with one word changed."""
    drawn, vocabulary = random.Random(seed), [f"w{i}" for i in range(2000)]
    weights = [1 / (i + 1) for i in range(2000)]
    texts: list[str] = []
    for i in range(n):
        words = drawn.choices(vocabulary, weights, k=drawn.randint(8, 30))
        if i % 5 == 4:
            words = drawn.choice(texts).split()
            words[drawn.randrange(len(words))] = "other"
        texts.append(" ".join(words))
    return [
        row(text, output=f"Response {i} says at some length what was asked for, no more.")
        for i, text in enumerate(texts)
    ]


# ---- ROUGE-L


def test_rouge_l_is_that_of_the_library():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    texts = SAMPLES + [r["instruction"] for r in made(30)]
    for a in texts:
        for b in texts:
            assert rouge_l(words_of(a), words_of(b)) == pytest.approx(scorer.score(a, b)["rougeL"].fmeasure, abs=1e-12)


@given(short, short)
def test_rouge_l_is_that_of_a_slow_search(a, b):
    expected = 2 * slow(a, b) / (len(a) + len(b)) if a and b else 0
    assert rouge_l(a, b) == expected == rouge_l(b, a)


def test_rouge_l_of_words_beyond_the_bits_of_a_machine_word():
    words = [f"w{i}" for i in range(500)]
    assert rouge_l(words, words) == 1 and rouge_l(words, words[::-1]) == 2 / 1000
    assert rouge_l(words, words[100:400] + ["x"] * 200) == 2 * 300 / 1000


def test_words():
    assert words_of("The city's 2nd-best café!") == ["the", "city", "s", "2nd", "best", "café"]


# ---- the filter


def test_each_rule_with_its_reason():
    rows = [
        row("Name three rivers that cross a border"),
        row("Say why bread rises", output=" \n"),
        row("Repeat the sentence given", "The  Boat sails.", "the boat sails."),
        row("Explain bread"),
        row("Tell me all about " + "very " * 150),
        row("Describe the picture of a harbour"),
        row("Name four rivers that cross a border"),
        row("Sum up the story", "A boat.", "A boat sails."),
    ]
    got = sift(rows)
    assert got.kept == [0, 7]
    assert got.dropped == [
        Dropped(1, "the output is empty; allowed: any text", "empty output"),
        Dropped(
            2, "the output is the input again, case and spaces aside; allowed: another text", "output is the input"
        ),
        Dropped(3, "an instruction of 2 words; allowed: 3 to 150", "too short"),
        Dropped(4, "an instruction of 154 words; allowed: 3 to 150", "too long"),
        Dropped(5, "the instruction says 'picture'; allowed: what a text can hold", "not text"),
        Dropped(6, "ROUGE-L 0.86 to the instruction of row 0; allowed: below 0.7", "near a kept one", 0, 6 / 7),
    ]
    assert got.counts == dict.fromkeys(SIFTING, 1)
    assert sift([row("Explain how maple profiles are mapped in imagery")]).kept == [0], "whole words only"
    assert all(word.islower() and words_of(word) == [word] for word in NOT_TEXT)


def test_the_threshold_itself_is_too_near():
    first, second = (
        ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"],
        ["a", "b", "c", "d", "e", "f", "g", "x", "y", "z"],
    )
    assert rouge_l(first, second) == 0.7
    rows = [row(" ".join(first)), row(" ".join(second))]
    assert sift(rows).kept == [0] and sift(rows, below=0.71).kept == [0, 1]


def test_the_nearest_kept_row_is_named_and_dropped_rows_are_no_neighbours():
    rows = [
        row("a b c d e f g h"),
        row("a b c d e x y z"),
        row("a b c d e f g q"),
        row("a b c d e f y z"),
        row("a b c d e f g q", output=""),
    ]
    got = sift([rows[4], *rows[:4]])
    assert got.kept == [1, 2]
    assert [(d.position, d.rule, d.nearest, d.similarity) for d in got.dropped] == [
        (0, "empty output", None, None),
        (3, "near a kept one", 1, 7 / 8),
        (4, "near a kept one", 2, 7 / 8),
    ]
    twins = sift([row("a b c d e x y"), row("f g h i j x y"), row("a b c d e x y f g h i j x y")], below=0.6)
    assert [(d.nearest, d.similarity) for d in twins.dropped] == [(0, 2 / 3)], "of equally near ones the first"


@given(
    st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=8), max_size=12),
    st.sampled_from([0.3, 0.5, 0.7, 1.0]),
)
def test_the_filter_is_that_of_comparing_all(texts, below):
    got = sift([row(" ".join(words)) for words in texts], below, words=(1, 8))
    kept: list[int] = []
    expected = []
    for at, words in enumerate(texts):
        scores = [(2 * slow(words, texts[k]) / (len(words) + len(texts[k])), -k) for k in kept]
        best = max(scores, default=(0.0, 0))
        if best[0] >= below:
            expected.append((at, -best[1], best[0]))
        else:
            kept.append(at)
    assert (got.kept, [(d.position, d.nearest, d.similarity) for d in got.dropped]) == (kept, expected)


def test_a_thousand_instructions_take_seconds():
    rows = made(1000)
    begun = time.perf_counter()
    got = sift(rows)
    assert time.perf_counter() - begun < 10
    assert 150 < got.counts["near a kept one"] < 250, "the planted copies, save where a short one has changed too much"


def test_faults_of_the_filter():
    for rows, text in (
        (
            [row("a b c"), {"instruction": "a", "output": "b"}],
            "row 1: got None for 'input'; allowed: a text each for instruction, input, output",
        ),
        (
            [{"instruction": "a", "input": "", "output": 3}],
            "row 0: got 3 for 'output'; allowed: a text each for instruction, input, output",
        ),
    ):
        with pytest.raises(ValueError) as fault:
            sift(rows)
        assert str(fault.value) == text
    with pytest.raises(ValueError) as fault:
        sift([], below=70)
    assert str(fault.value) == "below: got 70; allowed: more than 0, at most 1"
    with pytest.raises(ValueError) as fault:
        sift([], words=(9, 3))
    assert str(fault.value) == "words: got 9 to 3; allowed: from 1 on, the larger number last"


# ---- the choice


@given(st.lists(short, min_size=1, max_size=8), st.integers(1, 8))
def test_farthest_is_the_plain_greedy_choice(texts, n):
    taken = [0]
    while len(taken) < min(n, len(texts)):
        rest = [at for at in range(len(texts)) if at not in taken]
        taken.append(min(rest, key=lambda at: (max(rouge_l(texts[t], texts[at]) for t in taken), at)))
    assert farthest(texts, n) == taken


def test_farthest_takes_the_odd_one_first():
    texts = [words_of(t) for t in ("name a red boat", "name a blue boat", "why does bread rise", "name a red kite")]
    assert farthest(texts, 4)[:2] == [0, 2]


GOOD = "Bread rises because yeast turns sugar into gas, which lifts the dough."


def test_each_criterion_with_its_reason():
    rows = [
        row("q", output=GOOD),
        row("q", output="Because of yeast."),
        row("q", output="so " * 301 + "."),
        row("q", output="I’m sorry, but as a small program this is beyond what I may say here."),
        row("q", output=GOOD[:-1]),
        row("q", output=GOOD[:-1] + "..."),
        row("q", output="She wrote with some care: “bread rises because of the yeast in it.” "),
    ]
    got = choose(rows, 2, seed=0)
    assert sorted(got.chosen) == [0, 6]
    assert got.dropped == [
        Dropped(1, "a response of 3 words; allowed: 10 to 300", "short response"),
        Dropped(2, "a response of 301 words; allowed: 10 to 300", "long response"),
        Dropped(3, "the response begins with a refusal: 'i'm sorry'", "refusal"),
        Dropped(4, "the response ends in ' the dough'; allowed: a full stop", "no full stop"),
        Dropped(5, "the response ends in 'e dough...'; allowed: a full stop", "no full stop"),
    ]
    assert got.counts == {"short response": 1, "long response": 1, "refusal": 1, "no full stop": 2}
    assert tuple(got.counts) == CHOOSING
    late = row("q", output="He " + "walked on and " * 11 + "said: I cannot stay.")
    assert choose([late], 1, seed=0).chosen == [0], "what is said late in a story is no refusal"


def test_chosen_rows_are_more_diverse_than_drawn_ones_and_the_same_for_a_seed():
    rows = made(60)
    first, again, other = choose(rows, 12, seed=1), choose(rows, 12, seed=1), choose(rows, 12, seed=2)
    assert first == again and first.chosen != other.chosen and first.drawn != other.drawn
    assert len(set(first.chosen)) == len(set(first.drawn)) == 12
    assert set(first.drawn) <= set(range(60)) and first.drawn == sorted(first.drawn)

    def closest(positions: list[int]) -> float:
        texts = [words_of(rows[at]["instruction"]) for at in positions]
        return max(rouge_l(a, b) for i, a in enumerate(texts) for b in texts[:i])

    assert closest(first.chosen) < closest(first.drawn)
    assert choose(rows, 60, seed=1).drawn == list(range(60))


def test_faults_of_the_choice():
    rows = [row("q", output=GOOD), row("q", output="no")]
    for n in (0, 2):
        with pytest.raises(ValueError) as fault:
            choose(rows, n, seed=0)
        assert str(fault.value) == f"n: got {n} rows to choose; allowed: 1 to 1, of 2 rows those that qualify"
    with pytest.raises(ValueError) as fault:
        choose(rows, 1, seed=0, words=(0, 3))
    assert str(fault.value) == "words: got 0 to 3; allowed: from 1 on, the larger number last"
