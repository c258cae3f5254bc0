"""A log of every storage while a cell is driven with fakes: when it was made and freed, and what it is for."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from bench.measure.flops import is_counting
from bench.predict.answers import Answers
from bench.predict.timeline import KINDS, Allocation, Peak, Spread, Stage, kind_of, peaks
from bench.predict.trace import DROPPED, FIRST, GONE, MADE, NODE, STORED, Trace
from bench.predict.twins import Twins


class Live(TorchDispatchMode):
    """Logs every storage that an operator makes, real or fake, until it is freed.

    A fake scalar that control flow asks for (a loss, a threshold) is answered with one, or with true. A `trace` is told
    what happens after loading, and of tensors and autograd's graph, too.
    """

    def __init__(self, trace: Trace | None = None) -> None:
        super().__init__()
        self.trace = trace
        self.clock = 0
        self.headers = 0
        """Tensors the trace was told of."""
        self.called: set[Any] = set()
        """Operators the trace was told of."""
        self.log: list[Allocation] = []
        self.open: dict[int, Allocation] = {}
        self.stages = [Stage("load", 0, 0)]
        self.twins, self.answers = Twins(), Answers()
        self.sum: tuple[Allocation, Allocation] | None = None
        """The first part of autograd's latest sum of gradients, and the sum."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:  # every other call; no operator
            return FakeTensor.__torch_dispatch__(func, types, args)
        self.clock += 1
        if func is torch.ops.aten._local_scalar_dense.default and isinstance(args[0], FakeTensor):
            return torch.ones((), dtype=args[0].dtype).item()
        out = self.answered(func, types, args, kwargs or {})
        for leaf in [out] if isinstance(out, torch.Tensor) else tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.note(leaf)
                self.head(leaf, args)
        if func not in self.called and (trace := self.begun()) is not None:
            self.called.add(func)
            trace.add(FIRST)
        if func is torch.ops.aten.add.Tensor and self.adds_in_place():
            self.sum = self.note(args[0]), self.note(out)
        return out

    def answered(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """What an operator gives. With a fake among its arguments that is a fake, and real ones have twins."""
        tensors = list(tensors_in((args, *kwargs.values())))
        trace = self.begun()
        if trace is not None and torch.is_grad_enabled() and any(one.requires_grad for one in tensors):
            trace.add(NODE)
        mode = next((one.fake_mode for one in tensors if isinstance(one, FakeTensor)), None)
        if mode is None:
            return func(*args, **kwargs)
        real: dict[int, torch.Tensor] = {}

        def fake(one: torch.Tensor) -> torch.Tensor:
            if type(one) not in (torch.Tensor, torch.nn.Parameter):
                return one
            twin = self.twins.of(one, mode)
            real[id(twin)] = one
            return twin

        if not all(isinstance(one, FakeTensor) for one in tensors):
            args, kwargs = tree_map_only(torch.Tensor, fake, (args, kwargs))
        out = self.answers.give(mode, func, types, args, kwargs)
        return real.get(id(out), out)  # itself, if it was changed in place

    def begun(self) -> Trace | None:
        """The trace, once loading is over."""
        return self.trace if len(self.stages) > 1 else None

    def head(self, tensor: torch.Tensor, args: Any) -> None:
        """Tell the trace of a tensor, unless it was there before."""
        if (trace := self.begun()) is not None and not any(tensor is arg for arg in args):
            self.headers += 1
            trace.add(MADE, self.headers)
            weakref.finalize(tensor, trace.add, GONE, self.headers)

    def note(self, tensor: torch.Tensor) -> Allocation:
        """The allocation under a tensor, logged if it is new."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        found = self.open.get(key)
        if found is None:
            found = self.open[key] = Allocation(self.clock, storage.nbytes(), self.stages[-1], number=len(self.log))
            self.log.append(found)
            if self.begun() is not None:
                self.lay(found)
            weakref.finalize(storage, self.freed, key)
        return found

    def lay(self, one: Allocation) -> None:
        """Tell the trace of a storage."""
        if self.trace is not None and one.size:
            self.trace.add(STORED, one.number, one.size)

    def settle(self, tensors: Iterable[torch.Tensor]) -> None:
        """The trace is to know of these, too, though they are there before it begins."""
        for one in {id(one): one for one in map(self.note, tensors)}.values():
            self.lay(one)

    def adds_in_place(self) -> bool:
        """Whether autograd is adding gradients up, and would do so in place if this mode were not: it never does while
        operators are counted."""
        return self.stages[-1].name.endswith("backward") and not torch.is_grad_enabled() and not is_counting()

    def freed(self, key: int) -> None:
        """A storage is gone."""
        if (gone := self.open.pop(key, None)) is None or self.taken_over(gone):
            return
        gone.died = self.clock
        if self.trace is not None and gone.size:
            self.trace.add(DROPPED, gone.number)

    def taken_over(self, gone: Allocation) -> bool:
        """Whether a sum lies where `gone`, its first part, lay: nothing held that part any longer."""
        old, new = self.sum or (None, None)
        if new is None or old is not gone or new.born != self.clock or new.size != old.size or new.died is not None:
            return False
        self.open[next(key for key, one in reversed(self.open.items()) if one is new)] = old
        if (trace := self.begun()) is not None and new.size:
            trace.unstore(new.number)
        self.sum, new.size = None, 0
        return True

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

    def stage(self, name: str) -> None:
        """Begin a stage; the one before ends."""
        self.stages[-1].ends = self.clock
        self.stages.append(Stage(name, self.clock, self.clock))
        if self.trace is not None:
            self.trace.stage(name)

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """A stage for the block, and the one before again after it."""
        before = self.stages[-1].name
        self.stage(name)
        try:
            yield
        finally:
            self.stage(before)

    def peaks(self, split: Spread | None = None) -> dict[str, Peak]:
        """The peak of every stage, by name; of a cell that runs no operator, what stands in memory throughout. With a
        `split`, of one of the processes it tells of."""
        self.stages[-1].ends = self.clock
        return peaks(self.log, self.stages, self.clock, split) or {self.stages[-1].name: self.standing()}

    def standing(self) -> Peak:
        """What is alive now."""
        alive = [one for one in self.log if one.died is None]
        parts = {kind: float(sum(one.size for one in alive if kind_of(one) == kind)) for kind in KINDS}
        return Peak(sum(parts.values()), parts)


def tensors_in(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors among an operator's arguments, and in lists of them."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from tensors_in(value)
