"""Best of n: the policy is fine-tuned only; of several responses the one that a reward model likes best is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bench.space import Log
from bench.strategy import Needs, Options, Plan, Strategy, TaskContext

if TYPE_CHECKING:
    from bench.models.base import Base


class BestOfNOptions(Options):
    """Options of `best_of_n`."""

    n: int = Field(8, ge=2)
    """Responses of which one is taken (Nakano et al. 2021: 4, 16 and 64)."""
    supervised: float = Field(0.4, gt=0, lt=1)
    """Share of the budget that fine-tunes the policy; the rest trains the reward model."""
    lr: float = Field(5e-4, gt=0)
    """Peak learning rate of both stages, as lora's published ones."""
    r: int = Field(8, ge=1)
    """Rank of the factors."""
    lora_alpha: int = Field(16, ge=1)
    """The update is scaled by lora_alpha / r."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get factors, as lora's."""


class BestOfN(Strategy):
    """The cheap baseline of every policy trained by a reward: nothing but choice (Nakano et al. 2021, section 3.4). Its
    KL to the policy it draws from is at most log n - (n - 1) / n (Beirami et al. 2024)."""

    family = "preference tuning"
    trains = "low-rank factors for the policy, and again with one linear layer for the reward"
    parameters = "2 r (in + out) a linear layer, + d + 1"
    memory = "as reward_model; when it answers, keys and values of n responses"
    paper = "Nakano et al. 2021, WebGPT: Browser-assisted question-answering with human feedback"
    needs = Needs(kinds=frozenset(("causal",)), pairs=True)
    readouts = ("verbalizer",)
    ranges = {"lr": Log(2e-4, 5e-4)}
    """As lora's."""
    Options = BestOfNOptions

    def prepare(self, base: Base, context: TaskContext, options: BestOfNOptions) -> Plan:
        from peft import LoraConfig

        from bench.train.plans import peft_plan
        from bench.train.rewarded import best_of, staged
        from bench.train.stages import Shares

        config = LoraConfig(r=options.r, lora_alpha=options.lora_alpha, target_modules=options.target_modules)
        plan = peft_plan(base, context, config, options.lr)
        shares = Shares(options.supervised, 1.0, options.lr, options.lr)
        return best_of(staged(base, context, plan, shares, learned=True), options.n)


strategy = BestOfN()
