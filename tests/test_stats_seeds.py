"""Means over seeds and items, clusters, corrections: against formulas by hand and what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bench.errors import UserFault
from bench.report.scores import ends
from bench.stats.confusion import leave_one_out
from bench.stats.intervals import bootstrap_items, wilson
from bench.stats.metrics import METRICS, SMALLEST, pearson, score, smallest, spearman, too_few, value
from bench.stats.pairs import (
    SeedTest,
    benjamini_hochberg,
    holm,
    jackknife_variance,
    seed_test,
    smallest_difference,
    worth,
)
from bench.stats.ratios import RATIOS
from bench.stats.seeds import (
    BOUNDS,
    bent,
    clustered_interval,
    flat_interval,
    pseudo_values,
    seeds_ends,
    seeds_interval,
)


def seeds_of(right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies by seed and what they are without each item, of answers (S, n)."""
    n = right.shape[1]
    scores = right.mean(axis=1)
    return scores, (n * scores[:, None] - right) / (n - 1)


def test_pseudo_values_of_an_accuracy_are_its_items() -> None:
    right = (np.random.default_rng(0).random((3, 40)) < 0.7).astype(float)
    assert pseudo_values(*seeds_of(right)) == pytest.approx(right)


def test_equal_seeds_are_one_model() -> None:
    """Seeds that answer alike add nothing: Wilson's interval with the sample variance of the items."""
    one = np.array([1.0] * 160 + [0.0] * 40)
    found = seeds_interval(*seeds_of(np.stack([one] * 3)))
    plain = wilson(160, 200)
    assert (found.low, found.high) == (pytest.approx(plain.low, abs=1e-3), pytest.approx(plain.high, abs=1e-3))
    assert found.method == "seeds"


def test_seeds_without_shared_items_are_a_t_interval() -> None:
    """Far apart seeds and many items: little but Student's t with S - 1 degrees of freedom is left."""
    rng = np.random.default_rng(1)
    right = (rng.random((3, 20_000)) < np.array([0.4, 0.5, 0.6])[:, None]).astype(float)
    scores, left_out = seeds_of(right)
    half = stats.t.ppf(0.975, 2) * scores.std(ddof=1) / math.sqrt(3)
    low, high = bent(np.array([scores.mean()]), np.array([half]), (0.0, 1.0), 0.01)
    found = seeds_interval(scores, left_out)
    assert (found.low, found.high) == (pytest.approx(low[0], abs=2e-3), pytest.approx(high[0], abs=2e-3))
    assert found.high - found.low > 0.4


def test_seeds_stay_within_the_bounds_and_hold_the_mean() -> None:
    right = np.ones((3, 120))
    found = seeds_interval(*seeds_of(right))
    assert found.high == 1.0 and found.low == pytest.approx(wilson(120, 120).low)
    truth = np.array([0, 1] * 60)
    guess = [np.where(np.random.default_rng(s).random(120) < 0.97, truth, 1 - truth) for s in range(3)]
    for metric in METRICS:
        values = [value(metric, truth, g) for g in guess]
        found = seeds_interval(values, [leave_one_out(metric, truth, g) for g in guess], BOUNDS[metric])
        assert BOUNDS[metric][0] <= found.low <= np.mean(values) <= found.high <= BOUNDS[metric][1]


def test_many_at_once_are_one_by_one() -> None:
    rng = np.random.default_rng(3)
    parts = [seeds_of((rng.random((4, 50)) < 0.8).astype(float)) for _ in range(6)]
    low, high = seeds_ends(np.stack([p[0] for p in parts]), np.stack([p[1] for p in parts]))
    for i, (scores, left_out) in enumerate(parts):
        found = seeds_interval(scores, left_out)
        assert (found.low, found.high) == (pytest.approx(low[i]), pytest.approx(high[i]))


@pytest.mark.parametrize(
    "values, left_out, level",
    [([0.5], [[0.5, 0.5]], 0.95), ([0.5] * 2, [[0.5]] * 2, 0.95), ([0.5] * 2, [[0.5] * 3] * 2, 1)],
)
def test_seeds_interval_refuses(values: list[float], left_out: list[list[float]], level: float) -> None:
    with pytest.raises(ValueError, match="S and n from 2 on"):
        seeds_interval(values, left_out, level=level)


