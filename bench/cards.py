"""Target cards by name, and whether a predicted peak fits one."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

from pydantic import ConfigDict, Field

from bench.config.frozen import Frozen
from bench.errors import unknown

FILE = Path(__file__).parent / "cards.toml"
GIB = 2**30
CONTEXT_BYTES = 512 * 2**20
"""What CUDA's context and its libraries' workspaces take of a card, outside torch's allocator. Between 0.3 and 0.6 GiB
by card and driver; not measured here."""
ERROR_SHARE = 0.08
"""How far a measured peak may lie above the predicted one, and on a card below it; closer to a limit there is no
verdict."""
CPU_BELOW_SHARE = 0.2
"""How far a process may stay below what is predicted of it: its heap lies otherwise each time, and a prediction is of
the middle (reports/benchmarks/memory-error.md)."""

PROCESS_BYTES = 440 * 2**20
"""Resident set of a cell's process on a CPU before it holds a weight: Python, torch and the other libraries. Measured
at 417 to 419 MiB (Linux, torch 2.13 built for CPUs)."""
CPU_SLACK_BYTES = 64 * 2**20
"""Least error of a prediction on a CPU: an allocator's surplus and late imports do not shrink with the model."""


class Card(Frozen):
    """One card of `cards.toml`."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: str
    """Marketing name with form factor."""
    memory_mib: int = Field(gt=0)
    """Memory the driver reports, MiB."""
    bandwidth_gb_s: float = Field(gt=0)
    """Memory bandwidth, GB/s."""
    tflops: dict[str, float]
    """Precision -> dense peak rate, TFLOP/s; a precision that is absent is not supported."""
    compute_capability: str
    """CUDA compute capability."""
    source: str
    """Where the figures are from."""

    @property
    def memory_bytes(self) -> int:
        """Memory the driver reports, bytes."""
        return self.memory_mib * 2**20

    @property
    def usable_bytes(self) -> int:
        """What torch's allocator may take: the memory without the context."""
        return self.memory_bytes - CONTEXT_BYTES

    @property
    def precision(self) -> str:
        """bf16 where the card has it, else fp16."""
        return "bf16" if "bf16" in self.tflops else "fp16"


@cache
def cards() -> dict[str, Card]:
    """Every card by the name `gpu=` takes."""
    return {name: Card.model_validate(raw) for name, raw in tomllib.loads(FILE.read_text(encoding="utf-8")).items()}


def card_named(name: str) -> Card:
    """The card. Raises `UserFault` with the nearest name."""
    if name not in cards():
        raise unknown("gpu", name, list(cards()))
    return cards()[name]


def verdict(peak: float, limit: float, device: str = "cuda") -> tuple[bool | None, str]:
    """Whether a predicted peak fits (None: too close to say), and by how much, in words."""
    spare = (limit - peak) / GIB
    by = f"{abs(spare):.2f} GiB {'to spare' if spare >= 0 else 'too much'}"
    words = f"needs {peak / GIB:.2f} of {limit / GIB:.2f} GiB, {by}"
    share, least = ERROR_SHARE, 0
    if device == "cpu":
        share, least = CPU_BELOW_SHARE if limit < peak else ERROR_SHARE, CPU_SLACK_BYTES
    if abs(limit - peak) <= max(share * peak, least):
        of = f"{share:.0%}" if share * peak >= least else f"{least / 2**20:.0f} MiB"
        return None, f"close: {words}, within the prediction's error of {of}"
    return spare > 0, words
