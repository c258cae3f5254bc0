"""The parts of a loaded model that strategies and readouts need, by the same names for every family."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import nn

from bench.measure.flops import recomputing
from bench.models.base import Base
from bench.models.prefixes import keep_prefixes
from bench.strategy import Unsupported

Pooling = Literal["last", "mean", "first"]
PAGE = 4096
"""Bytes of a page of memory, or less."""


def backbone(base: Base) -> nn.Module:
    """The model without its LM head: ids to hidden states, (rows, tokens, width). T5: its encoder."""
    module: Any = base.module
    if base.kind == "seq2seq":
        inner = module.get_encoder()
    elif base.kind == "encoder":
        inner = module
    else:
        inner = module.base_model
    assert isinstance(inner, nn.Module)
    return inner


def output_head(base: Base) -> nn.Module:
    """The LM head: hidden states to logits over the vocabulary."""
    module: Any = base.module
    head = module.get_output_embeddings()
    assert isinstance(head, nn.Module)
    return head


def blocks(module: nn.Module, last: bool = False) -> nn.ModuleList:
    """The stack of transformer blocks: the longest module list. Of a T5 model with both its stacks the encoder's, which
    comes first, or the decoder's with `last`."""
    stacks = [m for m in module.modules() if isinstance(m, nn.ModuleList)]
    return max(reversed(stacks) if last else stacks, key=len)


def final_norm(module: nn.Module) -> nn.Module | None:
    """The norm after the last block, where the family has one (GPT-2, Llama, T5)."""
    for name in ("norm", "ln_f", "final_layer_norm"):
        if isinstance(found := getattr(module, name, None), nn.Module):
            return found
    return None


def linear_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Linear layers inside transformer blocks by full name; GPT-2's `Conv1D` is a linear layer stored transposed."""
    stacks = [m for m in module.modules() if isinstance(m, nn.ModuleList)]
    inside = {id(layer) for stack in stacks for layer in stack.modules()}
    return {
        name: layer
        for name, layer in module.named_modules()
        if id(layer) in inside and (isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D")
    }


ATTENTION_OUTPUTS = ("attn.c_proj", "attn.o_proj", "attn.out_proj", "attention.output.dense", "Attention.o")
FEEDFORWARD_OUTPUTS = ("mlp.c_proj", "mlp.down_proj", "output.dense", "DenseReluDense.wo", "fc2")


def sublayer_outputs(module: nn.Module) -> dict[str, Literal["attention", "feedforward"]]:
    """Names of the linear layers that end a block's sublayers, before the residual sum (GPT-2, Llama, BERT, T5, OPT).

    A T5 decoder's block has two attention sublayers. Empty for a family whose names are not known here.
    """
    found: dict[str, Literal["attention", "feedforward"]] = {}
    for name in linear_layers(module):
        if name.endswith(ATTENTION_OUTPUTS):
            found[name] = "attention"
        elif name.endswith(FEEDFORWARD_OUTPUTS):
            found[name] = "feedforward"
    return found


def norm_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """Gains and biases of the normalisation layers by full name: LayerNorm, RMSNorm and every family's own class."""
    return {
        f"{name}.{key}": p
        for name, layer in module.named_modules()
        if type(layer).__name__.endswith("Norm")
        for key, p in layer.named_parameters(recurse=False)
    }


def count(parameters: list[nn.Parameter]) -> int:
    """Number of scalars; a parameter listed twice (tied weights) counts once."""
    return sum({id(p): p.numel() for p in parameters}.values())


def freeze(module: nn.Module) -> None:
    """No parameter of `module` takes a gradient."""
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def pooling(base: Base) -> Pooling:
    """How the family makes one vector of a text: decoders the last real token, sentence encoders as their own
    pooling file says, BERT and RoBERTa their first token, T5 the mean of its encoder."""
    if base.kind == "causal":
        return "last"
    declared = base.folder / "1_Pooling" / "config.json" if base.folder is not None else None
    if declared is not None and declared.is_file():
        return "mean" if json.loads(declared.read_text()).get("pooling_mode_mean_tokens") else "first"
    return "mean" if base.kind == "seq2seq" else "first"


def pool(how: Pooling, hidden: torch.Tensor, lengths: torch.Tensor, padded: int) -> torch.Tensor:
    """One vector a row, (rows, width), from hidden states (rows, virtual + padded, width).

    `lengths` are real tokens a row, right-padded to `padded`; virtual prompt tokens come before them.
    """
    hidden = hidden[:, hidden.shape[1] - padded :]
    lengths = lengths.to(hidden.device, non_blocking=True)
    if how == "last":
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), lengths - 1]
    if how == "first":
        return hidden[:, 0]
    mask = (torch.arange(padded, device=hidden.device)[None, :] < lengths[:, None]).unsqueeze(-1).to(hidden.dtype)
    return (hidden * mask).sum(1) / mask.sum(1)


def checkpointed(base: Base) -> None:
    """Keep only what goes into each block and compute the rest again for the backward pass (Chen et al. 2016).

    Raises `Unsupported` for a model that transformers cannot checkpoint.
    """
    module: Any = base.module
    if not getattr(module, "supports_gradient_checkpointing", False):
        raise Unsupported(f"{type(module).__name__} has no gradient checkpointing: use checkpointing=false")
    contexts = {"context_fn": lambda: (nullcontext(), recomputing())}
    module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False, **contexts})
    if base.kind == "causal":
        keep_prefixes(backbone(base))
    module.disable_input_require_grads()  # only reentrant checkpoints need it, and frozen lower blocks must stay so


def touch(module: nn.Module) -> None:
    """Read one byte of every page of the weights that lie on the CPU: mapped files come into memory now.

    A process that was forked sees the pages of a mapped file only once it reads them. Without this the first forward
    pass would bring them in, and what a strategy holds could not be told from the weights it started with.
    """
    storages = {t.untyped_storage()._cdata: t.untyped_storage() for t in (*module.parameters(), *module.buffers())}
    for storage in storages.values():
        if storage.device.type == "cpu":
            torch.empty(0, dtype=torch.uint8).set_(storage)[::PAGE].max()
