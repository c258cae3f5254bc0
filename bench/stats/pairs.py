"""Tests for two things measured on the same items: two trained models, or two strategies over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bench.stats.intervals import Interval, wilson
from bench.stats.power import detectable, detectable_over_seeds


@dataclass(frozen=True)
class McNemar:
    """Exact McNemar test: items only the first / only the second got right, and the two-sided p-value."""

    first_only: int
    second_only: int
    p: float


def mcnemar(first_correct: ArrayLike, second_correct: ArrayLike) -> McNemar:
    """Exact two-sided McNemar test over items (McNemar 1947; binomial form, Dietterich 1998, section 3.1).

    It compares two trained models. It is no test of the strategies that trained them: with one seed it calls
    A/A different in 38-62% of cases (DESIGN 8). Raises `ValueError` for unequal or empty input.
    """
    first, second = np.asarray(first_correct, dtype=bool), np.asarray(second_correct, dtype=bool)
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"mcnemar needs two vectors of one length above 0, got {first.shape} and {second.shape}")
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    p = 1.0 if b + c == 0 else min(1.0, 2 * float(stats.binom.cdf(min(b, c), b + c, 0.5)))
    return McNemar(b, c, p)


def benjamini_hochberg(p_values: ArrayLike) -> NDArray[np.floating]:
    """Adjusted p-values in the order given (Benjamini & Hochberg 1995): below 0.05 is a false discovery rate of 5%."""
    p = np.asarray(p_values, dtype=float)
    if p.size == 0:
        return p
    order = np.argsort(p)[::-1]
    scaled = p[order] * p.size / np.arange(p.size, 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled))
    return adjusted


def holm(p_values: ArrayLike) -> NDArray[np.floating]:
    """Adjusted p-values in the order given (Holm 1979): below 0.05 the chance of any false claim is at most 5%."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return adjusted


def paired_change(before: ArrayLike, after: ArrayLike, level: float = 0.95) -> Interval:
    """Interval of the change of a proportion on the same items (Newcombe 1998, Statistics in Medicine 17, method 10).

    Wilson's ends of both proportions, squared and added with their correlation. `before` and `after` are (n,) booleans.
    Raises `ValueError` for unequal or empty input.
    """
    first, second = np.asarray(before, dtype=bool), np.asarray(after, dtype=bool)
    n = first.size
    if first.shape != second.shape or n == 0:
        raise ValueError(f"paired_change needs two vectors of one length above 0, got {first.shape} and {second.shape}")
    a, d = int((first & second).sum()), int((~first & ~second).sum())
    b, c = int((first & ~second).sum()), int((~first & second).sum())
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    product = float(a * d - b * c)
    if product > 0:  # a correction for continuity, on this side only
        product = max(0.0, product - n / 2)
    shared = product / math.sqrt(margins) if margins else 0.0
    old, new = wilson(a + b, n, level), wilson(a + c, n, level)
    p, q = (a + b) / n, (a + c) / n

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * shared * one * other + other * other))

    change = q - p
    return Interval(change - reach(q - new.low, old.high - p), change + reach(new.high - q, p - old.low), "newcombe")


@dataclass(frozen=True)
class SeedTest:
    """Mean difference over seeds, its standard error over seeds and items, that error's degrees of freedom, and p."""

    difference: float
    error: float
    freedom: float
    p: float
    seed_error: float = 0.0
    """Standard error over seeds alone; 0 for one seed."""
    seeds: int = 1


