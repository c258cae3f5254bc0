"""4-bit weights by bitsandbytes: the blocks' linear layers, in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bench.models.parts import linear_layers
from bench.models.piecewise import materialise
from bench.strategy import Unsupported


def compute_dtype(device: torch.device) -> torch.dtype:
    """What 4-bit weights are multiplied in: bf16, or fp16 on a card without it (compute capability below 8.0)."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        return torch.float16
    return torch.bfloat16


def to_4bit(
    module: nn.Module, quant_type: str, double_quant: bool, compute: torch.dtype, device: torch.device
) -> list[str]:
    """Replace every linear layer inside the blocks by a frozen 4-bit one on `device`; their names.

    One layer at a time, so that a card never holds more than one of them whole.

    Blocks of 64 weights share a scale; with `double_quant` the scales are quantised to 8 bits in turn (Dettmers et al.
    2023, section 3). Embeddings, norms, the LM head and what the family keeps in fp32 stay as they are.
    Raises `Unsupported` without bitsandbytes.
    """
    try:
        import bitsandbytes as bnb
    except ImportError as error:
        raise Unsupported("4-bit weights need bitsandbytes, which is not installed: install it, or use lora") from error
    whole = getattr(module, "_keep_in_fp32_modules", None) or ()  # T5's `wo` overflows, and T5 asks its dtype
    layers = {name: layer for name, layer in linear_layers(module).items() if name.split(".")[-1] not in whole}
    for name, layer in layers.items():
        parent, _, leaf = name.rpartition(".")
        if layer.weight.is_meta:  # a model too large for the host: this matrix is drawn now and gone when it is small
            materialise(layer, module, device)
        new = quantised(bnb, layer, quant_type, double_quant, compute, device)
        setattr(module.get_submodule(parent), leaf, new)
        layers[name] = new
    return list(layers)


def quantised(
    bnb: Any, layer: Any, quant_type: str, double_quant: bool, compute: torch.dtype, device: torch.device
) -> nn.Module:
    """One layer's 4-bit twin; the layer itself is not touched. GPT-2's `Conv1D` is stored transposed."""
    weight = layer.weight.detach()
    weight = weight if isinstance(layer, nn.Linear) else weight.T
    outputs, inputs = weight.shape
    options = {"compress_statistics": double_quant, "quant_type": quant_type}
    new = bnb.nn.Linear4bit(inputs, outputs, layer.bias is not None, compute_dtype=compute, device="meta", **options)
    new.weight = bnb.nn.Params4bit(weight.contiguous().clone(), requires_grad=False, **options)
    new.support_avx512bf16_for_cpu = False  # else scoring on a CPU would repack the weights, for some widths only
    if layer.bias is not None:
        new.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    result: nn.Module = new.to(device)  # this quantises
    return result.train(layer.training)
