"""One side of a comparison: the cells of a run folder, or of a baseline file made from one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator

from bench.errors import UserFault
from bench.migrations import Newer, raised
from bench.records import SCHEMA_VERSION, CellInfo, Record, Result
from bench.report.collect import CellView, collect
from bench.report.predictions import DAMAGED, Items, items_of, table_of
from bench.store import read_json

BASELINE_VERSION = 1


class KeptCell(Record):
    """A cell in a baseline: its record without what belongs to a machine, and its predictions."""

    result: Result
    predictions: dict[str, list[float]] | None = None
    """Columns of predictions.parquet; None where the cell has none."""

    @field_validator("predictions")
    @classmethod
    def of_one_length(cls, value: dict[str, list[float]] | None) -> dict[str, list[float]] | None:
        """One number an item in every column: what cannot be read guards nothing, so a damaged file is refused."""
        if value is None:
            return value
        if len({len(column) for column in value.values()}) > 1:
            raise ValueError("its columns are not of one length")
        named = (column for name, column in value.items() if not name.startswith("score_"))
        if any(abs(number) > 2**53 or number != number for column in named for number in column):
            raise ValueError("a row, a label or an answer is no number that can be held exactly")
        return value


class Baseline(Record):
    """A run in one file, to be committed."""

    baseline_version: int = BASELINE_VERSION
    schema_version: int = 1
    """Of its records, which leave out what is at its default; files older than this field hold records of version 1."""
    run: str
    planned: list[CellInfo] = Field(default_factory=list)
    """Cells that were planned and have no readable record."""
    cells: list[KeptCell]


@dataclass(frozen=True)
class Seen:
    """One cell of a side. `status` is that of its record, or `not_run`, `damaged` or `newer`."""

    info: CellInfo
    status: str
    reason: str | None = None
    result: Result | None = None
    items: Items | None = None
    """What it answered; None where there is nothing readable."""
    scores: NDArray[np.floating] | None = None
    """Score of every label, (items, labels), in the order of `items`; None where answers are no labels."""
    columns: Mapping[str, list[float]] = field(default_factory=dict)
    """Its predictions as they were read."""

    @property
    def ok(self) -> bool:
        """Whether it has figures to compare."""
        return self.status == "ok" and self.result is not None


@dataclass(frozen=True)
class Side:
    """One run."""

    name: str
    cells: list[Seen]

    @property
    def environment(self) -> dict[str, Any]:
        """Machine and versions of its first record; empty where it has none."""
        return next((cell.result.environment for cell in self.cells if cell.result is not None), {})

    def differing(self, key: str) -> bool:
        """Whether its records differ in a part of their environment."""
        return len({json.dumps(c.result.environment.get(key), sort_keys=True) for c in self.cells if c.result}) > 1


def read_side(name: str, results_dir: str = "results") -> Side:
    """A run by its folder, by its name below `results_dir`, or a baseline file (.json).

    Raises `UserFault` where there is none, or nothing in it can be read.
    """
    if name.endswith(".json"):
        return read_baseline(Path(name))
    for folder in (Path(name), Path(results_dir) / name):
        if (folder / "plan.json").is_file():
            side = Side(name, [seen(view) for view in views(folder)])
            if not side.cells:
                raise UserFault(f"{folder}: its plan holds no cell")
            return side
    there = Path(results_dir)
    runs = sorted(path.parent.name for path in there.glob("*/plan.json")) if there.is_dir() else []
    raise UserFault(
        f"no run '{name}': got neither a folder with a plan.json nor a run below {results_dir}; "
        f"allowed: a run's folder, a baseline .json, or one of: {', '.join(runs) or 'no run is there'}"
    )


def views(folder: Path) -> list[CellView]:
    """All planned cells in the plan's order: those in tables, of other engines, and planted ones."""
    run = collect(folder)
    order = {info.id: i for i, info in enumerate(run.plan.cells)}
    return sorted([*run.cells, *run.engines, *run.planted], key=lambda view: order[view.info.id])


def seen(view: CellView) -> Seen:
    """A cell with its predictions."""
    columns: dict[str, list[float]] = {}
    if view.status == "ok" and view.result is not None:
        with suppress(*DAMAGED):
            columns = table_of(view.folder / "predictions.parquet", view.result.predictions_sha256).to_pydict()
    return with_answers(Seen(view.info, view.status, view.reason, view.result), columns)


def with_answers(cell: Seen, columns: Mapping[str, list[float]]) -> Seen:
    """The cell with its predictions as arrays; as it was where they cannot be used."""
    try:
        arrays = {name: np.asarray(values) for name, values in columns.items()}
        items = items_of(arrays)
        order = np.argsort(arrays["row"].astype(np.int64))
        names = [name for name in arrays if name.startswith("score_")]
        scores = np.stack([arrays[name][order] for name in names], axis=1).astype(float) if names else None
    except (*DAMAGED, TypeError):  # a column of a record without a hash may hold anything
        return cell
    return Seen(cell.info, cell.status, cell.reason, cell.result, items, scores, columns)


def read_baseline(path: Path) -> Side:
    """A baseline file. Raises `UserFault` where it is missing, damaged, or of another version."""
    try:
        raw = read_json(path)
    except OSError as error:
        raise UserFault(f"cannot read the baseline {path}: {error.strerror}") from None
    except ValueError as error:
        why = str(error).removeprefix(f"{path}: ")
        raise UserFault(f"{path} is no baseline: {why}; allowed: a file written by keep=FILE") from None
    version = raw.get("baseline_version") if isinstance(raw, dict) else None
    if version != BASELINE_VERSION:
        raise UserFault(f"{path} is no baseline: baseline_version {version!r}, this version reads {BASELINE_VERSION}")
    try:
        kept = Baseline.model_validate(present(raw))
    except Newer as error:
        raise UserFault(f"{path}: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserFault(f"{path} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserFault(f"{path} is damaged: {error}; allowed: a file written by keep=FILE") from None
    cells = [from_kept(cell) for cell in kept.cells]
    return Side(str(path), [*cells, *(Seen(info, "not_run", "not run yet") for info in kept.planned)])


def present(raw: dict[str, Any]) -> dict[str, Any]:
    """A baseline's JSON with its records brought to the present schema version, as those of a run's folder are.

    Raises `Newer` for records of a later version, `ValueError` for those that cannot be brought here.
    """
    version = raw.get("schema_version", 1)
    if not isinstance(raw.get("cells"), list):
        return raw  # which is said by what reads it
    cells = [
        {**cell, "result": raised({"schema_version": version, **cell["result"]}, "result", SCHEMA_VERSION)}
        for cell in raw["cells"]
    ]
    return {**raw, "schema_version": SCHEMA_VERSION, "cells": cells}


def from_kept(kept: KeptCell) -> Seen:
    """A cell of a baseline."""
    outcome = kept.result.outcome
    return with_answers(
        Seen(kept.result.cell, outcome.status.value, outcome.reason, kept.result), kept.predictions or {}
    )
