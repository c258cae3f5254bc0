"""What a record says about where it was measured. No path, no host name, no secret."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from bench import __version__
from bench.identity import code_digest
from bench.measure import card
from bench.places import PACKAGE

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "safetensors", "scikit-learn", "numpy", "bitsandbytes")


def cpu_name() -> str:
    """The processor's own name."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def machine() -> dict[str, Any]:
    """Processor, cores, memory, card; `id` is a digest of these, to find earlier times of the same machine."""
    described = {
        "system": platform.system(),
        "cpu": cpu_name(),
        "cores": cores(),
        "memory_bytes": int(psutil.virtual_memory().total),
        "gpu": card.describe(),
    }
    described["id"] = hashlib.sha256(repr(sorted(described.items())).encode()).hexdigest()[:12]
    return described


def versions() -> dict[str, str | None]:
    """Versions of what can change a number; None where not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "adaptbench": __version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


@cache
def commit() -> dict[str, Any]:
    """Commit of a checkout and whether it has uncommitted changes; both None in a wheel."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(PACKAGE.parent), *arguments], capture_output=True, text=True, timeout=10
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not (PACKAGE.parent / ".git").exists():
        return {"commit": None, "dirty": None}
    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def environment(threads: int | None = None) -> dict[str, Any]:
    """The `environment` of a record."""
    return {
        "machine": machine(),
        "versions": versions(),
        **commit(),
        "code_digest": code_digest(),
        "threads": threads,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
