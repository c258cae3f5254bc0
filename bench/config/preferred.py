"""What a task of which of two answers is preferred must say, and must not (kind prefer)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.config.task import Task

ANSWERS = ("first", "second")
"""The labels of kind prefer: by its place the answer that is preferred."""
CHOSEN = {"chosen", "rejected"}
"""Columns of answers whose order says which is preferred; rows show them in an order of their own."""
HUMAN, PRINCIPLE = "human", "principle"
"""Columns of kind prefer where `label` is a judge's: what a person says, and the principle the judge went by."""


def check_preferred(task: Task) -> None:
    """Raise ValueError where it cannot be told which answers stand against each other."""
    if tuple(task.labels) != ANSWERS:
        raise ValueError(f"with kind prefer labels are {list(ANSWERS)}, got {task.labels}")
    if (task.metric, task.objective) != ("accuracy", "labels"):
        raise ValueError("kind prefer has metric accuracy (of which answer is preferred) and no other objective")
    given = set(task.columns)
    if task.gap is not None:
        if "label" not in given or len(given) != 2:
            raise ValueError(f"gap needs two columns, 'label' (the rating) and one text, got {sorted(given)}")
    elif not (given >= CHOSEN and "label" not in given) and not given >= {*ANSWERS, "label"}:
        ways = "columns chosen and rejected, or first, second and label, or gap"
        raise ValueError(f"kind prefer needs {ways}; got {sorted(given)}")
    if (PRINCIPLE in given or task.judged_by is not None) and not task.judged and "label" in given:
        raise ValueError(
            "principle and judged_by are shown beside the agreement of judge and people: name a column 'human' too"
        )
