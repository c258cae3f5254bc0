"""The one training loop. It knows plans and the meter, and no method by name."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from bench.budget import Meter
from bench.strategy import Diverged, Examples, Plan, TaskContext, Unsupported
from bench.train.optimizer import Optimizer
from bench.train.order import batches

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
    batch: int = 0
    """Rows of a whole step."""
    read: set[tuple[str, int]] = field(default_factory=set)
    """Labelled items trained on: task and row number."""


def adapt(plan: Plan, context: TaskContext, meter: Meter) -> Trained:
    """Carry a plan out: search, train, or nothing to do."""
    if plan.search is not None:
        return Trained(ended_by=plan.search(meter))
    if not plan.groups:
        return Trained(ended_by="nothing to train")
    return train(plan, context, meter)


def train(plan: Plan, context: TaskContext, meter: Meter) -> Trained:
    """Optimizer steps until the meter says the budget is spent. Raises `Diverged` on a loss that is not finite."""
    assert plan.examples and plan.module is not None and meter.budget is not None
    examples = plan.examples()
    optimizer = Optimizer(plan, foreach=context.foreach)
    done = Trained(ended_by=meter.budget.axis, learning_rate=plan.groups[0].lr, batch=context.batch)
    plan.module.train()
    for rows in fitting(plan, examples, context, meter):
        passes = [Pass.of(plan, examples, part) for part in cut(rows, context.micro_batch)]
        cost = meter.cost(len(rows), sum(p.tokens for p in passes), *(p.batch.shape for p in passes))
        if not meter.affords(cost):
            break
        middle = meter.share(meter.spent() + cost / 2)
        with meter.accumulating(len(rows)) as passed:
            done.losses.append(accumulate(plan, passes, len(rows), passed, len(done.losses)))
            if len(done.losses) == 1 and not any(p.grad is not None and p.grad.any() for p in plan.groups[0].params):
                raise Unsupported(NO_GRADIENT)
            optimizer.step(middle)
            if plan.after_step is not None:
                plan.after_step(meter.share(meter.spent() + cost))
            optimizer.zero_grad()
        done.read.update(examples.items[i] for i in rows)
    if plan.finish is not None:
        plan.finish()
    plan.module.eval()
    one_step_at_least(done, meter)
    return done


def one_step_at_least(done: Trained, meter: Meter) -> None:
    """Raise `Unsupported` where the budget does not hold a single step: nothing was learned, or more was spent."""
    assert meter.budget is not None and meter.limit is not None
    if not done.losses:
        takes = "none was taken, because it would have overshot"
    elif len(done.losses) == 1 and meter.spent() > meter.limit * (1 + 1e-9):
        takes = f"the first one took {meter.spent():.4g}"
    else:
        return
    axis = meter.budget.axis
    raise Unsupported(
        f"budget.{axis}={meter.limit:.10g} is too small for one step of batch {done.batch}: {takes}; raise it or lower "
        "batch"
    )


@dataclass
class Pass:
    """One forward and backward pass: a batch, its labels and the real tokens it will execute."""

    batch: Any
    labels: torch.Tensor
    tokens: int

    @staticmethod
    def of(plan: Plan, examples: Examples, rows: list[int]) -> Pass:
        """Collate some rows."""
        assert plan.collate is not None
        batch = plan.collate([examples.encoded[i] for i in rows])
        labels = torch.tensor([examples.labels[i] for i in rows], device=context_device(plan))
        return Pass(batch, labels, batch.tokens + plan.virtual_tokens * batch.shape[0])


def cut(rows: list[int], size: int | None) -> list[list[int]]:
    """A step's rows in parts of at most `size`."""
    return [rows] if size is None else [rows[i : i + size] for i in range(0, len(rows), size)]


def accumulate(plan: Plan, passes: list[Pass], rows: int, passed: Callable[..., Any], step: int) -> float:
    """Gradients of a step's mean loss, summed over its passes by their share of the rows; the mean loss."""
    assert plan.loss is not None
    total = 0.0
    for one in passes:
        with passed(one.batch.shape):
            loss = plan.loss(one.batch, one.labels) * (len(one.labels) / rows)
            if not loss.requires_grad:
                raise Unsupported(NO_GRADIENT)
            total += checked(loss.item(), step)
            loss.backward()
    return total


def fitting(plan: Plan, examples: Examples, context: TaskContext, meter: Meter) -> Iterator[list[int]]:
    """Batches the plan wants now, cut to what an example budget still allows; ends when nothing is left."""
    groups = examples.groups
    for rows in batches(examples.lengths, context.batch, context.seed, groups):
        if plan.wants is not None and not plan.wants(groups[rows[0]], meter.progress):
            continue
        room = meter.room(len(rows))
        if room <= 0:
            return
        yield rows[:room]


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
