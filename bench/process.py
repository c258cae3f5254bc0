"""Facts about processes that launcher, warm process and doctor share. Imports nothing heavy."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

UNWRITABLE = 28
"""Exit code of a cell's process that could not write its record (ENOSPC is 28 on Linux)."""
ALLOCATOR = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "tcache_count": 0,
        "mxfast": 0,
        "mmap_threshold": 32 * 2**20,
        "trim_threshold": 8 * 2**30,
    }.items()
)
"""How glibc's allocator works in a cell, unless the user's environment says otherwise. Freed small objects join their
neighbours at once instead of keeping large holes apart; the other two stand still, so that memory does not depend on
what the process did before (docs/decisions.md has the figures)."""


def importable() -> dict[str, str]:
    """Environment of a process of ours, wherever it starts: this package can be imported, and no Python file of the
    folder it starts in is taken for a module, which would be foreign code that nobody named."""
    here = str(Path(__file__).resolve().parent.parent)
    further = [os.path.abspath(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return {"PYTHONPATH": os.pathsep.join([here, *further]), "PYTHONSAFEPATH": "1"}


def can_fork() -> bool:
    """Fork exists and is safe here; `BENCH_START_METHOD=spawn` turns it off."""
    return hasattr(os, "fork") and sys.platform == "linux" and os.environ.get("BENCH_START_METHOD", "fork") == "fork"


def die_with_parent(by: signal.Signals | None = None) -> None:
    """Have the kernel end this process when its parent dies, so that a killed run leaves nothing behind (Linux).

    `by`: the signal, SIGKILL if None; one that can be heard leaves time to end what it has started.
    """
    if sys.platform != "linux":
        return
    import ctypes

    parent = os.getppid()
    by = by or signal.SIGKILL
    ctypes.CDLL(None).prctl(1, by)  # 1 is PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died between the two calls
        os.kill(os.getpid(), by)


def adopt_orphans() -> None:
    """Have whatever loses its parent below this process become its child, so that it can be found and ended (Linux)."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(36, 1)  # 36 is PR_SET_CHILD_SUBREAPER
