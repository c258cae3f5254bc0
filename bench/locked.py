"""Folders that are written: one writer a run, and the worded fault where writing is impossible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import UserFault


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """The run's folder, made and locked: two runs under one name would overwrite each other's cells."""
    from filelock import FileLock, Timeout

    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run_dir / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise UserFault(f"another run is writing {run_dir}; wait for it, or use run.name= for another folder") from None
    except OSError as error:
        raise unwritable("results_dir", run_dir, error.strerror) from None
    try:
        yield
    finally:
        lock.release()


def unwritable(key: str, folder: Path, why: str | None) -> UserFault:
    """The fault for a folder that cannot be written; `key` names the setting."""
    return UserFault(f"{key}: cannot write into {folder}: {why}; allowed: a writable folder")
