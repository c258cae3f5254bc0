"""The longer tables at the end of the page: comparisons, failures, budgets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bench.probed import ProbeRecord
from bench.records import Result, Status, Used
from bench.report import format as show
from bench.report.collect import STATUS_WORDS, CellView
from bench.report.compare import Pair
from bench.report.summary import Board, peak_memory
from bench.report.tables import Column, Entry, Table, outcome


def pair_tables(board: Board, pairs: list[Pair]) -> list[Table]:
    """Comparisons on the mean and on each task."""
    tables = []
    for task in dict.fromkeys(pair.task for pair in pairs):
        chosen = [pair for pair in pairs if pair.task == task]
        measure = board.mean_name if task is None else f"{task}, {board.metrics[task]}"
        columns = [Column("first", "", False), Column("second", "", False), Column("difference", "first − second")]
        counted = any(pair.only for pair in chosen)
        if counted:
            columns.append(Column("only one is right", "first, second"))
        columns += [
            Column("training runs"),
            Column("p"),
            Column("p adjusted", "Benjamini–Hochberg"),
            Column("verdict", "", False),
        ]
        tables.append(Table(f"{measure}: {board.title}", columns, [_pair_row(pair, counted) for pair in chosen]))
    return tables


def _pair_row(pair: Pair, counted: bool) -> list[Entry]:
    only = (
        [Entry("{}, {}".format(*pair.only), sort=sum(pair.only)) if pair.only else Entry("–", faint=True)]
        if counted
        else []
    )
    return [
        Entry(pair.first, sort=pair.first),
        Entry(pair.second, sort=pair.second),
        Entry(f"{pair.difference:+.3f}", sort=pair.difference),
        *only,
        Entry(str(pair.seeds) if pair.seeds else "none needed", sort=pair.seeds),
        Entry(show.p_value(pair.p), sort=pair.p),
        Entry(show.p_value(pair.adjusted), sort=pair.adjusted),
        Entry(pair.verdict(), sort=pair.verdict(), faint=not pair.differs),
    ]


def failures(cells: list[CellView]) -> Table | None:
    """Every cell and probe that is not ok, with its full reason; None where there is none."""
    rows = [_failure(cell) for cell in cells if cell.status not in ("ok", "not_run")]
    rows += [_unanswered(cell, record) for cell in cells for record in cell.probes.values() if not answered(record)]
    if not rows:
        return None
    columns = [
        Column("cell", "", False),
        Column("strategy", "", False),
        Column("task", "", False),
        Column("seed"),
        Column("outcome", "", False),
        Column("reason", "", False),
    ]
    return Table("Cells without a score and probes without an answer, and why", columns, rows)


def answered(record: ProbeRecord) -> bool:
    """Whether a probe found something."""
    return record.outcome.status is Status.ok


def _named(cell: CellView, what: str = "") -> list[Entry]:
    planted = f"planted {cell.info.plant}×" if cell.info.plant else ""
    return [
        Entry(cell.info.id, cell.info.model, cell.info.id),
        Entry(cell.info.strategy, " ".join(filter(None, [planted, what])), cell.info.strategy),
        Entry(cell.info.task, sort=cell.info.task),
        Entry(str(cell.info.seed), sort=cell.info.seed),
    ]


def _failure(cell: CellView) -> list[Entry]:
    reason = cell.reason or "no reason was recorded"
    return [*_named(cell), outcome([cell]), Entry(reason, sort=reason)]


def _unanswered(cell: CellView, record: ProbeRecord) -> list[Entry]:
    status, reason = record.outcome.status.value, record.outcome.reason or "no reason was recorded"
    badge = Entry(badges=((status, STATUS_WORDS[status]),), sort=status)
    return [*_named(cell, f"probe {record.probe}"), badge, Entry(reason, sort=reason)]


def remarks(result: Result) -> str:
    """A record's notes, how many of its answers hang on rounding, and how often scoring ran out of memory."""
    ties = [f"{show.count(result.near_ties, 'near-tie')}."] if result.near_ties else []
    cut = result.phases["predict"].halved if "predict" in result.phases else None
    halves = [f"{show.count(cut, 'scoring batch')} ran out of memory and went on in halves."] if cut else []
    return " ".join([*result.notes, *ties, *halves])


def others(labels: int) -> str:
    """Labels of other tasks in small print, where there were any."""
    return f"+ {labels:,} of other tasks" if labels else ""


def ended(cells: list[CellView]) -> Table:
    """What ended each recorded cell and what it used of every axis and cap, with the limits that were set."""
    columns = [
        Column("cell", "", False),
        Column("ended by", "", False),
        Column("labels"),
        Column("examples"),
        Column("tokens"),
        Column("FLOPs"),
        Column("seconds", "in steps"),
        Column("memory", "largest peak"),
        Column("truncated", "inputs"),
        Column("remarks", "", False),
    ]
    rows = []
    for cell in cells:
        if cell.result is None:
            continue
        cut = cell.result.data.truncated
        rows.append(
            [
                Entry(cell.info.id, sort=cell.info.id),
                ended_by(cell),
                *spent(cell.result),
                Entry(show.ABSENT if cut is None else f"{cut:,}", sort=cut, faint=cut is None),
                Entry(remarks(cell.result), sort=remarks(cell.result)),
            ]
        )
    return Table("What ended each cell and what it used of the budget", columns, rows)


def ended_by(cell: CellView) -> Entry:
    """The limit that ended a cell, or the outcome where none did."""
    used = cell.result.used if cell.result else None
    words = (used.ended_by if used else None) or (STATUS_WORDS[cell.status] if cell.status != "ok" else show.ABSENT)
    return Entry(words, sort=words)


def spent(result: Result) -> list[Entry]:
    """What a cell used of labels, examples, tokens, FLOPs, seconds and memory."""
    used, limits = result.used or Used(labels=None, train_examples=None, train_tokens=None, train_seconds=None), {}
    for key, value in result.cell.budget.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            limits[key] = float(value)
    words: dict[str, Callable[[float], str]] = {
        "labels": lambda n: f"{n:,.0f}",
        "train_examples": lambda n: f"{n:,.0f}",
        "train_tokens": show.large,
        "train_flops": show.large,
        "train_seconds": show.seconds,
    }
    entries = [_amount(getattr(used, key), limits.get(key), said) for key, said in words.items()]
    entries[0] = replace(entries[0], sub=" ".join(filter(None, [entries[0].sub, others(used.source_labels)])))
    peak, cap = peak_memory([result]), limits.get("memory_gib")
    limit = None if cap is None else cap * show.GIB
    return [*entries, _amount(None if peak is None else peak.size, limit, show.gib)]


def _amount(value: float | None, limit: float | None, said: Callable[[float], str]) -> Entry:
    known = show.finite(value)
    of = "" if limit is None else f"of {said(limit)}"
    return Entry(show.ABSENT if known is None else said(known), of, known, faint=known is None)
