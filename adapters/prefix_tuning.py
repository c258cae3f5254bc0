"""Prefix tuning: trained keys and values in front of every layer's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.space import around
from bench.strategy import Options, Plan, Strategy, TaskContext, Unsupported

if TYPE_CHECKING:
    from torch import nn

    from bench.models.base import Base


class PrefixTuningOptions(Options):
    """Options of `prefix_tuning`; those PEFT has carry PEFT's names."""

    lr: float = Field(7e-3, gt=0)
    """Peak learning rate. Published: 5e-5 through the reparametrisation (Li & Liang 2021, table 5); 7e-3 for a bare
    prefix on classification (the BoolQ script published with Liu et al. 2022, P-Tuning v2)."""
    num_virtual_tokens: int = Field(20, ge=1)
    """Length of the prefix (Li & Liang 2021, figure 4: 10 to 200)."""
    prefix_projection: bool = False
    """Write the prefix by a perceptron while training (Li & Liang 2021, section 4.3); it starts at random."""
    init: Literal["text", "random"] = "text"
    """Start from the keys and values of the prompt's own words, or random ones (Li & Liang 2021, section 7.4: with few
    labels real words are clearly better and vary less)."""


class PrefixTuning(Strategy):
    """Trains 2 x layers x num_virtual_tokens x (key heads x head size) numbers (Li & Liang 2021, section 4.2)."""

    family = "soft prompts"
    trains = "keys and values in front of every layer's own"
    parameters = "2 L p (key heads x head size)"
    memory = "the weights once; activations of every layer, p more keys and values a row"
    paper = "Li & Liang 2021, Prefix-Tuning: Optimizing Continuous Prompts for Generation"
    ranges = {"lr": around(7e-3)}
    """Half a decade around 7e-3 (the BoolQ script published with P-Tuning v2)."""
    Options = PrefixTuningOptions

    def prepare(self, base: Base, context: TaskContext, options: PrefixTuningOptions) -> Plan:
        from peft import PrefixTuningConfig

        from bench.train.plans import peft_plan, prompt_ids, virtual_tokens_fit

        if base.kind != "causal":
            raise Unsupported(
                "a prefix of keys and values goes through the cache, which only a decoder has here: use prompt_tuning"
            )
        virtual_tokens_fit(base, context, options.num_virtual_tokens)
        config = PrefixTuningConfig(
            num_virtual_tokens=options.num_virtual_tokens,
            prefix_projection=options.prefix_projection,
            encoder_hidden_size=base.width,
        )
        plan = peft_plan(base, context, config, options.lr)
        if options.init == "text" and not options.prefix_projection:
            assert plan.module is not None
            initialise(plan.module, base, prompt_ids(base, context, options.num_virtual_tokens))
        return plan


def initialise(module: nn.Module, base: Base, ids: list[int]) -> None:
    """Write the keys and values that the base computes for these tokens into the prefix.

    PEFT keeps a row a virtual token: keys and values of the first layer, then of the next, each (heads x head size).
    """
    import torch

    prefix = module.get_parameter("prompt_encoder.default.embedding.weight")
    if next(base.module.parameters()).is_meta:  # shapes without values: nothing to start from
        return
    with torch.no_grad():
        cache = base.module(input_ids=torch.tensor([ids], device=prefix.device), use_cache=True).past_key_values
        parts = [part[0] for layer in cache.layers for part in (layer.keys, layer.values)]  # each (heads, p, size)
        rows = torch.stack(parts).permute(2, 0, 1, 3).reshape(len(ids), -1)
        prefix.copy_(rows.to(prefix.dtype))


strategy = PrefixTuning()
