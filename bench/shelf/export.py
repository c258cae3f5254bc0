"""Records as one flat table: a row a cell, columns with dotted names, absent values empty."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.errors import UserFault
from bench.report.format import count
from bench.shelf.found import Found
from bench.store import write_atomically

SERIES = ("training.losses", "training.told", "tuning.trials", "curated")
"""Parts of a record that are one value a step, a trial or a row, and no value of the cell: left out."""
Rows = list[dict[str, Any]]


def export(cells: list[Found], path: Path, force: bool) -> str:
    """Write the readable records among the cells; what was done, in a line. Raises `UserFault`."""
    rows = table([cell for cell in cells if cell.result is not None])
    if not rows:
        raise UserFault(f"export={path}: none of the {count(len(cells), 'cell')} selected has a readable record")
    if path.exists() and not force:
        raise UserFault(f"export={path}: the file exists; allowed: another name, or --force to replace it")
    written = as_csv(rows) if path.suffix == ".csv" else as_lines(rows) if path.suffix == ".jsonl" else as_parquet(rows)
    try:
        write_atomically(path, written)
    except OSError as error:
        raise UserFault(f"export={path}: cannot write it: {error.strerror}; allowed: a writable file") from None
    without = len(cells) - len(rows)
    left_out = f"; {count(without, 'cell')} without a readable record left out" if without else ""
    return f"exported: {count(len(rows), 'cell')}, {len(rows[0])} columns, in {path}{left_out}"


def table(cells: list[Found]) -> Rows:
    """One row a record, all with the same columns in the order of a record's parts."""
    rows = [dict(flat(cell)) for cell in cells]
    first: dict[str, None] = dict.fromkeys(name for row in rows for name in row)
    names = list(first)
    parts = list(dict.fromkeys(name.partition(".")[0] for name in names))
    # a part that some record has not stands there as one empty value: its columns say so already
    inner = {name[:i] for name in names for i, char in enumerate(name) if char == "."}
    kept = sorted((n for n in names if n not in inner), key=lambda name: parts.index(name.partition(".")[0]))
    return [{name: row.get(name) for name in kept} for row in rows]


def flat(cell: Found) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of everything one record says; a list as JSON."""
    assert cell.result is not None
    yield "run", cell.run
    yield "planned", cell.planned
    for name, value in cell.result.model_dump(mode="json").items():
        yield from leaves(name, value)


def leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The single values below one name."""
    if name in SERIES:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(f"{name}.{key}", inner)
    else:
        yield storable(name), storable(json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value)


def storable(value: Any) -> Any:
    """A value that every format can hold: our records have no NaN and no half surrogate pair, but others might."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def text_of(value: Any) -> str:
    """A value where only text fits."""
    return value if isinstance(value, str) else json.dumps(value)


def as_csv(rows: Rows) -> str:
    """RFC 4180 with one newline a row; absent is an empty field, booleans are `true` and `false`."""
    table = [list(rows[0]), *(["" if value is None else text_of(value) for value in row.values()] for row in rows)]
    out = io.StringIO(newline="")
    # a lone carriage return ends a row for whoever reads it, and Python 3.11 quotes it only where it ends rows here
    lone = any("\r" in field for row in table for field in row)
    csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL if lone else csv.QUOTE_MINIMAL).writerows(table)
    return out.getvalue()


def as_lines(rows: Rows) -> str:
    """One JSON object a line; absent is null."""
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def as_parquet(rows: Rows) -> bytes:
    """Typed columns; absent is null. A column of several types (an option that is a number or a word) is text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table({name: typed([row[name] for row in rows]) for name in rows[0]}), out)
    return out.getvalue()


def typed(values: list[Any]) -> Any:
    """A column as an Arrow array."""
    import pyarrow as pa

    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        values = [None if value is None else float(value) for value in values]
    elif len(kinds) > 1:
        values = [None if value is None else text_of(value) for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):  # a whole number beyond 64 bits
        return pa.array([None if value is None else text_of(value) for value in values])
