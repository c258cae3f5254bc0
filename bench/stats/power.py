"""The smallest difference a comparison would find: 80% power at a two-sided level of 5%."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats
from scipy.optimize import brentq

LEVEL = 0.05
POWER = 0.8


def detectable(variance: float, freedom: float) -> float:
    """The true difference that a two-sided t test finds in 80% of cases, in the unit of sqrt(`variance`).

    From the noncentral t distribution (Johnson & Welch 1940); 0 where nothing varies. Raises `ValueError` for a
    negative variance or degrees of freedom not above 0.
    """
    if variance < 0 or not freedom > 0:
        raise ValueError(f"detectable needs variance >= 0 and freedom > 0, got {variance}, {freedom}")
    if variance == 0:
        return 0.0
    freedom = min(freedom, 1e6)  # scipy's noncentral t knows no infinity
    critical = float(stats.t.ppf(1 - LEVEL / 2, freedom))

    def short(shift: float) -> float:
        # a claim on the wrong side, below one in a million where the power is 80%, is left out
        return float(stats.nct.sf(critical, freedom, shift)) - POWER

    return math.sqrt(variance) * float(brentq(short, 0.0, 4 * critical + 10))


def detectable_over_seeds(seed_variance: float, item_variance: float, seeds: int) -> float:
    """The true mean difference over `seeds` that `bench.stats.pairs.seed_test` finds in 80% of cases.

    `seed_variance` and `item_variance` are the two parts of the squared error of the mean. The power is averaged over
    what the few seeds may show for the first (its chi-squared distribution at 400 quantiles); both parts of the test
    must reject. 0 where nothing varies. Raises `ValueError` for a negative variance or fewer than two seeds.
    """
    if min(seed_variance, item_variance) < 0 or seeds < 2:
        raise ValueError(
            "detectable_over_seeds needs variances >= 0 and two seeds or more, got "
            f"{seed_variance}, {item_variance}, {seeds}"
        )
    total = seed_variance + item_variance
    if total == 0:
        return 0.0
    quantiles = (np.arange(400) + 0.5) / 400
    seen = seed_variance * stats.chi2.ppf(quantiles, seeds - 1) / (seeds - 1)
    both, tail = seen + item_variance, 1 - LEVEL / 2
    freedom = np.minimum(1e6, (seeds - 1) * np.divide(both, seen, out=np.full(400, 1e3), where=seen > 0) ** 2)
    limits = np.maximum(stats.t.ppf(tail, freedom) * np.sqrt(both), float(stats.t.ppf(tail, seeds - 1)) * np.sqrt(seen))

    def short(difference: float) -> float:
        return float(stats.norm.sf((limits - difference) / math.sqrt(total)).mean()) - POWER

    return float(brentq(short, 0.0, float(limits.max()) + 10 * math.sqrt(total)))


def detectable_share(discordance: float, items: int) -> float:
    """The difference in accuracy that McNemar's test on `items` finds in 80% of cases.

    `discordance` is the share of items that only one of the two gets right (the sample size of Connor 1987, solved for
    the difference). At most `discordance` itself: a difference cannot be larger. Raises `ValueError` unless
    0 <= discordance <= 1 and items > 0.
    """
    if not 0 <= discordance <= 1 or items <= 0:
        raise ValueError(f"detectable_share needs a discordance in 0..1 and items > 0, got {discordance}, {items}")
    level, power = (float(stats.norm.ppf(q)) for q in (1 - LEVEL / 2, POWER))

    def short(difference: float) -> float:
        spread = math.sqrt(max(discordance - difference**2, 0.0))
        return difference * math.sqrt(items) - level * math.sqrt(discordance) - power * spread

    if discordance == 0 or short(discordance) < 0:
        return discordance
    return float(brentq(short, 0.0, discordance))