# Clusters -------------------------------------------------------------------------------------------------------------


def test_clusters_of_one_change_nothing_and_copies_do() -> None:
    rng = np.random.default_rng(4)
    values = rng.random(60)
    left_out = (values.sum() - values) / 59
    assert jackknife_variance(left_out, np.arange(60)) == pytest.approx(jackknife_variance(left_out))
    # every item three times over is still 60 items
    copied = np.repeat(values, 3)
    without = (copied.sum() - copied) / (copied.size - 1)
    clusters = np.repeat(np.arange(60), 3)
    assert jackknife_variance(without, clusters) == pytest.approx(jackknife_variance(left_out))
    assert jackknife_variance(without) < jackknife_variance(left_out) / 2.9
    assert jackknife_variance(without, np.zeros(180, dtype=int)) == 0
    with pytest.raises(ValueError, match="one integer an item"):
        jackknife_variance(left_out, [1, 2])


def test_a_score_over_clusters_is_wider_and_says_so() -> None:
    rng = np.random.default_rng(5)
    clusters = np.repeat(np.arange(120), 4)
    truth = rng.integers(0, 2, 480)
    knows = (rng.random(120) < 0.8)[clusters]
    found, plain = (score("accuracy", truth, np.where(knows, truth, 1 - truth), clusters=c) for c in (clusters, None))
    assert (found.interval, found.clusters, plain.clusters) == ("clusters", 120, None)
    assert found.high - found.low > 1.8 * (plain.high - plain.low)
    assert clustered_interval(1.0, np.ones(8), [0, 0, 1, 1, 2, 2, 3, 3]).low == pytest.approx(wilson(4, 4).low)


def test_seeds_over_clusters_are_wider() -> None:
    clusters = np.repeat(np.arange(50), 4)
    knows = (np.random.default_rng(6).random(50) < 0.7)[clusters].astype(float)
    scores, left_out = seeds_of(np.stack([knows] * 3))
    wide, narrow = seeds_interval(scores, left_out, clusters=clusters), seeds_interval(scores, left_out)
    assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low)


# Corrections and sizes ------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    assert holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0]) and holm([]).size == 0
    assert (holm(p) >= benjamini_hochberg(p)).all()


