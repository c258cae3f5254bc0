"""SIGKILL at random moments: of a cell, of the warm process, of the command; then the same command again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.reliability.sweep import Cradle, Reference, Seen, again, looked, made


def command(pid: int) -> int | None:
    """The command itself."""
    return pid


def warm(pid: int) -> int | None:
    """The warm process, once there is one."""
    return next((child.pid for child in below(pid)), None)


def cell(pid: int) -> int | None:
    """The cell at work, if one is."""
    host = warm(pid)
    return None if host is None else next((child.pid for child in below(host)), None)


def below(pid: int) -> list[psutil.Process]:
    """Children that are alive."""
    try:
        return [child for child in psutil.Process(pid).children() if child.status() != psutil.STATUS_ZOMBIE]
    except psutil.Error:
        return []


@dataclass(frozen=True)
class Victim:
    """A kind of process that a run has."""

    says: str
    find: Callable[[int], int | None]
    """Process id of the command -> of the victim, None while there is none."""
    codes: tuple[int, ...] = (0, 1)
    """How the command whose process was killed may end."""


VICTIMS = {
    "worker": Victim("SIGKILL of a cell's process", cell),
    "warm": Victim("SIGKILL of the warm process", warm),
    "cli": Victim("SIGKILL of the command", command, codes=(-signal.SIGKILL,)),
}
"""A node of a cluster is killed in `nodes`."""


def killed(
    name: str, cradle: Cradle, known: Reference, folder: Path, tries: int, draw: random.Random
) -> dict[str, Any]:
    """Kill one victim so many times, each in a sweep of its own, and resume."""
    moments: list[list[float]] = []
    victim, seen, tried = VICTIMS[name], Seen(), 0
    while len(moments) < tries:
        if (tried := tried + 1) > 5 * tries + 5:
            seen.other.append(f"only {len(moments)} of {tries} tries met a process to kill")
            break
        sweep, moment = made(folder / f"{name}-{tried}"), draw.uniform(0, known.seconds)
        pid = cradle.begin(sweep, sweep.words())
        begun, target = time.monotonic(), None
        while target is None and psutil.pid_exists(pid):
            time.sleep(max(0.0005, moment - (time.monotonic() - begun)))
            target = victim.find(pid)
        if target is None or not shot(target):
            cradle.end(pid)
            continue
        moments.append([round(time.monotonic() - begun, 3), len(sweep.records())])
        seen.add(resumed(victim, pid, cradle, known, sweep))
    return {"says": victim.says, "tries": len(moments), "moments": moments, "seen": seen}


def shot(pid: int) -> bool:
    """Whether there was still somebody to kill."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def resumed(victim: Victim, pid: int, cradle: Cradle, known: Reference, sweep: Any) -> Seen:
    """What became of a sweep after a shot: no process is left, the same command finishes it and repeats nothing."""
    code, found = cradle.end(pid), Seen()
    if code not in victim.codes:
        found.other.append(f"{sweep.folder.name}: the command ended with {code}")
    found.left = cradle.left()
    before, ran = sweep.records(), sweep.ran()
    if (code := cradle.run(sweep)) != 0:
        found.other.append(f"{sweep.folder.name}: the same command again ended with {code}")
    found.add(looked(sweep, known))
    found.twice += again(before, sweep)
    repeated = sum(sweep.ran().values()) - sum(ran.values()) - (len(known.answers) - len(before))
    found.twice += repeated
    return found
