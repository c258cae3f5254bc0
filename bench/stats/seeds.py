"""The interval of a mean over seeds and test items: how far retraining and other items together could move it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bench.config.reply import OVERLAPS
from bench.stats.intervals import Interval
from bench.stats.pairs import jackknife_variance, worth

BOUNDS = {
    **dict.fromkeys(("accuracy", "f1", *OVERLAPS, "span_f1", "span_precision", "span_recall"), (0.0, 1.0)),
    "matthews": (-1.0, 1.0),
}
"""Metric -> the least and the largest value it can have."""


def pseudo_values(values: ArrayLike, left_out: ArrayLike) -> NDArray[np.floating]:
    """n * whole - (n - 1) * without the item (Quenouille 1956), shape (S, n) of `values` (S,) and `left_out` (S, n).

    Of an accuracy they are the items' 0 and 1; of any metric their mean over items is the metric less its bias.
    """
    whole, without = np.asarray(values, dtype=float), np.asarray(left_out, dtype=float)
    n = without.shape[-1]
    result: NDArray[np.floating] = n * whole[..., None] - (n - 1) * without
    return result


def seeds_interval(
    values: ArrayLike,
    left_out: ArrayLike,
    bounds: tuple[float, float] = (0.0, 1.0),
    clusters: ArrayLike | None = None,
    level: float = 0.95,
) -> Interval:
    """Interval of the mean of a metric over S seeds that share n items; it holds for other seeds and other items.

    Seeds and items are crossed random effects. The half-width is the larger of two: t with Hillis' degrees of freedom
    times the standard error of both parts (Hillis 2007, his df_H, of jackknife pseudo-values as in Dorfman, Berbaum &
    Metz 1992), and t with S - 1 degrees times that of the seeds alone; the first alone covers down to 91% at three
    seeds and 1,000 items. It is bent at the bounds as a score interval with that many effective items (Dean & Pagano
    2015, modified Wilson). `values` are (S,), `left_out` (S, n), `clusters` one integer an item. Raises
    `ValueError` for fewer than two seeds or items, other shapes, or a level outside (0, 1).
    """
    per_seed, without = np.asarray(values, dtype=float), np.asarray(left_out, dtype=float)
    if per_seed.ndim != 1 or without.shape[:-1] != per_seed.shape or min(without.shape) < 2 or not 0 < level < 1:
        raise ValueError(
            "seeds_interval needs values (S,), left_out (S, n), S and n from 2 on and 0 < level < 1, got "
            f"{per_seed.shape}, {without.shape}, {level}"
        )
    items = None if clusters is None else clusters_variance(without.mean(axis=0), clusters, level)
    if clusters is not None and np.unique(np.asarray(clusters)).size < 2:
        # how clusters differ is not known from one: as wide as what one item tells
        low, high = bent(per_seed.mean(keepdims=True), np.zeros(1), bounds, float(stats.norm.ppf(0.5 + level / 2)))
    else:
        low, high = seeds_ends(per_seed[None], without[None], bounds, level, items)
    return Interval(float(low[0]), float(high[0]), "seeds")


def clusters_variance(left_out: NDArray[np.floating], clusters: ArrayLike, level: float) -> NDArray[np.floating]:
    """Variance over clusters, (1,), widened as t with their degrees of freedom is wider than the normal.

    Few clusters, or few that hold most of the items, do not tell it well.
    """
    tail = 0.5 + level / 2
    wider = float(stats.t.ppf(tail, freedom_of(clusters)) / stats.norm.ppf(tail)) ** 2
    return np.array([wider * jackknife_variance(left_out, clusters)])


def freedom_of(clusters: ArrayLike) -> float:
    """Degrees of freedom of clusters that may differ in size, at least 1."""
    return max(1.0, worth(clusters) - 1)


def seeds_ends(
    values: NDArray[np.floating],
    left_out: NDArray[np.floating],
    bounds: tuple[float, float] = (0.0, 1.0),
    level: float = 0.95,
    item_variance: NDArray[np.floating] | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """`seeds_interval` of many means at once: ends of shape (m,) for `values` (m, S) and `left_out` (m, S, n).

    `item_variance` (m,) replaces the variance over items, where they come in clusters.
    """
    seeds, items = left_out.shape[1:]
    pseudo, by_item = pseudo_values(values, left_out), left_out.mean(axis=1)
    if item_variance is None:
        item_variance = (items - 1) * by_item.var(axis=1)  # the jackknife's
    seed_part = values.var(axis=1, ddof=1) / seeds
    both = pseudo - pseudo.mean(axis=2, keepdims=True) - pseudo.mean(axis=1, keepdims=True)
    both += pseudo.mean(axis=(1, 2), keepdims=True)
    mixed = (both**2).sum(axis=(1, 2)) / ((seeds - 1) * (items - 1)) / (seeds * items)
    total = seed_part + np.maximum(item_variance - mixed, 0.0)
    ratio = np.divide(total, seed_part, out=np.full_like(total, 1e6), where=seed_part > 0)
    freedom = np.minimum(ratio**2 * (seeds - 1), 1e6)
    tail = 0.5 + level / 2
    half = np.maximum(
        stats.t.ppf(tail, freedom) * np.sqrt(total), float(stats.t.ppf(tail, seeds - 1)) * np.sqrt(seed_part)
    )
    return bent(values.mean(axis=1), half, bounds, float(stats.norm.ppf(tail)) / math.sqrt(items))


def bent(
    value: NDArray[np.floating], half: NDArray[np.floating], bounds: tuple[float, float], least: float
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Ends of intervals whose half-widths would be `half` away from any bound, bent as Wilson's are (1927), (m,).

    `half` / sqrt(v (1 - v)) is that formula's z / sqrt(n) on the unit scale. Where nothing varies it is `least`: what
    a proportion of that many items has.
    """
    width = bounds[1] - bounds[0]
    v = np.clip((value - bounds[0]) / width, 0.0, 1.0)
    spread = np.sqrt(v * (1 - v))
    ratio = np.divide(half / width, spread, out=np.full_like(v, least), where=(half > 0) & (spread > 1e-9)) ** 2
    middle, reach = v + ratio / 2, np.sqrt(v * (1 - v) * ratio + ratio**2 / 4)
    low, high = np.clip((middle - reach) / (1 + ratio), 0.0, v), np.clip((middle + reach) / (1 + ratio), v, 1.0)
    return bounds[0] + width * low, bounds[0] + width * high


