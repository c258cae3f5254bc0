"""A strategy's options chosen by cross-validated likelihood within the labels of the budget."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.budget import Meter
from bench.config.schema import Budget
from bench.measure.allocators import release
from bench.records import Halt, Trial, Tuning
from bench.space import Space, described, draws
from bench.stats.halving import grid, halts, halving
from bench.strategy import Diverged, Options, TaskContext, Unsupported
from bench.tune.fit import Fit, Prepare
from bench.tune.folds import folds

Tell = Callable[[float], None]


class Tuner:
    """All configurations of a cell, each fitted on every fold. `files` is an empty folder for halted trainings."""

    def __init__(self, prepare: Prepare, context: TaskContext, options: Options, space: Space, files: Path) -> None:
        self.prepare, self.context, self.options, self.space, self.files = prepare, context, options, space, files
        self.fits: list[list[Fit]] = []
        self.failed: dict[int, str] = {}

    def choose(self, budget: Budget, device: str, tell: Tell) -> Tuning:
        """Draw `budget.trials` configurations, search them, and say which to take."""
        assert budget.trials is not None and budget.folds is not None and budget.search is not None
        default = {name: getattr(self.options, name) for name in self.space}
        values = draws(self.space, default, budget.trials, self.context.seed)
        parts = folds(self.context.train, budget.folds)
        for i, one in enumerate(values):
            options = self.options.model_copy(update=one)
            self.fits.append(
                [self.fit(options, part, Meter(budget, device), f"{i}-{k}") for k, part in enumerate(parts)]
            )
        search, asks = {"halving": halving, "grid": grid}[budget.search], rounds(len(values), budget.search)
        asked = 0

        def ask(i: int, share: float) -> float:
            nonlocal asked
            asked += 1
            tell(min(1.0, asked / asks))
            return self.likelihood(i, share)

        taken, seen = search(len(values), ask)
        return Tuning(
            search=budget.search,
            folds=budget.folds,
            items=len(self.context.train),
            space=described(self.space),
            trials=[self.trial(i, one, seen[i]) for i, one in enumerate(values)],
            chosen=taken,
            edges=[f"{n}: {end}" for n, one in self.space.items() if (end := one.edge(values[taken][n])) is not None],
            remark=None if len(values) == budget.trials else f"there are only {len(values)} configurations to try",
        )

    def fit(self, options: Options, part: tuple[Any, Any], meter: Meter, name: str) -> Fit:
        """One configuration on one fold."""
        trained_on, held = part
        context = replace(self.context, train=trained_on)
        return Fit(self.prepare, context, held, options, meter, self.files / name)

    def likelihood(self, i: int, share: float) -> float:
        """Mean over the held-out labels of all folds, nats; -inf once it failed on one of them."""
        if i in self.failed:
            return -math.inf
        values: list[float] = []
        for fit in self.fits[i]:
            try:
                values += fit.reach(share)
            except (Unsupported, Diverged) as error:
                self.failed[i] = str(error)
                return -math.inf
            finally:
                release(fit.meter.device)  # each fit loads a model
        return statistics.fmean(values)

    def trial(self, i: int, values: dict[str, Any], seen: list[Halt]) -> Trial:
        """As it is recorded."""
        meters = [meter for fit in self.fits[i] for meter in (fit.meter, fit.asked)]
        return Trial(
            values=values,
            halts=seen,
            failed=self.failed.get(i),
            seconds=sum(meter.seconds for meter in meters),
            flops=sum(meter.flops for meter in meters),
        )

    def spent(self, total: Meter) -> None:
        """Add what all fits used to `total`."""
        for fit in (fit for fits in self.fits for fit in fits):
            total.absorb(fit.meter)
            total.absorb(fit.asked)


def rounds(number: int, search: str) -> int:
    """How often some configuration is asked."""
    shares = halts(number)
    if search == "grid":
        return number * (len(shares) + 1)
    left, asks = number, 0
    for _ in shares:
        asks, left = asks + left, math.ceil(left / 2)
    return asks


def untunable(budget: Budget, context: TaskContext, space: Space) -> str | None:
    """Why the defaults are taken without a trial; None where trials are possible."""
    if not space:
        return "this strategy has nothing to tune"
    assert budget.folds is not None
    if len(context.train) < 2 * budget.folds:
        return f"not tuned: {len(context.train)} labels are too few for {budget.folds} folds; the defaults were taken"
    return None
