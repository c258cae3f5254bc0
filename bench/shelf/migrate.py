"""Records of older schema versions written again in the present one. Newer and damaged ones are left as they are."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import UserFault
from bench.locked import held, unwritable
from bench.migrations import Newer
from bench.report.format import count
from bench.shelf.found import Run
from bench.store import kind_of, read_json, read_record, write_atomically, write_record


@dataclass
class Migrated:
    """What became of the records."""

    rewritten: list[str] = field(default_factory=list)
    """Paths that were of an older version."""
    present: int = 0
    """Records that are of this version already."""
    left: dict[str, str] = field(default_factory=dict)
    """Path -> why it was left as it is: newer, or damaged."""

    def line(self) -> str:
        """All of it in one line."""
        return (
            f"migrated: {count(len(self.rewritten), 'record')} rewritten, {self.present} of this version already, "
            f"{len(self.left)} left as they are"
        )

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"rewritten": self.rewritten, "present": self.present, "left": self.left}


def migrate(runs: list[Run]) -> Migrated:
    """Rewrite what is old, with each run locked meanwhile. Raises `UserFault` where that is impossible."""
    done = Migrated()
    for run in runs:
        with held(run.folder):
            for path in files(run.folder):
                one(path, done)
    return done


def files(folder: Path) -> list[Path]:
    """Every record of a run: cells and probes first, the plan that names them last."""
    cells = [*sorted(folder.glob("*/result.json")), *sorted(folder.glob("*/probes/*.json"))]
    plan = folder / "plan.json"
    return [*cells, *([plan] if plan.is_file() else [])]


def one(path: Path, done: Migrated) -> None:
    """Bring one record to the present version, unless it is newer or damaged. Raises `UserFault`."""
    try:
        version, wanted = read_json(path).get("schema_version"), kind_of(path).version
        record = read_record(path)
    except (Newer, ValueError, OSError, AttributeError) as error:
        done.left[str(path)] = str(error).removeprefix(f"{path}: ")
        return
    if version == wanted:
        done.present += 1
        return
    try:
        old = path.with_name(f"{path.name}.v{version}.old")
        write_atomically(old, path.read_bytes())
        write_record(path, record)
        if read_record(path) != record:
            os.replace(old, path)
            raise UserFault(f"{path}: what was written is not what was read; the old record is back in its place")
        old.unlink()
    except OSError as error:
        raise unwritable("--migrate", path.parent, error.strerror) from None
    done.rewritten.append(str(path))
