"""Tests of whether a model has seen its test items. Every p is one-sided towards `seen`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import linear_sum_assignment

Floats = NDArray[np.floating]
LEVEL = 0.05
"""p-value, adjusted by Holm over a cell's checks, up to which a check says `seen`."""
POWER = 0.8
DRAWS = 10_000
CHUNK = 4_000_000
"""Signs held at a time."""
ELSEWHERE = 1e6
"""Cost of matching a control with another label: above any difference of log-probabilities."""


@dataclass(frozen=True)
class Paired:
    """The mean of paired differences, its 95% interval, its one-sided p (larger is `seen`) and what it can tell."""

    value: float
    low: float
    high: float
    p: float
    n: int
    detectable: float
    """Smallest true mean that would be found in four of five repetitions at the 5% level."""


def paired(differences: ArrayLike, seed: int = 0, draws: int = DRAWS) -> Paired:
    """Test that the mean of differences is above 0: each sign is turned at random, as if the two of a pair were
    exchanged (Fisher 1935, section 21; the +1 of Phipson & Smyth 2010, eq. 2, so no p is 0).

    The interval is Student's. What it can tell is (t at 95% + t at 80%) s / sqrt(n) (Cohen 1988, chapter 2).
    Raises `ValueError` for no difference or one that is not finite.
    """
    d = np.asarray(differences, dtype=float)
    if d.size == 0 or not np.isfinite(d).all():
        raise ValueError(f"paired needs finite differences, at least one, got {d.size}")
    mean = float(d.mean())
    error = float(d.std(ddof=1)) / math.sqrt(d.size) if d.size > 1 else math.inf
    freedom = max(1, d.size - 1)
    half = float(stats.t.ppf(0.975, freedom)) * error
    reach = float(stats.t.ppf(1 - LEVEL, freedom) + stats.t.ppf(POWER, freedom)) * error
    return Paired(mean, mean - half, mean + half, sign_flip(d, seed, draws), d.size, reach)


def sign_flip(differences: Floats, seed: int, draws: int) -> float:
    """Share of random exchanges whose mean is at least the observed one, the observed among them."""
    random = np.random.default_rng(seed)
    observed = float(differences.sum()) - 1e-12 * float(np.abs(differences).sum())  # rounding must not break ties
    step, reached = max(1, CHUNK // differences.size), 0
    for start in range(0, draws, step):
        signs = random.integers(0, 2, (min(step, draws - start), differences.size), dtype=np.int8) * 2 - 1
        reached += int((signs @ differences >= observed).sum())
    return (1 + reached) / (1 + draws)


def matched(
    tests: ArrayLike, candidates: ArrayLike, test_labels: Sequence[int], candidate_labels: Sequence[int]
) -> list[int]:
    """For each test item its control among the candidates, none used twice: the same gold label wherever there are
    enough, and together as near as can be in the base's log-probability of the gold label (optimal assignment,
    Rosenbaum 1989). Why: an item on which the base does badly gains more in any training (regression to the mean).
    One random draw of items serves every cell of a seed; where it happens to put the harder items on one side, every
    one of those cells gains more there with no leak at all (simulated in tests/test_membership.py).

    Raises `ValueError` for fewer candidates than test items.
    """
    a, b = np.asarray(tests, dtype=float), np.asarray(candidates, dtype=float)
    if b.size < a.size:
        raise ValueError(f"{a.size} test items need as many candidates, got {b.size}")
    cost = np.abs(a[:, None] - b[None, :])
    cost += ELSEWHERE * (np.asarray(test_labels)[:, None] != np.asarray(candidate_labels)[None, :])
    return [int(j) for j in linear_sum_assignment(cost)[1]]


def difference_in_differences(
    correct_plain: ArrayLike,
    correct_changed: ArrayLike,
    ref_plain: ArrayLike,
    ref_changed: ArrayLike,
    seed: int = 0,
    draws: int = DRAWS,
) -> Paired:
    """How much more the score drops under a change than the reference's does, paired over items.

    Four vectors over the same items (or matched ones), values in 0..1: right before and after the change, here and
    in the reference. A drop alone is brittleness and every model has some; only a larger drop than that of a model or
    of items with no leak points to one. Raises `ValueError` for vectors of different lengths.
    """
    four = [np.asarray(v, dtype=float) for v in (correct_plain, correct_changed, ref_plain, ref_changed)]
    if len({v.shape for v in four}) != 1 or four[0].ndim != 1:
        raise ValueError(f"four vectors of one length are needed, got {[v.shape for v in four]}")
    return paired((four[0] - four[1]) - (four[2] - four[3]), seed, draws)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given (Holm 1979): below 0.05 the chance of any false alarm among them is 5%."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = highest
    return adjusted
