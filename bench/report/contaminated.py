"""What the contamination checks say of each strategy on a task, its seeds together."""

from __future__ import annotations

from collections import Counter

from bench.probed import SHORT, Check, ContaminationFindings, Verdict
from bench.records import Status
from bench.report import format as show
from bench.report.collect import CellView
from bench.report.tables import Column, Entry, Table
from bench.stats.intervals import wilson
from bench.stats.metrics import SMALLEST, too_few

FEW = 0.01
"""Share of test items found in what was trained on below which they are named and the scores may stand."""
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
    few = [
        f"Fewer than {SMALLEST['accuracy']} items are too few for intervals that hold as they say: take them as wider."
    ]
    short = any(too_few(int(row[3].sort or 0), "accuracy") for row in rows)
    return Table(f"{task} in every order of its options", columns, rows, [note, *(few if short else [])])


ORDERS, MOVED = "option order #", "perturbation: option order"
"""How the answers of each order, and the check over all of them, are named in a probe's record."""


def verdict_sentence(task: str, by_strategy: dict[str, list[CellView]], power: str | None) -> str:
    """What the checks say of a task: who has seen its test items, and what it means where none says so.

    `power`: what the planted control says of the checks on this task; None where none was planted.
    """
    checks = {name: [c for one in findings(cells) for c in one.checks] for name, cells in by_strategy.items()}
    checks = {name: found for name, found in checks.items() if found}
    if not checks:
        reasons = failed_probes(by_strategy, "contamination")
        if reasons:
            return f"No cell could be checked for contamination: {reasons[0]}"
        return "Contamination was not probed: probes=contamination asks for it."
    seen = [f"{name} ({', '.join(words)})" for name, found in checks.items() if (words := _sights(found))]
    if seen:
        most = _most(checks)
        what = "do not believe these scores as they stand"
        if most is not None and most < FEW:
            what = f"so few can move an accuracy by {most:.1%} of its items at most"
        said = [f"Test items of {task} were seen by {show.listed(seen)}: {what}."]
    else:
        said = _silent(checks, power)
    pools = [c for found in checks.values() for c in found if c.name == POOL and c.verdict == "seen"]
    if pools:
        share = max(c.statistic or 0.0 for c in pools)
        said.append(f"The pool that training rows are drawn from holds {share:.1%} of the test items.")
    return " ".join(said)


def _most(checks: dict[str, list[Check]]) -> float | None:
    """The largest share of test items that was found, where nothing but overlap sees any; else None."""
    hits = [c for of in checks.values() for c in of if c.verdict == "seen" and c.name != POOL]
    return None if any(c.family != "overlap" for c in hits) else max(c.statistic or 0.0 for c in hits)


def _sights(checks: list[Check]) -> list[str]:
    """`membership in 2 of 3 cells`, with the share of items where texts were found."""
    words = []
    for name in dict.fromkeys(c.name for c in checks if c.name != POOL):
        of = [c for c in checks if c.name == name]
        hits = [c for c in of if c.verdict == "seen"]
        if hits:
            most = max(c.statistic or 0.0 for c in hits)
            share = f" with {most:.1%} of the items" if hits[0].family == "overlap" else ""
            words.append(f"{name} in {len(hits)} of {show.count(len(of), 'cell')}{share}")
    return words


def failed_probes(by_strategy: dict[str, list[CellView]], probe: str) -> list[str]:
    """Why probes of this name have no findings, strategy by strategy."""
    return [
        f"{strategy}: {record.outcome.reason or record.outcome.status}"
        for strategy, cells in by_strategy.items()
        for cell in cells
        if (record := cell.probes.get(probe)) is not None and record.outcome.status is not Status.ok
    ]


def _all(checks: list[Check], family: str, verdict: Verdict) -> bool:
    """Whether there are checks of a family, the pool's aside, and all have this verdict."""
    of = [c for c in checks if c.family == family and c.name != POOL]
    return bool(of) and all(c.verdict == verdict for c in of)


def _silent(checks: dict[str, list[Check]], power: str | None) -> list[str]:
    """Where no check sees a leak: which of them would have told, and that the rest say nothing."""

    # a drop under a perturbation has missed whole leaks (docs/belief.md): its silence acquits nobody
    said = []
    if clean := [name for name in checks if _all(checks[name], "overlap", "not seen")]:
        short = any(c.figures.get(SHORT) for name in clean for c in checks[name])
        said.append(
            f"No test item{' of four words or more' if short else ''} stands in what {show.listed(clean)} read."
        )
    if brief := [name for name in checks if _all(checks[name], "overlap", "no power")]:
        said.append(f"Overlap tells nothing of {show.listed(brief)}: the test items are too short.")
    if tested := [name for name in checks if _all(checks[name], "membership", "not seen")]:
        said.append(f"Membership would have told a leak that matters in {show.listed(tested)} and saw none.")
    asked = [name for name, of in checks.items() if any(c.family == "membership" for c in of)]
    untrained = [name for name, of in checks.items() if _all(of, "membership", "not applicable")]
    if untrained:
        said.append(f"Membership does not apply to {show.listed(untrained)}: nothing was trained or held back.")
    if blind := [name for name in asked if name not in (*tested, *untrained)]:
        said.append(f"Of {show.listed(blind)} membership tells nothing, neither good nor bad: no power.")
    if unasked := [name for name in checks if name not in asked]:
        said.append(f"Membership was not asked of {show.listed(unasked)}.")
    for name, of in checks.items():
        if moved := [c for c in of if c.name == MOVED]:
            said.append(f"{name}, its options in every order: {moved[0].says}")
    if power is None:
        said.append("No leak was planted here: how small a one would be seen is not known.")
    return said
