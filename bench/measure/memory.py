"""Peak memory of the resident set, by phase.

`ru_maxrss` cannot serve: it cannot be reset and a forked child inherits its parent's. VmHWM can be reset.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

STATUS = Path("/proc/self/status")
INTERVAL_SECONDS = 0.02


def resident() -> int:
    """Resident set of this process, bytes."""
    return int(psutil.Process().memory_info().rss)


def high_water() -> int | None:
    """Highest resident set since the last reset (VmHWM), bytes; None where the kernel does not tell."""
    if not STATUS.is_file():
        return None
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def reset_high_water() -> bool:
    """Give freed pages back and start a new high-water mark. False where the kernel refuses."""
    if sys.platform != "linux":
        return False
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return False
    return True


class Sampler:
    """Highest value of a figure that has no high-water mark of its own, read in a thread every 20 ms."""

    def __init__(self, read: Callable[[], int]) -> None:
        self.read, self.peak = read, 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.stop.is_set():
            self.peak = max(self.peak, self.read())
            self.stop.wait(INTERVAL_SECONDS)

    def __enter__(self) -> Sampler:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self.peak = max(self.peak, self.read())
