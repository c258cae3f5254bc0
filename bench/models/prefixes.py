"""Keys and values that come with the input (a prefix), kept under gradient checkpointing.

transformers takes the cache away from checkpointed blocks, since one that grows would grow twice. A prefix does not
grow: every block gets it read-only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Prefix:
    """A layer's given keys and values, each (rows, heads, prefix, size), as attention asks a cache for them."""

    def __init__(self, layer: Any) -> None:
        self.keys, self.values = layer.keys, layer.values

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The given ones in front; nothing is stored."""
        return torch.cat([self.keys, keys], dim=-2), torch.cat([self.values, values], dim=-2)


def keep_prefixes(model: nn.Module) -> None:
    """Hand a cache that holds something when `model` is called to each attention of it that gets none."""
    given: list[Any] = [None]

    def called(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cache = kwargs.get("past_key_values")
        given[0] = cache if cache is not None and cache.get_seq_length() else None

    def attends(attention: Any, arguments: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if given[0] is None or not attention.training or kwargs.get("past_key_values") is not None:
            return None
        return arguments, {**kwargs, "past_key_values": Prefix(given[0].layers[attention.layer_idx])}

    model.register_forward_pre_hook(called, with_kwargs=True)
    for part in model.modules():
        if hasattr(part, "layer_idx") and hasattr(part, "is_causal"):
            part.register_forward_pre_hook(attends, with_kwargs=True)
