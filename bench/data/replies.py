"""Rows of kind generate: a question, the answer it wants, and where the data has one the reasoning that leads there."""

from __future__ import annotations

import re
from typing import Any

from bench.config.task import MESSAGES, RATIONALE, TARGET, Task
from bench.errors import UserFault

WORKINGS = re.compile(r"<<[^>]*>>")
"""GSM8K writes the calculator's input into its reasoning."""
ANSWERS = {"number": re.compile(r"\d"), "yes_no": re.compile(r"(?i)^(yes|no)$"), "text": re.compile(r"\w")}
WANTED = {"number": "a number", "yes_no": "yes or no", "text": "a text"}


def targets(
    task: Task, texts: dict[str, list[str]], column: list[Any], index: list[int], place: str
) -> tuple[list[dict[str, str]], list[int]]:
    """Fields of every row, the target last, and the row numbers.

    Where `reply.finds` cuts the answer out of a longer text, a rationale read from that same text ends before it.
    Raises `UserFault` for a label that holds no such answer.
    """
    assert task.reply is not None
    finds, fields = task.reply.finds, []
    for i, (row, value) in enumerate(zip(index, column, strict=True)):
        told = "" if value is None else str(value).strip()
        match = re.search(finds, told) if finds else None
        target = told if finds is None else (match[1] or "").strip() if match else ""
        # an instruction file may hold empty answers; whoever trains on it leaves them out and says so
        if not ANSWERS[task.reply.reads].search(target) and not (task.role == "train" and task.instructs and not told):
            where = f"a text in which '{finds}' finds " if finds else ""
            got = f"'{told[:57]}...'" if len(told) > 60 else f"'{told}'"
            wanted = f"{where}{WANTED[task.reply.reads]}"
            name = task.columns.get("label") or task.columns[MESSAGES]
            raise UserFault(f"{place}{row}: column '{name}' holds {got}; allowed: {wanted}")
        one = {name: values[i] for name, values in texts.items()}
        if RATIONALE in one:
            one[RATIONALE] = reasoning(one[RATIONALE], finds)
        fields.append(one | {TARGET: target})
    return fields, index


def reasoning(text: str, finds: str | None) -> str:
    """A rationale without calculator input and without the answer at its end."""
    match = re.search(finds, text) if finds else None
    return WORKINGS.sub("", text[: match.start()] if match else text).strip()
