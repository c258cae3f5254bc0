"""One cell trained by several processes: the engine's loop in each of them, on its share of every batch.

All ranks draw the same batches and take the same decisions, from numbers they have agreed on. The loss of a step is the
mean over the whole batch (its rows, or what `Plan.weigh` counts of them), so a step is the one that a single process
would have taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import distributed

from bench.budget import Meter
from bench.config.schema import Budget
from bench.measure.steps import Moment
from bench.strategy import Plan, TaskContext
from bench.train.loop import Pass, Passed, Training, accumulate, cut, weight_of
from bench.train.sharding import Replicas, Shards

APART = 1_000_003
"""Between the seeds of two ranks: dropout must not fall alike on different rows. Rank 0 has the cell's own."""


class Ranks:
    """This process among those that train a cell. What they agree on are numbers of the host: no card speaks here."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def total(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all ranks."""
        return self._reduced(values, distributed.ReduceOp.SUM)

    def most(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over all ranks."""
        return self._reduced(values, distributed.ReduceOp.MAX)

    def _reduced(self, values: Sequence[float], how: Any) -> list[float]:
        numbers = torch.tensor(list(values), dtype=torch.float64)
        distributed.all_reduce(numbers, how)
        found: list[float] = numbers.tolist()
        return found

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """The mean of a scalar over all ranks, where it lies: a card waits for nobody."""
        value = value.clone()
        distributed.all_reduce(value)
        return value / self.size

    def told(self, mine: Any) -> list[Any]:
        """What every rank has to tell, in their order."""
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, mine)
        return found

    def share(self, rows: list[int]) -> list[int]:
        """Rows of a batch that are this rank's: every so many, for a batch may be sorted by length."""
        return rows[self.rank :: self.size]

    def most_rows(self, rows: list[int]) -> int:
        """Rows of the rank that has most."""
        return -(-len(rows) // self.size)


class RankMeter(Meter):
    """Counts what all ranks have done, the same numbers on each of them: every rank must take every step.

    Rows, tokens and FLOPs of a step are summed, its seconds are those of the slowest rank. What each rank does for
    itself, such as asking a reference beside the steps, is counted once.
    """

    def __init__(self, ranks: Ranks, budget: Budget | None, device: str, tick: Callable[[float], None] | None) -> None:
        super().__init__(budget, device, tick=tick)
        self.ranks = ranks
        self.left_out = [0, 0, 0]
        """Tokens, padded tokens and rows of the running step's idle passes."""

    @contextmanager
    def accumulating(self, examples: int, aside: bool = False) -> Iterator[Any]:
        """As any meter's; `examples` are those of all ranks."""
        tick, self.tick = self.tick, None
        before, spent = self.counts(), (self._flops, self._recomputed, self._seconds)
        try:
            with super().accumulating(examples, aside) as passed:
                yield passed
        finally:
            self.tick = tick
        self.agree(before, spent, aside)
        if tick is not None:
            tick(self.progress)

    def counts(self) -> tuple[int, int, int]:
        """Tokens, padded tokens and rows so far. Waits for the device."""
        return self.tokens, self.padded_tokens, self.rows

    def agree(self, before: tuple[int, int, int], spent: tuple[float, float, float], aside: bool) -> None:
        """Put the numbers of all ranks in place of this one's own for the step that is over; before it there were these
        counts, and spent these FLOPs, recomputed ones and seconds. Sums are made alike on every rank, to the last bit:
        whether the budget holds another step must not be answered in two ways."""
        now, step = self.counts(), self._taken[-1]
        grown = [a - b for a, b in zip(now, before, strict=True)]
        own = [a - b for a, b in zip(grown, self.left_out, strict=True)]
        self.left_out = [0, 0, 0]
        seconds, slow = self.ranks.most([step.seconds, float(not step.timed)])
        mine = [*map(float, own), step.flops, step.recomputed]
        tokens, padded, rows, flops, recomputed = mine if aside else self.ranks.total(mine)
        self._tokens_sum += round(tokens) - grown[0]
        self.padded_tokens, self.rows = before[1] + round(padded), before[2] + round(rows)
        self._flops, self._recomputed, self._seconds = spent[0] + flops, spent[1] + recomputed, spent[2] + seconds
        step.tokens, step.flops, step.recomputed = round(tokens), flops, recomputed
        step.seconds, step.timed = seconds, not slow

    @contextmanager
    def idle(self) -> Iterator[None]:
        """What the block forwards is no work of the cell's."""
        before = self.counts()
        yield
        self.left_out = [n + a - b for n, a, b in zip(self.left_out, self.counts(), before, strict=True)]

    def _now(self) -> Moment:
        """By the host's clock: ranks agree on the seconds of every step, so each waits for its card."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.device, device = "cpu", self.device
        try:
            return super()._now()
        finally:
            self.device = device


class RankTraining(Training):
    """A plan in training on this rank."""

    def __init__(
        self, plan: Plan, context: TaskContext, meter: Meter, *, ranks: Ranks, spread: Replicas | Shards
    ) -> None:
        assert isinstance(meter, RankMeter)
        super().__init__(plan, context, meter)
        self.ranks, self.spread, self.shared = ranks, spread, meter
        if isinstance(spread, Shards):
            self.optimizer.clip = partial(spread.clip, total=ranks.total)
        if ranks.rank:
            torch.manual_seed(context.seed + APART * ranks.rank)

    def passes(self, rows: list[int]) -> list[Pass]:
        """This rank's own."""
        parts = cut(self.ranks.share(rows), self.context.micro_batch)
        return [Pass.of(self.plan, self.examples, part) for part in parts if part]

    def rounds(self, rows: list[int]) -> int:
        """Passes that every rank makes: as many as the one with most rows, for each waits for the others in all."""
        most = self.ranks.most_rows(rows)
        return -(-most // (self.context.micro_batch or most))

    def cost(self, rows: list[int], passes: list[Pass]) -> float:
        """That of the whole step, the same number on every rank."""
        assert self.meter.budget is not None
        own = super().cost(rows, passes)
        return self.ranks.total([own])[0] if self.meter.budget.axis in ("train_tokens", "train_flops") else own

    def accumulate(self, passes: list[Pass], rows: list[int], passed: Passed) -> list[torch.Tensor]:
        """Gradients of the mean loss over the rows of all ranks; that loss."""
        parts, rounds, whole = [], self.rounds(rows), weight_of(self.plan, self.examples, rows)
        for i in range(rounds):
            with self.spread.passing(last=i + 1 == rounds):
                if i < len(passes):
                    parts += accumulate(self.plan, passes[i : i + 1], whole, passed)
                else:
                    self.stand_in(rows)
        self.spread.finish_gradients(self.ranks.mean)
        return [self.ranks.mean(torch.stack(parts).sum() if parts else self.nothing())]

    def stand_in(self, rows: list[int]) -> None:
        """A pass of no weight in place of one that this rank has no rows for."""
        assert self.plan.loss is not None
        one = Pass.of(self.plan, self.examples, rows[:1])
        with self.shared.idle():
            (self.plan.loss(one.batch, one.labels) * 0.0).backward()

    def nothing(self) -> torch.Tensor:
        """The part of a loss that no row gave."""
        return torch.zeros((), device=self.optimizer.params[0].device)

    def arrives(self) -> bool:
        """Whether any rank holds a gradient that is not zero."""
        return self.ranks.most([float(self.spread.holds_gradient(self.plan.groups[0].params))])[0] > 0
