"""A planted leak: training on the very items a cell is scored on, as the positive control of contamination checks."""

from __future__ import annotations

from dataclasses import replace

from bench.budget import Meter
from bench.config.schema import Budget
from bench.data.rows import Rows
from bench.strategy import Plan, TaskContext, Unsupported
from bench.train.loop import Training


def planting_budget(rows: Rows, dose: int) -> Budget:
    """What planting spends: every row `dose` times, outside the cell's own budget."""
    return Budget(labels=len(rows), train_examples=dose * len(rows))


def plant(plan: Plan, context: TaskContext, rows: Rows, meter: Meter) -> None:
    """Train `plan` on `rows` until `meter` says it is spent, as it trains on its own, and before it does.

    Schedules run over the planting alone and then anew; what a method does between steps or at its end waits for its
    own training. Raises `Unsupported` for a plan that is not trained by gradients.
    """
    if plan.reread is None:
        raise Unsupported("it cannot be planted: only what is trained by gradients on encoded rows can")
    examples = plan.reread(rows)
    planting = replace(plan, examples=lambda: examples, after_step=None, finish=None, wants=None)
    Training(planting, context, meter).until(1.0)
