"""How large a model its configuration describes, held against the weights that are there to fill it."""

from __future__ import annotations

from typing import Any

import torch

from bench.errors import UserFault

SPARE = 2**28
"""Numbers that a model may hold beyond its weights: masks and positions that are computed, a head that is new."""


def check_size(auto: Any, config: Any, stored_bytes: int, a_byte: int, label: str) -> None:
    """Raise `UserFault` where the model has far more numbers than its files, of `a_byte` at most, can hold.

    transformers makes room for every parameter before it says which ones are missing, and widths are nobody's lie until
    then: 4 bytes of weights and a config.json could ask for terabytes. Shapes only are made here.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        whole = auto.from_config(config)
    asked = sum(tensor.numel() for tensor in (*whole.parameters(), *whole.buffers()))
    if asked > (most := 2 * a_byte * stored_bytes + SPARE):
        raise UserFault(
            f"{label}: its configuration asks for {asked:,} numbers, and {stored_bytes:,} bytes of weights are there; "
            f"allowed: {most:,} at most"
        )
