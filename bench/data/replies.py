"""Rows that are answered in writing: a question, the answer it wants, and where the data has one the reasoning that
leads there; or a text and its entities, as lines."""

from __future__ import annotations

import re
from typing import Any

from bench.config.task import MESSAGES, RATIONALE, TARGET, Task
from bench.data.spans import Span, counts, lines, parse
from bench.data.wording import did_you_mean
from bench.errors import UserFault

WORKINGS = re.compile(r"<<[^>]*>>")
"""GSM8K writes the calculator's input into its reasoning."""
ANSWERS = {"number": re.compile(r"\d"), "yes_no": re.compile(r"(?i)^(yes|no)$"), "text": re.compile(r"\w"),
           "free": re.compile(r"(?si)^(?!.*\n[^\S\n]*\n).*[a-z0-9]")}  # fmt: skip
WANTED = {"number": "a number", "yes_no": "yes or no", "text": "a text",
          "free": "a text with a letter a-z or a digit and without an empty line, which ends a reply"}  # fmt: skip


def targets(
    task: Task, texts: dict[str, list[str]], column: list[Any], index: list[int], place: str
) -> tuple[list[dict[str, str]], list[int]]:
    """Fields of every row, the target last, and the row numbers.

    Entities become lines (`bench.data.spans.lines`). Where `reply.finds` cuts the answer out of a longer text, a
    rationale read from that same text ends before it.
    Raises `UserFault` for a label that holds no such answer.
    """
    assert task.reply is not None
    if task.kind == "tag":
        return entities(task, texts, column, index, place), index
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


def entities(
    task: Task, texts: dict[str, list[str]], column: list[Any], index: list[int], place: str
) -> list[dict[str, str]]:
    """Fields of every row, its entities as lines in the target. Raises `UserFault` for what is no list of them."""
    fields, name = [], task.columns["label"]
    for i, (row, value) in enumerate(zip(index, column, strict=True)):
        one = {field: values[i] for field, values in texts.items()}
        at = f"{place}{row}: column '{name}'"
        if not isinstance(value, list):
            raise UserFault(
                f"{at} holds {_short(value)}; allowed: a list of entities such as "
                '[{"type": "place", "text": "Rome"}] (.parquet or .jsonl, for CSV has no lists)'
            )
        spans = [entity(task, given, one, at) for given in value]
        target = lines(spans)
        if tuple(counts(parse(target, task.labels), spans)) != (len(spans),) * 3:
            raise UserFault(f"{at} holds entities that cannot be read back from lines: {_short(target)}")
        fields.append(one | {TARGET: target})
    return fields


def entity(task: Task, given: Any, fields: dict[str, str], at: str) -> Span:
    """One entity's type and text. Raises `UserFault` for another type, and for a text that the row does not hold."""
    kind, text = (given.get(key) for key in ("type", "text")) if isinstance(given, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(text, str) or not text.strip():
        raise UserFault(f"{at} lists {_short(given)}; allowed: an entity with 'type' and 'text', both texts")
    if kind not in task.labels:
        allowed = ", ".join(task.labels)
        raise UserFault(f"{at} has the type '{kind}'; allowed: {allowed}{did_you_mean(kind, task.labels)}")
    if not any(text.strip() in value for value in fields.values()):
        raise UserFault(f"{at} has the entity {_short(text)}, which stands in none of the row's texts")
    return kind, text.strip()


def _short(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def reasoning(text: str, finds: str | None) -> str:
    """A rationale without calculator input and without the answer at its end."""
    match = re.search(finds, text) if finds else None
    return WORKINGS.sub("", text[: match.start()] if match else text).strip()
