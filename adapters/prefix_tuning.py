"""Prefix tuning: trained keys and values in front of every layer's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bench.strategy import Options, Plan, Strategy, TaskContext, Unsupported

if TYPE_CHECKING:
    from bench.models.base import Base


class PrefixTuningOptions(Options):
    """Options of `prefix_tuning`; those PEFT has carry PEFT's names."""

    lr: float = Field(7e-3, gt=0)
    """Peak learning rate. Published: 5e-5 through the reparametrisation (Li & Liang 2021, table 5); 7e-3 for a bare
    prefix on classification (the BoolQ script published with Liu et al. 2022, P-Tuning v2)."""
    num_virtual_tokens: int = Field(20, ge=1)
    """Length of the prefix (Li & Liang 2021, figure 4: 10 to 200)."""
    prefix_projection: bool = False
    """Write the prefix by a perceptron while training (Li & Liang 2021, section 4.3)."""


class PrefixTuning(Strategy):
    """Trains 2 x layers x num_virtual_tokens x (key heads x head size) numbers (Li & Liang 2021, section 4.2)."""

    family = "soft prompts"
    trains = "keys and values in front of every layer's own"
    parameters = "2 L p (key heads x head size)"
    memory = "the weights once; activations of every layer, p more keys and values a row"
    paper = "Li & Liang 2021, Prefix-Tuning: Optimizing Continuous Prompts for Generation"
    Options = PrefixTuningOptions

    def prepare(self, base: Base, context: TaskContext, options: PrefixTuningOptions) -> Plan:
        from peft import PrefixTuningConfig

        from bench.train.plans import peft_plan, virtual_tokens_fit

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
        return peft_plan(base, context, config, options.lr)


strategy = PrefixTuning()
