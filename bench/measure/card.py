"""The NVIDIA driver's view (NVML): which card, how many bytes a process holds, how much energy. No CUDA call here,
so a process that will fork may use it."""

from __future__ import annotations

import os
from functools import cache
from typing import Any


@cache
def handle() -> tuple[Any, Any] | None:
    """(pynvml module, handle of the first visible card), or None without driver or card."""
    try:
        import pynvml

        pynvml.nvmlInit()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip() or "-1"
        if visible == "-1":
            return None
        if visible.isdigit():
            return pynvml, pynvml.nvmlDeviceGetHandleByIndex(int(visible))
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(visible.encode())
    except Exception:  # no library, no driver, no card, no permission: all mean "no card here"
        return None


def visible() -> list[str]:
    """The cards this process may use, as CUDA_VISIBLE_DEVICES names them; empty without driver or card."""
    found = handle()
    if found is None:
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(i) for i in range(found[0].nvmlDeviceGetCount())]
    return [part.strip() for part in named.split(",") if part.strip()]


def take(number: int) -> None:
    """From now on this process sees the card of this number only: to call before CUDA is touched."""
    os.environ["CUDA_VISIBLE_DEVICES"] = visible()[number]
    handle.cache_clear()


def describe() -> dict[str, Any] | None:
    """Name, memory (bytes), driver and compute capability of the card; None without one."""
    found = handle()
    if found is None:
        return None
    nvml, card = found
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(card)
    name = nvml.nvmlDeviceGetName(card)
    return {
        "name": name.decode() if isinstance(name, bytes) else name,
        "memory_bytes": int(nvml.nvmlDeviceGetMemoryInfo(card).total),
        "driver": str(nvml.nvmlSystemGetDriverVersion()),
        "compute_capability": f"{major}.{minor}",
    }


def process_bytes() -> int:
    """Bytes the driver says this process holds; 0 where it does not say (containers hide process ids)."""
    found = handle()
    if found is None:
        return 0
    nvml, card = found
    for process in nvml.nvmlDeviceGetComputeRunningProcesses(card):
        if process.pid == os.getpid() and process.usedGpuMemory:
            return int(process.usedGpuMemory)
    return 0


def energy_joules() -> float | None:
    """Energy the card has used since the driver was loaded, joules; None where not offered."""
    found = handle()
    if found is None:
        return None
    try:
        return float(found[0].nvmlDeviceGetTotalEnergyConsumption(found[1])) / 1000.0
    except Exception:  # cards before Volta do not offer it
        return None
