"""Metrics that are ratios of two sums over items: the mean of what each item scored, and F1 of counted spans.

So one item more or less, or another draw of the items, changes two sums, and everything that labels have (bootstrap,
jackknife, pseudo-values, seeds) holds for them as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.config.reply import OVERLAPS
from bench.records import Score
from bench.stats.intervals import Interval, bca_ends
from bench.stats.pairs import worth
from bench.stats.seeds import clustered_interval

Floats = NDArray[np.floating]
Columns = Mapping[str, ArrayLike]
"""Numbers kept of every item, by name, each (n,)."""


@dataclass(frozen=True)
class Ratio:
    """A metric: weights of columns in the sum above, and in the one below (none: the number of items)."""

    above: dict[str, float]
    below: dict[str, float]


RATIOS: dict[str, Ratio] = {
    **{name: Ratio({name: 1}, {}) for name in OVERLAPS},
    "span_f1": Ratio({"hits": 2}, {"found": 1, "gold": 1}),
    "span_precision": Ratio({"hits": 1}, {"found": 1}),
    "span_recall": Ratio({"hits": 1}, {"gold": 1}),
}
"""Metric -> its two sums. F1 is 2 hits / (found + gold) of all items together (micro-average, as conlleval has it)."""
BESIDE = {"span_f1": ("span_precision", "span_recall"), **dict.fromkeys(OVERLAPS, OVERLAPS)}
"""Metric -> others that the same numbers give, shown beside it."""


def family(metric: str) -> list[str]:
    """A metric and those shown beside it."""
    return list(dict.fromkeys((metric, *BESIDE.get(metric, ()))))


def parts(metric: str, columns: Columns) -> tuple[Floats, Floats]:
    """What each item adds to both sums, (n,) each.

    Raises `KeyError` for a column that is not there, `ValueError` for no item, other lengths, or numbers that are not
    finite.
    """
    ratio = RATIOS[metric]
    given = {name: np.asarray(columns[name], dtype=float) for name in (*ratio.above, *ratio.below)}
    sizes = {column.shape for column in given.values()}
    if len(sizes) != 1 or min(sizes)[0] == 0 or not all(np.isfinite(column).all() for column in given.values()):
        raise ValueError(f"{metric} needs finite columns {sorted(given)} of one length above 0, got {sorted(sizes)}")
    n = next(iter(sizes))
    above = sum((weight * given[name] for name, weight in ratio.above.items()), np.zeros(n))
    below = sum((weight * given[name] for name, weight in ratio.below.items()), np.zeros(n))
    return above, below if ratio.below else np.ones(n)


def ratio(above: Floats, below: Floats) -> Floats:
    """above / below; 0 where below is 0, as F1 is where there is nothing to find and nothing was found."""
    found: Floats = np.divide(above, below, out=np.zeros_like(np.asarray(above, dtype=float)), where=below > 0)
    return found


def ratio_value(metric: str, columns: Columns) -> float:
    """The metric over all items. Raises as `parts` does."""
    above, below = parts(metric, columns)
    return float(ratio(above.sum(), below.sum()))


def ratio_left_out(metric: str, columns: Columns) -> Floats:
    """The metric without each item in turn, (n,). Raises as `parts` does."""
    above, below = parts(metric, columns)
    return ratio(above.sum() - above, below.sum() - below)


def bootstrap_ratio(metric: str, columns: Columns, seed: int, resamples: int = 2000, level: float = 0.95) -> Interval:
    """BCa bootstrap over items (Efron 1987), as labels have it: each resample draws as many items with replacement.

    Where BCa is undefined the interval is the percentile one and `method` says so. Raises as `parts` does.
    """
    above, below = parts(metric, columns)
    n, random = above.size, np.random.default_rng(seed)
    chunk, values = max(1, 2_000_000 // n), []
    for start in range(0, resamples, chunk):
        picked = random.integers(0, n, size=(min(chunk, resamples - start), n))
        values.append(ratio(above[picked].sum(axis=1), below[picked].sum(axis=1)))
    return bca_ends(np.concatenate(values), ratio_value(metric, columns), ratio_left_out(metric, columns), level)


def ratio_score(
    metric: str,
    columns: Columns,
    chance: float,
    chance_is: str,
    seed: int = 0,
    clusters: ArrayLike | None = None,
) -> Score:
    """A metric with its 95% interval over items (BCa; over clusters where items come in some, see `metrics.score`).

    `chance` is the metric of a baseline that reads no label, `chance_is` that baseline in words. Raises as `parts`.
    """
    value = ratio_value(metric, columns)
    if clusters is None:
        interval = bootstrap_ratio(metric, columns, seed)
    else:
        interval = clustered_interval(value, ratio_left_out(metric, columns), clusters)
    return Score(
        value=value,
        low=interval.low,
        high=interval.high,
        n=parts(metric, columns)[0].size,
        chance=chance,
        chance_is=chance_is,
        interval=interval.method,
        clusters=None if clusters is None else int(np.unique(np.asarray(clusters)).size),
        clusters_worth=None if clusters is None else worth(clusters),
    )
