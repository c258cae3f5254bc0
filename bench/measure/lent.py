"""Work that a phase did not do because it had been done before: what it had cost, to be charged as if done here.

A process is in one phase at a time, so what is lent is told to that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Peaks = dict[str, int]
"""Field of `Phase` -> bytes."""


@dataclass(frozen=True)
class Cost:
    """What one forward cost when it ran."""

    seconds: float
    tokens: int
    """Real tokens."""
    padded_tokens: int
    rows: int
    flops: int
    attention: int
    """Of these the FLOPs of products of activations with activations."""
    counted: bool
    """Whether its FLOPs were being counted, which takes time of its own."""


@dataclass
class Lent:
    """What a phase was lent so far."""

    peaks: Callable[[], Peaks]
    """The phase's own peaks up to now."""
    steps: int = 0
    forwards: int = 0
    """Rows that were not forwarded."""
    seconds: float = 0.0
    """What these forwards took when they ran."""
    ahead: float = 0.0
    """Seconds charged to the phase less those it took."""
    highest: Peaks = field(default_factory=dict)
    """Peaks of the phases that lent, up to the forwards lent."""

    def take(self, cost: Cost, peaks: Peaks) -> None:
        """One forward was lent."""
        self.steps += 1
        self.forwards += cost.rows
        self.seconds += cost.seconds
        self.ahead += cost.seconds
        for name, value in peaks.items():
            self.highest[name] = max(value, self.highest.get(name, 0))


_running: list[Lent] = []


@contextmanager
def phase(peaks: Callable[[], Peaks]) -> Iterator[Lent]:
    """A phase begins and ends."""
    lent = Lent(peaks)
    _running.append(lent)
    try:
        yield lent
    finally:
        _running.remove(lent)


def now() -> Lent | None:
    """What the running phase was lent; None where none is measured."""
    return _running[-1] if _running else None
