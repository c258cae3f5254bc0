"""What driving a cell asks of a process's allocator, in order: storages, tensors, autograd's graph."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

STORED, DROPPED, MADE, GONE, NODE, FIRST, STAGE = range(7)
"""Storage made and freed, tensor made and freed, node of autograd's graph made, operator called for the first time,
stage begun."""


class Trace:
    """Events as (code, key, bytes) one after the other; the key of a stage is its place in `stages`.

    Storages and tensors have keys of their own; the graph's nodes have none, they go when a pass is over.
    """

    def __init__(self, events: Iterable[int] = (), stages: Iterable[str] = ()) -> None:
        self.events = array("q", events)
        self.stages = list(stages)

    def add(self, code: int, key: int = 0, size: int = 0) -> None:
        """One more event."""
        self.events.extend((code, key, size))

    def stage(self, name: str) -> None:
        """A stage begins."""
        self.add(STAGE, len(self.stages))
        self.stages.append(name)

    def unstore(self, key: int) -> None:
        """A storage was never made: a sum lies where its first part lay."""
        at = len(self.events) - 3
        while (self.events[at], self.events[at + 1]) != (STORED, key):
            at -= 3
        del self.events[at : at + 3]

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        parts = iter(self.events)
        return zip(parts, parts, parts, strict=True)