def test_the_smallest_size_is_stated_for_every_metric() -> None:
    assert {*METRICS, *RATIOS} <= set(SMALLEST) and set(BOUNDS) == {*METRICS, *RATIOS}
    assert too_few(SMALLEST["f1"] - 1, "f1") and not too_few(SMALLEST["f1"], "f1")
    assert not too_few(None, "f1")
    assert too_few(105, "accuracy") and not too_few(105, "accuracy", over_seeds=True)
    with pytest.raises(UserFault, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        smallest("acuracy")


def test_wilson_holds_at_every_size_from_the_smallest_on_and_not_just_below() -> None:
    def coverage(n: int, share: float) -> float:
        counts = np.arange(n + 1)
        inside = [(e := wilson(int(k), n)).low <= share <= e.high for k in counts]
        return float(stats.binom.pmf(counts, n, share)[inside].sum())

    found = [coverage(n, share) for n in range(SMALLEST["accuracy"], 260) for share in (0.5, 0.8, 0.95)]
    assert min(found) >= 0.93 and max(found) <= 0.97
    assert coverage(SMALLEST["accuracy"] - 1, 0.95) < 0.93


# Correlations ---------------------------------------------------------------------------------------------------------


def test_correlations_are_those_of_scipy() -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal(50)
    y = np.round(x + rng.standard_normal(50), 1)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert np.isnan(pearson(x, np.ones(50)))


def test_a_correlations_interval() -> None:
    rng = np.random.default_rng(8)
    x = rng.standard_normal(200)
    y = 0.6 * x + 0.8 * rng.standard_normal(200)
    found = bootstrap_items(pearson, (x, y), seed=1)
    r = float(pearson(x, y))
    fisher = np.tanh(np.arctanh(r) + np.array([-1, 1]) * 1.96 / math.sqrt(197))
    assert found.method == "bca" and (found.low, found.high) == (
        pytest.approx(fisher[0], abs=0.03),
        pytest.approx(fisher[1], abs=0.03),
    )
    assert found == bootstrap_items(pearson, (x, y), seed=1)
    assert bootstrap_items(lambda a, axis: a.mean(axis), (np.ones(20),), seed=0, resamples=50).method == "percentile"
    with pytest.raises(ValueError):
        bootstrap_items(pearson, ([1.0], [2.0]), seed=0)


def test_the_smallest_difference_of_one_run_is_that_of_its_t_test() -> None:
    one = SeedTest(0.0, 0.02, 199, 1.0)
    assert smallest_difference([one]) == pytest.approx(2.82 * 0.02, rel=0.01)
    with pytest.raises(ValueError, match="at least one test"):
        smallest_difference([])
    three = seed_test([0.01, 0.03, -0.01], 0.0001, 500)
    assert three.seeds == 3 and three.seed_error == pytest.approx(0.02 / math.sqrt(3))
    assert smallest_difference([three]) > smallest_difference([one])


def test_an_interval_without_width_is_that_of_as_many_items() -> None:
    """All of 100 right: Wilson's 100 / (100 + 1.96^2) to 1. One label for all: Matthews is 0, and 0 plus or minus
    1.96 / sqrt(100 + 1.96^2) on its scale from -1 to 1."""
    perfect = flat_interval(1.0, 100)
    assert (perfect.low, perfect.high) == pytest.approx((wilson(100, 100).low, 1.0)) and perfect.low < 0.9631
    none = flat_interval(0.0, 100, BOUNDS["matthews"])
    reach = 1.959964 / (100 + 1.959964**2) ** 0.5
    assert (none.low, none.high) == pytest.approx((-reach, reach))
    with pytest.raises(ValueError, match="needs an item"):
        flat_interval(1.0, 0)
    for metric, told in (("f1", [1, 0] * 50), ("matthews", [1] * 100)):
        made = score(metric, [1, 0] * 50, told)
        assert made.low == made.high == made.value, "as it is recorded"
        low, high = ends(made, metric)
        assert low is not None and high is not None and low < high
    kept = score("accuracy", [1, 0] * 50, [1] * 100)
    assert ends(kept, "accuracy") == (kept.low, kept.high)


def test_clusters_of_unlike_size_are_worth_fewer() -> None:
    """By hand: sizes 2, 1, 1 are worth 4^2 / (4 + 1 + 1) even ones; even ones are worth their number."""
    assert worth([7, 7, 8, 9]) == pytest.approx(16 / 6) and worth([0, 0, 1, 1, 2, 2]) == 3
    labels, clusters = np.ones(4, dtype=int), [7, 7, 8, 9]
    found = score("accuracy", labels, np.array([1, 1, 1, 0]), clusters=clusters)
    assert found.clusters == 3 and found.clusters_worth == pytest.approx(16 / 6)


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_hold_where_one_passage_has_a_third_of_the_items(seeds: int) -> None:
    """With as many degrees of freedom as clusters they held in 88% of cases."""
    random, clusters, accuracy = np.random.default_rng(5), np.repeat(np.arange(111), [222, *[4] * 110]), 0.8
    items, hits, draws = clusters.size, 0, 400
    for _ in range(draws):
        shared = random.standard_normal(111)[clusters] + random.standard_normal(items)
        own = random.standard_normal((seeds, items))
        latent = shared / 2**0.5 if seeds == 1 else shared / 2 + own / 2**0.5
        right = (np.atleast_2d(latent) < stats.norm.ppf(accuracy)).astype(float)
        values = right.mean(axis=1)
        left_out = (items * values[:, None] - right) / (items - 1)
        if seeds == 1:
            found = clustered_interval(float(values[0]), left_out[0], clusters)
        else:
            found = seeds_interval(values, left_out, clusters=clusters)
        hits += found.low <= accuracy <= found.high
    assert 0.92 <= hits / draws <= 0.98
