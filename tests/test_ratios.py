"""Metrics that are ratios of two sums over items: by hand, against other bootstraps, over seeds, and with bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bench.selftest import run, written
from bench.stats.intervals import bootstrap_bca, bootstrap_items
from bench.stats.pairs import jackknife_variance
from bench.stats.ratios import bootstrap_ratio, family, parts, ratio_left_out, ratio_score, ratio_value
from bench.stats.seeds import pseudo_values, seeds_interval

SPANS = {"hits": [2, 0, 1], "found": [3, 1, 1], "gold": [2, 2, 1]}


def test_span_f1_by_hand() -> None:
    # together 3 hits, 5 found, 5 there
    assert ratio_value("span_f1", SPANS) == pytest.approx(2 * 3 / (5 + 5))
    assert ratio_value("span_precision", SPANS) == pytest.approx(3 / 5) == ratio_value("span_recall", SPANS)
    assert ratio_left_out("span_f1", SPANS) == pytest.approx([2 * 1 / 5, 2 * 3 / 7, 2 * 2 / 8])
    assert family("span_f1") == ["span_f1", "span_precision", "span_recall"]


def test_a_mean_is_a_mean() -> None:
    given = {"rouge_l": [0.2, 0.4, 0.9], "chrf": [1.0, 1.0, 1.0]}
    assert ratio_value("rouge_l", given) == pytest.approx(0.5)
    assert ratio_left_out("rouge_l", given) == pytest.approx([0.65, 0.55, 0.3])
    # the jackknife of a mean is s^2 / n, and its pseudo-values are the items' own scores
    assert jackknife_variance(ratio_left_out("rouge_l", given)) == pytest.approx(np.var([0.2, 0.4, 0.9], ddof=1) / 3)
    assert pseudo_values(0.5, ratio_left_out("rouge_l", given)) == pytest.approx([0.2, 0.4, 0.9])
    assert family("chrf") == ["chrf", "rouge1", "rouge2", "rouge_l"]


def test_nothing_found_where_nothing_is_there_scores_zero() -> None:
    nothing = {"hits": [0, 0], "found": [0, 0], "gold": [0, 0]}
    assert ratio_value("span_f1", nothing) == 0 and ratio_left_out("span_f1", nothing).tolist() == [0, 0]
    found = bootstrap_ratio("span_f1", nothing, seed=0)
    assert (found.low, found.high, found.method) == (0, 0, "percentile")


def test_the_bootstrap_of_a_mean_is_scipys() -> None:
    scores = np.random.default_rng(0).beta(1, 4, 80)
    mine = bootstrap_ratio("chrf", {"chrf": scores}, seed=1, resamples=20_000)
    other = bootstrap_items(lambda x, axis: x.mean(axis), [scores], seed=2, resamples=20_000)
    assert (mine.low, mine.high) == pytest.approx((other.low, other.high), abs=2e-3) and mine.method == "bca"


def test_the_bootstrap_of_a_ratio_is_that_of_labels() -> None:
    """F1 of a label is a ratio too: hits, answers and gold ones of every item, and the multinomial bootstrap."""
    random = np.random.default_rng(3)
    truth = random.random(150) < 0.4
    guess = np.where(random.random(150) < 0.75, truth, ~truth)
    columns = {"hits": truth & guess, "found": guess, "gold": truth}
    mine = bootstrap_ratio("span_f1", columns, seed=1, resamples=20_000)
    other = bootstrap_bca("f1", truth.astype(int), guess.astype(int), seed=2, resamples=20_000)
    assert (mine.low, mine.high) == pytest.approx((other.low, other.high), abs=5e-3)


def test_span_f1_over_seeds_by_hand() -> None:
    """Three seeds alike: what is left is the jackknife's error over items, bent as a score interval."""
    random = np.random.default_rng(4)
    gold = random.integers(0, 4, 60)
    hits = random.binomial(gold, 0.6)
    one = {"hits": hits, "found": hits + random.integers(0, 2, 60), "gold": gold}
    value, without = ratio_value("span_f1", one), ratio_left_out("span_f1", one)
    found = seeds_interval([value] * 3, [without] * 3)
    half = stats.norm.ppf(0.975) * math.sqrt(59 * np.var(without))
    z2 = half**2 / (value * (1 - value))
    middle, reach = value + z2 / 2, math.sqrt(value * (1 - value) * z2 + z2**2 / 4)
    assert (found.low, found.high) == pytest.approx(
        ((middle - reach) / (1 + z2), (middle + reach) / (1 + z2)), abs=1e-5
    )
    # seeds that differ make it wider
    other = {**one, "hits": np.minimum(hits, 1)}
    mixed = seeds_interval(
        [value, value, ratio_value("span_f1", other)], [without, without, ratio_left_out("span_f1", other)]
    )
    assert mixed.high - mixed.low > found.high - found.low


def test_a_score_has_its_baseline_and_its_clusters() -> None:
    random = np.random.default_rng(5)
    scores = np.repeat(random.random(30), 4)
    plain = ratio_score("rouge1", {"rouge1": scores}, 0.3, "the first words")
    assert (plain.n, plain.chance, plain.chance_is, plain.interval) == (120, 0.3, "the first words", "bca")
    assert plain.low is not None and plain.high is not None and plain.low < plain.value < plain.high
    found = ratio_score("rouge1", {"rouge1": scores}, 0.3, "", clusters=np.repeat(np.arange(30), 4))
    assert (found.interval, found.clusters) == ("clusters", 30)
    assert found.low is not None and found.high is not None
    assert found.high - found.low > 1.8 * (plain.high - plain.low), "four copies are one item"


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"hits": [1], "found": [1, 2], "gold": [1]}, "span_f1 needs finite columns"),
        ({"hits": [], "found": [], "gold": []}, "of one length above 0"),
        ({"hits": [1.0], "found": [math.nan], "gold": [1.0]}, "needs finite columns"),
    ],
)
def test_bad_columns_are_told(columns: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        parts("span_f1", columns)
    with pytest.raises(KeyError, match="gold"):
        parts("span_f1", {"hits": [1], "found": [1]})


# ---- the harness's own figures


def test_a_broken_interval_of_written_answers_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "DRAWS", 120)
    monkeypatch.setattr(written, "SPAN_DRAWS", 120)
    for figure in (written.texts_coverage, written.spans_coverage):
        sound, broken = figure(100, 0.95), figure(100, 0.8)
        assert all(value > 0.88 for value in sound.values.values()) and not broken.ok
        assert all(value < 0.9 for value in broken.values.values())
    assert written.seeds_coverage("span_f1", 0.5).ok is False
    coverage = run.orders(run.Options(parts=("coverage",)))
    assert sum(order.func.__module__ == written.__name__ for order in coverage) == 6  # type: ignore[attr-defined]


def test_what_is_simulated_has_the_score_it_is_held_to() -> None:
    random = np.random.default_rng(0)
    for recall in (0.3, 0.9):
        [one] = written.spans(np.array([recall]), 200_000, random)
        assert ratio_value("span_f1", one) == pytest.approx(float(written.true_f1(np.array(recall))), abs=4e-3)
        [text] = written.texts(np.array([recall]), 50_000, random)
        assert ratio_value("rouge_l", text) == pytest.approx(recall, abs=4e-3)
