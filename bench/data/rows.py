"""A task's rows: read, checked and cut into train and test."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.config.data import OPTIONS
from bench.config.schema import Task
from bench.config.task import INPUT, INSTRUCTION, MESSAGES
from bench.data.arithmetic import choice
from bench.data.chats import instructions
from bench.data.harness import fields_of
from bench.data.preferences import Judged, judgements, preferences
from bench.data.replies import targets
from bench.data.sources import PAIRS, Located
from bench.data.splits import Slice, cut, parse, text_key
from bench.data.tables import read_columns
from bench.data.values import Values, check_texts, choices, computed, halves, labels_of, those_where
from bench.errors import UserFault

if TYPE_CHECKING:
    from bench.data.apart import Apart


@dataclass(frozen=True)
class Rows:
    """Labelled rows, one entry a row in each list.

    `fields` maps field name -> text without the white space around it, `labels` are positions in the task's labels, and
    `index` is the row's number (from 0) in its split's file, so that a prediction names its row without its text.
    """

    fields: list[dict[str, str]]
    labels: list[int]
    index: list[int]
    judged: Judged = field(default_factory=list)
    """Where a judge made the labels, what a person said of each row; else empty."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: Sequence[int]) -> Rows:
        """The rows at these positions, in their order."""
        judged = [self.judged[i] for i in positions] if self.judged else []
        fields, labels = [self.fields[i] for i in positions], [self.labels[i] for i in positions]
        return Rows(fields, labels, [self.index[i] for i in positions], judged)


@dataclass(frozen=True)
class TaskRows:
    """What a task trains on (the pool that labels are drawn from), what it is scored on, and where both come from."""

    train: Rows
    test: Rows
    located: Located
    train_matches: str | None = None
    """The pattern the training rows were chosen by."""
    pool: Rows = field(default_factory=lambda: Rows([], [], []))
    """All rows of the test split before `limit`: test items and controls of a contamination check come from here."""
    wordings: dict[int, dict[str, str]] = field(default_factory=dict)
    """Row number of a row of the pool -> fields that say the same in other words (`Task.pairs`)."""
    apart: Apart | None = None
    """What was dropped from the training rows (`Task.drop_overlap`); None where nothing was asked for."""
    judgements: list[tuple[int, int | None, str | None]] | None = None
    """Of all rows the judge's label, a person's (None: nobody gave one) and the judge's principle; None without a
    judge."""
    unasked: int = 0
    """Test rows left out because no person judged them, while some judged others."""


def read(name: str, task: Task, located: Located) -> TaskRows:
    """Read and check both splits of a task, cut them as `splits` says and keep `limit` test rows.

    A limit keeps the test rows that come first in hash order: one fixed subset whatever the seed, in file order.

    Raises:
        UserFault: missing columns or splits, a label or text that cannot be used, train and test sharing rows of a
            split, a split or slice without rows, or no training row left by `drop_overlap`.
    """
    if task.data.made:
        return _made(task, located)
    train, test = parse(task.splits.train), parse(task.splits.test)
    if task.role == "train":
        test = train
    whole = {base: _read_split(name, task, located, base) for base in dict.fromkeys((train.base, test.base))}
    if train.base == test.base and task.role != "train":
        _no_overlap(name, task, train, test, len(whole[train.base]))
    parts = [_part(name, whole[s.base], s, text) for s, text in ((train, task.splits.train), (test, task.splits.test))]
    pattern = None if located.source == "sample" else task.splits.train_matches  # its splits are alike already
    if pattern is not None:
        parts[0] = _matching(name, parts[0], pattern)
    if task.role == "train":
        return TaskRows(parts[0], Rows([], [], []), located, pattern)
    apart = None
    if task.drop_overlap is not None:
        from bench.data.apart import keep_apart  # it needs numpy, which plans of most tasks do without

        kept, apart = keep_apart(name, task, located, parts[0].fields, parts[1].fields)
        parts[0] = parts[0].take(kept)
    both, unasked = None, 0
    if task.judged:
        both = [(row, *one) for part in parts for row, one in zip(part.labels, part.judged, strict=True)]
        parts[1], unasked = by_people(parts[1])
    wordings = _wordings(name, task, located, parts[1])
    return TaskRows(parts[0], limited(parts[1], task.limit), located, pattern, parts[1], wordings, apart, both, unasked)


def by_people(rows: Rows) -> tuple[Rows, int]:
    """The rows a person judged, with that label, and how many others there are; all as they are where nobody did."""
    kept = [i for i, (human, _) in enumerate(rows.judged) if human is not None]
    if not kept:
        return rows, 0
    found = rows.take(kept)
    return replace(found, labels=[human or 0 for human, _ in found.judged]), len(rows) - len(kept)


def limited(rows: Rows, limit: int | None) -> Rows:
    """The rows that come first in hash order, in file order; all of them without a limit or where there are fewer."""
    if limit is None or limit >= len(rows):
        return rows
    keys = [text_key(fields) for fields in rows.fields]
    return rows.take(sorted(sorted(range(len(keys)), key=lambda i: (keys[i], i))[:limit]))


