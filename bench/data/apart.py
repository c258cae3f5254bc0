"""Training rows without a text that stands in a test set (`Task.drop_overlap`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.config.data import HeldOut
from bench.config.schema import Task
from bench.data.overlap import standing
from bench.data.sources import HELD_OUT, Located, samples_folder
from bench.data.tables import read_columns
from bench.data.values import check_texts
from bench.errors import UserFault

Fields = Mapping[str, str]
OWN = "its own test split"


@dataclass(frozen=True)
class Apart:
    """How many training rows were dropped, and for the sake of which texts."""

    dropped: int
    of: int
    compared: dict[str, int]
    """Test set -> its texts."""
    missing: list[str]
    """Test sets that the bundled sample has nothing for."""


def keep_apart(
    name: str, task: Task, located: Located, train: Sequence[Fields], test: Sequence[Fields]
) -> tuple[list[int], Apart]:
    """Positions of the training rows that share no text with a test set, and what was compared.

    A row goes where any of its texts is found by `standing`. Raises `UserFault` where none is left, or a set has no
    such column or no text there.
    """
    texts = {OWN: [text for fields in test for text in fields.values()]}
    missing = []
    for number, one in enumerate(task.drop_overlap or ()):
        files = located.files.get(f"{HELD_OUT}{number}")
        if files is None:
            missing.append(one.named("hub"))
        else:
            source = "sample" if _bundled(files) else "hub"
            texts[one.named(source)] = _texts(name, one, files)
    held = [text for found in texts.values() for text in found]
    kept = [i for i, found in enumerate(standing([[*fields.values()] for fields in train], held)) if not found]
    if not kept:
        sets = " or ".join(texts)
        raise UserFault(
            f"task '{name}': each of {len(train)} training rows shares a text with {sets} (drop_overlap); allowed: at "
            "least one that does not"
        )
    return kept, Apart(len(train) - len(kept), len(train), {name: len(found) for name, found in texts.items()}, missing)


def _bundled(files: Sequence[Path]) -> bool:
    return files[0].resolve().parent == samples_folder()


def _texts(name: str, one: HeldOut, files: tuple[Path, ...]) -> list[str]:
    """All texts of a held-out split."""
    columns, split = list(dict.fromkeys(one.columns)), one.split if _bundled(files) else None
    values, index = read_columns(files, columns, split=split)
    if not index:
        raise UserFault(f"task '{name}': the split '{one.split}' of drop_overlap is empty ({files[0]}); allowed: rows")
    for column in columns:
        check_texts(values[column], index, f"task '{name}': {files[0]} row ", column)
    return [text for column in columns for text in values[column]]
