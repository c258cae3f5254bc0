"""Two ways of doing the same work, timed in turn in one process: ratios with their spread."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.measure.environment import environment


def ratio(of: list[float]) -> dict[str, float]:
    """Median of paired ratios with a 95% percentile bootstrap interval over pairs; of one pair nothing but itself."""
    drawn = np.random.default_rng(0).choice(of, size=(10_000, len(of)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return {"ratio": statistics.median(of), "low": float(low), "high": float(high)}


@dataclass(frozen=True)
class Pair:
    """Seconds that the other way took divided by ours, round by round: above 1 we are faster."""

    ratios: list[float]
    """Of processor seconds: on a machine that others use too the fairer clock."""
    wall: list[float]
    """Of the clock on the wall."""

    def told(self) -> dict[str, Any]:
        """As JSON holds it."""
        return ratio(self.ratios) | {"rounds": self.ratios, "wall_ratio": statistics.median(self.wall)}


def of_children() -> float:
    """Processor seconds of all processes that this one started and that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def described() -> dict[str, Any]:
    """The machine by its processor, without its name."""
    told = environment(1)["machine"]
    return {"name": told["cpu"], "cores": told["cores"]}


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
