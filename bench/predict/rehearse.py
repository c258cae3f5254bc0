"""Drive a cell once, with fake weights: its own strategy, the engine's own loop, its own heaviest batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from bench.budget import Meter
from bench.config.schema import Budget
from bench.job import Job
from bench.measure.book import Book
from bench.measure.flops import counting
from bench.models.base import Base
from bench.models.catalog import parse
from bench.models.parts import count
from bench.outcomes import unsharded
from bench.predict.fakes import quantisation_states, stand_ins
from bench.predict.heaviest import head_weight, heaviest
from bench.predict.live import Live
from bench.predict.shards import Split
from bench.predict.timeline import UNCOUNTED, Peak
from bench.predict.trace import Trace
from bench.strategy import Examples, Plan, TaskContext, Unsupported
from bench.train.loop import Pass, adapt, cut
from bench.train.order import Order
from bench.worker import Cell

HEAVY = 2
"""Scoring batches that are driven: the heaviest ones."""


@dataclass
class Rehearsal:
    """What driving a cell showed."""

    peaks: dict[str, Peak] = field(default_factory=dict)
    """Stage -> peak."""
    trace: Trace | None = None
    """What was asked of the allocator until adapting was over; None where that is not asked."""
    grown: dict[str, float] = field(default_factory=dict)
    """Stage of adapting -> bytes by which a process's heap grows at most, once the trace was replayed."""
    weights: float = 0
    """Bytes of the model as it is loaded."""
    flops: float | None = None
    """FLOPs of adapting; None where the budget's axis leaves the number of steps open."""
    trainable: int = 0
    """Parameters an optimizer changes, or a solver."""
    calls: int = 0
    """Operators that were called: what rehearsing takes its time for."""

    def told(self) -> dict[str, Any]:
        """As JSON can tell it."""
        trace = self.trace and {"events": self.trace.events.tolist(), "stages": self.trace.stages}
        return {**vars(self), "peaks": {stage: vars(peak) for stage, peak in self.peaks.items()}, "trace": trace}

    @staticmethod
    def of(told: dict[str, Any]) -> Rehearsal:
        """From what `told` gave."""
        peaks = {stage: Peak(**peak) for stage, peak in told["peaks"].items()}
        trace = told["trace"] and Trace(**told["trace"])
        return Rehearsal(**{**told, "peaks": peaks, "trace": trace})


class HeavyMeter(Meter):
    """Picks the heaviest scoring batches only."""

    rehearses = True
    left_out = 1.0
    """Weights of all batches over those of the ones picked last."""
    beside = 0.0
    """FLOPs of work beside optimizer steps, batches that were left out included."""

    def chosen(self, batches: list[list[int]], weights: list[int]) -> list[list[int]]:
        order = sorted(range(len(batches)), key=lambda i: weights[i], reverse=True)
        self.left_out = sum(weights) / max(1, sum(weights[i] for i in order[:HEAVY]))
        return [batches[i] for i in order[:HEAVY]]

    @contextmanager
    def step(self, shape: tuple[Any, ...], examples: int, aside: bool = False) -> Iterator[None]:
        """As any meter's."""
        before = self.flops
        with super().step(shape, examples, aside):
            yield
        if aside:
            self.beside += (self.flops - before) * self.left_out


def rehearse(job: Job, base: Base, on_card: bool, traced: bool = False) -> Rehearsal:
    """Drive the cell of `job` on a base of fakes, with a trace where resident memory is asked for.

    Raises `Unsupported` where the cell itself would.
    """
    if job.cell.sharding is not None and (why := unsharded(job)) is not None:
        raise Unsupported(why)
    found = Rehearsal(trace=Trace() if traced else None)
    live = Live(found.trace)
    cell = Cell(job.model_copy(update={"cell": job.cell.model_copy(update={"device": "cpu"})}), lambda: base, untold)
    with stand_ins(live, on_card), live:
        weights = [*base.module.parameters(), *base.module.buffers()]
        live.claim(weights, "parameters")
        found.weights = float(sum(one.nbytes for one in weights))
        if cell.strategy.places_base and parse(job.model).form == "random":
            # drawn weights lie on the heap, where those that are quantised leave holes; a file's lie in its mapping
            live.settle(weights)
        context, rows = cell.opened(base)
        # a strategy that puts the base on the card itself never holds it whole there
        with live.hosted(weights if on_card and cell.strategy.places_base else ()):
            del weights
            live.stage("adapt prepare")
            plan = cell.prepared(base, context)
        if plan.drive is not None:
            raise RuntimeError("it trains in another library's loop, which is not rehearsed")
        claim_model(live, base, plan)
        split = None
        budget = Budget.model_validate(job.cell.budget)
        if plan.groups:
            split = Split.of(job.cell, plan)
            found.flops = trained(live, plan, context, budget, head_weight(job, base), job.cell.devices or 1)
        else:
            meter = HeavyMeter(budget)  # a search may write, and what it would write is not known
            adapt(plan, context, meter)
            found.flops = meter.flops
        live.stage("predict")
        live.trace = None
        plan.answer.predict(rows.test.fields, HeavyMeter())
    found.peaks, found.calls = live.peaks(split), live.clock
    found.trainable = count([p for g in plan.groups for p in g.params]) if plan.trained is None else plan.trained
    return found


