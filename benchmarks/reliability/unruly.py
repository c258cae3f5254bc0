"""Cells that leak, leave processes behind, print without end or hear no signal: ended by their limits and recorded."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bench.room import LOG_BYTES
from benchmarks.reliability import kills
from benchmarks.reliability.sweep import Cradle, Reference, Seen, Sweep, made

CAP_GIB = 1.5
LEAKS = """
    held = []
    for _ in range(100):  # 4 GiB at most, then nobody has stopped it
        held.append(bytearray(b"x") * (40 * 2**20))
    raise RuntimeError("nobody stopped it")
"""
LEAVES = """
    import signal, subprocess, time
    subprocess.Popen(["sleep", "600"])
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    if (middle := os.fork()) == 0:
        if os.fork() == 0:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            time.sleep(600)
        os._exit(0)
    os.waitpid(middle, 0)
"""
STAYS = (
    LEAVES.replace("os.setsid()", "pass")
    + """
    open(__file__ + ".now", "w").close()
    time.sleep(600)
"""
)
"""The daemon stays in its cell's group: forked from the cradle it has the cradle's environment, without the mark that a
warm process of its own would have given it."""
PRINTS = """
    for _ in range(100):
        os.write(1, b"x" * 2**20)
"""
DEAF = """
    import signal, subprocess, sys, time
    for number in range(1, 32):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"])
    time.sleep(600)
"""
CELLS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "leaks": ("a cell that leaks memory", LEAKS, "out_of_memory", (f"budget.memory_gib={CAP_GIB}",)),
    "leaves": ("a cell that leaves three processes behind, one a deaf daemon", LEAVES, "ok", ()),
    "prints": ("a cell that prints 100 MiB", PRINTS, "ok", ()),
    "deaf": ("a cell that hears no signal, with a child that does not either", DEAF, "timeout",
             ("run.cell_seconds={seconds}",)),
}  # fmt: skip
"""Name -> what it is, what it does before it answers, the outcome it is to have, what the command is told besides."""

BEREFT: dict[str, tuple[str, Callable[[int], int | None], int, dict[str, str]]] = {
    "cli_amid": ("the command", kills.command, -signal.SIGKILL, {}),
    "warm_amid": ("the warm process", kills.warm, 1, {"stays": "error", "ash": "ok"}),
}
"""Name -> who is killed while a cell has processes of its own, how the command ends, what is recorded."""


def bereft(
    name: str, cradle: Cradle, known: Reference, folder: Path, tries: int, draw: random.Random
) -> dict[str, Any]:
    """Kill whoever would end a cell's own processes, a random moment after the cell has started them."""
    says, find, code, recorded = BEREFT[name]
    seen, moments = Seen(), []
    for number in range(tries):
        sweep, wait = made(folder / f"{name}-{number}", {"stays": STAYS}), draw.uniform(0, 0.2)
        pid = cradle.begin(sweep, sweep.words("strategies=stays,ash", "seeds=1"))
        while not (sweep.folder / "adapters" / "stays.py.now").exists() and psutil.pid_exists(pid):
            time.sleep(0.005)
        time.sleep(wait)
        if (target := find(pid)) is not None:
            os.kill(target, signal.SIGKILL)
        ended = cradle.end(pid)
        seen.left += cradle.left(10)
        moments.append([round(wait, 3), len(statuses(sweep))])
        if target is None or ended != code or statuses(sweep) != recorded:
            seen.other.append(f"{sweep.folder.name}: the command ended with {ended}, its cells as {statuses(sweep)}")
    says = f"SIGKILL of {says} while a cell has three processes of its own"
    return {"says": says, "tries": tries, "moments": moments, "seen": seen}


def statuses(sweep: Sweep) -> dict[str, str]:
    """Strategy -> recorded outcome."""
    records = [json.loads(path.read_text()) for path in sweep.run_dir.glob("*/result.json")]
    return {record["cell"]["strategy"]: record["outcome"]["status"] for record in records}


def unruly(name: str, cradle: Cradle, known: Reference, folder: Path, tries: int, _: random.Random) -> dict[str, Any]:
    """Cells of one kind before one that behaves: all have their outcome, and no process is left."""
    says, body, status, given = CELLS[name]
    words = [word.format(seconds=max(2, round(known.seconds))) for word in given]  # of a machine that may be busy
    seen, moments = Seen(), []
    for number in range(tries):
        sweep = made(folder / f"{name}-{number}", {name: body})
        code = cradle.run(sweep, f"strategies={name},ash", "seeds=1", *words)
        seen.left += cradle.left(5)
        found = statuses(sweep)
        for path in sweep.run_dir.glob("*/log.txt"):
            if (size := path.stat().st_size) > 2 * LOG_BYTES:
                seen.other.append(f"{sweep.folder.name}: a log of {size} bytes")
        moments.append([number, found.get(name)])
        seen.lost += 2 - len(found)
        if code != 0 or found != {name: status, "ash": "ok"}:
            seen.other.append(f"{sweep.folder.name}: the command ended with {code}, its cells as {found}")
    return {"says": f"{says}: recorded as {status}", "tries": tries, "moments": moments, "seen": seen}
