"""The smallest difference a comparison would find: 80% power at a two-sided level of 5%."""

from __future__ import annotations

import math

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
