"""P-tuning: virtual tokens written by a small trained encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.space import around
from bench.strategy import Options, Plan, Strategy, TaskContext

if TYPE_CHECKING:
    from bench.models.base import Base


class PTuningOptions(Options):
    """Options of `p_tuning`; those PEFT has carry PEFT's names."""

    lr: float = Field(1e-3, gt=0)
    """Peak learning rate. Published: 1e-5 to 1e-4 with the base training too (Liu et al. 2021, section 4); a frozen
    base needs more."""
    num_virtual_tokens: int = Field(20, ge=1)
    """Virtual tokens in front of the input."""
    encoder_reparameterization_type: Literal["MLP", "LSTM"] = "MLP"
    """The encoder: a two-layer perceptron, or a bidirectional LSTM under one (Liu et al. 2021, section 3.2)."""
    encoder_hidden_size: int | None = Field(None, ge=1)
    """Its width; by default the model's."""


class PTuning(Strategy):
    """Trains an encoder whose outputs stand in front of the frozen model's input (Liu et al. 2021, section 3)."""

    family = "soft prompts"
    trains = "an encoder of virtual input tokens"
    parameters = "p d and the encoder's, which is thrown away after training"
    memory = "the weights once; activations of every layer, p tokens more a row"
    paper = "Liu et al. 2021, GPT Understands, Too"
    keeps_all = False
    ranges = {"lr": around(1e-3)}
    """Half a decade around the default, since none is published for a frozen base."""
    Options = PTuningOptions

    def prepare(self, base: Base, context: TaskContext, options: PTuningOptions) -> Plan:
        from peft import PromptEncoderConfig

        from bench.train.plans import peft_plan, virtual_tokens_fit

        virtual_tokens_fit(base, context, options.num_virtual_tokens)
        config = PromptEncoderConfig(
            num_virtual_tokens=options.num_virtual_tokens,
            encoder_reparameterization_type=options.encoder_reparameterization_type,
            encoder_hidden_size=options.encoder_hidden_size or base.width,
            num_transformer_submodules=1,
        )
        plan = peft_plan(base, context, config, options.lr)
        plan.virtual_tokens = options.num_virtual_tokens
        return plan


strategy = PTuning()
