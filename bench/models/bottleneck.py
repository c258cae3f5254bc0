"""Bottleneck adapters: where they go, and what one is."""

from __future__ import annotations

from torch import nn

from bench.models.parts import sublayer_outputs
from bench.strategy import Unsupported


def places(target: nn.Module, both: bool) -> list[str]:
    """Names of the layers an adapter follows: those that end a feed-forward sublayer, or every sublayer.

    Raises `Unsupported` for a family whose sublayers are not known here.
    """
    found = sublayer_outputs(target)
    if not found:
        raise Unsupported("where this family's sublayers end is not known here: use lora, which finds linear layers")
    return [name for name, kind in found.items() if both or kind == "feedforward"]


def bottleneck(width: int, size: int, like: nn.Parameter) -> nn.Module:
    """Down, GELU, up; almost zero at the start, so that the whole is near the identity (Houlsby et al. 2019, 3.6)."""
    down, up = nn.Linear(width, size), nn.Linear(size, width)
    for layer in (down, up):
        nn.init.trunc_normal_(layer.weight, std=0.01, a=-0.02, b=0.02)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(down, nn.GELU(), up).to(device=like.device, dtype=like.dtype)
