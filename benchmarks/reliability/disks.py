"""A disk that fills up and a store that cannot be written, on a small file system of their own."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.reliability.sweep import Cradle, Reference, Seen, Sweep, again, fsck, looked, made


def why_not(folder: Path) -> str | None:
    """Why no small disk can be had here; None where one can."""
    if os.geteuid() != 0:
        return "needs root, to mount a small file system"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with mounted(folder, 64):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no file system can be mounted here ({error})"


@contextmanager
def mounted(folder: Path, kib: int) -> Iterator[None]:
    """A file system of so many KiB for the block."""
    folder.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def mount(*words: str) -> None:
    """The system's mount command."""
    subprocess.run(["mount", *words], check=True, capture_output=True)


def needed(known: Reference) -> int:
    """KiB that a finished sweep takes, whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4 for path in known.sweep.run_dir.rglob("*") if path.is_file())


def full(cradle: Cradle, known: Reference, folder: Path, tries: int, draw: random.Random) -> dict[str, Any]:
    """The disk of the records fills up at a random place: one line, nothing half written; with room it goes on."""
    if (why := why_not(folder / "probe")) is not None:
        return {"says": "a disk that fills up", "skipped": why}
    moments: list[list[int]] = []
    seen, tried = Seen(), 0
    while len(moments) < tries and tried < 5 * tries:
        tried += 1
        sweep, kib = made(folder / f"full-{tried}"), draw.randrange(16, needed(known))
        with mounted(sweep.folder / "results", kib):
            code = cradle.run(sweep)
            if code == 0:
                continue  # it was large enough
            moments.append([kib, len(sweep.records())])
            last = sweep.output.read_text().strip().splitlines()[-1]
            if code != 2 or not last.startswith("error: ") or "No space left on device" not in last:
                seen.other.append(f"{sweep.folder.name}: {kib} KiB, the command ended with {code}: {last}")
            seen.left += cradle.left()
            seen.damaged += sum(one.kind == "damaged" for one in fsck(sweep).findings) if sweep.run_dir.is_dir() else 0
            mount("-o", "remount,size=64m", str(sweep.folder / "results"))
            seen.add(resumed(cradle, known, sweep))
    return {"says": "a disk that fills up (KiB, records whole by then)", "tries": len(moments), "moments": moments,
            "seen": seen}  # fmt: skip


def resumed(cradle: Cradle, known: Reference, sweep: Sweep) -> Seen:
    """The same command once the disk can be written again."""
    before = sweep.records()
    code = cradle.run(sweep)
    found = Seen() if code == 0 else Seen(other=[f"{sweep.folder.name}: the same command again ended with {code}"])
    found.add(looked(sweep, known))
    found.twice += again(before, sweep)
    return found


def read_only(cradle: Cradle, known: Reference, folder: Path, tries: int, draw: random.Random) -> dict[str, Any]:
    """A store without some of its cells is made read-only: a run says so, check and report work, then it goes on."""
    if (why := why_not(folder / "probe")) is not None:
        return {"says": "a store that cannot be written", "skipped": why}
    seen, moments = Seen(), []
    for number in range(tries):
        sweep = made(folder / f"read-{number}")
        with mounted(sweep.folder / "results", 65536):
            shutil.copytree(known.sweep.run_dir, sweep.run_dir)
            gone = draw.sample(sorted(sweep.run_dir.glob("*/result.json")), draw.randrange(1, 20))
            for path in gone:
                shutil.rmtree(path.parent)
            moments.append([number, 20 - len(gone)])
            mount("-o", "remount,ro", str(sweep.folder / "results"))
            ended = {word: cradle.run(sweep, command=word) for word in ("run", "report")}
            text = sweep.output.read_text()
            if ended != {"run": 2, "report": 0} or "results_dir: cannot write into" not in text or "Traceback" in text:
                seen.other.append(f"{sweep.folder.name}: {ended}")
            seen.damaged += sum(one.kind == "damaged" for one in fsck(sweep).findings)
            mount("-o", "remount,rw", str(sweep.folder / "results"))
            seen.add(resumed(cradle, known, sweep))
    return {"says": "a store that cannot be written", "tries": tries, "moments": moments, "seen": seen}
