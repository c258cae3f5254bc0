"""What memory holds, by what it is for, at every operator: a log of allocations with their births and deaths."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.predict.heap import Heap

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
    block: int | None = None
    """Its stand-in on the heap, where one is kept."""


@dataclass(frozen=True)
class Peak:
    """The most bytes alive in a stretch of a rehearsal, and what for."""

    size: float
    parts: dict[str, float]


class Live(TorchDispatchMode):
    """Logs every storage that an operator makes, real or fake, until it is freed.

    A fake scalar that control flow asks for (a loss, a threshold) is answered with one, or with true. With a `heap`,
    every fake made after loading has a stand-in there.
    """

    def __init__(self, heap: Heap | None = None) -> None:
        super().__init__()
        self.heap = heap
        self.grown: dict[str, int] = {}
        """Stage -> the most the heap had grown in it."""
        self.clock = 0
        self.log: list[Allocation] = []
        self.open: dict[int, Allocation] = {}
        self.stages = [Stage("load", 0, 0)]
        self.events: list[tuple[int, int, int]] = []
        """(clock, number of the allocation, bytes; 0 where it was freed), in order."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.clock += 1
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return torch.ones((), dtype=args[0].dtype).item()
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.note(leaf)
        return out

    def note(self, tensor: torch.Tensor) -> Allocation:
        """The allocation under a tensor, logged if it is new."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        found = self.open.get(key)
        if found is None:
            found = self.open[key] = Allocation(self.clock, storage.nbytes(), self.stages[-1])
            if found.size:
                self.events.append((self.clock, len(self.log), found.size))
            found.number = len(self.log)
            self.log.append(found)
            if len(self.stages) > 1:
                self.lay(tensor, found)
                self.look()
            weakref.finalize(storage, self.freed, key)
        return found

    def lay(self, tensor: torch.Tensor, one: Allocation) -> None:
        """Give a fake its stand-in on the heap; a real tensor has its block."""
        if self.heap is not None and one.size and one.block is None and isinstance(tensor, FakeTensor):
            one.block = self.heap.allocate(one.size)

    def settle(self, tensors: Iterable[torch.Tensor]) -> None:
        """These lie on the heap, too."""
        for tensor in tensors:
            self.lay(tensor, self.note(tensor))

    def freed(self, key: int) -> None:
        """A storage is gone."""
        if (gone := self.open.pop(key, None)) is not None:
            gone.died = self.clock
            if gone.block is not None and self.heap is not None:
                self.heap.free(gone.block)
            if gone.size:
                self.events.append((self.clock, gone.number, 0))

    def look(self) -> None:
        """Note how far the heap has grown."""
        if self.heap is not None:
            name = self.stages[-1].name
            self.grown[name] = max(self.grown.get(name, 0), self.heap.grown())

    def claim(self, tensors: Iterable[Any], kind: str) -> None:
        """Say what tensors are for; a claim made earlier stands."""
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                found = self.note(tensor)
                found.kind = found.kind or kind

    @contextmanager
    def hosted(self, tensors: Iterable[torch.Tensor]) -> Iterator[None]:
        """These lie in the host's memory during the block: what is left of them then moves to the device."""
        held = {id(one): one for one in map(self.note, tensors)}
        del tensors  # they must be free to go
        yield
        for one in held.values():
            if one.died is None:
                one.born = self.clock
            else:
                one.size = 0
        gone = {one.number for one in held.values()}
        self.events = [event for event in self.events if event[1] not in gone]

    def stage(self, name: str) -> None:
        """Begin a stage; the one before ends."""
        if self.heap is not None and len(self.stages) == 1:
            self.heap.begin()
        self.stages[-1].ends = self.clock
        self.stages.append(Stage(name, self.clock, self.clock))

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """A stage for the block, and the one before again after it."""
        before = self.stages[-1].name
        self.stage(name)
        try:
            yield
        finally:
            self.stage(before)

    def peaks(self) -> dict[str, Peak]:
        """The peak of every stage, by name; of a backward pass, of each of its halves.

        Within a pass memory rises or falls from block to block, so its peak lies at one end: halves keep the ends
        apart, and each grows linearly with the number of blocks.
        """
        self.stages[-1].ends = self.clock
        timeline = Timeline.of(self.log, self.clock)
        found: dict[str, Peak] = {}
        for stage in self.stages:
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
