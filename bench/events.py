"""What a cell's process tells its launcher while it runs: JSON lines on a pipe."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

SHARED = ("plant", "adapt", "default", "probe")
"""Phases that tell how far they are, again and again."""


class Events:
    """JSON lines to the launcher, on a descriptor no library prints to."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def emit(self, event: str, **fields: Any) -> None:
        """One line, written whole (shorter than a pipe's atomic size)."""
        os.write(self.descriptor, (json.dumps({"event": event, **fields}) + "\n").encode())

    def teller(self) -> Callable[[str, float], None]:
        """Tells phase and share of it, of a phase that tells again and again every fiftieth of it at most."""
        last = [-1.0]

        def tell(phase: str, share: float) -> None:
            if phase not in SHARED or share - last[0] >= 0.02 or share >= 1 or share < last[0]:
                last[0] = share
                self.emit("progress", phase=phase, share=round(share, 3))

        return tell
