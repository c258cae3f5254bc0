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

from bench.measure.book import Book, Flops
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


class Count:
    """FLOPs counted by `counting`."""

    flops: int = 0
    """Without what was computed a second time."""
    attention: int = 0
    """Of these the products of activations with activations, the only ones that may grow with a length's square."""
    recomputed: int = 0
    """Of forward passes repeated for the backward pass (gradient checkpointing)."""
    attention_again: int = 0
    """Of the recomputed those of products of activations with activations."""

    @property
    def once(self) -> Flops:
        """What was not computed a second time."""
        return Flops(self.flops, self.attention)


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
        self.total = self.attention = 0

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
            flops = formula(*args, **kwargs, out_val=out)
            self.total += flops
            if is_attention(func):
                self.attention += flops
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
def is_attention(func: Any) -> bool:
    """Whether an operator may be a product of activations with activations: fused attention, or a product in batches,
    of which the unfused one is made."""
    name = func.overloadpacket.__name__
    return name in ("bmm", "baddbmm") or "attention" in name


@cache
def is_composite(func: Any) -> bool:
    """Whether an operator is nothing but others, and arrives whole only in inference mode.

    One that can be made of others and has a kernel of its own, such as SiLU's backward pass, is left to that: else a
    counted step would have other last digits, and other temporaries, than one that is not counted.
    """
    if func.namespace == "prim":  # these ask a tensor about itself; the dispatcher does not know them
        return False
    has: Callable[[DispatchKey], bool] = func.has_kernel_for_dispatch_key
    return has(DispatchKey.CompositeImplicitAutograd) and not (has(DispatchKey.CPU) or has(DispatchKey.CUDA))


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
    count.attention = counter.attention - count.attention_again


@contextmanager
def counting_part() -> Iterator[Count]:
    """Count FLOPs of the block, which may be part of one whose FLOPs are being counted: they stay part of those."""
    if not _active:
        with counting() as count:
            yield count
        return
    counter, part = _active[-1][0], Count()
    total, attention = counter.total, counter.attention
    yield part
    part.flops, part.attention = counter.total - total, counter.attention - attention


@contextmanager
def recomputing() -> Iterator[None]:
    """What the block computes was computed before and is counted apart."""
    if not _active:
        yield
        return
    counter, count = _active[-1]
    total, attention = counter.total, counter.attention
    try:
        yield
    finally:
        count.recomputed += counter.total - total
        count.attention_again += counter.attention - attention


class Passes:
    """FLOPs of one step's passes: looked up by shape, or counted where that is new."""

    def __init__(self, book: Book, again: Book, lent: list[Cost]) -> None:
        """`lent` grows by what a pass is charged with and does not run."""
        self.book, self.again, self.lent, self.counted = book, again, lent, False
        self.flops = self.recomputed = 0

    @contextmanager
    def one(self, shape: tuple[Any, ...]) -> Iterator[None]:
        """The block is a pass of this shape."""
        known, repeated = self.book.get(shape), self.again.get(shape)
        if known is None or repeated is None:
            self.counted, before = True, len(self.lent)
            with counting() as count:
                yield
            lent = self.lent[before:]
            total = count.flops + sum(cost.flops for cost in lent)
            known = Flops(total, count.attention + sum(cost.attention for cost in lent))
            repeated = Flops(count.recomputed, count.attention_again)
            self.book.add(shape, known)
            self.again.add(shape, repeated)
        else:
            yield
        self.flops += known.total
        self.recomputed += repeated.total
