"""Columns of a split's files as Python values: parquet, JSON lines or CSV, every fault told in words."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.data.wording import listing
from bench.errors import UserFault

Columns = dict[str, list[Any]]


def read_columns(paths: Sequence[Path], columns: Iterable[str], split: str | None = None) -> tuple[Columns, list[int]]:
    """The named columns of a split, all of its shards joined in order, and each row's number in the split's file.

    Args:
        paths: the shards (parquet), or one .jsonl or .csv file.
        columns: names, each once.
        split: only rows whose `split` key is this (a sample's file holds several); None takes every row.

    Raises:
        UserFault: a column or split that is not there, a file that cannot be read. CSV values are strings.
    """
    wanted = list(columns)
    reading = list(dict.fromkeys(wanted if split is None else [*wanted, "split"]))
    values: Columns = {column: [] for column in reading}
    for path in paths:
        reader = {".parquet": _parquet, ".jsonl": _jsonl, ".csv": _csv}[path.suffix]
        try:
            part = reader(path, reading)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UserFault(f"cannot read {path}: {type(error).__name__}: {error}") from error
        for column in part:
            values[column].extend(part[column])
    if split is None:
        return values, list(range(len(values[wanted[0]])))
    return _only(values, wanted, split, paths[0])


def _only(values: Columns, wanted: list[str], split: str, path: Path) -> tuple[Columns, list[int]]:
    index = [i for i, name in enumerate(values["split"]) if name == split]
    if not index:
        there = sorted({str(name) for name in values["split"]})
        raise UserFault(f"{path} has no split '{split}'; splits there: {listing(there, split)}")
    return {column: [values[column][i] for i in index] for column in wanted}, index


def require(path: Path, wanted: Iterable[str], available: Sequence[str]) -> None:
    """UserFault naming the file, the columns it lacks, those it has and the nearest of them."""
    missing = [column for column in wanted if column not in available]
    if missing:
        lacks = ", ".join(f"'{column}'" for column in missing)
        raise UserFault(f"{path} has no column {lacks}; columns there: {listing(available, missing[0])}")


def _parquet(path: Path, columns: list[str]) -> Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            require(path, columns, file.schema_arrow.names)
            # No thread pool: a process that forks after this must not leave one behind in its children.
            table = file.read(columns=columns, use_threads=False)
            return {column: table.column(column).to_pylist() for column in columns}
    except pyarrow.ArrowException as error:
        raise UserFault(f"cannot read {path} as parquet: {error}") from error


def _jsonl(path: Path, columns: list[str]) -> Columns:
    values: Columns = {column: [] for column in columns}
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserFault(f"{path} line {number} is not JSON: {error}") from error
            if not isinstance(row, dict):
                raise UserFault(f"{path} line {number} is {type(row).__name__}; allowed: one JSON object a line")
            try:
                require(path, columns, list(row))
            except UserFault as fault:
                raise UserFault(f"line {number} of {fault}") from None
            for column in columns:
                values[column].append(row[column])
    return values


def _csv(path: Path, columns: list[str]) -> Columns:
    values: Columns = {column: [] for column in columns}
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream, strict=True)
        header = next(rows, [])
        require(path, columns, header)
        twice = [column for column in columns if header.count(column) > 1]
        if twice:
            raise UserFault(f"{path} has the column '{twice[0]}' twice; allowed: each name once")
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise UserFault(
                    f"{path} line {rows.line_num} has {len(row)} cells, the header has {len(header)}; "
                    "allowed: as many (quote a text that holds a comma)"
                )
            for column in columns:
                values[column].append(row[header.index(column)])
    return values
