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
from bench.train.order import batches

WARM_UP = 0.06
"""Share of the budget over which the learning rate rises linearly; it falls linearly to zero after (LoRA, 4.1)."""
CLIP = 1.0
"""Gradient norm above which gradients are scaled down."""
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


def schedule(progress: float) -> float:
    """Factor on the learning rate at this share of the budget: linear warm-up, then linear decay to zero."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return max(0.0, (1.0 - progress) / (1.0 - WARM_UP))


def adapt(plan: Plan, context: TaskContext, meter: Meter) -> Trained:
    """Carry a plan out: search, train, or nothing to do."""
    if plan.search is not None:
        return Trained(ended_by=plan.search(meter))
    if not plan.groups:
        return Trained(ended_by="nothing to train")
    return train(plan, context, meter)


def optimizer_of(plan: Plan) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) over the plan's groups, each remembering its peak rate.

    A paged one's state moves to the host when the card is full (Dettmers et al. 2023, section 3).
    """
    groups = [{"params": g.params, "lr": g.lr, "peak": g.lr, "weight_decay": g.weight_decay} for g in plan.groups]
    if plan.paged:
        from bitsandbytes.optim import PagedAdamW32bit

        paged: torch.optim.Optimizer = PagedAdamW32bit(groups)
        return paged
    return torch.optim.AdamW(groups)


def train(plan: Plan, context: TaskContext, meter: Meter) -> Trained:
    """Optimizer steps until the meter says the budget is spent. Raises `Diverged` on a loss that is not finite."""
    assert plan.examples and plan.module is not None and meter.budget is not None
    examples = plan.examples()
    optimizer = optimizer_of(plan)
    done = Trained(ended_by=meter.budget.axis, learning_rate=plan.groups[0].lr)
    plan.module.train()
    for rows in fitting(plan, examples, context, meter):
        passes = [Pass.of(plan, examples, part) for part in cut(rows, context.micro_batch)]
        cost = meter.cost(len(rows), sum(p.tokens for p in passes), *(p.batch.shape for p in passes))
        if not meter.affords(cost):
            break
        middle = meter.share(meter.spent() + cost / 2)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(middle)
        with meter.accumulating(len(rows)) as passed:
            done.losses.append(accumulate(plan, passes, len(rows), passed, len(done.losses)))
            norm = torch.nn.utils.clip_grad_norm_([p for g in plan.groups for p in g.params], CLIP)
            if len(done.losses) == 1 and float(norm) == 0.0:
                raise Unsupported(NO_GRADIENT)
            optimizer.step()
            if plan.after_step is not None:
                plan.after_step(meter.share(meter.spent() + cost))
            optimizer.zero_grad(set_to_none=True)
    plan.module.eval()
    return done


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
