"""How many bytes were alive after every operator, and what for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

KINDS = ("parameters", "gradients", "optimizer", "activations", "temporaries", "kv_cache", "quantisation")
"""What bytes are for. Activations were made in a forward pass and needed after it; a temporary is anything else."""

UNCOUNTED = "uncounted"
"""Name of stages that are no part of the cell."""


@dataclass
class Stage:
    """A stretch of operators under one name."""

    name: str
    begins: int
    ends: int


@dataclass
class Allocation:
    """One storage."""

    born: int
    """Operators dispatched before it was made."""
    size: int
    """Bytes."""
    stage: Stage
    """The stage it was made in."""
    kind: str | None = None
    """What it is for, where something has claimed it."""
    number: int = 0
    """Its place in the log."""
    died: int | None = None
    """Operators dispatched before it was freed; None: still there."""


@dataclass(frozen=True)
class Peak:
    """The most bytes alive in a stretch of a rehearsal, and what for."""

    size: float
    parts: dict[str, float]


class Spread(Protocol):
    """How the bytes of a rehearsal are spread over processes (`bench.predict.shards`)."""

    def applied(self, timeline: Timeline, stages: list[Stage]) -> Timeline:
        """The bytes of one process."""
        ...


def peaks(log: list[Allocation], stages: list[Stage], clock: int, split: Spread | None = None) -> dict[str, Peak]:
    """The peak of every stage, by name; of a backward pass, of each of its halves. With a `split`, what one of several
    processes holds.

    Within a pass memory rises or falls from block to block, so its peak lies at one end: halves keep the ends
    apart, and each grows linearly with the number of blocks.
    """
    timeline = Timeline.of(log, clock)
    if split is not None:
        timeline = split.applied(timeline, stages)
    found: dict[str, Peak] = {}
    for stage in stages:
        if stage.name == UNCOUNTED:
            continue
        for name, begins, ends in halves(stage):
            peak = timeline.peak(begins, ends)
            if peak is not None and (name not in found or peak.size > found[name].size):
                found[name] = peak
    return found


def halves(stage: Stage) -> list[tuple[str, int, int]]:
    """A stage, or both halves of a backward pass."""
    if not stage.name.endswith("backward"):
        return [(stage.name, stage.begins, stage.ends)]
    middle = (stage.begins + stage.ends) // 2
    return [(f"{stage.name} 1", stage.begins, middle), (f"{stage.name} 2", middle, stage.ends)]


def kind_of(one: Allocation) -> str:
    """What an allocation was for: as claimed, else by when it was made and freed."""
    if one.kind is not None:
        return one.kind
    outlived = one.died is None or one.died > one.stage.ends
    return "activations" if one.stage.name.endswith("forward") and outlived else "temporaries"


@dataclass
class Timeline:
    """Bytes alive after each operator, by kind: float64 array (kinds, operators + 1)."""

    alive: np.ndarray
    total: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.total = self.alive.sum(0)

    @staticmethod
    def of(log: list[Allocation], clock: int) -> Timeline:
        """Sum births and deaths up."""
        changes = np.zeros((len(KINDS), clock + 2))
        for one in log:
            row = KINDS.index(kind_of(one))
            changes[row, one.born] += one.size
            if one.died is not None:
                changes[row, one.died + 1] -= one.size
        return Timeline(changes.cumsum(1))

    def peak(self, begins: int, ends: int) -> Peak | None:
        """The peak over operators `begins` (exclusive) to `ends`; None for an empty stretch."""
        if ends <= begins:
            return None
        at = begins + 1 + int(self.total[begins + 1 : ends + 1].argmax())
        return Peak(float(self.total[at]), {kind: float(self.alive[i, at]) for i, kind in enumerate(KINDS)})
