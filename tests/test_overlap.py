"""Overlap: exact runs of words against a slow search, what counts as found, and a real leak where the data is there."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.probes.overlap import check, longest_runs, overlap, row_text, units_of, words_of

TEXT = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
MIRROR = os.environ.get("BENCH_MIRROR")
texts = st.lists(st.lists(st.sampled_from("abc"), max_size=9), max_size=5)


def slow(trained: list[list[str]], tested: list[str]) -> int:
    runs = {tuple(t[i:j]) for t in trained for i in range(len(t)) for j in range(i + 1, len(t) + 1)}
    mine = (tested[i:j] for i in range(len(tested)) for j in range(i + 1, len(tested) + 1))
    return max((len(run) for run in mine if tuple(run) in runs), default=0)


@given(texts, texts)
def test_longest_runs_are_those_of_a_slow_search(trained, tested):
    assert longest_runs(trained, tested) == [slow(trained, text) for text in tested]


def test_words_are_the_same_however_the_data_writes_them():
    assert words_of("It's not that it isn't “good”.") == words_of("it 's not that it is n't `` good '' .")
    assert words_of("3 apples, 12 pears") == ["3", "apples", "12", "pears"]
    assert row_text({"a": "x", "b": "y"}) == "x y"


def test_scripts_without_spaces_are_compared_by_character():
    """A whole Chinese sentence is one run of letters: as one word it would be too short to be looked for."""
    assert units_of("这部电影 is good") == ["这", "部", "电", "影", "is", "good"]
    assert units_of("ดีมาก") == ["ดี", "ม", "า", "ก"], "a vowel sign stands on its letter"
    assert units_of("हिन्दी में") == ["हिन्दी", "में"] and len(words_of("हिन्दी में")) == 4
    assert units_of("cafe\u0301 1\ufe0f\u20e3 ❤\ufe0f") == ["café", "1"]
    tested = ["这部电影真是太精彩了演员的表演非常出色", "音乐很好听但是剧本写得一团糟"]
    assert overlap(tested[:1], tested).found == [True, False]


def test_texts_too_short_to_tell_acquit_nobody():
    """A task of single words: the cell may have trained on every test item, and overlap cannot tell."""
    blind = check(["apple", "pear"], ["apple", "plum"])
    assert (blind.verdict, blind.statistic) == ("no power", 0) and blind.says.startswith(
        "All 2 test items have fewer than 4 words: such texts are everybody's, so nothing follows from the 1 that stand"
    )
    part = check(["apple", "pear"], ["apple", TEXT])
    assert part.verdict == "not seen" and part.says.endswith("The 1 of fewer than 4 words are not looked for.")


def found(trained: str, tested: str) -> bool:
    return overlap([trained], [tested]).found[0]


def test_what_counts_as_found():
    words = TEXT.split()
    assert found("so " + " ".join(words[:13]) + " and on", "well " + " ".join(words[:13]) + " quite other words here")
    assert not found(" ".join(words[:12]) + " x", " ".join(words[:12]) + " y z"), "12 words in a row are no 13-gram"
    assert found("so " + " ".join(words[:8]) + " and on", " ".join(words[:8])), "short texts are looked for whole"
    assert not found("so " + " ".join(words[:7]) + " and on", " ".join(words[:7])), "seven words meet by chance"
    assert found("One, two: three four!", "one two three four"), "a whole text of its own"
    assert not found("bad .", "bad ."), "three words are everybody's"


def test_figures_of_the_check():
    trained = [TEXT, "bad .", "a b c d"]
    tested = [TEXT, " ".join(TEXT.split()[:13]) + " q r s", "bad", "a b c d", "e f g h"]
    got = check(trained, tested)
    assert (got.verdict, got.n, got.statistic, got.p) == ("seen", 5, 0.6, None)
    assert got.low is not None and got.high is not None and 0 < got.low < 0.6 < got.high < 1
    assert got.figures == {
        "trained texts": 3.0, "items equal to a trained text": 3.0, "items found whole": 2.0,
        "items found by 13 words in a row": 2.0, "items with a long common run": 2.0, "items too short to tell": 1.0,
        "median longest run, share of words": 1.0,
    }  # fmt: skip
    assert got.says == (
        "3 of 5 test items stand in what it trained on (3 texts): 2 whole, 1 by 13 words in a row or more. Whatever "
        "stands there can be learnt by heart."
    )


def test_nothing_found_and_nothing_to_look_in():
    clean = check(["x y z"], [TEXT])
    assert clean.verdict == "not seen" and clean.statistic == 0
    assert clean.says.startswith("None of 1 test items stands in what it trained on (1 texts)")
    empty = check([], [TEXT])
    assert (empty.verdict, empty.statistic) == ("not applicable", None)
    assert empty.says == "Overlap: there is nothing in what it trained on to look in."


@pytest.mark.skipif(not MIRROR, reason="no mirror of real data (BENCH_MIRROR)")
def test_the_leak_of_sst2_into_movie_reviews_is_found():
    pq = pytest.importorskip("pyarrow.parquet")
    mirror = Path(MIRROR or "")

    def column(path: str, name: str) -> list[str]:
        return pq.read_table(mirror / path, columns=[name]).column(name).to_pylist()

    reviews = column("local/vader/moviereview/train.parquet", "text")
    tested = column("nyu-mll/glue/sst2/validation.parquet", "sentence")
    begun = time.perf_counter()
    leak = check(reviews, tested)
    assert time.perf_counter() - begun < 20
    assert leak.verdict == "seen" and leak.figures["items equal to a trained text"] == 732
    own = check(column("nyu-mll/glue/sst2/train.parquet", "sentence"), tested)
    assert own.verdict == "not seen", "SST-2's own training phrases hold no validation sentence"
