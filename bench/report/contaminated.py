"""What the contamination checks say of each strategy on a task, its seeds together."""

from __future__ import annotations

from collections import Counter

from bench.probed import Check, ContaminationFindings, Verdict
from bench.report import format as show
from bench.report.collect import CellView
from bench.report.tables import Column, Entry, Table
from bench.stats.intervals import wilson

POOL = "overlap: pool"
"""The check that looks in all rows that training could have drawn."""
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


def orders_table(task: str, by_strategy: dict[str, list[CellView]]) -> Table | None:
    """Accuracy in every cyclic order of the options, with its interval; None where no options were moved."""
    rows = []
    for strategy, cells in by_strategy.items():
        for found in findings(cells)[:1]:
            moved = {
                name.removeprefix(ORDERS): right for name, right in found.correct.items() if name.startswith(ORDERS)
            }
            for name, right in {"0": found.correct["plain"], **moved}.items() if moved else ():
                ends = wilson(sum(right), len(right))
                by = "as they stand" if name == "0" else f"moved by {name}"
                rows.append(
                    [
                        Entry(strategy, sort=strategy),
                        Entry(by, sort=name),
                        Entry(show.score(sum(right) / len(right)), show.interval(ends.low, ends.high), sum(right)),
                        Entry(str(len(right)), sort=len(right)),
                    ]
                )
    if not rows:
        return None
    columns = [Column("strategy", "", False), Column("options", "", False), Column("accuracy", "95%"), Column("items")]
    note = (
        "The same questions with their options moved round: a model that knows the answers scores the same in every "
        "order, one that has learnt letters scores best in the order it saw, and one that always says one letter "
        "scores that letter's share."
    )
    return Table(f"{task} in every order of its options", columns, rows, [note])


ORDERS = "option order #"
"""How the answers of each order are named in a probe's record."""


def verdict_sentence(task: str, by_strategy: dict[str, list[CellView]], power: str | None) -> str:
    """What the checks say of a task: who has seen its test items, and what it means where none says so.

    `power`: what the planted control says of the checks on this task; None where none was planted.
    """
    checks = {name: [c for one in findings(cells) for c in one.checks] for name, cells in by_strategy.items()}
    checks = {name: found for name, found in checks.items() if found}
    if not checks:
        return "Contamination was not probed: probes=contamination asks for it."
    seen = {n: sorted({c.name for c in found if c.verdict == "seen" and c.name != POOL}) for n, found in checks.items()}
    if any(seen.values()):
        words = show.listed([f"{name} ({', '.join(found)})" for name, found in seen.items() if found])
        said = [f"Test items of {task} were seen by {words}: do not believe these scores as they stand."]
    else:
        said = _silent(checks, power)
    pools = [c for found in checks.values() for c in found if c.name == POOL and c.verdict == "seen"]
    if pools:
        share = max(c.statistic or 0.0 for c in pools)
        said.append(f"The pool that training rows are drawn from holds {share:.1%} of the test items.")
    return " ".join(said)


def _silent(checks: dict[str, list[Check]], power: str | None) -> list[str]:
    """Where no check sees a leak: which of them would have told, and that the rest say nothing."""

    def told(name: str, overlap: bool) -> bool:
        return any(c.verdict == "not seen" and (c.family == "overlap") is overlap for c in checks[name])

    said = []
    if clean := [name for name in checks if told(name, overlap=True)]:
        said.append(f"No test item stands in what {show.listed(clean)} read.")
    if tested := [name for name in checks if told(name, overlap=False)]:
        said.append(f"Tests of behaviour that would have told a leak that matters saw none in {show.listed(tested)}.")
    if blind := [name for name in checks if name not in tested]:
        said.append(f"Of {show.listed(blind)} behaviour tells nothing, neither good nor bad: no power.")
    if power is None:
        said.append("No leak was planted here: how small a one would be seen is not known.")
    return said
