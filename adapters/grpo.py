"""GRPO: a response is held against others to the same prompt, so no value function is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from bench.space import Log
from bench.strategy import Needs, Plan, Strategy, TaskContext

from .ppo import RewardOptions, rolling, stages_of

if TYPE_CHECKING:
    from bench.models.base import Base


class GRPOOptions(RewardOptions):
    """Options of `grpo`."""

    group: int = Field(8, ge=2)
    """Responses to one prompt (Shao et al. 2024, section 4.2: 64)."""
    kl: float = Field(0.04, ge=0)
    """Weight of the KL to the reference in the loss (Shao et al. 2024, section 4.2: 0.04)."""
    scale: bool = True
    """Whether a group's scores are divided by their SD; without as Liu et al. 2025 (Dr. GRPO)."""

    @model_validator(mode="after")
    def whole_groups(self) -> GRPOOptions:
        """A round is made of groups."""
        if self.responses % self.group:
            raise ValueError(f"responses={self.responses} is no multiple of group={self.group}")
        return self


class GRPO(Strategy):
    """Advantages are scores less their group's mean, over its SD; clipped updates with the KL in the loss (Shao et al.
    2024, equation 3)."""

    family = "preference tuning"
    trains = "low-rank factors, on its own responses"
    parameters = "r (in + out) a linear layer, + d + 1"
    memory = "as ppo, without a value function"
    paper = "Shao et al. 2024, DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models"
    needs = Needs(kinds=frozenset(("causal",)))
    readouts = ("verbalizer",)
    ranges = {"lr": Log(5e-5, 1e-3)}
    """As ppo's."""
    Options = GRPOOptions

    def prepare(self, base: Base, context: TaskContext, options: GRPOOptions) -> Plan:
        from bench.train.objectives import GroupRelative
        from bench.train.rewarded import rolled

        stages = stages_of(base, context, options)
        method = GroupRelative(options.group, options.clip, options.scale)
        return rolled(stages, rolling(stages, options, options.group, method, None, options.kl))


strategy = GRPO()