def flat_interval(value: float, n: int, bounds: tuple[float, float] = (0.0, 1.0), level: float = 0.95) -> Interval:
    """What stands for a bootstrap's interval without width: every resample of the `n` items gave one `value`.

    All right, or one label for all: other items would not be so for sure. Wilson's width of so many items, as in
    `seeds_interval` where nothing varies. Raises `ValueError` for no item.
    """
    if n < 1:
        raise ValueError(f"flat_interval needs an item, got {n}")
    least = float(stats.norm.ppf(0.5 + level / 2)) / math.sqrt(n)
    low, high = bent(np.array([value]), np.zeros(1), bounds, least)
    return Interval(float(low[0]), float(high[0]), "flat")


def clustered_interval(
    value: float,
    left_out: ArrayLike,
    clusters: ArrayLike,
    bounds: tuple[float, float] = (0.0, 1.0),
    level: float = 0.95,
) -> Interval:
    """Interval of one trained model's score where items come in clusters (one integer an item, shape (n,)).

    t with one degree of freedom less than even clusters that these are worth on the cluster-robust error (Liang & Zeger
    1986), bent at the bounds as in `seeds_interval`. Raises `ValueError` for unequal lengths.
    """
    error = math.sqrt(jackknife_variance(left_out, clusters))
    tail = 0.5 + level / 2
    half = float(stats.t.ppf(tail, freedom_of(clusters))) * error
    least = float(stats.norm.ppf(tail)) / math.sqrt(worth(clusters))
    low, high = bent(np.array([value]), np.array([half]), bounds, least)
    return Interval(float(low[0]), float(high[0]), "clusters")