def untold(_: str, __: float) -> None:
    """Nobody follows a rehearsal."""


def claim_model(live: Live, base: Base, plan: Plan) -> None:
    """Scales of 4-bit weights are quantisation state; everything else a module holds are parameters."""
    for module in filter(None, (base.module, plan.module)):
        live.claim(quantisation_states(module), "quantisation")
        live.claim([*module.parameters(), *module.buffers()], "parameters")
    live.claim([p for g in plan.groups for p in g.params], "parameters")


def trained(
    live: Live, plan: Plan, context: TaskContext, budget: Budget, head: float, devices: int = 1
) -> float | None:
    """One device's part of two rounds of the real loop over the heaviest batch of every group, one where no group gets
    a second batch; FLOPs of the whole budget, on all devices. `head`: as `head_weight` gives it."""
    assert plan.examples is not None
    examples = plan.examples()
    executed = list(expected(plan, examples, context, budget))
    if not executed:
        axis = budget.axis
        raise Unsupported(f"budget.{axis}={getattr(budget, axis):.10g} is too small for one step: raise budget.{axis}")
    heavy = [i for rows in heaviest(executed, examples, head) for i in rows[::devices]]
    context = replace(context, batch=-(-context.batch // devices))
    plan.examples, plan.told = lambda: taken(examples, heavy), None  # what is watched has no values here
    for group in plan.groups:
        group.lr, group.later = 0.0, ()  # a rate changes no shape, and weights with values must not diverge
    with staged(live, plan):
        groups = Counter(examples.encoded[rows[0]].group for rows in executed)
        meter = HeavyMeter(Budget(train_examples=min(2, max(groups.values())) * len(heavy)))
        adapt(plan, context, meter)
    if budget.axis in ("train_flops", "train_seconds") or plan.ready is not None:
        return budget.train_flops  # how long answers get that a policy draws is known when it has drawn them
    with live.during(UNCOUNTED):
        flops = flops_of(plan, examples, spread_over(devices, executed), context, meter.book) + meter.beside
        for group in plan.groups:
            for parameter in group.params:
                parameter.grad = None
    return flops


def expected(plan: Plan, examples: Examples, context: TaskContext, budget: Budget) -> Iterator[list[int]]:
    """The batches of the budget, in order; of an axis that leaves their number open, those of two rounds."""
    spent = 0.0
    tokens = budget.axis == "train_tokens"
    limit = {"train_examples": budget.train_examples, "train_tokens": budget.train_tokens}.get(budget.axis)
    limit = limit or 2 * len(examples.encoded)
    order = Order(examples.lengths, context.batch, context.seed, examples.groups, plan.enter is not None)
    wants = plan.wants or (lambda group, progress: True)
    while rows := order.draw(partial(lambda share, group: wants(group, share), spent / limit)):
        rows = rows if tokens else rows[: int(limit - spent)]
        cost = sum(examples.lengths[i] + plan.virtual_tokens for i in rows) if tokens else len(rows)
        if not rows or spent + cost > limit:
            return
        spent += cost
        yield rows


def spread_over(devices: int, executed: list[list[int]]) -> list[list[int]]:
    """The parts of batches that devices get; one that gets no row of a batch computes nothing."""
    return [part for rows in executed for first in range(devices) if (part := rows[first::devices])]


def taken(examples: Examples, rows: list[int]) -> Examples:
    """Some rows of the examples."""
    return Examples(
        [examples.encoded[i] for i in rows], [examples.labels[i] for i in rows], [examples.items[i] for i in rows]
    )


@contextmanager
def staged(live: Live, plan: Plan) -> Iterator[None]:
    """Tell `live` where forward, backward and the optimizer's step begin, and which bytes are whose."""
    assert plan.loss is not None
    inner = plan.loss

    def loss(batch: Any, labels: torch.Tensor) -> torch.Tensor:
        live.stage("adapt forward")
        value = inner(batch, labels)
        live.stage("adapt backward")
        return value

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        held = [p for group in optimizer.param_groups for p in group["params"]]
        live.claim([p.grad for group in plan.groups for p in group.params], "gradients")
        live.claim([p.grad for p in held], "gradients")
        live.claim(held, "optimizer")  # whole copies of 16-bit weights; the weights themselves are claimed already
        live.stage("adapt step")

    def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        live.claim([t for state in optimizer.state.values() for t in state.values()], "optimizer")

    hooks = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    plan.loss = loss
    try:
        yield
    finally:
        plan.loss = inner
        for hook in hooks:
            hook.remove()


def flops_of(plan: Plan, examples: Examples, executed: list[list[int]], context: TaskContext, book: Book) -> float:
    """FLOPs of the executed batches: some are counted, the others follow; `book` has those that were counted before."""
    assert plan.module is not None and plan.loss is not None
    plan.module.train()  # dropout decides which attention kernel runs
    passes = [rows for batch in executed for rows in cut(batch, context.micro_batch)]
    total = 0.0
    for rows in passes:
        one = Pass.of(plan, examples, rows)
        known = book.get(one.batch.shape)
        if known is None:
            with counting() as counted:
                plan.loss(one.batch, one.labels).backward()
            known = counted.once
            book.add(one.batch.shape, known)
        total += known.total
    return total
