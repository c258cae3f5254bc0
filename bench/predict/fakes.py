"""A base model whose weights have shapes and no values, and what must be stood in for while it is driven."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from bench.models.base import Base, meta_base
from bench.models.catalog import ModelRef
from bench.predict.live import Live

FAKES = FakeTensorMode(allow_non_fake_inputs=True)
"""Never entered: an operator with a fake input is fake by itself, any other is real."""


def fake_like(tensor: torch.Tensor) -> torch.Tensor:
    """A fake CPU tensor of this shape and dtype."""
    with FAKES:
        return torch.empty(tensor.shape, dtype=tensor.dtype)


def fake_base(ref: ModelRef, folder: Path | None, dtype: torch.dtype, depth: int | None = None) -> Base:
    """The model of `ref` with fake weights on the CPU; with `depth`, of so many blocks a stack."""
    base = meta_base(ref, folder, dtype, depth)
    twins: dict[int, nn.Parameter] = {}
    for module in base.module.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                # a weight that is tied stays tied: one twin for every object
                twin = twins.setdefault(id(parameter), nn.Parameter(fake_like(parameter), parameter.requires_grad))
                module._parameters[name] = twin
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake_like(buffer)
    return base


@contextmanager
def stand_ins(live: Live, on_card: bool) -> Iterator[None]:
    """While a cell is driven with fakes: what a fake cannot do, and what a card would do otherwise.

    Scores become zeros, 4-bit layers are made without reading a value, keys and values are told from other
    activations. On a card attention with dropout has fused kernels, and so has the optimizer.
    """
    from transformers.cache_utils import DynamicLayer

    from bench.models import quantise
    from bench.train import optimizer

    keep = DynamicLayer.update

    def update(layer: Any, *args: Any, **kwargs: Any) -> Any:
        held = keep(layer, *args, **kwargs)
        if not torch.is_grad_enabled():  # in training keys and values are activations like others
            live.claim(held, "kv_cache")
        return held

    with ExitStack() as stack:
        stack.enter_context(swapped(FakeTensor, "numpy", lambda fake, **_: np.zeros(tuple(fake.shape))))
        stack.enter_context(swapped(DynamicLayer, "update", update))
        stack.enter_context(swapped(nn.Module, "_apply", apply_to_fakes))
        stack.enter_context(swapped(quantise, "quantised", fake_4bit))
        if on_card:
            attention = torch.nn.functional.scaled_dot_product_attention
            fused: Callable[..., Any] = lambda *args, **kwargs: attention(*args, **{**kwargs, "dropout_p": 0.0})  # noqa: E731
            stack.enter_context(swapped(torch.nn.functional, "scaled_dot_product_attention", fused))
            stack.enter_context(swapped(optimizer, "fuses", lambda device: True))
        yield


@contextmanager
def swapped(owner: Any, name: str, other: Any) -> Iterator[None]:
    """`owner.name` is `other` for the block."""
    missing = object()
    before = owner.__dict__.get(name, missing)
    setattr(owner, name, other)
    try:
        yield
    finally:
        if before is missing:
            delattr(owner, name)  # it was inherited
        else:
            setattr(owner, name, before)


def apply_to_fakes(module: Any, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` for `to` and its like: torch would swap tensors in place, which fakes refuse."""
    for child in module.children() if recurse else ():
        child._apply(fn)
    for held in (module._parameters, module._buffers):
        for name, tensor in held.items():
            if tensor is None:
                continue
            new = fn(tensor)
            if (new.dtype, new.device) == (tensor.dtype, tensor.device):
                continue  # moved from the CPU to the CPU
            whole = isinstance(tensor, nn.Parameter)
            held[name] = nn.Parameter(new, tensor.requires_grad) if whole else new
    result: nn.Module = module
    return result


def fake_4bit(
    bnb: Any, layer: Any, quant_type: str, double_quant: bool, compute: torch.dtype, device: torch.device
) -> nn.Module:
    """As `quantise.quantised`, for a layer with fake weights: bitsandbytes' own parameter class cannot hold a fake."""
    weight = layer.weight.detach()
    weight = weight if isinstance(layer, nn.Linear) else weight.T
    outputs, inputs = weight.shape
    options = {"compress_statistics": double_quant, "quant_type": quant_type}
    new = bnb.nn.Linear4bit(inputs, outputs, layer.bias is not None, compute_dtype=compute, device="meta", **options)
    packed, state = bnb.functional.quantize_4bit(weight.contiguous(), **options)
    del new.weight  # registered as bitsandbytes' own class
    new.weight = nn.Parameter(packed, requires_grad=False)
    for name, value in {**options, "quant_state": state, "bnb_quantized": True}.items():
        setattr(new.weight, name, value)
    new.support_avx512bf16_for_cpu = False
    if layer.bias is not None:
        new.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    result: nn.Module = new.train(layer.training)
    return result


def quantisation_states(module: nn.Module) -> Iterator[torch.Tensor]:
    """The scales and codes of 4-bit layers."""
    for parameter in module.parameters():
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            for value in (state.absmax, state.code, state.offset):
                if isinstance(value, torch.Tensor):
                    yield value
            state = state.state2
