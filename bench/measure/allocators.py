"""What an allocator says when it gives up."""

from __future__ import annotations

import torch


def is_shortage(error: BaseException) -> bool:
    """Whether memory ran out: Python's, a card's, or torch's on a CPU, whose error has no class of its own."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