def _made(task: Task, located: Located) -> TaskRows:
    """Rows that no file holds."""
    if task.data.arithmetic is not None:
        train, pool = (_arithmetic(task, task.data.arithmetic, split) for split in ("train", "test"))
        return TaskRows(train, limited(pool, task.limit), located, pool=pool)
    assert task.data.random is not None
    train, test = (_random(task, task.data.random, seed) for seed in (1, 2))
    return TaskRows(train, test, located, pool=test)


def _arithmetic(task: Task, rows: int, split: str) -> Rows:
    """Word problems; the first text field holds the problem."""
    first = next(iter(task.text_columns))
    made = [choice(first, task.labels, number, split) for number in range(rows)]
    return Rows([fields for fields, _ in made], [right for _, right in made], list(range(rows)))


LETTERS_A_ROW = 16 * 1024
"""Letters of a random row: more tokens than `sequence` asks for, which cuts them to exactly so many."""
WORD = 8
"""Letters to a space, the space included: a tokenizer of words gives up on one that is very long."""


def _random(task: Task, rows: int, seed: int) -> Rows:
    """Rows that mean nothing, for memory and speed."""
    letters = generator_of(seed).integers(ord("a"), ord("z") + 1, (rows, len(task.fields), LETTERS_A_ROW))
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
    columns = list(dict.fromkeys([*task.columns.values(), *(task.splits.where or {})]))
    values, index = read_columns(paths, columns, split=base if located.source == "sample" else None)
    if not index and not (task.continued and base == "train"):  # lm-eval may name nothing to train on
        raise UserFault(f"task '{name}': the split '{base}' is empty ({where}); allowed: at least one row")
    if task.splits.where is not None:
        kept = those_where(values, index, task.splits.where, f"task '{name}': {where}: ")
        values, index = {column: [of[i] for i in kept] for column, of in values.items()}, [index[i] for i in kept]
    return _rows(task, values, index, f"task '{name}': {where} row ", paths[0])


def _rows(task: Task, values: Values, index: list[int], place: str, path: Path) -> Rows:
    """Checked rows from a split's values."""
    if task.continued:
        return Rows(*fields_of(task, values), index)
    texts = {field: values[column] for field, column in task.text_columns.items()}
    told = values.get(task.columns.get("label", ""), [])
    if MESSAGES in task.columns:
        texts[INSTRUCTION], told = instructions(texts[INSTRUCTION], index, place, task.columns[MESSAGES])
    if task.instructs and INPUT in texts:
        texts[INPUT] = ["" if text is None else text for text in texts[INPUT]]
    for field_name, column in texts.items():
        check_texts(column, index, place, task.text_columns[field_name], task.instructs and field_name == INPUT)
    # every sentence of GLUE's SST-2 ends with a space, which before a template's line break is a token of its own
    texts = {name: [text.strip() for text in column] for name, column in texts.items()}
    if task.kind == "prefer":
        made = preferences(task, texts, told or None, index, place)
        return Rows(*made, judgements(task, values, index, made[2], place) if task.judged else [])
    if task.reply is not None:
        fields, kept = targets(task, texts, told, index, place)
        return Rows(fields, [int(task.kind == "generate")] * len(fields), kept)  # all are as they should be
    if OPTIONS in task.columns and task.kind == "choose":
        name = task.columns[OPTIONS]
        texts |= choices(values[name], index, task.labels, place, path, name)
    fields = [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]
    given, name = values[task.columns["label"]], task.columns["label"]
    if task.number is not None:
        options, labels = computed(fields, given, index, task, place)
        return Rows([row | more for row, more in zip(fields, options, strict=True)], labels, index)
    if task.label_cut is None:
        return Rows(fields, labels_of(given, index, task, place, path), index)
    sides = halves(given, index, task.label_cut, place, name)
    kept = [i for i, side in enumerate(sides) if side is not None]
    return Rows([fields[i] for i in kept], [side for side in sides if side is not None], [index[i] for i in kept])


def _wordings(name: str, task: Task, located: Located, pool: Rows) -> dict[int, dict[str, str]]:
    """The other wording of each row that has one, found by its row number; the sample has none."""
    if task.pairs is None or PAIRS not in located.files:
        return {}
    pairs, paths = task.pairs, located.files[PAIRS]
    values, index = read_columns(paths, list(dict.fromkeys(pairs.columns.values())))
    if pool.index[-1] >= len(index):
        raise UserFault(
            f"task '{name}': {paths[0]} has {len(index)} rows, and row {pool.index[-1]} of the test split has no other "
            "wording there; allowed: as many rows (pairs)"
        )
    found: dict[int, dict[str, str]] = {}
    for field_name, column in pairs.columns.items():
        given = [values[column][row] for row in pool.index]
        check_texts(given, pool.index, f"task '{name}': {paths[0]} row ", column)
        for row, text in zip(pool.index, given, strict=True):
            match = re.search(pairs.finds or "(?s)(.*)", text)
            if match and (wording := match[1].strip()):  # GSM8K's rephrased file lacks 4 of 1,319
                found.setdefault(row, {})[field_name] = wording
    if not found:
        raise UserFault(f"task '{name}': '{pairs.finds}' finds no wording in {paths[0]} (pairs.finds)")
    return found


def generator_of(seed: int) -> Any:
    """Numpy's random numbers by seed, of which slices, draws and made-up texts are taken."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(seed % 2**64))  # PCG64 refuses negative seeds
