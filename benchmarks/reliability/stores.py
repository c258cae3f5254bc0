"""Many writers on one store, and two runs of one suite at once."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock  # noqa: F401  # before 64 processes import it

from bench.errors import UserFault
from bench.locked import held
from bench.store import read_result, write_record
from benchmarks.reliability.sweep import Cradle, Reference, Seen, looked, made

WRITERS, ROUNDS, SHOT = 64, 4, 8


def forked(work: Callable[[], None]) -> int:
    """Do work in a process of its own; its id."""
    if pid := os.fork():
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def writers(cradle: Cradle, known: Reference, folder: Path, tries: int, draw: random.Random) -> dict[str, Any]:
    """64 processes write one record over and over, and one of their own each; 8 are killed, and one reads meanwhile.

    Before, each wants to be the one writer of the folder.
    """
    seen, reads, moments = Seen(), 0, []
    record = read_result(next(known.sweep.run_dir.glob("*/result.json")))
    for number in range(tries):
        place, begun = folder / f"writers-{number}", time.monotonic()
        place.mkdir(parents=True)

        def write(one: int, place: Path = place) -> None:
            alone(place)
            mine = record.model_copy(update={"notes": [f"writer {one} " * 50]})
            for _ in range(ROUNDS):
                write_record(place / "shared.json", mine)
                write_record(place / f"{one}.json", mine)

        pids = [forked(lambda one=one: write(one)) for one in range(WRITERS)]  # type: ignore[misc]
        shots, goal = set(draw.sample(pids, SHOT)), draw.randrange(WRITERS - SHOT)
        while len(own := list(place.glob("[0-9]*.json"))) < goal and time.monotonic() - begun < 300:
            time.sleep(0.001)
        for pid in shots:
            os.kill(pid, signal.SIGKILL)
        moments.append([round(time.monotonic() - begun, 3), len(own)])
        reads += watched(place, pids, seen)
        for one in range(WRITERS):
            if (path := place / f"{one}.json").is_file():
                seen.damaged += not whole(path, one)
            elif pids[one] not in shots:
                seen.lost += 1
        seen.twice += overlaps(place)
    says = f"{WRITERS} writers on one store, {SHOT} of them killed, one reader ({reads} reads)"
    return {"says": says, "tries": tries, "moments": moments, "seen": seen}


def watched(place: Path, pids: list[int], seen: Seen) -> int:
    """Read the shared record until all writers have ended; how often."""
    reads, waiting = 0, set(pids)
    while waiting:
        waiting -= {pid for pid in list(waiting) if os.waitpid(pid, os.WNOHANG)[0]}
        time.sleep(0.0005)
        if (place / "shared.json").is_file():
            reads += 1
            seen.damaged += not whole(place / "shared.json", None)
    return reads


def whole(path: Path, one: int | None) -> bool:
    """Whether a record can be read and is a writer's, or that of one."""
    try:
        notes = read_result(path).notes
    except ValueError:
        return False
    return notes[0].startswith("writer ") if one is None else notes == [f"writer {one} " * 50]


def alone(place: Path) -> None:
    """Be the folder's one writer for a moment, or be refused; what happened is written down as it happens."""
    line = os.open(place / "held.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        with held(place / "run"):
            os.write(line, f"+{os.getpid()}\n".encode())
            time.sleep(0.005)
            os.write(line, f"-{os.getpid()}\n".encode())
    except UserFault:
        os.write(line, b"?\n")
    os.close(line)


def overlaps(place: Path) -> int:
    """How often somebody came to hold the folder while another held it who was not killed at it."""
    inside, found = None, 0
    lines = (place / "held.txt").read_text().split()
    for line in lines:
        if line[0] == "+":
            found += inside is not None and f"-{inside}" in lines
            inside = line[1:]
        elif line[0] == "-":
            inside = None
    return found


def two_runs(cradle: Cradle, known: Reference, folder: Path, tries: int, draw: random.Random) -> dict[str, Any]:
    """The same command twice, the second at a random moment of the first: one runs, the other is refused in a line."""
    seen, moments, refused = Seen(), [], 0
    for number in range(tries):
        sweep, wait = made(folder / f"two-{number}"), draw.uniform(0, 0.8 * known.seconds)
        first = cradle.begin(sweep, sweep.words())
        time.sleep(wait)
        moments.append([round(wait, 3), len(sweep.records())])
        codes = sorted((cradle.end(cradle.begin(sweep, sweep.words())), cradle.end(first)))
        refused += codes == [0, 2]
        if codes not in ([0, 2], [0, 0]) or (2 in codes and "another run is writing" not in sweep.output.read_text()):
            seen.other.append(f"{sweep.folder.name}: the commands ended with {codes}")
        seen.left += cradle.left()
        seen.add(looked(sweep, known))
        seen.twice += sum(number - 1 for number in sweep.ran().values())
    says = f"two runs of one suite at once ({refused} refused, the others came after the end)"
    return {"says": says, "tries": tries, "moments": moments, "seen": seen}
