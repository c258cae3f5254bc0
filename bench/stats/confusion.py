"""Metrics are formulas over confusion counts, so that resampling a metric is one matrix product."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.errors import unknown

Counts = NDArray[np.floating]
"""Confusion counts, shape (..., K, K): rows are true labels, columns predictions."""

MOST_LABELS = 2000
"""Label indices stay below this, so that a damaged file cannot ask for a table of any size."""


def confusion(labels: ArrayLike, predictions: ArrayLike, size: int | None = None) -> tuple[Counts, NDArray[np.intp]]:
    """The (K, K) confusion counts, and for each item its flat cell `label * K + prediction`.

    K is `size`, or one more than the largest index seen. A prediction below 0 (no answer could be read)
    gets a column of its own behind the labels, so it is wrong for every label. Raises `ValueError` for
    empty input, unequal lengths, a negative label or one of `MOST_LABELS` and above (the table is square).
    """
    truth, guess = np.asarray(labels, dtype=np.int64), np.asarray(predictions, dtype=np.int64)
    if truth.ndim != 1 or truth.shape != guess.shape or truth.size == 0:
        raise ValueError(f"labels and predictions must be of one length above 0, got {truth.shape} and {guess.shape}")
    if truth.min() < 0:
        raise ValueError("labels must not be negative")
    width = max(int(truth.max()), int(guess.max()), (size or 2) - 1) + 1
    if width > MOST_LABELS:
        raise ValueError(f"label indices must be below {MOST_LABELS}, got {width - 1}")
    if guess.min() < 0:
        guess = np.where(guess < 0, width, guess)
        width += 1
    cells = truth * width + guess
    return np.bincount(cells, minlength=width * width).reshape(width, width).astype(float), cells


def accuracy(counts: Counts, positive: int = 1) -> NDArray[np.floating]:
    """Share of items on the diagonal; any number of labels. `positive` is not used."""
    total = counts.sum(axis=(-2, -1))
    return _ratio(np.trace(counts, axis1=-2, axis2=-1), total)


def f1(counts: Counts, positive: int = 1) -> NDArray[np.floating]:
    """2TP / (2TP + FP + FN) of the label `positive`; 0 where nothing is positive (van Rijsbergen 1979, ch. 7)."""
    hit = counts[..., positive, positive]
    return _ratio(2 * hit, counts[..., positive, :].sum(axis=-1) + counts[..., :, positive].sum(axis=-1))


def matthews(counts: Counts, positive: int = 1) -> NDArray[np.floating]:
    """Matthews' correlation for K labels (Gorodkin 2004, eq. 8); 0 where either side is constant."""
    total, truth, guess = counts.sum(axis=(-2, -1)), counts.sum(axis=-1), counts.sum(axis=-2)
    hit = np.trace(counts, axis1=-2, axis2=-1)
    spread = (total**2 - (truth**2).sum(axis=-1)) * (total**2 - (guess**2).sum(axis=-1))
    return _ratio(hit * total - (truth * guess).sum(axis=-1), np.sqrt(spread))


METRICS: dict[str, Callable[[Counts, int], NDArray[np.floating]]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
}
"""Metric name -> its formula over confusion counts of shape (..., K, K)."""


def formula(metric: str) -> Callable[[Counts, int], NDArray[np.floating]]:
    """The formula of a metric by name. Raises `UserFault` naming the nearest."""
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    return METRICS[metric]


def leave_one_out(metric: str, labels: ArrayLike, predictions: ArrayLike, positive: int = 1) -> NDArray[np.floating]:
    """The metric with each item left out in turn, shape (n,): items in one confusion cell share one value."""
    counts, cells = confusion(labels, predictions, positive + 1)
    width = counts.shape[-1]
    table = np.full(width * width, np.nan)
    for cell in np.flatnonzero(counts.reshape(-1)):
        counts.flat[cell] -= 1
        table[cell] = formula(metric)(counts, positive)
        counts.flat[cell] += 1
    return table[cells]


def _ratio(top: NDArray[np.floating], bottom: NDArray[np.floating]) -> NDArray[np.floating]:
    """top / bottom, and 0 where bottom is 0 (the convention of scikit-learn)."""
    return np.divide(top, bottom, out=np.zeros_like(np.asarray(top, dtype=float)), where=np.asarray(bottom) > 0)
