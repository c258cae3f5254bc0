"""Records on disk: written whole or not at all, and read back or refused in words."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError

from bench.errors import UserFault
from bench.migrations import Kind, Newer, raised
from bench.probed import PROBE_VERSION, ProbeRecord
from bench.records import SCHEMA_VERSION, PlanFile, Record, Result, Sealed

AnyRecord = TypeVar("AnyRecord", bound=Record)

SCORED = "scored.json"
"""The record of a cell that has its score, while its defaults are tried: it holds should that end the process."""


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
    """Write a record as indented JSON, atomically, sealed where it has a file of its own. NaN and infinity are refused
    by never being produced."""
    content = record.model_dump(mode="json")
    if isinstance(record, Sealed):
        content["sha256"] = seal(content)
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def seal(content: dict[str, Any]) -> str:
    """SHA-256 of what a record says, however its JSON is laid out: a digit changed on the disk is no fault of syntax,
    and nothing else would give it away."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def unsealed(raw: Any, wanted: int) -> Any:
    """A record's JSON without its seal. Raises `ValueError` where that is of other content; what a newer version may
    mean by it is not ours to say."""
    if not isinstance(raw, dict) or "sha256" not in raw or version_of(raw) > wanted:
        return raw
    content = {name: value for name, value in raw.items() if name != "sha256"}
    if seal(content) != raw["sha256"]:
        raise ValueError("it is not what was written: its sha256 is of another content")
    return content


def version_of(raw: Any) -> int:
    """The schema version that JSON says; 0 where it says none."""
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    return version if isinstance(version, int) else 0


def read_whole(path: Path, sha256: str | None) -> bytes:
    """The bytes of a file, which must be those of a hash where there is one. Raises `ValueError`, `OSError`."""
    data = path.read_bytes()
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{path}: not the {path.name} that was recorded: its sha256 is another one")
    return data


def read_result(path: Path) -> Result:
    """Read one `result.json`, whatever its schema version up to ours.

    Raises `ValueError` with one sentence where it is damaged, `Newer` where a newer version wrote it.
    """
    return _read(path, Result, "result", SCHEMA_VERSION)


def whole(digits: str) -> int:
    """A whole number of a record. Raises `ValueError` for one that no float can hold, which nothing could divide."""
    if len(digits) > 300:
        raise ValueError(f"a whole number of {len(digits)} digits")
    return int(digits)


def read_json(path: Path) -> Any:
    """The JSON of a file. Raises `ValueError` with one sentence where it is none, `OSError` where it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_int=whole)
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    except RecursionError:
        raise ValueError(f"{path}: not JSON of a record (nested too deeply)") from None


def _read(path: Path, model: type[AnyRecord], kind: Kind, wanted: int) -> AnyRecord:
    raw = read_json(path)
    try:
        return model.model_validate(raised(unsealed(raw, wanted), kind, wanted))
    except ValidationError as error:  # which is a ValueError too
        first = error.errors()[0]
        raise ValueError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except Newer as error:
        raise Newer(f"{path}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


class Kept(NamedTuple):
    """A kind of file that holds a record."""

    model: type[Record]
    kind: Kind
    version: int


def kind_of(path: Path) -> Kept:
    """Which kind of record a file is by its name and folder."""
    if path.name == "plan.json":
        return Kept(PlanFile, "plan", SCHEMA_VERSION)
    if path.parent.name == "probes":
        return Kept(ProbeRecord, "probe", PROBE_VERSION)
    return Kept(Result, "result", SCHEMA_VERSION)


def read_record(path: Path) -> Record:
    """Read a record of whichever kind. Raises as `read_result` does."""
    return _read(path, *kind_of(path))


def newer_records(folder: Path) -> list[Path]:
    """Files of a cell's folder that a newer version wrote: its record and those of its probes."""
    return [p for p in (folder / "result.json", *sorted((folder / "probes").glob("*.json"))) if is_newer(p)]


def is_newer(path: Path) -> bool:
    """Whether a newer version wrote a record; a file that is missing or no record was written by none."""
    try:
        raw = read_json(path)
    except (ValueError, OSError):
        return False
    return version_of(raw) > kind_of(path).version


def probe_file(folder: Path, probe: str) -> Path:
    """Where the record of a cell's probe lies."""
    return folder / "probes" / f"{probe}.json"


def log_file(folder: Path, probe: str | None = None) -> Path:
    """Where a cell's output goes, or that of one of its probes."""
    return folder / "log.txt" if probe is None else folder / "probes" / f"{probe}.log.txt"


def read_probe(path: Path) -> ProbeRecord:
    """Read the record of a probe. Raises `ValueError` with one sentence where it is damaged or of another schema."""
    return _read(path, ProbeRecord, "probe", PROBE_VERSION)


def read_plan(path: Path) -> PlanFile:
    """Read `plan.json`. Raises `UserFault` where there is none, it is damaged, or a newer version wrote it."""
    if not path.is_file():
        raise UserFault(f"nothing to report: {path} does not exist; run the suite first")
    try:
        return _read(path, PlanFile, "plan", SCHEMA_VERSION)
    except Newer as error:
        raise UserFault(str(error)) from None
    except (ValueError, OSError) as error:
        why = str(error).removeprefix(f"{path}: ").splitlines()[0]
        raise UserFault(f"{path} is damaged ({why}); run the suite again to rewrite it") from None
