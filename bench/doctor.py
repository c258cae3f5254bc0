"""What this machine can do: versions, sources within reach, and what is unsupported here and why."""

from __future__ import annotations

import os
import shutil
import sys
from typing import Any

from bench.config.settings import DataSettings
from bench.data import hub
from bench.data.sources import mirror_folder
from bench.measure import environment, memory
from bench.models.cache import cache_dir, is_ready
from bench.models.catalog import ALIASES
from bench.process import can_fork


def examine() -> dict[str, Any]:
    """Everything `doctor` tells, as plain data."""
    machine = environment.machine()
    mirror = mirror_folder(DataSettings())
    reach = {
        "mirror": str(mirror) if mirror is not None and mirror.is_dir() else None,
        "hub": hub.reachable(hub.endpoint()),
        "sample": True,
    }
    return {
        "machine": machine,
        "versions": environment.versions(),
        "cache": {"folder": str(cache_dir()), "ready": [name for name, ref in ALIASES.items() if is_ready(ref)]},
        "sources": reach,
        "unsupported": unsupported(machine, reach),
    }


def unsupported(machine: dict[str, Any], reach: dict[str, Any]) -> list[dict[str, str]]:
    """What does not work here, each with the reason and what to do."""
    found = []
    if machine["gpu"] is None:
        found.append({"what": "CUDA cells", "why": "the driver shows no card; cells run on the CPU in fp32"})
    if machine["gpu"] is None:
        found.append({"what": "energy and driver memory", "why": "they are read from the card's driver"})
    if not can_fork():
        found.append(
            {"what": "warm start", "why": f"fork is not used on {sys.platform}; every cell imports the stack anew"}
        )
    if memory.high_water() is None:
        found.append({"what": "exact resident peaks", "why": "no /proc here; peaks are sampled every 20 ms"})
    if not reach["hub"]:
        why = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "its address does not answer"
        found.append({"what": "the hub", "why": f"{why}; use a mirror (data.mirror=DIR) or the bundled sample"})
    if shutil.which("chromium") is None and shutil.which("google-chrome") is None:
        found.append({"what": "browser tests", "why": "no Chromium on PATH; the report itself needs none to be made"})
    return found
