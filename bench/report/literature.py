"""Claims of the literature beside what their cells were predicted to hold and held."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bench.claims import GB, Tested, examined, verdicts
from bench.config.schema import Claim
from bench.records import Result
from bench.report import format as show
from bench.report.collect import CellView
from bench.report.format import finite
from bench.report.tables import Column, Entry, Table

WIDTHS = {"fp32": 4, "fp16": 2, "bf16": 2}
"""Bytes of a loaded weight by precision."""
YES = {True: "yes", False: "no", None: "open"}


def literature(claims: Mapping[str, Claim], cells: Iterable[CellView]) -> Table | None:
    """A row for every claim whose cell was planned, and a sentence for every statement; None without claims."""
    views = {(cell.info.task, cell.info.strategy): cell for cell in cells}
    peaks = {key: None if view.result is None else view.result.predicted.peak_bytes for key, view in views.items()}
    found = examined(claims, peaks, {key: view.info for key, view in views.items()})
    if not found:
        return None
    columns = [
        Column("cell", "", False),
        Column("expected", "", False),
        Column("predicted", "bytes of tensors at the peak"),
        Column("measured", "see below"),
        Column("holds", "by the prediction", False),
        Column("computed with", "", False),
        Column("source", "", False),
    ]
    rows = [_row(one, views[one.claim.task, one.claim.strategy]) for one in found]
    notes = [f"{says}: {verdict}." for says, verdict in verdicts(found).items()]
    notes.append(
        "Measured on a card: the largest bytes torch allocated. On a CPU: the weights, and the resident set's growth "
        "while adapting, an allocator's holes included. GB are 10^9 bytes; a range holds within 8%."
    )
    return Table("Claims of the literature", columns, rows, notes)


def _row(one: Tested, view: CellView) -> list[Entry]:
    claim = one.claim
    held = None if view.result is None else measured(view.result)
    return [
        Entry(claim.task, claim.strategy, claim.task),
        Entry(one.expected, sort=one.expected),
        _gigabytes(one.peak, "not predicted"),
        _gigabytes(held, show.ABSENT if view.status == "ok" else view.status.replace("_", " ")),
        Entry(YES[one.holds], sort=YES[one.holds], faint=one.holds is None),
        Entry(one.unlike or claim.under, sort=one.unlike or claim.under),
        Entry(claim.source, sort=claim.source),
    ]


def measured(result: Result) -> float | None:
    """Bytes the cell held while adapting; None where that was not measured or the cell did not end well."""
    phase = result.phases.get("adapt")
    if phase is None or result.outcome.status != "ok":
        return None
    if result.cell.device == "cuda":
        return finite(phase.peak_allocated_bytes)
    high, before, sizes = finite(phase.peak_rss_bytes), finite(phase.baseline_rss_bytes), result.parameters
    if high is None or before is None or sizes is None:
        return None
    return high - before + (sizes.total - (sizes.created or 0)) * WIDTHS[result.cell.precision]


def _gigabytes(size: float | None, absent: str) -> Entry:
    return Entry(absent, faint=True) if size is None else Entry(f"{size / GB:.2f} GB", sort=size)
