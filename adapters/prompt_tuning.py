"""Prompt tuning: trainable virtual tokens in front of the frozen model's input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bench.space import around
from bench.strategy import Options, Plan, Strategy, TaskContext

if TYPE_CHECKING:
    from torch import nn

    from bench.models.base import Base


class PromptTuningOptions(Options):
    """Options of `prompt_tuning`; those PEFT has carry PEFT's names."""

    lr: float = Field(1e-2, gt=0)
    """Peak learning rate. Published: 0.3 with Adafactor (Lester et al. 2021, section 3); AdamW needs far less."""
    num_virtual_tokens: int = Field(20, ge=1)
    """Virtual tokens (Lester et al. 2021, figure 3a: gains are small beyond 20)."""
    init: Literal["vocabulary", "text", "random"] = "text"
    """Start from embeddings of tokens drawn from the vocabulary, of the prompt's own words, or random ones
    (Lester et al. 2021, figure 3b)."""


class PromptTuning(Strategy):
    """Trains num_virtual_tokens x width numbers and nothing else (Lester et al. 2021, section 2)."""

    family = "soft prompts"
    trains = "virtual input tokens"
    parameters = "p d"
    memory = "the weights once; activations of every layer, p tokens more a row"
    paper = "Lester et al. 2021, The Power of Scale for Parameter-Efficient Prompt Tuning"
    ranges = {"lr": around(1e-2)}
    """Half a decade around the default; the published 0.3 is Adafactor's (Lester et al. 2021)."""
    Options = PromptTuningOptions

    def prepare(self, base: Base, context: TaskContext, options: PromptTuningOptions) -> Plan:
        from peft import PromptTuningConfig

        from bench.train.plans import peft_plan, virtual_tokens_fit

        virtual_tokens_fit(base, context, options.num_virtual_tokens)
        config = PromptTuningConfig(
            num_virtual_tokens=options.num_virtual_tokens,
            prompt_tuning_init="RANDOM",
            num_transformer_submodules=1,  # of an encoder-decoder, the encoder only, as in the paper
        )
        plan = peft_plan(base, context, config, options.lr)
        plan.virtual_tokens = options.num_virtual_tokens
        if options.init != "random":
            assert plan.module is not None
            initialise(plan.module, base, context, options)
        return plan


def initialise(module: nn.Module, base: Base, context: TaskContext, options: PromptTuningOptions) -> None:
    """Copy embeddings of real tokens into the virtual ones, drawn by the cell's seed or from the prompt's text."""
    import torch

    from bench.train.plans import prompt_ids

    get_input_embeddings: Any = base.module.get_input_embeddings
    embedding = get_input_embeddings()
    n = options.num_virtual_tokens
    if options.init == "text":
        ids = prompt_ids(base, context, n)
    else:
        generator = torch.Generator().manual_seed(context.seed)
        ids = torch.randint(0, len(base.tokenizer), (n,), generator=generator).tolist()
    virtual = module.get_parameter("prompt_encoder.default.embedding.weight")
    with torch.no_grad():
        virtual.copy_(embedding(torch.tensor(ids, device=virtual.device)).to(virtual.dtype))


strategy = PromptTuning()
