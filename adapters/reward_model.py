"""A reward model: one number an answer, learned from which of two is preferred."""

from __future__ import annotations

from bench.strategy import Needs

from .lora import LoRA


class RewardModel(LoRA):
    """-log sigmoid(reward of the preferred answer - reward of the other), through LoRA and a fresh linear layer on the
    last token's state (Ouyang et al. 2022, equation 1; Bradley & Terry 1952)."""

    family = "preference tuning"
    trains = "low-rank factors and one linear layer of one output"
    parameters = "r (in + out) a linear layer, + d + 1"
    memory = "as lora, for both answers of a pair at once"
    paper = "Ouyang et al. 2022, Training language models to follow instructions with human feedback"
    needs = Needs(pairs=True)
    readouts = ("head",)


strategy = RewardModel()
