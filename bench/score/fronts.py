"""What stands in front of every row of a cell, read once: its keys and values are shared by all batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from bench.budget import Meter

LEAST = 16
"""Tokens that a common front has at least: reading fewer once saves less than a pass of its own costs."""


def common(rows: Iterable[Sequence[int]]) -> int:
    """How many tokens all rows begin with alike; 0 of no rows."""
    rows = iter(rows)
    first = next(rows, ())
    length = len(first)
    for row in rows:
        length = next(
            (i for i, (a, b) in enumerate(zip(first[:length], row, strict=False)) if a != b), min(length, len(row))
        )
    return length


def read_front(module: nn.Module, ids: Sequence[int], meter: Meter, aside: bool = False) -> DynamicCache:
    """Keys and values of `ids`, one row, by one pass that is counted (`aside` as in `Meter.step`)."""
    device = next(module.parameters()).device
    with torch.inference_mode(), meter.step(("prefix", 1, 0, len(ids)), 0, aside):
        read = module(input_ids=torch.tensor([[*ids]], device=device), use_cache=True, logits_to_keep=1)
    cache: DynamicCache = read.past_key_values
    return cache


def expanded(cache: DynamicCache, rows: int) -> DynamicCache:
    """A fresh cache holding the one row of `cache` for each of `rows`; the original stays as it is.

    The rows are views: they are copied where the first keys and values are put behind them, layer by layer.
    """
    fresh = DynamicCache()
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
        one = DynamicLayer()
        one.lazy_initialization(layer.keys, layer.values)
        one.keys, one.values = (held.expand(rows, -1, -1, -1) for held in (layer.keys, layer.values))
        fresh.layers.append(one)
    return fresh
