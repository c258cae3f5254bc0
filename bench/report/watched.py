"""What a method watched beside its loss while it trained: where it ended, strategy by strategy."""

from __future__ import annotations

import statistics

from bench.report import format as show
from bench.report.summary import Board
from bench.report.tables import Column, Entry, Table

TAIL = 0.1
"""Share of the steps whose mean is shown as the end: single batches are noisy."""


def watched_table(board: Board, task: str) -> Table | None:
    """A row a strategy, a column a number it watched: mean over the last tenth of its steps, then over seeds.

    None where no strategy watched anything.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for row in board.rows:
        for cell in row.scores[task].cells:
            training = cell.result.training if cell.result is not None else None
            for name, values in (training.told if training is not None else {}).items():
                if values:
                    found.setdefault(row.strategy, {}).setdefault(name, []).append(ended(values))
    names = list(dict.fromkeys(name for of in found.values() for name in of))
    if not names:
        return None
    rows = [
        [
            Entry(strategy, show.count(max(map(len, of.values())), "seed"), strategy),
            *[_entry(of.get(name, [])) for name in names],
        ]
        for strategy, of in found.items()
    ]
    notes = [
        "Nats an answer, mean over the last tenth of the steps, on the pairs trained on. Above 0 an answer became "
        "likelier than it was where the preference stage began. A policy may learn which answer is preferred while "
        "both become less likely: what it says instead is then neither of them."
    ]
    return Table(
        f"{task}: what training did to the answers", [Column("strategy", "", False), *map(Column, names)], rows, notes
    )


def ended(values: list[float]) -> float:
    """The mean of the last tenth, of one value at least."""
    return statistics.fmean(values[-max(1, round(TAIL * len(values))) :])


def _entry(values: list[float]) -> Entry:
    if not values:
        return Entry(show.ABSENT, faint=True)
    mean = statistics.fmean(values)
    return Entry(f"{mean:+.2f}", sort=mean)
