"""Models larger than the host's memory: a skeleton without weights, made layer by layer where they are needed.

Only for random weights: what a checkpoint holds must be read, not drawn. No machine is asked to hold the model whole
before a strategy has made it smaller (QLoRA), nor a host what belongs on a card.
"""

from __future__ import annotations

from typing import Any

import psutil
import torch
from torch import nn

from bench.models.catalog import ModelRef

SHARE = 0.6
"""Of the available memory, what the weights may take; beyond it they are made piece by piece."""


def too_large(ref: ModelRef, dtype: torch.dtype) -> bool:
    """Whether the host could hardly hold the weights of a random model."""
    if ref.form != "random" or ref.parameters is None:
        return False
    return ref.parameters * dtype.itemsize > SHARE * psutil.virtual_memory().available


def materialise(module: nn.Module, model: Any, device: torch.device) -> nn.Module:
    """Give every weight of `module` that has none yet random values on `device`, as `model`'s architecture defines.

    `module` is a part of the transformers model `model`, or all of it. Weights that are there stay as they are.
    """
    done(model)
    for part in module.modules():
        own = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
        if any(tensor.is_meta for tensor in own):
            part.to_empty(device=device, recurse=False)
    with torch.no_grad():
        # children first: GPT-2 and T5 draw some weights again from the layer above
        for part in [*reversed(list(module.modules())), *above(module, model)]:
            model._init_weights(part)
    done(module)
    return module


def done(module: nn.Module) -> None:
    """transformers leaves weights alone that carry this mark."""
    for tensor in (*module.parameters(), *module.buffers()):
        if not tensor.is_meta:
            tensor._is_hf_initialized = True  # type: ignore[attr-defined]


def above(module: nn.Module, model: nn.Module) -> list[nn.Module]:
    """The modules around `module`, the nearest first."""
    name = next(name for name, one in model.named_modules() if one is module)
    parts = name.split(".") if name else []
    return [model.get_submodule(".".join(parts[:n])) for n in range(len(parts) - 1, -1, -1)]


def place(model: Any, device: torch.device) -> None:
    """All of a model on `device`; what has no values yet gets them there, ties between weights are made again."""
    if any(tensor.is_meta for tensor in model.parameters()):
        materialise(model, model, device)
        model.tie_weights()
    model.to(device)
