"""The speed gate: ratios of neighbours in time, a one-sided bound, and what a ratio of two equals is on this machine.

Seconds of two runs at two times say little on a machine that does other things as well. So both sides' cells are run
in turn, base new new base, and each pair gives one ratio, in which whatever lasts longer than a pair cancels. What does
not cancel (where code and memory happen to lie) is the same in every pair of a session; it is learned from pairs of
equals, and only what lies above it counts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from bench.compare.finding import Finding
from bench.compare.matching import Match
from bench.records import Phase, Result
from bench.report.format import count
from bench.stats.pairs import holm

LEVEL = 0.05
"""Of all figures of a comparison together."""
FEWEST_PAIRS = 3
PHASES = ("adapt", "predict")
TOKEN, WHOLE = "seconds a token", "seconds"
PASSED = ("load", "tune", "default")
"""Phases of which only the whole is timed, where a cell has them."""
FIGURES = (
    *(f"{phase} {what}" for phase in PHASES for what in (TOKEN, WHOLE)),
    *(f"{phase} {WHOLE}" for phase in PASSED),
)
"""Of the steps, and of the whole phase: what is lost between steps is lost too."""
SHORTEST = 0.05
"""Seconds: one of `PASSED` that takes less in the median of both sides is noise, and is left out."""

Ratios = dict[tuple[str, str], list[float]]
"""(cell, figure) -> log of new over base, one a pair."""


@dataclass(frozen=True)
class Paced:
    """Ratios of one figure of a cell, and the test that it got slower by more than the floor."""

    cell: str
    figure: str
    """One of `FIGURES`."""
    ratios: tuple[float, ...]
    """New over base, one a pair."""
    ratio: float
    """Their geometric mean."""
    low: float
    """Lower end of its one-sided 95% interval."""
    floor: float
    """Ratio up to which a slower side is called noise."""
    p: float
    adjusted: float = 1.0
    """After Holm over all figures of the comparison."""

    @property
    def slower(self) -> bool:
        """Whether it is slower by more than noise."""
        return self.adjusted < LEVEL

    def finding(self, rerun: bool) -> Finding:
        """A regression, in words."""
        twice = ", and again in fresh pairs" if rerun else ""
        words = (
            f"over {len(self.ratios)} pairs, one-sided 95% bound x{self.low:.2f} above the floor of "
            f"x{self.floor:.2f}{twice}"
        )
        return Finding("regression", "speed", self.cell, self.figure, "x1", f"x{self.ratio:.2f}", words)


def pace(phase: Phase | None) -> float | None:
    """Seconds a token of a phase: of its timed steps, else of all steps; of a step where no token is seen (a bag of
    words); None where there is no step."""
    if phase is None:
        return None
    if phase.tokens_per_second:
        return 1 / phase.tokens_per_second
    if not phase.step_seconds:
        return None
    return phase.step_seconds / (phase.tokens or phase.steps or 1)


def timed(phase: Phase | None) -> bool:
    """Whether steps after warm-up were timed."""
    return phase is not None and bool(phase.tokens_per_second)


def log_ratio(base: Result, new: Result, figure: str) -> float | None:
    """Log of new over base of a figure; None where either has no step, or they were timed in different ways."""
    phase, _, what = figure.partition(" ")
    first, second = base.phases.get(phase), new.phases.get(phase)
    if phase in PASSED:
        before, after = lasted(first), lasted(second)
        return math.log(after / before) if before and after else None
    if timed(first) != timed(second):
        return None
    before, after = pace(first), pace(second)
    if what == WHOLE and before and after:
        assert first is not None and second is not None
        before, after = first.seconds, second.seconds
    return math.log(after / before) if before and after else None


def lasted(phase: Phase | None) -> float | None:
    """Seconds of a whole phase; None where there is none, or no clock saw it pass."""
    return phase.seconds if phase is not None and 0 < phase.seconds < math.inf else None


def gathered(pairs: Iterable[tuple[str, Result, Result]]) -> Ratios:
    """Ratios of measured pairs, in order."""
    found: Ratios = {}
    for name, base, new in pairs:
        for figure in FIGURES:
            if (ratio := log_ratio(base, new, figure)) is not None:
                found.setdefault((name, figure), []).append(ratio)
    return found


def without_short(ratios: Ratios, pairs: Iterable[tuple[str, Result, Result]]) -> Ratios:
    """The ratios but for those of `PASSED` that take less than `SHORTEST` in the median of either side: one that was
    short and is long now stays. What failed is measured again by any length: left out there, it would stand."""
    taken: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for name, *sides in pairs:
        for phase in PASSED:
            both = taken.setdefault((name, f"{phase} {WHOLE}"), ([], []))
            for seconds, side in zip(both, sides, strict=True):
                seconds.append(lasted(side.phases.get(phase)) or 0.0)
    short = {key for key, both in taken.items() if max(map(statistics.median, both)) < SHORTEST}
    return {key: values for key, values in ratios.items() if key not in short}


def unguarded(pairs: Iterable[tuple[str, Result, Result]]) -> list[Finding]:
    """Phases whose steps the base times and the new side does not any more, because its cell no longer ends or every
    step counts FLOPs, and phases timed as a whole that are gone: they give no ratio, and whatever they take would
    pass."""
    seen: dict[tuple[str, str], list[bool]] = {}
    for name, base, new in pairs:
        for phase in (*PHASES, *PASSED):
            if (kept := still_timed(phase, base.phases.get(phase), new.phases.get(phase))) is not None:
                seen.setdefault((name, phase), []).append(kept)
    return [
        Finding("regression", "speed", name, f"{phase} {WHOLE if phase in PASSED else TOKEN}", f"{len(kept)} pairs",
                f"{sum(kept)} pairs", f"{'it is' if phase in PASSED else 'its steps are'} not timed any more, so "
                f"nothing guards {'its' if phase in PASSED else 'their'} speed")
        for (name, phase), kept in seen.items()
        if len(kept) >= FEWEST_PAIRS > sum(kept)
    ]  # fmt: skip


def still_timed(name: str, before: Phase | None, after: Phase | None) -> bool | None:
    """Whether a phase is timed as the base times it; None where the base does not, or it is too short to tell."""
    if name in PASSED:
        return lasted(after) is not None if (lasted(before) or 0) >= SHORTEST else None
    return bool(pace(after)) and timed(after) >= timed(before) if pace(before) else None


def judged(ratios: Ratios, floors: Mapping[str, float]) -> list[Paced]:
    """Every figure with a one-sided t test on its log ratios (Student 1908) that their mean lies above the floor,
    corrected after Holm (1979) over all. `floors`: figure -> log ratio. Figures with too few pairs are left out."""
    found = [paced(key, values, floors[key[1]]) for key, values in ratios.items() if len(values) >= FEWEST_PAIRS]
    if not found:
        return []
    adjusted = holm([one.p for one in found])
    return [Paced(**{**vars(one), "adjusted": float(p)}) for one, p in zip(found, adjusted, strict=True)]


def paced(key: tuple[str, str], values: Sequence[float], floor: float) -> Paced:
    """One figure, not yet corrected."""
    logs = np.asarray(values, dtype=float)
    mean, error = float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(logs.size)
    quantile = float(stats.t.ppf(1 - LEVEL, logs.size - 1))
    p = float(stats.t.sf((mean - floor) / error, logs.size - 1)) if error > 0 else float(mean <= floor)
    low = mean - quantile * error
    return Paced(*key, tuple(np.exp(logs).tolist()), math.exp(mean), math.exp(low), math.exp(floor), p)


@dataclass(frozen=True)
class Spread:
    """Two recorded runs: how their cells' ratios lie."""

    figure: str
    """Seconds a token of a phase."""
    cells: int
    median: float
    low: float
    """Lower quartile."""
    high: float
    bound: float
    """Lower end of a one-sided 95% interval of the mean log ratio over cells, as a ratio."""
    timed: bool = True
    """Whether the steps were timed after warm-up in every cell."""

    def says(self) -> str:
        """In words."""
        how = "" if self.timed else " (too few steps to leave the warm-up out)"
        return (
            f"{self.figure}: x{self.median:.2f} in the median of {count(self.cells, 'cell')}, half of them between "
            f"x{self.low:.2f} and x{self.high:.2f}{how}"
        )


