"""The interval of a mean over seeds and test items: how far retraining and other items together could move it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bench.stats.intervals import Interval
from bench.stats.pairs import jackknife_variance

BOUNDS = {"accuracy": (0.0, 1.0), "f1": (0.0, 1.0), "matthews": (-1.0, 1.0)}
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
    seeds, items = without.shape
    pseudo = pseudo_values(per_seed, without)
    seed_part = float(per_seed.var(ddof=1)) / seeds
    both = pseudo - pseudo.mean(axis=1, keepdims=True) - pseudo.mean(axis=0) + pseudo.mean()
    mixed = float((both**2).sum()) / ((seeds - 1) * (items - 1)) / (seeds * items)
    item_part = max(jackknife_variance(without.mean(axis=0), clusters) - mixed, 0.0)
    tail, total = 0.5 + level / 2, seed_part + item_part
    freedom = (total / seed_part) ** 2 * (seeds - 1) if seed_part > 0 else math.inf
    half = max(
        float(stats.t.ppf(tail, freedom)) * math.sqrt(total),
        float(stats.t.ppf(tail, seeds - 1)) * math.sqrt(seed_part),
    )
    low, high = bent(float(per_seed.mean()), half, bounds, float(stats.norm.ppf(tail)) / math.sqrt(items))
    return Interval(low, high, "seeds")


def bent(value: float, half: float, bounds: tuple[float, float], least: float) -> tuple[float, float]:
    """Ends of an interval whose half-width would be `half` away from any bound, bent as Wilson's is (1927, eq. 4).

    `half` / sqrt(v (1 - v)) is that formula's z / sqrt(n) on the unit scale. Where nothing varies it is `least`: what
    a proportion of that many items has.
    """
    width = bounds[1] - bounds[0]
    v = min(max((value - bounds[0]) / width, 0.0), 1.0)
    spread = math.sqrt(v * (1 - v))
    ratio = (half / width / spread if half > 0 and spread > 1e-9 else least) ** 2
    middle, reach = v + ratio / 2, math.sqrt(v * (1 - v) * ratio + ratio**2 / 4)
    low, high = (max(0.0, min(v, (middle - reach) / (1 + ratio))), min(1.0, max(v, (middle + reach) / (1 + ratio))))
    return bounds[0] + width * low, bounds[0] + width * high


def clustered_interval(
    value: float,
    left_out: ArrayLike,
    clusters: ArrayLike,
    bounds: tuple[float, float] = (0.0, 1.0),
    level: float = 0.95,
) -> Interval:
    """Interval of one trained model's score where items come in clusters (one integer an item, shape (n,)).

    t with one degree of freedom less than clusters on the cluster-robust error (Liang & Zeger 1986),
    bent at the bounds as in `seeds_interval`. Raises `ValueError` for unequal lengths.
    """
    groups = np.unique(np.asarray(clusters)).size
    error = math.sqrt(jackknife_variance(left_out, clusters))
    tail = 0.5 + level / 2
    reach = float(stats.t.ppf(tail, groups - 1)) if groups > 1 else math.inf
    half = reach * error if error > 0 else 0.0
    return Interval(*bent(value, half, bounds, float(stats.norm.ppf(tail)) / math.sqrt(groups)), "clusters")
