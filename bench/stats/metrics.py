"""The metrics by name: a value with its interval and its chance level."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from bench.errors import unknown
from bench.records import Score
from bench.stats.confusion import METRICS, confusion, formula, leave_one_out
from bench.stats.intervals import bootstrap_bca, wilson
from bench.stats.pairs import worth
from bench.stats.ratios import RATIOS
from bench.stats.seeds import BOUNDS, clustered_interval

__all__ = ["METRICS", "SMALLEST", "chance", "pearson", "score", "spearman", "too_few", "value"]


SMALLEST = {
    "accuracy": 111,
    **dict.fromkeys(("f1", "matthews", "pearson", "spearman"), 100),
    **dict.fromkeys(RATIOS, 100),
}
"""Metric -> the fewest items from which on its 95% interval was seen to hold the truth in 93% to 97% of draws.

Wilson's is exact arithmetic: at every size from 111 to 500 and accuracies of 0.5, 0.8 and 0.95 (at 110 items and 0.95
it holds in 92.7%). The others are simulated by `python -m bench selftest`; at 50 items and an accuracy of 0.95 BCa's
hold in 89% to 91%.
"""
SMALLEST_OVER_SEEDS = 100
"""The same for the interval of a mean over three seeds or more."""


def smallest(metric: str, over_seeds: bool = False) -> int:
    """Items from which on an interval's coverage is known; raises `UserFault` for a metric without a measured size."""
    if metric not in SMALLEST:
        raise unknown("metric", metric, SMALLEST)
    return SMALLEST_OVER_SEEDS if over_seeds else SMALLEST[metric]


def too_few(n: int | None, metric: str, over_seeds: bool = False) -> bool:
    """Whether an interval is over fewer items (or clusters) than its coverage is known for."""
    return n is not None and metric in SMALLEST and n < smallest(metric, over_seeds)


def pearson(x: NDArray[np.floating], y: NDArray[np.floating], axis: int = -1) -> NDArray[np.floating]:
    """Pearson's correlation along an axis (1895); NaN where either side is constant."""
    a, b = (v - v.mean(axis=axis, keepdims=True) for v in (np.asarray(x, float), np.asarray(y, float)))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.floating] = (a * b).sum(axis) / np.sqrt((a**2).sum(axis) * (b**2).sum(axis))
    return found


def spearman(x: NDArray[np.floating], y: NDArray[np.floating], axis: int = -1) -> NDArray[np.floating]:
    """Spearman's rank correlation along an axis (1904), ties at their mean rank; NaN where either side is constant."""
    return pearson(rankdata(x, axis=axis), rankdata(y, axis=axis), axis)


def value(metric: str, labels: ArrayLike, predictions: ArrayLike, positive: int = 1) -> float:
    """One metric of one set of predictions. Raises `UserFault` for an unknown metric."""
    counts, _ = confusion(labels, predictions, positive + 1)
    return float(formula(metric)(counts, positive))


def chance(metric: str, labels: ArrayLike, positive: int = 1) -> float:
    """Best value any constant answer reaches on these labels in this metric.

    Accuracy: the share of the commonest label. F1: always answering `positive`, 2p / (1 + p) with p its
    share (every other constant has 0). Matthews: 0, because a constant has no correlation.
    """
    formula(metric)
    truth = np.asarray(labels, dtype=np.int64)
    if metric == "accuracy":
        return float(np.bincount(truth).max() / truth.size)
    if metric == "matthews":
        return 0.0
    share = float((truth == positive).mean())
    return 2 * share / (1 + share)


def score(
    metric: str,
    labels: ArrayLike,
    predictions: ArrayLike,
    positive: int = 1,
    seed: int = 0,
    clusters: ArrayLike | None = None,
) -> Score:
    """A metric with its 95% interval over items and its chance level.

    Accuracy gets Wilson's interval, F1 and Matthews the BCa bootstrap (2000 resamples drawn from `seed`). With
    `clusters`, one integer an item, all get one over clusters: items that share a passage are not independent.
    `positive` is the index of the label F1 is computed for. Raises `ValueError` for empty or unequal input and for F1
    with more than two labels, `UserFault` for an unknown metric.
    """
    counts, _ = confusion(labels, predictions, positive + 1)
    if metric == "f1" and int(np.max(np.asarray(labels))) > 1:
        raise ValueError("f1 is defined here for two labels; use accuracy or matthews for more")
    n = int(counts.sum())
    if clusters is not None:
        left_out = leave_one_out(metric, labels, predictions, positive)
        interval = clustered_interval(float(formula(metric)(counts, positive)), left_out, clusters, BOUNDS[metric])
    elif metric == "accuracy":
        interval = wilson(int(np.trace(counts)), n)
    else:
        interval = bootstrap_bca(metric, labels, predictions, seed, positive=positive)
    return Score(
        value=float(formula(metric)(counts, positive)),
        low=interval.low,
        high=interval.high,
        n=n,
        chance=chance(metric, labels, positive),
        interval=interval.method,
        clusters=None if clusters is None else int(np.unique(np.asarray(clusters)).size),
        clusters_worth=None if clusters is None else worth(clusters),
    )