def spreads(pairs: Iterable[Match]) -> list[Spread]:
    """The ratios of two recorded runs: seconds a token, phase by phase."""
    both = [(p.name, p.base.result, p.new.result) for p in pairs if p.base.ok and p.new.ok]
    results = [(name, base, new) for name, base, new in both if base is not None and new is not None]
    found = []
    for phase in PHASES:
        logs = [r for _, base, new in results if (r := log_ratio(base, new, f"{phase} {TOKEN}")) is not None]
        if not logs:
            continue
        quartiles = np.exp(np.quantile(logs, [0.25, 0.5, 0.75]))
        warm = all(timed(base.phases.get(phase)) for _, base, _ in results if phase in base.phases)
        error = float(np.std(logs, ddof=1)) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
        quantile = float(stats.t.ppf(1 - LEVEL, max(1, len(logs) - 1)))
        bound = math.exp(float(np.mean(logs)) - quantile * error)
        found.append(
            Spread(
                f"{phase} {TOKEN}",
                len(logs),
                float(quartiles[1]),
                float(quartiles[0]),
                float(quartiles[2]),
                bound,
                warm,
            )
        )
    return found


def as_json(one: Paced) -> dict[str, Any]:
    """For --json."""
    return {**vars(one), "ratios": list(one.ratios), "slower": one.slower}
