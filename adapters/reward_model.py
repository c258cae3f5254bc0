"""A reward model: one number an answer, learned from which of two is preferred."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.strategy import Needs, Plan, TaskContext

from .lora import LoRA, LoRAOptions, factors

if TYPE_CHECKING:
    from bench.models.base import Base


class RewardModel(LoRA):
    """-log sigmoid(reward of the preferred answer - reward of the other), through LoRA and a fresh linear layer on the
    last token's state (Ouyang et al. 2022, equation 1; Bradley & Terry 1952).

    Where rows have labels their words are the answers, and the label whose word has the largest reward is its answer.
    """

    family = "preference tuning"
    trains = "low-rank factors and one linear layer of one output"
    parameters = "r (in + out) a linear layer, + d + 1"
    memory = "as lora, for both answers of a pair, or all label words, at once"
    paper = "Ouyang et al. 2022, Training language models to follow instructions with human feedback"
    needs = Needs(pairs=True)
    shards = False
    """Not tried."""
    readouts = ("head",)

    def prepare(self, base: Base, context: TaskContext, options: LoRAOptions) -> Plan:
        from bench.score.answers import LabelRewardReader
        from bench.train.plans import peft_plan

        if context.task.spoken:
            return super().prepare(base, context, options)
        plan = peft_plan(base, context, factors(options), options.lr, reader=LabelRewardReader(base, context))
        plan.mixed = 0  # other tasks would be read with heads of their own, which give no rewards
        return plan


strategy = RewardModel()
