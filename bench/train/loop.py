"""The one training loop. It knows plans and the meter, and no method by name."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.budget import READ_EVERY, Meter
from bench.score.batch import sent
from bench.strategy import Diverged, Examples, Plan, TaskContext, Unsupported
from bench.train.optimizer import Optimizer
from bench.train.order import Order

NO_GRADIENT = (
    "no gradient reaches what it trains: in the first step every one was zero, so nothing would be learned; "
    "choose other parameters or another strategy"
)


@dataclass
class Trained:
    """How a plan's training went."""

    losses: list[float] = field(default_factory=list)
    ended_by: str | None = None
    learning_rate: float | None = None
    read: set[tuple[str, int]] = field(default_factory=set)
    """Labelled items trained on: task and row number."""
    told: dict[str, list[float]] = field(default_factory=dict)
    """What the method itself watched, one number a step of its stage."""
    entered: set[int] = field(default_factory=set)
    """Groups whose stage has begun."""


def adapt(plan: Plan, context: TaskContext, meter: Meter, kind: Kind | None = None) -> Trained:
    """Carry a plan out: search, train (by another `kind` of `Training`), or nothing to do. Raises `Unsupported` where
    the budget holds no step."""
    if plan.drive is not None:
        done = plan.drive(meter)
    elif plan.search is not None:
        done = Trained(ended_by=plan.search(meter))
    elif not plan.groups:
        return Trained(ended_by="nothing to train")
    else:
        done = train(plan, context, meter, kind)
    refuse_less_than_a_step(meter, done.ended_by)
    return done


def refuse_less_than_a_step(meter: Meter, ended_by: str | None) -> None:
    """Raise `Unsupported` where the axis ended the work before a step, or the first step's FLOPs, which nobody could
    foresee, passed the limit alone. Its seconds may: they are not known before either, and a machine's own.
    """
    limit = meter.limit
    if limit is None or meter.budget is None:
        return
    axis, spent, took = meter.budget.axis, meter.spent(), ""
    if not meter.steps:
        took = "none was taken" if ended_by == axis else ""
    elif axis != "train_seconds" and spent > limit * (1 + 1e-9):
        took = f"the work done took {spent:g}"
    if took:
        raise Unsupported(f"budget.{axis}={limit:g} is too small for one step ({took}): raise it or lower batch")


def train(plan: Plan, context: TaskContext, meter: Meter, kind: Kind | None = None) -> Trained:
    """Optimizer steps until the meter says the budget is spent. Raises `Diverged` on a loss that is not finite."""
    training = (kind or Training)(plan, context, meter)
    training.until(1.0)
    return training.done


class Training:
    """A plan in training. It can be halted at any share of its budget, asked, and go on as if nothing had been."""

    def __init__(self, plan: Plan, context: TaskContext, meter: Meter) -> None:
        assert plan.examples and meter.budget is not None
        self.plan, self.context, self.meter = plan, context, meter
        self.examples = plan.examples()
        self.optimizer = Optimizer(plan, foreach=context.foreach)
        self.done = Trained(ended_by=meter.budget.axis, learning_rate=plan.groups[0].lr)
        self.groups, apart = self.examples.groups, plan.enter is not None
        self.order = Order(self.examples.lengths, context.batch, context.seed, self.groups, apart)
        self.unread: list[list[torch.Tensor]] = []
        """Losses of the last steps, one a pass: they stay on the device until `read`."""

    def until(self, share: float) -> bool:
        """Train up to this share of the budget, schedules being those of all of it; whether the budget is spent.

        Raises `Diverged` on a loss that is not finite, at most `READ_EVERY` steps later, `Unsupported` where no
        gradient arrives.
        """
        assert self.plan.module is not None
        self.plan.module.train()
        try:
            spent = self.go(share)
        except Exception:
            with suppress(RuntimeError, MemoryError):  # what failed may have failed because a loss was not finite
                self.read()
            raise
        self.read()
        if spent:
            if self.plan.told is not None:
                self.done.told = self.plan.told()
            if self.plan.finish is not None:
                self.plan.finish()
        self.plan.module.eval()
        return spent

    def go(self, share: float) -> bool:
        """Steps up to this share of the budget; whether the budget is spent."""
        while share >= 1 or self.meter.progress < share:
            rows = self.next_rows()
            if not rows or not self.enters(rows) or not self.step(rows):
                return True
        return False

    def read(self) -> None:
        """Take in the losses of the last steps: waits for the device. Raises `Diverged` on one that is not finite."""
        unread, self.unread = self.unread, []
        values = iter(torch.stack([loss for one in unread for loss in one]).tolist() if unread else [])
        for one in unread:
            self.done.losses.append(checked(sum(next(values) for _ in one), len(self.done.losses)))

    def next_rows(self) -> list[int]:
        """The next batch the plan wants now, cut to what an example budget still allows; empty where none is left."""
        wants, progress = self.plan.wants, self.meter.progress
        rows = self.order.draw(lambda group: wants is None or wants(group, progress)) or []
        return rows[: max(0, self.meter.room(len(rows)))]

    def enters(self, rows: list[int]) -> bool:
        """Begin the stage of these rows' group, where that is its first, and make ready what a batch of it is read
        from; False where the budget does not hold it."""
        group, plan, entered = self.groups[rows[0]], self.plan, self.done.entered
        assert plan.module is not None
        held = True
        if plan.enter is not None and group not in entered:
            if entered:
                self.optimizer.restart()
            entered.add(group)
            held = plan.enter(group, self.meter)
        if held and plan.ready is not None:
            held = plan.ready(group, self.meter)
        plan.module.train()
        return held

    def step(self, rows: list[int]) -> bool:
        """One optimizer step over these rows; not taken, and False, where it would overshoot the budget."""
        plan, meter, done = self.plan, self.meter, self.done
        passes = self.passes(rows)
        cost = self.cost(rows, passes)
        if not meter.affords(cost):
            return False
        middle = meter.share(meter.spent() + cost / 2)
        with meter.accumulating(len(rows)) as passed:
            self.unread.append(self.accumulate(passes, rows, passed))
            first = not done.losses and len(self.unread) == 1
            if first and not self.arrives():
                raise Unsupported(NO_GRADIENT)
            self.optimizer.step(middle)
            if plan.after_step is not None:
                plan.after_step(meter.share(meter.spent() + cost))
            self.optimizer.zero_grad()
        done.read.update(self.examples.items[i] for i in rows)
        if self.examples.beside:
            done.read.update(item for i in rows for item in self.examples.beside[i])
        if len(self.unread) >= READ_EVERY:
            self.read()
        return True

    def passes(self, rows: list[int]) -> list[Pass]:
        """The forward and backward passes of a step over these rows."""
        return [Pass.of(self.plan, self.examples, part) for part in cut(rows, self.context.micro_batch)]

    def cost(self, rows: list[int], passes: list[Pass]) -> float:
        """What a step of these passes will use of the binding axis."""
        return self.meter.cost(len(rows), sum(p.tokens for p in passes), *(p.batch.shape for p in passes))

    def accumulate(self, passes: list[Pass], rows: list[int], passed: Passed) -> list[torch.Tensor]:
        """Gradients of the step's mean loss; that loss in parts."""
        return accumulate(self.plan, passes, weight_of(self.plan, self.examples, rows), passed)

    def arrives(self) -> bool:
        """Whether any gradient of the first group is not zero."""
        return any(p.grad is not None and bool(p.grad.any()) for p in self.plan.groups[0].params)


