"""Tiny cells that are trained by one process and by two (`tests/test_sharding.py`); names only, nothing is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Case:
    """One cell that is trained both ways."""

    strategy: str
    sharding: str
    readout: str = "verbalizer"
    family: str = "tiny-llama"
    context: dict[str, Any] = field(default_factory=dict)
    budget: dict[str, Any] = field(default_factory=lambda: {"train_examples": 21})
    """21 rows in batches of 4: a last one of 1 row leaves the second rank nothing to do."""

    checkpointing: bool = False

    @property
    def name(self) -> str:
        """Unlike any other's."""
        more = "".join(f" {k}={v}" for k, v in (*self.context.items(), *self.budget.items()) if k != "task")
        more += " checkpointing" if self.checkpointing else ""
        return f"{self.strategy} {self.sharding} {self.readout} {self.family}{more}"


CASES = [Case(s, how) for s in ("full", "lora") for how in ("ddp", "fsdp2")]
CASES += [
    Case("dpo", "fsdp2", context={"task": "pairs"}),
    Case("dpo", "ddp", context={"task": "labels"}),
    Case("full", "fsdp2", "head", context={"micro_batch": 1}),
    Case("lora", "ddp", "head", "tiny-bert", {"micro_batch": 1}),
    Case("full", "fsdp2", family="tiny-t5"),
    Case("lora", "fsdp2", budget={"train_tokens": 600}),
    Case("full", "ddp", budget={"train_flops": 2e8}),
    Case("lora", "fsdp2", checkpointing=True),
    Case("lora", "ddp", "head", "tiny-bert", {"task": "tags", "micro_batch": 2}),
    Case("full", "fsdp2", context={"task": "language", "sequence": 300}),
]
