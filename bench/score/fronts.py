"""What stands in front of every row of a cell, read once: its keys and values are shared by all batches.

They can be shared where every layer keeps the keys and values of all that it read and no later token changes them.
Otherwise (recurrent layers, a window shorter than the front) the front stands in each row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from bench.budget import Meter

LEAST = 16
"""Tokens that a common front has at least: reading fewer once saves less than a pass of its own costs."""

KEEPING: tuple[type, ...] = (DynamicLayer, DynamicSlidingWindowLayer)
"""Layers of a cache that hold keys and values and nothing else; of a window they hold its last tokens."""
SWITCHING = ("longrope", "dynamic")
"""Rotary embeddings (transformers' `rope_type`) that turn every token otherwise once a row is longer than what the
model was first trained on."""


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


def shared_front(
    module: nn.Module, ids: Sequence[int], longest: int, meter: Meter, aside: bool = False
) -> DynamicCache | None:
    """Keys and values of `ids`, one row, for rows that all begin so and have `longest` tokens at most with it; None
    where each row has to hold `ids` itself. The pass that reads them is counted either way."""
    cache, config = read_front(module, ids, meter, aside), module.config
    return cache if shareable(cache, config, len(ids), longest) else None


def read_front(module: nn.Module, ids: Sequence[int], meter: Meter, aside: bool = False) -> Any:
    """What the model keeps of `ids`, one row, by one pass that is counted (`aside` as in `Meter.step`): a cache, or
    None of a model that gives none."""
    device = next(module.parameters()).device
    with torch.inference_mode(), meter.step(("prefix", 1, 0, len(ids)), 0, aside):
        read = module(input_ids=torch.tensor([[*ids]], device=device), use_cache=True, logits_to_keep=1)
    return getattr(read, "past_key_values", None)


def shareable(cache: Any, config: Any, tokens: int, longest: int) -> bool:
    """Whether a cache just read of `tokens` gives what rows of up to `longest` tokens that begin so would compute."""
    return (
        isinstance(cache, DynamicCache)
        and all(type(layer) in KEEPING and held(layer) == tokens for layer in cache.layers)
        and longest <= turned_alike(config)
    )


def held(layer: Any) -> int:
    """Tokens whose keys a layer holds: a window's are fewer than it has seen."""
    return 0 if layer.keys is None else int(layer.keys.shape[-2])


def turned_alike(config: Any) -> float:
    """Tokens up to which rotary embeddings turn a token as in any shorter row; infinite for most models."""
    given = getattr(config, "rope_parameters", None) or {}
    # one set for all layers, or one a type of layer
    sets = [one for one in given.values() if isinstance(one, dict)] or [given]
    limits = [
        one.get("original_max_position_embeddings") or config.max_position_embeddings
        for one in sets
        if one.get("rope_type") in SWITCHING
    ]
    return min(limits, default=float("inf"))


def empty(config: Any) -> DynamicCache:
    """A cache that holds nothing yet: plain layers, or the model's own kinds where some of them keep a state."""
    own = DynamicCache(config=config)
    return DynamicCache() if all(type(layer) in KEEPING for layer in own.layers) else own


def expanded(cache: DynamicCache, rows: int) -> DynamicCache:
    """A fresh cache holding the one row of `cache`, which is `shareable`, for each of `rows`; the original stays as it
    is. Its layers hold all tokens, also where attention sees a window of them.

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
