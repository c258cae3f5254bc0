"""PPO: a policy learns from a reward of what it says itself, held near the policy it began as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from bench.config.schema import Task
from bench.space import Log
from bench.strategy import Needs, Options, Plan, Strategy, TaskContext

if TYPE_CHECKING:
    from bench.models.base import Base
    from bench.train.rollouts import Rolling
    from bench.train.stages import Stages


class RewardOptions(Options):
    """What the strategies that learn from rewards share. The policy is LoRA's, and so is a learned reward."""

    lr: float = Field(2e-4, gt=0)
    """Peak learning rate of the policy's stage. No one rate is published for factors (9e-6 and less for whole models:
    Ouyang et al. 2022, appendix C)."""
    reward: Literal["auto", "learned", "verifiable"] = "auto"
    """`learned` from pairs, or `verifiable`: 1 for the right label or reply. `auto`: learned where there are pairs."""
    supervised: float = Field(0.2, gt=0, lt=1)
    """Share of the budget that fine-tunes first; the reference is what it leaves."""
    supervised_lr: float = Field(5e-4, gt=0)
    """Peak learning rate of that first stage, as lora's."""
    reward_share: float = Field(0.3, gt=0, lt=1)
    """Share of the budget that trains the reward model, where one is learned."""
    reward_lr: float = Field(5e-4, gt=0)
    """Peak learning rate of the reward model."""
    responses: int = Field(32, ge=2)
    """Responses drawn a round."""
    epochs: int = Field(1, ge=1)
    """Times each response is trained on (Ouyang et al. 2022, appendix C: 1)."""
    tokens: int = Field(48, ge=1, le=1024)
    """Most tokens of a response."""
    temperature: float = Field(1.0, gt=0)
    """Of drawing responses; what is trained are log-probabilities at 1."""
    unfinished: float = Field(-1.0, le=0)
    """Added to the score of a response without an end, in SDs of the reward (Huang et al. 2024: such a response is
    given a low score)."""
    clip: float = Field(0.2, gt=0)
    """How far the ratio of new to old probability counts (Schulman et al. 2017: 0.2)."""
    r: int = Field(8, ge=1)
    """Rank of the factors."""
    lora_alpha: int = Field(16, ge=1)
    """The update is scaled by lora_alpha / r."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get factors, as lora's."""

    @model_validator(mode="after")
    def leaves_a_share(self) -> RewardOptions:
        """The policy's own stage needs some of the budget."""
        if self.supervised + self.reward_share >= 1:
            raise ValueError(
                f"supervised={self.supervised:g} and reward_share={self.reward_share:g} leave nothing for the "
                "policy; allowed: a sum below 1"
            )
        return self


class PPOOptions(RewardOptions):
    """Options of `ppo`."""

    kl: float = Field(0.05, gt=0)
    """How dear a nat of KL to the reference is, in SDs of the reward, where training begins."""
    kl_target: float | None = Field(10.0, gt=0)
    """KL of a response that the price follows (Ziegler et al. 2019, section 2.2), nats; None: the price stays."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount of later rewards."""
    lam: float = Field(0.95, ge=0, le=1)
    """Decay of the generalised advantage estimate (Schulman et al. 2016)."""
    value_clip: float = Field(0.2, gt=0)
    """How far a value may move from the old one within a round."""
    value_coefficient: float = Field(0.1, ge=0)
    """Weight of the value function's loss (Huang et al. 2024: 0.1)."""


class PPO(Strategy):
    """Rounds of responses, scored by the reward less the KL to the reference; clipped updates of policy and value
    (Schulman et al. 2017, equation 7; Ouyang et al. 2022, equation 2)."""

    family = "preference tuning"
    trains = "low-rank factors, on its own responses"
    parameters = "r (in + out) a linear layer, + two heads of d + 1"
    memory = "as lora; the factors twice more for reference and reward; keys and values of a round of responses"
    paper = "Ouyang et al. 2022, Training language models to follow instructions with human feedback"
    needs = Needs(kinds=frozenset(("causal",)))
    readouts = ("verbalizer",)
    ranges = {"lr": Log(5e-5, 1e-3)}
    """No range is published for factors; as dpo's."""
    Options = PPOOptions

    def prepare(self, base: Base, context: TaskContext, options: PPOOptions) -> Plan:
        from bench.train.objectives import Proximal
        from bench.train.policy import AdaptiveKL
        from bench.train.rewarded import rolled, value_head

        stages = stages_of(base, context, options)
        kl = options.kl if options.kl_target is None else AdaptiveKL(options.kl, options.kl_target)
        method = Proximal(options.gamma, options.lam, options.clip, options.value_clip, options.value_coefficient)
        value = value_head(base, stages.versions.params[0].device)
        return rolled(stages, rolling(stages, options, 1, method, value, kl))


def learns(task: Task, options: RewardOptions) -> bool:
    """Whether the reward is a learned one."""
    return options.reward == "learned" or (options.reward == "auto" and task.kind == "prefer")


def stages_of(base: Base, context: TaskContext, options: Any) -> Stages:
    """Supervised fine-tuning of low-rank factors, then the reward model where one is learned."""
    from peft import LoraConfig

    from bench.train.plans import peft_plan
    from bench.train.rewarded import staged
    from bench.train.stages import Shares

    config = LoraConfig(r=options.r, lora_alpha=options.lora_alpha, target_modules=options.target_modules)
    plan = peft_plan(base, context, config, options.supervised_lr)
    learned = learns(context.task, options)
    rolls = options.supervised + (options.reward_share if learned else 0.0)
    shares = Shares(options.supervised, rolls, options.reward_lr, options.lr)
    return staged(base, context, plan, shares, learned)


def rolling(stages: Stages, options: Any, group: int, method: Any, value: Any, kl: Any) -> Rolling:
    """The stage of responses."""
    from bench.train.rewarded import acting, rewarding
    from bench.train.rollouts import Pace, Rolling

    assert stages.plan.module is not None
    context = stages.context
    acts = acting(context, stages.plan, options.tokens, options.temperature)
    pace = Pace(options.responses, group, options.epochs, context.batch, options.unfinished)
    return Rolling(
        acts, stages.plan.module, stages.versions, rewarding(stages, acts), method, pace, value, kl, context.seed,
        len(context.train),
    )  # fmt: skip


strategy = PPO()
