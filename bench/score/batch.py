"""Encoded texts and padded batches, right-padded, always in int64 on the model's device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

PAD_MULTIPLE = {"cpu": 1, "cuda": 8}
"""Padded lengths are multiples of this: tensor cores want eights, a CPU wants no padding."""


@dataclass(frozen=True)
class Encoded:
    """One tokenised input."""

    ids: list[int]
    types: list[int] | None = None
    """Token type ids of a sentence pair (BERT)."""
    group: int = 0
    """Which of a plan's groups of examples it belongs to (several tasks, or parts of one); a batch is of one group."""
    place: int = 0
    """Which of the rows it was encoded with it is: what was noted of that row is found by it."""

    @property
    def length(self) -> int:
        """Real tokens."""
        return len(self.ids)

    @property
    def head_reads(self) -> int:
        """Tokens that the LM head reads for it."""
        return 1


@dataclass
class Batch:
    """Model inputs of one forward."""

    inputs: dict[str, torch.Tensor]
    """Keyword arguments of the model's forward: ids, mask, (token types, decoder ids)."""
    lengths: torch.Tensor
    """Real tokens a row, on the CPU."""
    items: int
    """Task items in the batch; rows are a multiple of it where each label is a row."""
    padded: int
    """Tokens a row with padding."""
    extra: dict[str, torch.Tensor] = field(default_factory=dict)
    """What the readout needs beside the inputs."""
    group: int = 0
    """The group of its examples."""

    @property
    def shape(self) -> tuple[Any, ...]:
        """What the FLOPs of a pass depend on, as `Book` has it: the kind (how choices stand, decoder width, prefix,
        group), then rows, tokens a row that the LM head reads (0 where a head reads features) and padded length."""
        mask, decoder, read = self.inputs["attention_mask"], self.inputs.get("decoder_input_ids"), 0
        if "positions" in self.extra:
            read = self.extra["positions"].shape[1]
        kind = ("beside" if mask.dim() == 4 else "apart", 0 if decoder is None else decoder.shape[1])
        return (*kind, mask.shape[-1] - self.padded, self.group, self.rows, read, self.padded)

    @property
    def rows(self) -> int:
        """Rows of the model's inputs."""
        return self.inputs["input_ids"].shape[0]

    @property
    def tokens(self) -> int:
        """Real tokens forwarded."""
        return sum(self.lengths.tolist())


def padded_length(longest: int, limit: int | None, device: str) -> int:
    """`longest` rounded up to the device's multiple, but never past the model's context."""
    rounded = -(-longest // PAD_MULTIPLE[device]) * PAD_MULTIPLE[device]
    return rounded if limit is None else max(longest, min(rounded, limit))


def pad(rows: Sequence[Sequence[int]], value: int, width: int) -> torch.Tensor:
    """Int64 tensor (rows, width), right-padded with `value`."""
    padded = [[*row, *[value] * (width - len(row))] for row in rows]
    return torch.tensor(padded, dtype=torch.int64).view(len(rows), width)


def mask_of(lengths: torch.Tensor, width: int) -> torch.Tensor:
    """Int64 mask (rows, width): 1 for real tokens."""
    return (torch.arange(width)[None, :] < lengths[:, None]).to(torch.int64)


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on `device`. A card takes its copy while it is still at work: nobody waits for it."""
    return tensor.to(device, non_blocking=True)


def stack(encoded: Sequence[Encoded], pad_id: int, limit: int | None, device: torch.device) -> Batch:
    """Pad encoded inputs to one batch, with its inputs on `device`."""
    real = [e.length for e in encoded]
    lengths, width = torch.tensor(real), padded_length(max(real), limit, device.type)
    inputs = {"input_ids": pad([e.ids for e in encoded], pad_id, width), "attention_mask": mask_of(lengths, width)}
    if encoded[0].types is not None:
        inputs["token_type_ids"] = pad([e.types or [] for e in encoded], 0, width)
    inputs = {name: sent(tensor, device) for name, tensor in inputs.items()}
    return Batch(inputs, lengths, items=len(encoded), padded=width)
