"""95% intervals over test items. They describe one trained model, not the method that trained it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap, norm

from bench.stats.confusion import confusion, formula, leave_one_out


@dataclass(frozen=True)
class Interval:
    """Two ends in the metric's own unit and the method that made them: `wilson`, `bca`, `percentile`, `clusters`,
    `seeds`, `flat` or `newcombe`."""

    low: float
    high: float
    method: str


def wilson(correct: int, n: int, level: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927; Brown, Cai & DasGupta 2001, eq. 4).

    Raises `ValueError` unless 0 <= correct <= n, n > 0 and 0 < level < 1.
    """
    if not 0 <= correct <= n or n == 0 or not 0 < level < 1:
        raise ValueError(f"wilson needs 0 <= correct <= n, n > 0 and 0 < level < 1, got {correct}, {n}, {level}")
    z = float(norm.ppf(0.5 + level / 2))
    share = correct / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the borders the formula gives 0 and 1 exactly; rounding must not push the value out of its interval.
    return Interval(
        0.0 if correct == 0 else max(0.0, middle - half), 1.0 if correct == n else min(1.0, middle + half), "wilson"
    )


def bootstrap_bca(
    metric: str,
    labels: ArrayLike,
    predictions: ArrayLike,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
    positive: int = 1,
) -> Interval:
    """Bias-corrected and accelerated bootstrap over items (Efron 1987; Efron & Tibshirani 1993, eq. 14.9-14.15).

    A metric of a classifier depends on the items only through the confusion counts, and drawing n items with
    replacement makes those counts multinomial: so one multinomial draw is one resample, at O(K^2) each.
    Where BCa is undefined (no variation between items or resamples, or every resample on one side) the
    interval is the plain percentile one and `method` says so. Raises as `confusion` does.
    """
    counts, _ = confusion(labels, predictions, positive + 1)
    n, width = int(counts.sum()), counts.shape[-1]
    random, chunk = np.random.default_rng(seed), max(1, 2_000_000 // (width * width))
    values = np.concatenate(
        [
            formula(metric)(
                random.multinomial(n, counts.reshape(-1) / n, size=min(chunk, resamples - start))
                .reshape(-1, width, width)
                .astype(float),
                positive,
            )
            for start in range(0, resamples, chunk)
        ]
    )
    observed = float(formula(metric)(counts, positive))
    return bca_ends(values, observed, leave_one_out(metric, labels, predictions, positive), level)


def bca_ends(
    values: NDArray[np.floating], observed: float, left_out: NDArray[np.floating], level: float = 0.95
) -> Interval:
    """The BCa interval from resampled `values` (b,), the observed value, and the values without each item (n,).

    Where it is undefined the plain percentile interval, and `method` says so.
    """
    tail = (1 - level) / 2
    shares = _bca_shares(values, observed, left_out, (tail, 1 - tail))
    method = "percentile" if shares is None else "bca"
    low, high = np.quantile(values, (tail, 1 - tail) if shares is None else shares)
    return Interval(float(low), float(high), method)


def _bca_shares(
    values: NDArray[np.floating], observed: float, left_out: NDArray[np.floating], tails: tuple[float, float]
) -> tuple[float, float] | None:
    """The corrected percentiles (Efron & Tibshirani 1993, eq. 14.10), or None where they are undefined."""
    # Ties count half, as scipy does: the metric of a small test set takes few values.
    below = float(((values < observed).mean() + (values <= observed).mean()) / 2)
    away = left_out.mean() - left_out
    spread = float((away**2).sum())
    if left_out.size < 2 or not 0 < below < 1 or spread < 1e-18 or np.ptp(values) < 1e-12:
        return None
    bias, acceleration = float(norm.ppf(below)), float((away**3).sum() / (6 * spread**1.5))
    shares = []
    for tail in tails:
        moved = bias + float(norm.ppf(tail))
        scale = 1 - acceleration * moved
        if scale <= 0:  # beyond this pole the correction turns back on itself
            return None
        shares.append(float(norm.cdf(bias + moved / scale)))
    return shares[0], shares[1]


def bootstrap_items(
    statistic: Callable[..., NDArray[np.floating]],
    columns: Sequence[ArrayLike],
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """BCa bootstrap of any statistic of paired columns, such as a correlation (Efron 1987, as scipy has it).

    `columns` are k vectors of n items; `statistic(*columns, axis=-1)` takes arrays (..., n) and gives (...). Where
    BCa is undefined the interval is the percentile one and `method` says so. Raises `ValueError` for fewer
    than two items.
    """
    data = [np.asarray(column, dtype=float) for column in columns]

    def found(method: str) -> tuple[float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a degenerate resample: told by `method` instead
            ends = bootstrap(
                data,
                statistic,
                paired=True,
                vectorized=True,
                n_resamples=resamples,
                batch=max(1, 2_000_000 // max(1, data[0].size)),
                confidence_level=level,
                method=method,
                random_state=np.random.default_rng(seed),
            ).confidence_interval
        return float(ends.low), float(ends.high)

    ends, method = found("BCa"), "bca"
    if not all(map(math.isfinite, ends)):
        ends, method = found("percentile"), "percentile"
    return Interval(*ends, method)


def mean_of(ends: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """The mean of independent estimates, each (value, low, high), with its interval: (value, low, high).

    Method of variance estimates recovery (Zou & Donner 2008, eq. 4): each side's distances add in squares, so
    the lopsidedness of Wilson's and BCa's intervals survives. Raises `ValueError` for no estimate.
    """
    if not ends:
        raise ValueError("a mean needs at least one estimate")
    k = len(ends)
    middle = sum(value for value, _, _ in ends) / k
    down = math.sqrt(sum((value - low) ** 2 for value, low, _ in ends)) / k
    up = math.sqrt(sum((high - value) ** 2 for value, _, high in ends)) / k
    return middle, middle - down, middle + up
