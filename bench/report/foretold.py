"""Predicted beside measured memory and FLOPs: how far a prediction can be trusted, from the records themselves."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from bench.records import PredictedPhase, Result
from bench.report import format as show
from bench.report.collect import CellView
from bench.report.format import finite
from bench.report.tables import Column, Entry, Table

ALLOCATED, RESIDENT, TENSORS = "CUDA allocated", "resident", "tensors"
"""What is compared: bytes torch allocated on a card; growth of the resident set beside what it was predicted to grow;
or that growth beside the bytes of tensors that come on top of the weights, which leave an allocator's holes out."""
PHASE = "adapt"


@dataclass(frozen=True)
class Compared:
    """One cell's prediction beside its measurement; bytes and FLOPs."""

    kind: str
    predicted: float
    measured: float
    predicted_flops: float | None
    counted_flops: float | None

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1

    @property
    def flops_error(self) -> float | None:
        """As `error`; None where either is missing."""
        if self.predicted_flops is None or not self.counted_flops:
            return None
        return self.predicted_flops / self.counted_flops - 1


def foretold(cells: list[CellView]) -> Table | None:
    """One row a model, task and strategy: its cell with the worst error. None where no record holds a prediction."""
    groups: dict[tuple[str, str, str], list[Compared]] = {}
    for cell in cells:
        if cell.result is not None and (one := compared(cell.result)) is not None:
            groups.setdefault((cell.info.model, cell.info.task, cell.info.strategy), []).append(one)
    if not groups:
        return None
    columns = [
        Column("strategy", "", False),
        Column("task", "", False),
        Column("model", "", False),
        Column("predicted", "memory of adapting"),
        Column("measured"),
        Column("error", "largest"),
        Column("FLOPs predicted", "training"),
        Column("FLOPs counted"),
        Column("error", "FLOPs"),
    ]
    rows = [_row(names, found) for names, found in groups.items()]
    return Table("Predicted beside measured memory", columns, rows, notes(groups.values()))


def compared(result: Result) -> Compared | None:
    """The adapt phase of one record; None where it was not predicted, not measured or not finished."""
    phase, known = result.phases.get(PHASE), result.predicted.phases.get(PHASE)
    if phase is None or known is None or result.outcome.status != "ok":
        return None
    if result.cell.device == "cuda":
        kind, predicted, measured = ALLOCATED, float(known.peak_bytes), finite(phase.peak_allocated_bytes)
    else:
        kind, predicted = grown(known)
        high, before = finite(phase.peak_rss_bytes), finite(phase.baseline_rss_bytes)
        measured = None if high is None or before is None else high - before
    if not measured or measured <= 0:
        return None
    counted = finite(result.used.train_flops) if result.used else None
    return Compared(kind, predicted, measured, finite(result.predicted.flops), counted)


def grown(known: PredictedPhase) -> tuple[str, float]:
    """By how much the resident set is predicted to grow in a phase, and what that figure holds."""
    if known.resident_bytes is not None:
        return RESIDENT, float(known.resident_bytes)
    return TENSORS, float(known.peak_bytes - known.parts.get("parameters", 0))


def notes(groups: Iterable[list[Compared]]) -> list[str]:
    """Median and worst error over all cells, and what was compared, in sentences."""
    every = [one for group in groups for one in group]
    said = []
    for kind in (ALLOCATED, RESIDENT, TENSORS):
        errors = sorted((one.error for one in every if one.kind == kind), key=abs)
        if errors:
            apart = max(abs(one.predicted - one.measured) for one in every if one.kind == kind)
            said.append(
                f"Memory ({kind}), {show.count(len(errors), 'cell')}: median error "
                f"{_percent(statistics.median(map(abs, errors)), False)}, worst {_percent(errors[-1])}; at most "
                f"{show.stored(apart)} apart."
            )
    flops = sorted((one.flops_error for one in every if one.flops_error is not None), key=abs)
    if flops:
        middle = _percent(statistics.median(map(abs, flops)), False)
        said.append(f"FLOPs, {show.count(len(flops), 'cell')}: median error {middle}, worst {_percent(flops[-1])}.")
    meanings = {
        ALLOCATED: "On a card the largest bytes torch allocated while adapting are compared.",
        RESIDENT: "On a CPU the predicted growth of the resident set while adapting stands beside the measured one.",
        TENSORS: (
            "Where only tensors were predicted, those on top of the weights stand beside the growth of the resident "
            "set, which also holds an allocator's holes and libraries loaded late: of small models mostly these."
        ),
    }
    return said + [meaning for kind, meaning in meanings.items() if any(one.kind == kind for one in every)]


def _row(names: tuple[str, str, str], found: list[Compared]) -> list[Entry]:
    model, task, strategy = names
    worst = max(found, key=lambda one: abs(one.error))
    flops = worst.flops_error
    several = f"of {len(found)} cells" if len(found) > 1 else ""
    return [
        Entry(strategy, sort=strategy),
        Entry(task, sort=task),
        Entry(model, sort=model),
        Entry(show.stored(worst.predicted), worst.kind, worst.predicted),
        Entry(show.stored(worst.measured), sort=worst.measured),
        Entry(_percent(worst.error), several, abs(worst.error)),
        Entry(show.large(worst.predicted_flops), sort=worst.predicted_flops, faint=worst.predicted_flops is None),
        Entry(show.large(worst.counted_flops), sort=worst.counted_flops, faint=worst.counted_flops is None),
        _error(flops),
    ]


def _error(share: float | None) -> Entry:
    if share is None:
        return Entry(show.ABSENT, faint=True)
    return Entry(_percent(share), sort=abs(share))


def _percent(share: float, signed: bool = True) -> str:
    return f"{share:+.1%}" if signed and abs(share) >= 0.0005 else f"{abs(share):.1%}"
