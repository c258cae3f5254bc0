"""Which scores are on a type of task that was held out of training, in a sentence under a table."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report import format as show
from bench.report.summary import Row


def held_out_note(rows: Sequence[Row], tasks: Sequence[str]) -> list[str]:
    """One sentence on the strategies that trained on other types of tasks only; nothing where none did."""
    held = [(row, task, cell.info) for row in rows for task in tasks for cell in row.scores[task].cells]
    names = list(dict.fromkeys(row.strategy for row, _, info in held if info.held_out))
    if not names:
        return []
    types = {task: info.held_out for _, task, info in held if info.held_out}
    told = ", ".join(f"{task} is {kind}" if kind != task else f"{task}: no type given" for task, kind in types.items())
    return [
        f"{show.listed(names, 20)} trained on other tasks only, none of the type that is scored ({told}): a score on a "
        "held-out type of task."
    ]
