"""The one training loop. It knows plans and the meter, and no method by name."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from bench.budget import Meter
from bench.strategy import Diverged, Plan, TaskContext
from bench.train.order import batches

WARM_UP = 0.06
"""Share of the budget over which the learning rate rises linearly; it falls linearly to zero after (LoRA, 4.1)."""
CLIP = 1.0
"""Gradient norm above which gradients are scaled down."""


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
    assert plan.encode and plan.collate and plan.loss and plan.module is not None and meter.budget is not None
    encoded = plan.encode(context.train.fields)
    labels = torch.tensor(context.train.labels)
    optimizer = optimizer_of(plan)
    done = Trained(ended_by=meter.budget.axis, learning_rate=plan.groups[0].lr)
    plan.module.train()
    for rows in fitting(batches([e.length for e in encoded], context.batch, context.seed), meter):
        batch = plan.collate([encoded[i] for i in rows])
        cost = meter.cost(len(rows), batch.tokens + plan.virtual_tokens * batch.shape[0], batch.shape)
        if not meter.affords(cost):
            break
        middle = meter.share(meter.spent() + cost / 2)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(middle)
        with meter.step(batch.shape, len(rows)):
            loss = plan.loss(batch, labels[rows].to(context_device(plan)))
            done.losses.append(checked(loss.item(), len(done.losses)))
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for g in plan.groups for p in g.params], CLIP)
            optimizer.step()
            if plan.after_step is not None:
                plan.after_step(meter.share(meter.spent() + cost))
            optimizer.zero_grad(set_to_none=True)
    plan.module.eval()
    return done


def fitting(order: Iterator[list[int]], meter: Meter) -> Iterator[list[int]]:
    """Batches cut to what an example budget still allows; ends when nothing is left."""
    for rows in order:
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
