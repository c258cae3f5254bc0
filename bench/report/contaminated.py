"""What the contamination checks say of each strategy on a task, its seeds together."""

from __future__ import annotations

from collections import Counter

from bench.probed import Check, ContaminationFindings, Verdict
from bench.report import format as show
from bench.report.collect import CellView
from bench.report.tables import Column, Entry, Table

ORDER: tuple[Verdict, ...] = ("seen", "not seen", "no power", "not applicable")
BADGES: dict[Verdict, str] = {
    "seen": "error",
    "not seen": "ok",
    "no power": "unsupported",
    "not applicable": "not_run",
}
"""Verdict -> the outcome whose badge it wears."""
MEANS = {
    "seen": "its test items stand in what the cell trained on, or only having seen them explains how it answers",
    "not seen": "the check would have told a leak that matters, and saw none",
    "no power": "the check cannot tell here, so nothing follows: it is not an acquittal",
    "not applicable": "the check could not be made",
}


def findings(cells: list[CellView]) -> list[ContaminationFindings]:
    """The findings of the cells that have some."""
    return [r.contamination for c in cells if (r := c.probes.get("contamination")) and r.contamination is not None]


def contamination_table(task: str, by_strategy: dict[str, list[CellView]]) -> Table | None:
    """A row a strategy and check, the worst verdict first; None where nothing was asked."""
    rows = []
    for strategy, cells in by_strategy.items():
        found = findings(cells)
        names = dict.fromkeys(check.name for one in found for check in one.checks)
        for name in names:
            rows.append(_row(strategy, name, [c for one in found for c in one.checks if c.name == name]))
    if not rows:
        return None
    columns = [
        Column("strategy", "", False),
        Column("check", "", False),
        Column("verdict", "cells", False),
        Column("score", "as it is → changed"),
        Column("in words", "of the cell with the clearest finding", False),
    ]
    said = [f"“{verdict}”: {words}" for verdict, words in MEANS.items()]
    note = f"{'; '.join(said)}. p-values hold after Holm over the checks of a cell."
    return Table(f"Has it seen the test items of {task}?", columns, rows, [note])


def _row(strategy: str, name: str, checks: list[Check]) -> list[Entry]:
    counts = Counter(check.verdict for check in checks)
    worst = min(checks, key=lambda c: (ORDER.index(c.verdict), c.p if c.p is not None else 1.0))
    badges = tuple((BADGES[v], v if len(checks) == 1 else f"{v}: {counts[v]}") for v in ORDER if counts[v])
    moved = (
        ""
        if worst.plain is None or worst.changed is None
        else f"{show.score(worst.plain)} → {show.score(worst.changed)}"
    )
    return [
        Entry(strategy, sort=strategy),
        Entry(name, worst.kind or "", sort=name),
        Entry(badges=badges, sort=ORDER.index(worst.verdict)),
        Entry(moved or show.ABSENT, sort=worst.changed, faint=not moved),
        Entry(worst.says, sort=worst.says),
    ]


def verdict_sentence(task: str, by_strategy: dict[str, list[CellView]], power: str | None) -> str:
    """One sentence for a task: which strategies a check says have seen its test items, and what silence means.

    `power`: what the planted control says of the checks on this task; None where none was planted.
    """
    checked = {name: [c for one in findings(cells) for c in one.checks] for name, cells in by_strategy.items()}
    checked = {name: checks for name, checks in checked.items() if checks}
    if not checked:
        return "Contamination was not probed: probes=contamination asks for it."
    seen = {name: sorted({c.name for c in checks if c.verdict == "seen"}) for name, checks in checked.items()}
    if any(seen.values()):
        words = show.listed([f"{name} ({', '.join(checks)})" for name, checks in seen.items() if checks])
        return f"Test items of {task} were seen by {words}: do not believe these scores as they stand."
    told = [name for name, checks in checked.items() if any(c.verdict == "not seen" for c in checks)]
    if not told:
        return "No check has power here: nothing follows about contamination, neither good nor bad."
    silent = f"No check saw a leak in {show.listed(list(checked))}."
    return (
        f"{silent} {power}"
        if power
        else f"{silent} No leak was planted here, so how small a one would be seen is not known."
    )
