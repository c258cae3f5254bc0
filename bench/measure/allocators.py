"""What an allocator may take, and what it says when it gives up."""

from __future__ import annotations

import gc

import torch


def is_shortage(error: BaseException) -> bool:
    """Whether memory ran out: Python's, a card's, or torch's on a CPU, whose error has no class of its own."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def limit_device_memory(device: str, gib: float | None) -> None:
    """Hold this process to `gib` of the card."""
    if device == "cuda" and gib is not None:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * 2**30 / total))


def release(device: str) -> None:
    """Give back what nobody needs any more, before another model is held in its place: wrapped models hold themselves
    in cycles, and a card's allocator keeps the blocks of what is gone."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
