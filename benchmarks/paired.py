"""Two ways of doing the same work, timed in turn in one process: ratios with their spread."""

from __future__ import annotations

import math
import random
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DRAWS = 2000
"""Resamples of an interval."""


@dataclass(frozen=True)
class Pair:
    """Seconds that the other way took divided by ours, round by round: above 1 we are faster."""

    ratios: list[float]
    """Of processor seconds: on a machine that others use too the fairer clock."""
    wall: list[float]
    """Of the clock on the wall."""

    @property
    def median(self) -> float:
        """Median ratio."""
        return statistics.median(self.ratios)

    def interval(self) -> tuple[float, float]:
        """95% percentile bootstrap of the geometric mean over rounds; of one round nothing but itself."""
        rng, logs = random.Random(0), [math.log(ratio) for ratio in self.ratios]
        means = sorted(statistics.fmean(rng.choices(logs, k=len(logs))) for _ in range(DRAWS))
        return math.exp(means[int(0.025 * DRAWS)]), math.exp(means[int(0.975 * DRAWS) - 1])

    def told(self) -> dict[str, Any]:
        """As JSON holds it."""
        low, high = self.interval()
        return {
            "ratio": round(self.median, 3), "low": round(low, 3), "high": round(high, 3),
            "rounds": [round(ratio, 3) for ratio in self.ratios],
            "wall_ratio": round(statistics.median(self.wall), 3),
        }  # fmt: skip


def of_children() -> float:
    """Processor seconds of all processes that this one started and that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def in_turn(
    ours: Callable[[], Any], theirs: Callable[[], Any], rounds: int, clock: Callable[[], float] = time.process_time
) -> Pair:
    """In the order A B, B A, A B ...: a machine that slowly gets busier hurts both alike. Both should be warm."""
    cpu, wall = [], []
    for number in range(rounds):
        order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        took = {}
        for way in order:
            before = clock(), time.perf_counter()
            way()
            took[way] = clock() - before[0], time.perf_counter() - before[1]
        cpu.append(took[theirs][0] / took[ours][0])
        wall.append(took[theirs][1] / took[ours][1])
    return Pair(cpu, wall)
