"""LoRA: low-rank factors beside frozen weights. DoRA and rank-stabilised scaling are options of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.space import Log
from bench.strategy import Options, Plan, Strategy, TaskContext

if TYPE_CHECKING:
    from peft import LoraConfig

    from bench.models.base import Base


class LoRAOptions(Options):
    """Options of `lora`; those PEFT has carry PEFT's names."""

    lr: float = Field(5e-4, gt=0)
    """Peak learning rate. Published: 2e-4 (GPT-2, Hu et al. 2021, table 11) to 5e-4 (RoBERTa-base, table 9)."""
    r: int = Field(8, ge=1)
    """Rank of the factors."""
    lora_alpha: int = Field(16, ge=1)
    """The update is scaled by lora_alpha / r (by lora_alpha / sqrt(r) with use_rslora)."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the factors' input."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get factors: `all-linear`, or names (Dettmers et al. 2023, figure 2: every linear layer)."""
    use_dora: bool = False
    """Weight-decomposed LoRA (Liu et al. 2024)."""
    use_rslora: bool = False
    """Rank-stabilised scaling (Kalajdzievski 2023)."""
    engine: Literal["own", "trl"] = "own"
    """`trl`: trained by TRL's own trainer, as a check of ours, on answers: under the verbalizer fine-tuning, under
    a head the rewards of pairs. Its cells stand in a table of their own, unranked."""
    init_lora_weights: bool | Literal["gaussian", "orthogonal"] = True
    """Initialisation of the factors, PEFT's names. PEFT's others (PiSSA, OLoRA) move part of the base into the factors,
    so that what is stored no longer fits the base everyone has."""


class LoRA(Strategy):
    """Trains B and A of W + (alpha / r) B A; W stays frozen (Hu et al. 2021, equation 3)."""

    family = "reparametrisation"
    trains = "low-rank factors of the linear layers"
    parameters = "r (in + out) a linear layer"
    memory = "the weights once, 16 bytes a trained parameter in fp32; activations of every layer"
    paper = "Hu et al. 2021, LoRA: Low-Rank Adaptation of Large Language Models"
    shards = True
    ranges = {"lr": Log(2e-4, 5e-4)}
    """2e-4 to 5e-4 (Hu et al. 2021, tables 9 and 11)."""
    Options = LoRAOptions

    def prepare(self, base: Base, context: TaskContext, options: LoRAOptions) -> Plan:
        from bench.train.plans import peft_plan

        plan = peft_plan(base, context, factors(options), options.lr)
        if options.engine == "trl":
            from bench.train.by_trl import Stage, by_trl

            rewards = Stage("Reward", {"disable_dropout": False})  # ours stays on, too
            return by_trl(base, context, plan, {0: rewards if context.readout == "head" else Stage("SFT")})
        return plan


def factors(options: LoRAOptions) -> LoraConfig:
    """PEFT's configuration of these options."""
    from peft import LoraConfig

    return LoraConfig(
        r=options.r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=options.target_modules,
        use_dora=options.use_dora,
        use_rslora=options.use_rslora,
        init_lora_weights=options.init_lora_weights,
    )


strategy = LoRA()
