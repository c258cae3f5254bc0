"""A split's values, checked: texts, options, labels. Every fault names file, row and column."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.config.schema import Task
from bench.data import numbers
from bench.data.wording import did_you_mean, listing
from bench.errors import UserFault

Values = dict[str, list[Any]]


def those_where(values: Values, index: list[int], where: Mapping[str, Sequence[str]], place: str) -> list[int]:
    """Positions of the rows that hold one of the values of every column. Raises `UserFault` where none does."""
    kept = list(range(len(index)))
    for column, wanted in where.items():
        there = [str(values[column][i]) for i in kept]
        kept = [i for i, value in zip(kept, there, strict=True) if value in wanted]
        if not kept:
            asked = ", ".join(f"'{value}'" for value in wanted)
            found = listing(sorted(set(there)), wanted[0])
            raise UserFault(f"{place}no row holds {asked} in column '{column}' (splits.where); values there: {found}")
    return kept


def check_texts(column: list[Any], index: list[int], place: str, name: str, empty: bool = False) -> None:
    """Raise `UserFault` for a value that is no text, or an empty one unless `empty` ones are allowed. `index`: each
    value's row number."""
    for row, value in zip(index, column, strict=True):
        if not isinstance(value, str):
            got = "null" if value is None else f"{type(value).__name__} {_short(value)}"
        elif not value.strip() and not empty:
            got = "an empty text"
        elif not _is_unicode(value):
            got = f"a text with half a surrogate pair {ascii(value)[:60]}"
        else:
            continue
        allowed = "text" if empty else "text that is not empty"
        raise UserFault(f"{place}{row}: column '{name}' holds {got}; allowed: {allowed}")


def _is_unicode(text: str) -> bool:
    # JSON can smuggle in half a surrogate pair; tokenizers and hashes fail on it later and less clearly.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def labels_of(
    column: list[Any], index: list[int], task: Task, place: str, path: Path, field: str = "label"
) -> list[int]:
    """Positions in the task's labels, from positions or names. Raises `UserFault`, naming the column of `field`, for
    anything else."""
    positions = {label: i for i, label in enumerate(task.labels)}
    spelled: dict[str, int] = dict(positions)
    if path.suffix == ".csv" and not any(label.strip().lstrip("+-").isdigit() for label in task.labels):
        # CSV has strings only, so there '1' may be position 1; unless names are numbers too, then only names count.
        spelled.update({str(i): i for i in range(len(positions))})
    found = []
    for row, value in zip(index, column, strict=True):
        label = _label(value, spelled, len(positions))
        if label is None:
            raise _bad_label(value, f"{place}{row}: column '{task.columns[field]}'", task.labels)
        found.append(label)
    return found


def _label(value: Any, spelled: dict[str, int], classes: int) -> int | None:
    if isinstance(value, str):
        return spelled.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # A column of integers becomes floats where a tool once saw a null in it: whole floats are integers.
    return int(value) if 0 <= value < classes and value == int(value) else None


def _bad_label(value: Any, place: str, labels: list[str]) -> UserFault:
    hidden = " (this split's labels are hidden)" if value == -1 and not isinstance(value, bool) else ""
    names = ", ".join(f"'{label}'" for label in labels)
    got = "null" if value is None else _short(value)
    return UserFault(
        f"{place} holds label {got}{hidden}; allowed: 0 to {len(labels) - 1}, or {names}{did_you_mean(value, labels)}"
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def halves(column: list[Any], index: list[int], cut: float, place: str, name: str) -> list[int | None]:
    """0 for a number below the cut, 1 above it, None at it: a rating that leans to neither side has no label."""
    numbers = ratings(column, index, place, name, "label_cut")
    return [None if number == cut else int(number > cut) for number in numbers]


def ratings(column: list[Any], index: list[int], place: str, name: str, key: str) -> list[float]:
    """A column of numbers. Raises `UserFault`, naming the `key` of the task that wants them, for anything else."""
    found = []
    for row, value in zip(index, column, strict=True):
        number = _number(value)
        if number is None:
            got = "null" if value is None else _short(value)
            raise UserFault(f"{place}{row}: column '{name}' holds {got}; allowed with {key}: a number")
        found.append(number)
    return found


def _number(value: Any) -> float | None:
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):  # a CSV has strings only
        return None
    return None if number is None or number != number else number


def choices(column: list[Any], index: list[int], labels: Sequence[str], place: str, path: Path, name: str) -> Values:
    """Label -> the options under it, stripped, from a column that holds a list of as many texts in every row."""
    for row, given in zip(index, column, strict=True):
        if not isinstance(given, list):
            why = ", and CSV has no lists: allowed: .parquet or .jsonl" if path.suffix == ".csv" else ""
            got = "null" if given is None else _short(given)
            raise UserFault(f"{place}{row}: column '{name}' holds {got}, not a list of options{why}")
        if len(given) != len(labels):
            allowed = f"{len(labels)}, one a label ({', '.join(labels)})"
            raise UserFault(f"{place}{row}: column '{name}' lists {len(given)} options; allowed: {allowed}")
        check_texts(given, [row] * len(given), place, name)
    return {label: [given[i].strip() for given in column] for i, label in enumerate(labels)}


def computed(
    texts: Sequence[Mapping[str, str]], column: list[Any], index: list[int], task: Task, place: str
) -> tuple[list[dict[str, str]], list[int]]:
    """Options and right positions of rows whose label column holds a number somewhere (`Task.number` finds it)."""
    made, right = [], []
    for fields, value, row in zip(texts, column, index, strict=True):
        match = re.search(task.number or "", value) if isinstance(value, str) else None
        number = numbers.parse(match[1] or "") if match else None
        if number is None:
            got = "null" if value is None else _short(value)
            raise UserFault(
                f"{place}{row}: column '{task.columns['label']}' holds {got}; allowed: a text in which '{task.number}' "
                "finds a number"
            )
        options, position = numbers.options(number, list(fields.values()), task.labels)
        made.append(options)
        right.append(position)
    return made, right
