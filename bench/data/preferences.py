"""Rows of kind prefer: two answers to one prompt, of which one is preferred."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.config.task import ANSWERS, HUMAN, PRINCIPLE, Task
from bench.data.splits import normalise, text_key
from bench.data.values import Values, check_texts, labels_of, ratings
from bench.errors import UserFault

Made = tuple[list[dict[str, str]], list[int], list[int]]
"""Fields, labels and row numbers of the rows that were made."""


def preferences(task: Task, texts: dict[str, list[str]], given: list[Any] | None, index: list[int], place: str) -> Made:
    """Pairs from a split's checked texts and its label column (`given`), if the task has one.

    Where only chosen and rejected are told apart, half of the pairs show the preferred answer first: which ones
    depends on their texts alone. So a constant answer scores one half, and so does one that is always undecided. Two
    answers that read the same are no pair. Raises `UserFault` for a label or rating that is none, or no pair at all.
    """
    if task.gap is not None:
        assert given is not None
        [only] = texts.values()
        rows, index = rated(only, ratings(given, index, place, task.columns["label"], "gap"), index, task.gap)
        if not rows:
            raise _no_pair(place, f"no two ratings differ by {task.gap:g} or more")
        return in_turn(rows, index)
    columns = [texts[name] for name in task.prompt_fields]
    prompts = [dict(zip(task.prompt_fields, row, strict=True)) for row in zip(*columns, strict=True)]
    prompts = prompts or [{} for _ in index]
    names = ANSWERS if given is not None else ("chosen", "rejected")
    answers = list(zip(texts[names[0]], texts[names[1]], strict=True))
    kept = [i for i, (one, other) in enumerate(answers) if normalise(one) != normalise(other)]
    if not kept:
        raise _no_pair(place, "the two answers of every row read the same")
    index, rows = [index[i] for i in kept], [(prompts[i], *answers[i]) for i in kept]
    if given is None:
        return in_turn(rows, index)
    labels = labels_of([given[i] for i in kept], index, task, place, Path())
    return [shown(*row) for row in rows], labels, index


Judged = list[tuple[int | None, str | None]]
"""A row each: the label a person gave (None: nobody did), and the principle the judge went by, if one is told."""


def judgements(task: Task, values: Values, index: list[int], kept: Sequence[int], place: str) -> Judged:
    """What stands beside a judge's labels in the rows of these numbers, out of all rows `index` of a split.

    Null and an empty text are no label. Raises `UserFault` for a label that is none and a principle that is no text.
    """
    where = {row: i for i, row in enumerate(index)}
    given = [values[task.columns[HUMAN]][where[row]] for row in kept]
    told = [i for i, value in enumerate(given) if value not in (None, "") and value == value]
    labels = labels_of([given[i] for i in told], [kept[i] for i in told], task, place, Path(), HUMAN)
    human = dict(zip(told, labels, strict=True))
    if PRINCIPLE not in task.columns:
        return [(human.get(i), None) for i in range(len(kept))]
    principles = [values[task.columns[PRINCIPLE]][where[row]] for row in kept]
    check_texts(principles, [*kept], place, task.columns[PRINCIPLE])
    return [(human.get(i), principle.strip()) for i, principle in enumerate(principles)]


def _no_pair(place: str, why: str) -> UserFault:
    return UserFault(f"{place}by row: {why}; allowed with kind prefer: at least one pair")


def shown(prompt: dict[str, str], first: str, second: str) -> dict[str, str]:
    """The fields of a pair."""
    return prompt | dict(zip(ANSWERS, (first, second), strict=True))


def in_turn(rows: Sequence[tuple[dict[str, str], str, str]], index: list[int]) -> Made:
    """Rows (prompt, preferred answer, other answer) with the preferred one first in every other row, in hash order."""
    keys = [text_key(shown(*row)) for row in rows]
    fields: list[dict[str, str]] = [{} for _ in rows]
    labels = [0 for _ in rows]
    for turn, i in enumerate(sorted(range(len(rows)), key=lambda i: keys[i])):
        prompt, chosen, rejected = rows[i]
        fields[i] = shown(prompt, rejected, chosen) if turn % 2 else shown(prompt, chosen, rejected)
        labels[i] = turn % 2
    return fields, labels, index


def rated(
    texts: Sequence[str], values: Sequence[float], index: Sequence[int], gap: float
) -> tuple[list[tuple[dict[str, str], str, str]], list[int]]:
    """Pairs (no prompt, higher rated, lower rated) of texts whose ratings differ by at least `gap`.

    Every text is in one pair at most, so that slices of pairs share no text. In the order of their hashes each text
    is paired with the first one still waiting that differs enough; a pair has the smaller of its row numbers.
    """
    unlike = {text_key({"text": text}): i for i, text in reversed(list(enumerate(texts)))}
    waiting: list[int] = []
    pairs: list[tuple[int, int]] = []
    for key in sorted(unlike):
        i = unlike[key]
        other = next((place for place, j in enumerate(waiting) if abs(values[i] - values[j]) >= gap), None)
        if other is None:
            waiting.append(i)
        else:
            j = waiting.pop(other)
            pairs.append((i, j) if values[i] > values[j] else (j, i))
    pairs.sort(key=lambda pair: min(index[i] for i in pair))
    return [({}, texts[i], texts[j]) for i, j in pairs], [min(index[i], index[j]) for i, j in pairs]
