"""A cell's folder: room made for an attempt, a damaged record put aside, a log kept short."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from bench.errors import UserFault
from bench.job import Job
from bench.store import SCORED, log_file, read_result, write_atomically, write_record

LOG_BYTES, LOG_KEPT = 16 * 2**20, 2**20
"""A log longer than the first is cut down to its beginning and its end, each as long as the second: a cell that prints
without end must not fill the disk."""


def make_room(folder: Path) -> None:
    """An empty folder for the cell; what a former attempt left goes, a damaged record is kept aside."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("result.json", SCORED, "predictions.parquet", "log.txt"):
            (folder / name).unlink(missing_ok=True)
        for place in (folder / "adapted", folder / "probes", *folder.glob("tmp????????"), *folder.glob(".ranks-*")):
            shutil.rmtree(place, ignore_errors=True)
        for half in (*folder.glob(".*.json.*"), *folder.glob(".predictions.parquet.*")):
            half.unlink(missing_ok=True)  # of a writer that was killed: the run is locked, so it cannot be at work
    except OSError as error:
        raise UserFault(f"cannot write into {folder.parent}: {error.strerror}") from None


def keep_score(folder: Path, why: str) -> bool:
    """Whether the cell in `folder` had its score when its process was ended: that is its record then, with a note."""
    if not (folder / SCORED).is_file():
        return False
    result = read_result(folder / SCORED)
    result.notes.append(f"the defaults have no score: {why}")
    write_record(folder / "result.json", result)
    (folder / SCORED).unlink()
    return True


def why_unwritable(folder: Path, size: int = 2**16) -> str:
    """What the system says to a small file there."""
    path = folder / ".result.json.try"
    try:
        write_atomically(path, bytes(size))
        path.unlink()
    except OSError as error:
        return str(error.strerror)
    return "a moment ago a record could not be written"


def set_aside(folder: Path) -> Path:
    """Rename a damaged record, so that it can be looked at and its cell runs again."""
    now = int(time.time())
    while (aside := folder / f"result.damaged-{now}.json").exists():  # twice in a second, or the clock was set back
        now += 1
    os.replace(folder / "result.json", aside)
    return aside


def log_end(job: Job, characters: int = 300) -> str:
    """The last words of the log of a cell or its probe, in one line."""
    try:
        text = end_of(log_file(Path(job.folder), job.probe), 4 * characters).decode("utf-8", "replace")
    except OSError:
        return ""
    return " ".join(text.split())[-characters:]


def end_of(path: Path, size: int) -> bytes:
    """The last bytes of a file, at most `size`."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        return file.read()


def shorten(log: Path) -> None:
    """Take out the middle of a log that has grown too long, while its cell may go on writing to it."""
    with suppress(OSError):
        if (size := log.stat().st_size) <= LOG_BYTES:
            return
        end = end_of(log, LOG_KEPT)
        os.truncate(log, LOG_KEPT)
        with log.open("ab") as file:
            file.write(
                f"\n[... {size - 2 * LOG_KEPT} bytes were taken out here: the log was too long ...]\n".encode() + end
            )
