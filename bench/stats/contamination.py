"""Tests of whether a model has seen its test items. Every p is one-sided towards `seen`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.optimize import linear_sum_assignment

from bench.probed import Check, ContaminationFindings, Verdict
from bench.stats.pairs import holm

Floats = NDArray[np.floating]
LEVEL = 0.05
"""p-value, adjusted by Holm over a cell's checks, up to which a check says `seen`."""
POWER = 0.8
DRAWS = 10_000
CHUNK = 4_000_000
"""Signs held at a time."""
CALIPER = 0.2
"""Standard deviations of the base's score that the two of a pair may lie apart."""
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
) -> list[tuple[int, int]]:
    """Pairs (test item, its control), by position: the same gold label, none used twice, together as near as can be
    in the base's log-probability of the gold label (optimal assignment, Rosenbaum 1989), none further apart than 0.2
    standard deviations (Austin 2011). A test item without such a control is left out.

    Why: an item on which the base does badly gains more in any training (regression to the mean). One random draw
    serves every cell of a seed; where it happens to put the harder items on one side, every one of those cells gains
    more there with no leak at all. And without the limit an extreme item gets a milder control, which alone raised
    false alarms from 5.2% to 5.6-6.0% (both simulated as in tests/test_membership.py).
    """
    a, b = np.asarray(tests, dtype=float), np.asarray(candidates, dtype=float)
    if not a.size or not b.size:
        return []
    near = CALIPER * float(np.concatenate([a, b]).std())
    cost = np.abs(a[:, None] - b[None, :])
    cost += ELSEWHERE * (np.asarray(test_labels)[:, None] != np.asarray(candidate_labels)[None, :])
    rows, columns = linear_sum_assignment(cost)
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if cost[i, j] <= near]


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


MEANINGFUL_DROP = 0.1
"""Extra drop that matters: a leak that costs under one answer in ten when its wording goes has hardly moved a score."""
FEWEST = 20
"""Changed items below which a comparison of drops is not made."""


def judged(test: Paired, at_chance: bool = False) -> Verdict:
    """What a comparison of drops says; `not seen` only where it beats chance and its interval excludes what matters."""
    if test.p <= LEVEL:
        return "seen"
    return "not seen" if not at_chance and test.high < MEANINGFUL_DROP else "no power"


def holm_verdicts(checks: Sequence[Check]) -> list[Check]:
    """The checks with `p, Holm` among their figures; a `seen` whose adjusted p is above 0.05 becomes `no power`.

    One cell is asked many questions: at 5% each, a clean cell with eight would be called contaminated every third
    time. Checks without a p (overlap finds or does not) stay. Doing it twice changes nothing more.
    """
    adjusted = iter(holm([check.p for check in checks if check.p is not None]))
    out = []
    for check in checks:
        if check.p is None:
            out.append(check)
            continue
        p = float(next(adjusted))
        update: dict[str, object] = {"figures": check.figures | {"p, Holm": p}}
        if check.verdict == "seen" and p > LEVEL:
            says = f"Alone p is {check.p:.2g}, but {p:.2g} among all checks of this cell (Holm): no evidence."
            update |= {"verdict": "no power", "says": says}
        out.append(check.model_copy(update=update))
    return out


def against_twin(planted: ContaminationFindings, clean: ContaminationFindings, draws: int = DRAWS) -> list[Check]:
    """Each perturbation's drop in one cell less that in its clean twin, over the test items both were asked.

    The twin is the same cell trained without the test items, so its drop is what brittleness costs. Perturbations
    asked in one of them only, or changing fewer than 20 items, are left out. Adjusted by Holm among themselves.
    """
    checks = []
    mine, other = (
        {row: i for i, row in enumerate(findings.test_items)} for findings in (planted, clean)
    )  # fmt: skip
    common = [row for row in planted.test_items if row in other]
    for name in planted.touched:
        if name not in clean.touched:
            continue
        rows = [r for r in common if planted.touched[name][mine[r]] and clean.touched[name][other[r]]]
        if len(rows) < FEWEST:
            continue
        here = [_right(planted, what, [mine[r] for r in rows]) for what in ("plain", name)]
        there = [_right(clean, what, [other[r] for r in rows]) for what in ("plain", name)]
        test = difference_in_differences(here[0], here[1], there[0], there[1], draws=draws)
        kind = next((c.kind for c in planted.checks if c.name == f"perturbation: {name}"), None)
        checks.append(_twin_check(name, kind, test, [float(v.mean()) for v in (*here, *there)]))
    return holm_verdicts(checks)


def _right(findings: ContaminationFindings, name: str, positions: list[int]) -> Floats:
    """Share of a perturbation's variants in which each item was right."""
    variants = [v for key, v in findings.correct.items() if key.partition(" #")[0] == name]
    right: Floats = np.asarray(variants, dtype=float).mean(0)[positions]
    return right


def _twin_check(name: str, kind: Any, test: Paired, accuracy: list[float]) -> Check:
    plain, changed, twin_plain, twin_changed = accuracy
    says = {
        "seen": "More than brittleness: items were learnt as they stand.",
        "not seen": "What it loses is brittleness, no evidence of a leak.",
    }.get(judged(test), "It could not have told a drop that matters: nothing follows.")
    return Check(
        name=f"perturbation: {name}", family="perturbation", kind=kind, statistic=test.value, low=test.low,
        high=test.high, p=test.p, n=test.n, plain=plain, changed=changed, reference="clean twin",
        figures={"twin, plain": twin_plain, "twin, changed": twin_changed}, verdict=judged(test),
        says=f"Accuracy goes from {plain:.2f} to {changed:.2f}, in the clean twin from {twin_plain:.2f} to "
        f"{twin_changed:.2f}: {test.value:+.2f} [{test.low:+.2f}, {test.high:+.2f}] more is lost, p {test.p:.2g}. "
        f"{says}",
    )  # fmt: skip
