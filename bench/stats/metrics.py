"""The metrics by name: a value with its interval and its chance level."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from bench.records import Score
from bench.stats.confusion import METRICS, confusion, formula
from bench.stats.intervals import bootstrap_bca, wilson

__all__ = ["METRICS", "chance", "score", "value"]


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


def score(metric: str, labels: ArrayLike, predictions: ArrayLike, positive: int = 1, seed: int = 0) -> Score:
    """A metric with its 95% interval over items and its chance level.

    Accuracy gets Wilson's interval, F1 and Matthews the BCa bootstrap (2000 resamples drawn from `seed`).
    `positive` is the index of the label F1 is computed for. Raises `ValueError` for empty or unequal input
    and for F1 with more than two labels, `UserFault` for an unknown metric.
    """
    counts, _ = confusion(labels, predictions, positive + 1)
    if metric == "f1" and int(np.max(np.asarray(labels))) > 1:
        raise ValueError("f1 is defined here for two labels; use accuracy or matthews for more")
    n = int(counts.sum())
    if metric == "accuracy":
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
    )