def jackknife_variance(left_out: ArrayLike, clusters: ArrayLike | None = None) -> float:
    """Variance of a statistic from its leave-one-out values (Efron & Tibshirani 1993, eq. 11.5).

    For a mean it is exactly s^2 / n. With `clusters`, one integer an item, deviations are first added up in each
    cluster: items that share a passage are right and wrong together (Liang & Zeger 1986, times G / (G - 1) for
    G clusters). 0 for fewer than two values or clusters. Raises `ValueError` for unequal lengths.
    """
    values = np.asarray(left_out, dtype=float)
    n = values.size
    if clusters is None:
        return 0.0 if n < 2 else float((n - 1) / n * ((values - values.mean()) ** 2).sum())
    groups = np.unique(np.asarray(clusters), return_inverse=True)[1]
    if groups.shape != values.shape:
        raise ValueError(f"clusters must be one integer an item, got {groups.shape} for {values.shape}")
    sums = np.bincount(groups, values - values.mean()) if n else np.zeros(0)
    return 0.0 if sums.size < 2 else float(sums.size / (sums.size - 1) * ((n - 1) / n) ** 2 * (sums**2).sum())


def worth(clusters: ArrayLike) -> float:
    """As many clusters of one size as these are worth, n^2 / sum of squared sizes (Kish 1965, section 8.2).

    Degrees of freedom are one less. With the number itself, where one of 20 passages holds half of the items, two
    models of one skill were called different in 20% to 23% of simulated cases, so in 4%; and intervals held in 85% to
    90% where one of 111 passages holds a third of the items, so in 91% to 96%.
    """
    sizes = np.unique(np.asarray(clusters), return_counts=True)[1]
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def seed_test(differences: Sequence[float], item_variance: float, items: float) -> SeedTest:
    """Two-sided test of per-seed differences that must hold over seeds and over test items.

    The larger of two p-values: the paired t test over seeds with S - 1 degrees of freedom (Student 1908), and a t
    test whose SE^2 = s^2 / S + item_variance, degrees of freedom after Satterthwaite (1946, eq. 17). The first alone
    would call three equal differences of one item a certainty; the second alone calls up to 7% of A/A pairs
    different at three seeds, both together at most 5% (simulated: seed SD 0 to 6 points, 120 to 5000 items).
    With one difference it is a test of two trained models only. `items` are the items, or the clusters they come in
    (as many of one size as they are worth): one tells nothing of others (p is 1), and where none varies p is no less
    than the sign test's, 2 / 2^items. Raises `ValueError` for no difference.
    """
    d = np.asarray(differences, dtype=float)
    if d.size == 0:
        raise ValueError("seed_test needs at least one difference")
    seeds = float(d.var(ddof=1)) / d.size if d.size > 1 else 0.0
    mean, total = float(d.mean()), seeds + item_variance
    parts = (seeds**2 / (d.size - 1) if d.size > 1 else 0.0) + (item_variance**2 / (items - 1) if items > 1 else 0.0)
    freedom = total**2 / parts if parts > 0 else math.inf
    p = 1.0 if items < 2 else _two_sided(mean, total, freedom, items)
    if d.size > 1 and seeds > 0:
        p = max(p, _two_sided(mean, seeds, d.size - 1, items))
    return SeedTest(mean, math.sqrt(total), freedom, p, math.sqrt(seeds), d.size)


def smallest_difference(tests: Sequence[SeedTest]) -> float:
    """The true difference that tests like these find in about 80% of cases, in the metric's unit.

    Variances are averaged over the tests, for that of one at three seeds is a poor guess. Raises `ValueError` for no
    test.
    """
    if not tests:
        raise ValueError("smallest_difference needs at least one test")
    total = float(np.mean([test.error**2 for test in tests]))
    seeds = float(np.mean([test.seed_error**2 for test in tests]))
    fewest = min(t.seeds for t in tests)
    if fewest < 2:
        return detectable(total, float(np.median([t.freedom for t in tests])))
    return detectable_over_seeds(seeds, max(total - seeds, 0.0), fewest)


def _two_sided(mean: float, variance: float, freedom: float, items: float) -> float:
    """Two-sided p of a t statistic; without any variance (rounding aside) that of `items` equal signs."""
    if variance <= 1e-18 * mean**2:
        return 1.0 if mean == 0 else min(1.0, 2 * 0.5**items)
    return min(1.0, 2 * float(stats.t.sf(abs(mean) / math.sqrt(variance), freedom)))
