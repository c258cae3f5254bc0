"""Labels that a judge made: its agreement with people, and what a score says then."""

from __future__ import annotations

from collections.abc import Iterable

from bench.records import Agreement, Judged
from bench.report import format as show
from bench.report.collect import CellView
from bench.report.tables import Column, Entry, Table

SHARE = "Share: rows in which the judge prefers the answer that people prefer, with Wilson's interval."
KAPPA = (
    "Kappa (Cohen 1960) is the share beyond what both sides' habits give by chance, with a percentile bootstrap over "
    "rows: 1 is always the same answer, 0 no more than chance. It is of places as the file shows them: where a file "
    "always shows the judge's choice first, it is 0 whatever they agree on."
)
AGAINST = {
    "people": "Trained on the judge's labels, scored against people's.",
    "judge": "Trained on the judge's labels and scored against them: a score is agreement with the judge, not quality.",
}


def judges(cells: Iterable[CellView]) -> list[Table]:
    """A table for every task whose labels a judge made."""
    found: dict[str, Judged] = {}
    for cell in cells:
        if cell.result is not None and cell.result.data.judged is not None:
            found.setdefault(cell.info.task, cell.result.data.judged)
    return [judge_table(task, one) for task, one in found.items()]


def judge_table(task: str, one: Judged) -> Table:
    """Agreement over all rows, then by principle."""
    columns = [
        Column("judged by the principle", "", False),
        Column("rows", "with both labels"),
        Column("the same answer", "share, 95% interval"),
        Column("kappa", "95% interval"),
    ]
    left = f" {show.count(one.left_out, 'test row')} without a person's label left out." if one.left_out else ""
    notes = [f"Judge: {one.by or 'not named'}; {one.rows:,} rows. {AGAINST[one.scored_against]}{left}"]
    if not one.agreements:
        notes.append("No row has a person's label: how far the judge can be trusted is not measured.")
    return Table(f"{task}: judge and people", columns, [_row(row) for row in one.agreements], [*notes, SHARE, KAPPA])


def _row(one: Agreement) -> list[Entry]:
    name = "all" if one.principle is None else one.principle
    return [
        Entry(name, sort=name),
        Entry(f"{one.n:,}", sort=one.n),
        Entry(show.score(one.share), show.interval(one.low, one.high), one.share),
        Entry("none", faint=True)
        if one.kappa is None
        else Entry(show.score(one.kappa), show.interval(one.kappa_low, one.kappa_high), one.kappa),
    ]
