"""FLOPs of whatever runs inside a block, by operator shapes. A multiply and an add are two.

torch's counter knows matrix products, convolutions and the CUDA attention kernels; the CPU's fused attention is
missing there and gets the same formula (verified against the unfused kernel in the tests).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch._C import DispatchKey
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count, shape_wrapper

from bench.measure.lent import Cost


def cpu_attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Forward of `_scaled_dot_product_flash_attention_for_cpu`; arguments are shapes (batch, heads, length, dim)."""
    return sdpa_flop_count(query, key, value)


def cpu_attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Its backward, which recomputes the scores: 2.5 times the forward (Dao et al. 2022, section 3.1)."""
    return sdpa_backward_flop_count(grad, query, key, value)


def product_4bit(a: Any, packed: Any, shape: Any, *_: Any, **__: Any) -> int:
    """bitsandbytes' product of `a` (..., inputs) with 4-bit weights of `shape` (outputs, inputs), as of whole weights.

    Unpacking is no product and is not counted.
    """
    return 2 * math.prod(a) * int(shape[0])


def formulas() -> dict[Any, Callable[..., int]]:
    """Formulas for the operators torch's counter does not know."""
    aten = torch.ops.aten
    found: dict[Any, Callable[..., int]] = {
        aten._scaled_dot_product_flash_attention_for_cpu: cpu_attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: cpu_attention_backward,
    }
    if "bitsandbytes" in sys.modules:  # it defines them when it is imported
        names = ("gemm_4bit", "gemv_4bit")
        found |= {getattr(torch.ops.bitsandbytes, n): product_4bit for n in names if hasattr(torch.ops.bitsandbytes, n)}
    return found


class Book:
    """FLOPs by shape. The last entry of a shape is the padded length; the others name its family (rows, prefix...).

    Within a family FLOPs are a polynomial of second degree in the length (linear layers are linear in it, attention is
    quadratic, work on weights alone is constant), so three counted lengths give every other one exactly.
    """

    def __init__(self) -> None:
        self.counted: dict[tuple[Any, ...], dict[int, float]] = {}

    def add(self, shape: tuple[Any, ...], flops: float) -> None:
        """Note a counted shape."""
        self.counted.setdefault(shape[:-1], {})[shape[-1]] = flops

    def get(self, shape: tuple[Any, ...]) -> float | None:
        """FLOPs of a shape: counted, or by Lagrange's formula through three counted lengths; None: count it."""
        points, length = self.counted.get(shape[:-1], {}), shape[-1]
        if length in points:
            return points[length]
        if len(points) < 3:
            return None
        (a, fa), (b, fb), (c, fc) = list(points.items())[:3]
        return (
            fa * (length - b) * (length - c) / ((a - b) * (a - c))
            + fb * (length - a) * (length - c) / ((b - a) * (b - c))
            + fc * (length - a) * (length - b) / ((c - a) * (c - b))
        )

    def most(self, shape: tuple[Any, ...]) -> float | None:
        """FLOPs of a shape, or where it was not counted the least upper bound that counted ones of its kind give.

        No term falls with rows or length, none grows faster than linearly in rows or quadratically in length. None
        where nothing of its kind was counted.
        """
        known = self.get(shape)
        if known is not None:
            return known
        of, at = rows_of(shape)
        bounds = [
            flops * max(1.0, of / rows) * max(1.0, shape[-1] / length) ** 2
            for family, points in self.counted.items()
            for rows, kind in [rows_of((*family, 0))]
            if kind == at
            for length, flops in points.items()
        ]
        return min(bounds, default=None)


def rows_of(shape: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
    """Rows of a shape (its first number) and what is left of it without rows and length."""
    place = next(i for i, part in enumerate(shape) if isinstance(part, int))
    return shape[place], (*shape[:place], *shape[place + 1 : -1])


class Count:
    """FLOPs counted by `counting`."""

    flops: int = 0
    """Without what was computed a second time."""
    recomputed: int = 0
    """Of forward passes repeated for the backward pass (gradient checkpointing)."""


class Counter(TorchDispatchMode):
    """Adds up FLOPs by torch's formulas and ours.

    torch's own counter, whose formulas these are, also tells whose FLOPs they are: its hooks on modules keep what
    checkpointing computes again alive until the next garbage collection, so that counting would raise the peak it
    stands beside. And it looks for a decomposition at every call, which takes a sixth of a rehearsal's time.
    """

    supports_higher_order_operators = True
    """torch asks: else it raises at `torch.cond`, whose arguments are functions."""

    def __init__(self) -> None:
        super().__init__()
        self.formulas = flop_registry | {op: shape_wrapper(formula) for op, formula in formulas().items()}
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            return self.chosen(func, args)
        formula = self.formulas.get(func.overloadpacket)
        if formula is None and is_composite(func):  # what it is made of has formulas
            with self:
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        if formula is not None:
            self.total += formula(*args, **kwargs, out_val=out)
        return out

    def chosen(self, func: HigherOrderOperator, args: Any) -> Any:
        """What `torch.cond` gives, by the branch it takes; of other operators on functions nothing is known, and torch
        says so."""
        if func is not torch.ops.higher_order.cond:
            return NotImplemented
        condition, yes, no, operands = args
        with self:
            return (yes if condition else no)(*operands)


@cache
def is_composite(func: Any) -> bool:
    """Whether an operator is made of others, and arrives whole only in inference mode."""
    # prim's ask a tensor about itself; the dispatcher does not know them
    return func.namespace != "prim" and bool(func.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd))


_active: list[tuple[Counter, Count]] = []
"""The counters at work, the innermost last."""


def is_counting() -> bool:
    """Whether FLOPs are being counted."""
    return bool(_active)


@contextmanager
def counting() -> Iterator[Count]:
    """Count FLOPs of the block; a counted step costs about a fifth more, so few are."""
    count = Count()
    with Counter() as counter:
        _active.append((counter, count))
        try:
            yield count
        finally:
            _active.pop()
    count.flops = counter.total - count.recomputed


@contextmanager
def counting_part() -> Iterator[Count]:
    """Count FLOPs of the block, which may be part of one whose FLOPs are being counted: they stay part of those."""
    if not _active:
        with counting() as count:
            yield count
        return
    counter, part = _active[-1][0], Count()
    before = counter.total
    yield part
    part.flops = counter.total - before


@contextmanager
def recomputing() -> Iterator[None]:
    """What the block computes was computed before and is counted apart."""
    if not _active:
        yield
        return
    counter, count = _active[-1]
    before = counter.total
    try:
        yield
    finally:
        count.recomputed += counter.total - before


class Passes:
    """FLOPs of one step's passes: looked up by shape, or counted where that is new."""

    def __init__(self, book: Book, again: Book, lent: list[Cost]) -> None:
        """`lent` grows by what a pass is charged with and does not run."""
        self.book, self.again, self.lent, self.counted = book, again, lent, False
        self.flops = self.recomputed = 0.0

    @contextmanager
    def one(self, shape: tuple[Any, ...]) -> Iterator[None]:
        """The block is a pass of this shape."""
        known, repeated = self.book.get(shape), self.again.get(shape)
        if known is None or repeated is None:
            self.counted, before = True, len(self.lent)
            with counting() as count:
                yield
            known = float(count.flops + sum(cost.flops for cost in self.lent[before:]))
            repeated = float(count.recomputed)
            self.book.add(shape, known)
            self.again.add(shape, repeated)
        else:
            yield
        self.flops += known
        self.recomputed += repeated
