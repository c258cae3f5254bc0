"""A task's rows: read, checked and cut into train and test; and the draws from them that a budget of labels allows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config.schema import Task
from bench.data.sources import Located
from bench.data.splits import Slice, cut, parse, text_key
from bench.data.tables import read_columns
from bench.data.wording import did_you_mean
from bench.errors import UserFault


@dataclass(frozen=True)
class Rows:
    """Labelled rows, one entry a row in each list.

    `fields` maps field name -> text without the white space around it, `labels` are positions in the task's labels, and
    `index` is the row's number (from 0) in its split's file, so that a prediction names its row without its text.
    """

    fields: list[dict[str, str]]
    labels: list[int]
    index: list[int]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Sequence[int]) -> Rows:
        """The rows at these positions, in their order."""
        return Rows(
            [self.fields[i] for i in positions], [self.labels[i] for i in positions], [self.index[i] for i in positions]
        )


@dataclass(frozen=True)
class TaskRows:
    """What a task trains on (the pool that labels are drawn from), what it is scored on, and where both come from."""

    train: Rows
    test: Rows
    located: Located
    train_matches: str | None = None
    """The pattern the training rows were chosen by."""


def read(name: str, task: Task, located: Located) -> TaskRows:
    """Read and check both splits of a task, cut them as `splits` says and keep `limit` test rows.

    A limit keeps the test rows that come first in hash order: one fixed subset whatever the seed, in file order.

    Raises:
        UserFault: missing columns or splits, a label or text that cannot be used, train and test sharing rows of a
            split, or a split or slice without rows.
    """
    if located.source == "random":
        assert task.data.random is not None
        return TaskRows(_random(task, task.data.random, 1), _random(task, task.data.random, 2), located)
    train, test = parse(task.splits.train), parse(task.splits.test)
    whole = {base: _read_split(name, task, located, base) for base in dict.fromkeys((train.base, test.base))}
    if train.base == test.base:
        _no_overlap(name, task, train, test, len(whole[train.base]))
    parts = [_part(name, whole[s.base], s, text) for s, text in ((train, task.splits.train), (test, task.splits.test))]
    pattern = None if located.source == "sample" else task.splits.train_matches  # its splits are alike already
    if pattern is not None:
        parts[0] = _matching(name, parts[0], pattern)
    return TaskRows(parts[0], first_rows(parts[1], task.limit), located, pattern)


def first_rows(rows: Rows, number: int | None) -> Rows:
    """The `number` rows that come first in hash order, in file order; all of them where there are no more, or None."""
    if number is None or number >= len(rows):
        return rows
    keys = [text_key(fields) for fields in rows.fields]
    return rows.take(sorted(sorted(range(len(keys)), key=lambda i: (keys[i], i))[:number]))


LETTERS_A_ROW = 16 * 1024
"""Letters of a random row: more tokens than `sequence` asks for, which cuts them to exactly so many."""
WORD = 8
"""Letters to a space, the space included: a tokenizer of words gives up on one that is very long."""


def _random(task: Task, rows: int, seed: int) -> Rows:
    """Rows that mean nothing, for memory and speed."""
    letters = _generator(seed).integers(ord("a"), ord("z") + 1, (rows, len(task.fields), LETTERS_A_ROW))
    letters[..., WORD - 1 : -1 : WORD] = ord(" ")
    texts = [[bytes(cell.astype("uint8")).decode() for cell in row] for row in letters]
    fields = [dict(zip(task.fields, row, strict=True)) for row in texts]
    return Rows(fields, [i % len(task.labels) for i in range(rows)], list(range(rows)))


def _matching(name: str, rows: Rows, pattern: str) -> Rows:
    """Rows whose every text holds a match."""
    find = re.compile(pattern).search
    kept = rows.take([i for i, fields in enumerate(rows.fields) if all(map(find, fields.values()))])
    if not len(kept):
        raise UserFault(f"task '{name}': none of {len(rows)} training rows matches '{pattern}' (splits.train_matches)")
    return kept


def _no_overlap(name: str, task: Task, train: Slice, test: Slice, n: int) -> None:
    (low, high), (other_low, other_high) = train.bounds(n), test.bounds(n)
    if max(low, other_low) < min(high, other_high):
        raise UserFault(
            f"task '{name}': train '{task.splits.train}' and test '{task.splits.test}' share rows of '{train.base}'; "
            "allowed: two splits, or slices that do not overlap such as train[:80%] and train[80%:]"
        )


def _part(name: str, rows: Rows, part: Slice, text: str) -> Rows:
    if part.whole:
        return rows
    kept = rows.take(cut([text_key(fields) for fields in rows.fields], *part.bounds(len(rows))))
    if not len(kept):
        raise UserFault(f"task '{name}': the slice '{text}' holds no row; '{part.base}' has {len(rows)}")
    return kept


def _read_split(name: str, task: Task, located: Located, base: str) -> Rows:
    paths = located.files[base]
    where = f"{paths[0]}" if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    columns = list(dict.fromkeys(task.columns.values()))
    values, index = read_columns(paths, columns, split=base if located.source == "sample" else None)
    if not index:
        raise UserFault(f"task '{name}': the split '{base}' is empty ({where}); allowed: at least one row")
    place = f"task '{name}': {where} row "
    texts = {field: values[task.columns[field]] for field in task.fields}
    for field, column in texts.items():
        _check_texts(column, index, place, task.columns[field])
    labels = _labels(values[task.columns["label"]], index, task, place, paths[0])
    # every sentence of GLUE's SST-2 ends with a space, which before a template's line break is a token of its own
    stripped = ([text.strip() for text in column] for column in texts.values())
    fields = [dict(zip(texts, row, strict=True)) for row in zip(*stripped, strict=True)]
    return Rows(fields, labels, index)


def _check_texts(column: list[Any], index: list[int], place: str, name: str) -> None:
    for row, value in zip(index, column, strict=True):
        if not isinstance(value, str):
            got = "null" if value is None else f"{type(value).__name__} {_short(value)}"
        elif not value.strip():
            got = "an empty text"
        elif not _is_unicode(value):
            got = f"a text with half a surrogate pair {ascii(value)[:60]}"
        else:
            continue
        raise UserFault(f"{place}{row}: column '{name}' holds {got}; allowed: text that is not empty")


def _is_unicode(text: str) -> bool:
    # JSON can smuggle in half a surrogate pair; tokenizers and hashes fail on it later and less clearly.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _labels(column: list[Any], index: list[int], task: Task, place: str, path: Path) -> list[int]:
    positions = {label: i for i, label in enumerate(task.labels)}
    spelled: dict[str, int] = dict(positions)
    if path.suffix == ".csv" and not any(label.strip().lstrip("+-").isdigit() for label in task.labels):
        # CSV has strings only, so there '1' may be position 1; unless names are numbers too, then only names count.
        spelled.update({str(i): i for i in range(len(positions))})
    found = []
    for row, value in zip(index, column, strict=True):
        label = _label(value, spelled, len(positions))
        if label is None:
            raise _bad_label(value, f"{place}{row}: column '{task.columns['label']}'", task.labels)
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


def draw_labels(rows: Rows, n: int, seed: int, classes: int) -> Rows:
    """`n` rows drawn at random, no two with the same normalised text; all distinct ones where there are fewer.

    The draw for `n` is the beginning of the draw for any larger one with the same seed. It opens with one row of each
    class (as they turn up, so `n` of at least `classes` holds every class there is); the rest follows the pool's
    own distribution.

    Raises:
        ValueError: `n` is negative.
    """
    if n < 0:
        raise ValueError(f"cannot draw {n} labels")
    order = _generator(seed).permutation(len(rows)).tolist()
    drawn: list[int] = []
    seen: set[bytes] = set()
    met: set[int] = set()
    for i in order:
        if len(met) == classes or len(drawn) == n:
            break
        if rows.labels[i] not in met and (key := text_key(rows.fields[i])) not in seen:
            met.add(rows.labels[i])
            seen.add(key)
            drawn.append(i)
    for i in order:
        if len(drawn) == n:
            break
        if (key := text_key(rows.fields[i])) not in seen:
            seen.add(key)
            drawn.append(i)
    return rows.take(drawn)


def class_balanced(rows: Rows, k: int, seed: int, classes: int) -> Rows:
    """`k` of the rows with class counts as equal as they can be, in random order; all rows where there are fewer.

    Which classes get one more than the others is random too.

    Raises:
        ValueError: `k` is negative.
    """
    if k < 0:
        raise ValueError(f"cannot choose {k} rows")
    generator = _generator(seed)
    queues: list[list[int]] = [[] for _ in range(classes)]
    for i in generator.permutation(len(rows)).tolist():
        queues[rows.labels[i]].append(i)
    chosen: list[int] = []
    turns = generator.permutation(classes).tolist()
    while len(chosen) < min(k, len(rows)):
        chosen += [queues[c].pop() for c in turns if queues[c]][: k - len(chosen)]
    return rows.take([chosen[i] for i in generator.permutation(len(chosen)).tolist()])


def _generator(seed: int) -> Any:
    import numpy as np

    return np.random.Generator(np.random.PCG64(seed % 2**64))  # PCG64 refuses negative seeds
