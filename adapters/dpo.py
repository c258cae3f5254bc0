"""Direct preference optimisation: a policy learns pairs of answers without a reward model. IPO is an option of it, and
so is the control that goes on with the first stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bench.space import Log
from bench.strategy import Needs, Options, Plan, Strategy, TaskContext, Unsupported

if TYPE_CHECKING:
    import torch

    from bench.models.base import Base
    from bench.train.policies import Pairs


class PreferenceOptions(Options):
    """What the strategies that train a policy on preferences share. The policy is LoRA's."""

    lr: float = Field(2e-4, gt=0)
    """Peak learning rate of the preference stage. No one rate is published for factors (1e-6 for whole models: Rafailov
    et al. 2023, appendix B)."""
    beta: float = Field(0.1, gt=0)
    """How dear it is to leave the reference: weight of the log-ratio (Rafailov et al. 2023, appendix B: 0.1)."""
    supervised: float = Field(0.25, ge=0, lt=1)
    """Share of the budget that fine-tunes on the preferred answers first; the reference is what it leaves."""
    supervised_lr: float = Field(5e-4, gt=0)
    """Peak learning rate of that first stage, as lora's."""
    r: int = Field(8, ge=1)
    """Rank of the factors."""
    lora_alpha: int = Field(16, ge=1)
    """The update is scaled by lora_alpha / r."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get factors, as lora's."""


class DPOOptions(PreferenceOptions):
    """Options of `dpo`."""

    loss: Literal["sigmoid", "ipo", "sft"] = "sigmoid"
    """`sigmoid`: DPO. `ipo`: (difference of the log-ratios - 1 / (2 beta)) squared (Azar et al. 2023, equation 17).
    `sft`: the control; the first stage's loss again, on the same rows in the same order at the same rates."""
    engine: Literal["own", "trl"] = "own"
    """`trl`: trained by TRL's own trainers, as a check of ours. Its cells stand in a table of their own, unranked."""
    per_token: bool = False
    """Log-ratios are means over an answer's tokens, as TRL has them for `ipo`; then beta is one of means."""


class DPO(Strategy):
    """-log sigmoid(beta (log-ratio of the preferred answer - that of the other)) (Rafailov et al. 2023, equation 7)."""

    family = "preference tuning"
    trains = "low-rank factors, on pairs of answers or of label words"
    parameters = "r (in + out) a linear layer"
    memory = (
        "as lora, for both answers of a pair at once; two numbers a pair and the factors once more for the reference"
    )
    paper = "Rafailov et al. 2023, Direct Preference Optimization"
    needs = Needs(kinds=frozenset(("causal",)), pairs=True)
    readouts = ("verbalizer",)
    shards = True
    ranges = {"lr": Log(5e-5, 1e-3)}
    """No range is published for factors; these are the decades around lora's own rates."""
    Options = DPOOptions

    def prepare(self, base: Base, context: TaskContext, options: DPOOptions) -> Plan:
        from bench.train.policies import continued, preferring_plan
        from bench.train.preference import dpo

        plan, kind = supervised_plan(base, context, options), options.loss
        if options.engine == "trl" and (kind == "sft" or context.task.kind != "prefer"):
            raise Unsupported(
                "TRL's preference trainers read pairs of texts: use engine=own on labels and for loss=sft"
            )
        if kind == "sft":
            return continued(plan, options.supervised, options.lr)

        def loss(pairs: Pairs) -> torch.Tensor:
            four = (pairs.chosen, pairs.rejected, pairs.reference_chosen, pairs.reference_rejected)
            return dpo(*four, options.beta, kind, pairs.lengths if options.per_token else None)

        plan = preferring_plan(base, context, plan, loss, options.beta, options.supervised, options.lr)
        return by_trl_too(base, context, plan, options) if options.engine == "trl" else plan


def by_trl_too(base: Base, context: TaskContext, plan: Plan, options: DPOOptions) -> Plan:
    """Both stages trained by TRL. Raises `Unsupported` for a loss that TRL has not."""
    from bench.train.by_trl import Stage, by_trl
    from bench.train.policies import PREFERENCE, SUPERVISED

    if options.loss == "ipo" and not options.per_token:
        raise Unsupported("TRL's ipo compares means over tokens: use per_token=true, or engine=own")
    loss = "sigmoid_norm" if options.loss == "sigmoid" and options.per_token else options.loss
    stages = {SUPERVISED: Stage("SFT"), PREFERENCE: Stage("DPO", {"beta": options.beta, "loss_type": [loss]})}
    return by_trl(base, context, plan, stages)


def supervised_plan(base: Base, context: TaskContext, options: Any) -> Plan:
    """LoRA on the preferred answers, at the first stage's rate."""
    from peft import LoraConfig

    from bench.train.plans import peft_plan

    config = LoraConfig(r=options.r, lora_alpha=options.lora_alpha, target_modules=options.target_modules)
    return peft_plan(base, context, config, options.supervised_lr)


strategy = DPO()
