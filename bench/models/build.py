"""A model by name, ready for a cell."""

from __future__ import annotations

import torch

from bench.models.base import Base, load_base, meta_base
from bench.models.cache import ensure
from bench.models.catalog import parse
from bench.models.piecewise import too_large

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Precision -> what weights are held in."""


def build(model: str, precision: str) -> Base:
    """The base on the CPU; one larger than this host's memory without values yet (`piecewise`).

    Raises what `load_base` and `ensure` raise.
    """
    ref, dtype = parse(model), DTYPES[precision]
    make = meta_base if too_large(ref, dtype) else load_base
    return make(ref, ensure(ref), dtype)
