"""Records on disk: written whole or not at all, and read back or refused in words."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from bench.errors import UserFault
from bench.probed import PROBE_VERSION, ProbeRecord
from bench.records import SCHEMA_VERSION, PlanFile, Record, Result

AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_atomically(path: Path, text: str | bytes) -> None:
    """Temporary file in the same folder, fsync, rename: a reader sees the old file or the new one, never a part.

    Raises `OSError` (a full disk, a read-only folder) with the temporary file removed.
    """
    data = text.encode("utf-8") if isinstance(text, str) else text
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_record(path: Path, record: Record) -> None:
    """Write a record as indented JSON, atomically. NaN and infinity are refused by never being produced."""
    write_atomically(path, json.dumps(record.model_dump(mode="json"), indent=1, allow_nan=False) + "\n")


def read_result(path: Path) -> Result:
    """Read one `result.json`. Raises `ValueError` with one sentence where it is damaged or of another schema."""
    return _read(path, Result, SCHEMA_VERSION)


def _read(path: Path, kind: type[AnyRecord], wanted: int) -> AnyRecord:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if version != wanted:
        raise ValueError(f"{path}: schema_version {version!r}, this version reads {wanted}")
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def probe_file(folder: Path, probe: str) -> Path:
    """Where the record of a cell's probe lies."""
    return folder / "probes" / f"{probe}.json"


def log_file(folder: Path, probe: str | None = None) -> Path:
    """Where a cell's output goes, or that of one of its probes."""
    return folder / "log.txt" if probe is None else folder / "probes" / f"{probe}.log.txt"


def read_probe(path: Path) -> ProbeRecord:
    """Read the record of a probe. Raises `ValueError` with one sentence where it is damaged or of another schema."""
    return _read(path, ProbeRecord, PROBE_VERSION)


def read_plan(path: Path) -> PlanFile:
    """Read `plan.json`. Raises `UserFault` where there is none or it is damaged."""
    if not path.is_file():
        raise UserFault(f"nothing to report: {path} does not exist; run the suite first")
    try:
        return PlanFile.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError, ValueError) as error:
        raise UserFault(
            f"{path} is damaged ({str(error).splitlines()[0]}); run the suite again to rewrite it"
        ) from None
