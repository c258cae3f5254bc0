"""The meter: what a cell has spent, by watching the forwards of the models it is given.

It decides when the budget is spent (a step that would overshoot is not taken), gives `progress` in 0..1 to
every schedule, and counts FLOPs by shape. The same meter, without a limit, watches prediction.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from bench.config.schema import Budget
from bench.measure.book import Book
from bench.measure.flops import Passes
from bench.measure.lent import Cost
from bench.measure.steps import Moment, Step, Unread, on_card, seconds_between
from bench.records import Used

WARM_UP_STEPS = 2
"""Steps left out of the throughput: they pay for allocation and first-touch."""
RECENT_STEPS = 50
"""Steps whose median foretells the next one's seconds."""
READ_EVERY = 10
"""Steps after which losses, tokens and seconds are read from the device: whoever reads waits for all the work it was
given, and meanwhile gives it none."""


@dataclass
class Meter:
    """Counts examples, real and padded tokens, FLOPs and seconds of steps."""

    budget: Budget | None = None
    """None: nothing binds (prediction)."""
    device: str = "cpu"
    examples: int = 0
    padded_tokens: int = 0
    rows: int = 0
    """Rows forwarded: one an item, or one a label of it where words of several tokens cannot stand in one row."""
    halved: int = 0
    """Scoring batches that ran out of memory and were cut in two."""
    book: Book = field(default_factory=Book)
    """FLOPs by shape."""
    again: Book = field(default_factory=Book)
    """Recomputed FLOPs by shape."""
    tick: Callable[[float], None] | None = None
    """Called with the progress after every step, for the live table."""
    _taken: list[Step] = field(default_factory=list)
    _unread: list[Unread] = field(default_factory=list)
    _tokens: list[torch.Tensor] = field(default_factory=list)
    _tokens_sum: int = 0
    _tokens_late: int = 0
    """Tokens of finished steps that were read after them."""
    # running totals over `steps`: adding them up anew at every question would take longer with every step
    _flops: float = 0
    _recomputed: float = 0
    _seconds: float = 0.0
    _handles: list[Any] = field(default_factory=list)
    # of the running step: forwards that were lent, and seconds charged less those taken
    _lent: list[Cost] = field(default_factory=list)
    _ahead: float = 0.0

    def watch(self, modules: Iterable[nn.Module]) -> None:
        """Count tokens at every forward of these modules."""
        for module in modules:
            self._handles.append(module.register_forward_pre_hook(self._seen, with_kwargs=True))

    def unwatch(self) -> None:
        """Take the hooks off again."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _seen(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = kwargs.get("input_ids") if kwargs.get("input_ids") is not None else kwargs.get("inputs_embeds")
        if inputs is None:
            inputs = args[0]
        rows, length = inputs.shape[0], inputs.shape[1]
        self.padded_tokens += rows * length
        self.rows += rows
        mask = kwargs.get("attention_mask")
        if isinstance(mask, torch.Tensor) and mask.dim() == 4:
            mask = mask[:, 0, :, -length:].diagonal(dim1=-2, dim2=-1)  # a real token sees itself
        if isinstance(mask, torch.Tensor) and mask.dim() == 2:
            # summed on the device and read many steps later: no device sync of our own inside the forward
            self._tokens.append(mask[:, -length:].sum())
        else:
            self._tokens_sum += rows * length

    def lend(self, cost: Cost | None, spent: float) -> None:
        """Inside a step: `spent` seconds are no work of its own, and it is charged with a forward of this cost that was
        not run."""
        self._ahead -= spent
        if cost is None:
            return
        self._ahead += cost.seconds
        self._lent.append(cost)
        if self._handles:  # else the forward would not have been seen either
            self.padded_tokens += cost.padded_tokens
            self.rows += cost.rows
            self._tokens_sum += cost.tokens

    def read(self) -> None:
        """Learn what finished steps have left on the device: their tokens and, on a card, their seconds."""
        unread, self._unread = self._unread, []
        sums = [tokens for one in unread for tokens in one.tokens]
        counts = iter(torch.stack(sums).tolist() if sums else [])
        for one in unread:
            tokens = int(sum(next(counts) for _ in one.tokens))
            one.step.tokens += tokens
            self._tokens_late += tokens
            if one.events is not None:
                seconds = seconds_between(*one.events)
                one.step.seconds += seconds
                self._seconds += seconds

    def _gather(self) -> None:
        """Learn the tokens of forwards since the last step."""
        if self._tokens:
            self._tokens_sum += int(torch.stack(self._tokens).sum())
            self._tokens.clear()

    @property
    def steps(self) -> list[Step]:
        """All steps so far. Whoever asks waits for the device."""
        self.read()
        return self._taken

    @property
    def tokens(self) -> int:
        """Real tokens forwarded so far. Whoever asks waits for the device."""
        self.read()
        self._gather()
        return self._tokens_sum + self._tokens_late

    @property
    def flops(self) -> float:
        """FLOPs of all steps so far."""
        return self._flops

    @property
    def recomputed(self) -> float:
        """Recomputed FLOPs of all steps so far."""
        return self._recomputed

    @property
    def seconds(self) -> float:
        """Seconds inside steps so far. Whoever asks waits for the device."""
        self.read()
        return self._seconds

    @contextmanager
    def step(self, shape: tuple[Any, ...], examples: int, aside: bool = False) -> Iterator[None]:
        """One step or scoring batch over `examples` items; `shape` ends with rows, tokens read by the head and padded
        length (see `Book`).

        `aside`: it is not an optimizer step, though it is spent while training.

        Raises `RuntimeError` where no watched module was called: a budget of tokens would never be spent.
        """
        with self.accumulating(examples, aside) as passed, passed(shape):
            yield

    @contextmanager
    def accumulating(
        self, examples: int, aside: bool = False
    ) -> Iterator[Callable[[tuple[Any, ...]], AbstractContextManager[None]]]:
        """One step of several passes, each inside the context that the given function makes of its shape. Of one that
        does not finish nothing is counted.

        Raises `RuntimeError` as `step` does.
        """
        self._gather()
        self._lent, self._ahead = [], 0.0
        before, passes = (self._tokens_sum, self.rows, self.padded_tokens), Passes(self.book, self.again, self._lent)
        start = self._now()
        try:
            yield passes.one
        except BaseException:
            self._tokens.clear()
            self._tokens_sum, self.rows, self.padded_tokens = before
            raise
        end = self._now()
        if self._handles and self.rows == before[1]:
            raise RuntimeError(f"a step of {examples} examples went through no watched module: see Plan.seen")
        self.examples += examples
        slow = passes.counted or any(cost.counted for cost in self._lent)
        timed = not slow and not aside and len(self._taken) >= WARM_UP_STEPS
        step = Step(self._ahead, self._tokens_sum - before[0], passes.flops, passes.recomputed, timed, aside)
        self._note(step, start, end)
        self._flops += passes.flops
        self._recomputed += passes.recomputed
        if self.tick is not None:
            self.tick(self.progress)

    def _note(self, step: Step, start: Moment, end: Moment) -> None:
        """Keep a finished step; what is not known of it yet is read with others later."""
        events = None
        if isinstance(start, float) and isinstance(end, float):
            step.seconds += end - start
        else:
            assert not isinstance(start, float) and not isinstance(end, float)
            events = start, end
        self._seconds += step.seconds
        self._taken.append(step)
        if self._tokens or events is not None:
            self._unread.append(Unread(step, self._tokens, events))
            self._tokens = []
        if len(self._unread) >= READ_EVERY:
            self.read()

    def _now(self) -> Moment:
        """This moment by the host's clock, or an event in the card's stream: nobody waits for that. Where seconds bind
        each step's must be known before the next one is taken, so the host waits then."""
        if self.device != "cuda":
            return time.perf_counter()
        if self.budget is None or self.budget.axis != "train_seconds":
            return on_card()
        torch.cuda.synchronize()
        return time.perf_counter()

    @property
    def progress(self) -> float:
        """Share of the binding axis used, 0..1; 0 where nothing binds."""
        return self.share(self.spent())

    def share(self, spent: float) -> float:
        """`spent` on the binding axis as a share of its limit, at most 1."""
        limit = self.limit
        return 0.0 if limit is None else min(1.0, spent / limit)

    @property
    def limit(self) -> float | None:
        """The binding axis's limit."""
        return None if self.budget is None else float(getattr(self.budget, self.budget.axis))

    def spent(self) -> float:
        """What is used of the binding axis."""
        if self.budget is None:
            return 0.0
        return float(getattr(self, self.budget.axis.removeprefix("train_")))

    def cost(self, examples: int, tokens: int, *shapes: tuple[Any, ...]) -> float:
        """What the next step, of passes with these shapes, will use of the binding axis; FLOPs of a new shape at most,
        seconds as estimated from like steps."""
        assert self.budget is not None
        axis = self.budget.axis
        if axis == "train_examples":
            return float(examples)
        if axis == "train_tokens":
            return float(tokens)
        if axis == "train_flops":
            known = [flops for shape in shapes if (flops := self.book.most(shape)) is not None]
            if len(known) == len(shapes):
                return sum(known)
            return max((s.flops / max(1, s.tokens) for s in self.steps), default=0.0) * tokens
        last = [s for s in self.steps if not s.aside][-RECENT_STEPS:]
        recent = [s.seconds for s in last if s.timed] or [s.seconds for s in last]
        return statistics.median(recent) if recent else 0.0

    def affords(self, cost: float) -> bool:
        """Whether a step of this cost stays within the limit."""
        limit = self.limit
        return limit is None or self.spent() + cost <= limit * (1 + 1e-9)

    rehearses = False
    """Whether nothing has a value here: a rehearsal for memory asks for shapes only."""

    def chosen(self, batches: list[list[int]], weights: list[int]) -> list[list[int]]:
        """Which scoring batches are run: all. A rehearsal picks by `weights`, padded tokens of each."""
        return batches

    def room(self, examples: int) -> int:
        """How many of the next `examples` the axis still allows: the last batch is cut to fit an example budget."""
        if self.budget is None or self.budget.axis != "train_examples":
            return examples
        assert self.budget.train_examples is not None
        return min(examples, self.budget.train_examples - self.examples)

    def absorb(self, other: Meter) -> None:
        """Count all of another meter's steps as well."""
        self.examples += other.examples
        self.padded_tokens += other.padded_tokens
        self.rows += other.rows
        self.halved += other.halved
        self._tokens_sum += other.tokens
        self._flops += other.flops
        self._recomputed += other.recomputed
        self._seconds += other.seconds
        self._taken += other.steps

    def throughput(self) -> float | None:
        """Real tokens a second over the timed steps; None where there is none."""
        timed = [s for s in self.steps if s.timed]
        seconds = sum(s.seconds for s in timed)
        return sum(s.tokens for s in timed) / seconds if seconds > 0 else None

    def used(self, labels: int, ended_by: str | None, trains: bool) -> Used:
        """The record of what was used of every axis."""
        return Used(
            ended_by=ended_by,
            labels=labels,
            train_examples=self.examples,
            train_tokens=self.tokens,
            train_flops=self.flops,
            train_seconds=self.seconds,
            progress=self.progress if trains else None,
        )
