"""Cells that another library trained: beside ours of the same strategy, in no rank and no comparison."""

from __future__ import annotations

from typing import Any

from bench.report import format as show
from bench.report.collect import CellView, Run
from bench.report.tables import Column, Entry, Table, badges

MATCHED = (
    "Not matched: they take as many steps over the same examples as our own loop, with the learning rates of our "
    "schedule, and tokens, FLOPs and seconds are whatever the other library makes of that. They are here to check our "
    "loop, and stand in no rank, mean, headline or comparison."
)


def engine_table(run: Run) -> Table | None:
    """A row for every such cell, and before it ours of the same options where the run has one; None without any."""
    if not run.engines:
        return None
    columns = [
        Column("strategy", "engine", False),
        Column("task", "seed", False),
        Column("score", "95% interval"),
        Column("first loss"),
        Column("last loss"),
        Column("steps"),
        Column("examples"),
        Column("tokens"),
        Column("training", "in steps"),
        Column("outcome", "", False),
    ]
    rows = []
    for cell in run.engines:
        rows += [_row(own) for own in run.cells if _same(own, cell)]
        rows.append(_row(cell))
    return Table("Trained by another library", columns, rows, [MATCHED])


def _same(own: CellView, other: CellView) -> bool:
    """Whether two cells differ in their engine alone."""
    names = ("base_strategy", "task", "model", "seed", "readout", "budget")
    alike = all(getattr(own.info, name) == getattr(other.info, name) for name in names)
    options = {key: value for key, value in other.info.options.items() if key != "engine"}
    return alike and own.info.options == options


def _row(cell: CellView) -> list[Entry]:
    info, score, result = cell.info, cell.score, cell.result
    losses = result.training.losses if result is not None and result.training is not None else []
    used = result.used if result is not None else None
    return [
        Entry(info.strategy, info.engine or "own", info.strategy),
        Entry(info.task, f"seed {info.seed}", info.task),
        Entry("none", faint=True)
        if score is None
        else Entry(show.score(score.value), show.interval(score.low, score.high), score.value),
        _number(losses[0] if losses else None, show.score),
        _number(losses[-1] if losses else None, show.score),
        _number(len(losses) or None),
        _number(used.train_examples if used else None),
        _number(used.train_tokens if used else None),
        _number(used.train_seconds if used else None, show.seconds),
        Entry(badges=badges([cell]), sort=cell.status),
    ]


def _number(value: float | None, shown: Any = "{:,}".format) -> Entry:
    return Entry(show.ABSENT if value is None else shown(value), sort=value, faint=value is None)