Kind = Callable[[Plan, TaskContext, Meter], Training]
"""What makes a `Training`."""
Passed = Callable[..., Any]
"""Shape -> the context in which a pass of that shape is counted."""


@dataclass
class Pass:
    """One forward and backward pass: a batch, its labels, the real tokens it will execute, its weight in the step."""

    batch: Any
    labels: torch.Tensor
    tokens: int
    weight: int

    @staticmethod
    def of(plan: Plan, examples: Examples, rows: list[int]) -> Pass:
        """Collate some rows."""
        assert plan.collate is not None
        batch = plan.collate([examples.encoded[i] for i in rows])
        labels = sent(torch.tensor([examples.labels[i] for i in rows]), context_device(plan))
        tokens = batch.tokens + plan.virtual_tokens * batch.rows
        return Pass(batch, labels, tokens, weight_of(plan, examples, rows))


def cut(rows: list[int], size: int | None) -> list[list[int]]:
    """A step's rows in parts of at most `size`."""
    return [rows] if size is None else [rows[i : i + size] for i in range(0, len(rows), size)]


def weight_of(plan: Plan, examples: Examples, rows: list[int]) -> int:
    """How many of what the loss is a mean over some rows hold."""
    return len(rows) if plan.weigh is None else sum(plan.weigh(examples.encoded[i]) for i in rows)


def accumulate(plan: Plan, passes: list[Pass], whole: int, passed: Passed) -> list[torch.Tensor]:
    """Gradients of the mean loss of a step that weighs `whole`, summed over its passes by their share of it; the parts
    of that loss, one a pass, on the device."""
    assert plan.loss is not None
    parts = []
    for one in passes:
        with passed(one.batch.shape):
            loss = plan.loss(one.batch, one.labels)
            if one.weight < whole:
                loss = loss * (one.weight / whole)
            if not loss.requires_grad:
                raise Unsupported(NO_GRADIENT)
            loss.backward()
            # a mean over nothing is no number; its gradients are zeros
            parts.append(loss.detach() if one.weight or not whole else torch.zeros_like(loss))
    return parts


def context_device(plan: Plan) -> torch.device:
    """Where the plan's parameters are."""
    return plan.groups[0].params[0].device


def checked(loss: float, step: int) -> float:
    """The loss, or `Diverged`."""
    if not math.isfinite(loss):
        raise Diverged(f"the loss was {loss} at step {step + 1}: lower the learning rate (strategies.<name>.lr)")
    return loss


def still_improving(losses: list[float]) -> bool | None:
    """Whether training loss was clearly falling when the budget ended.

    The mean of the last quarter of steps lies below the mean of the quarter before by more than twice the
    standard error of their difference and by more than 5%. None with fewer than 16 steps: nothing can be said.
    """
    quarter = len(losses) // 4
    if quarter < 4:
        return None
    before, last = losses[-2 * quarter : -quarter], losses[-quarter:]
    drop = statistics.mean(before) - statistics.mean(last)
    error = math.sqrt((statistics.variance(before) + statistics.variance(last)) / quarter)
    return drop > 2 * error and drop > 0.05 * abs(statistics.mean(before))
