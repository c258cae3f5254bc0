"""PPO's and GRPO's own: how a score becomes advantages, and the loss of an update."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bench.train.policy import (
    advantages,
    clipped_policy_loss,
    clipped_value_loss,
    group_advantages,
    grpo_loss,
    token_rewards,
    whiten,
)
from bench.train.rollouts import Round


@dataclass(frozen=True)
class Proximal:
    """PPO: per-action KL in the reward, generalised advantages, both losses clipped."""

    gamma: float
    lam: float
    clip: float
    value_clip: float
    value_coefficient: float

    def estimate(self, scores: torch.Tensor, round_: Round, kl: float) -> tuple[torch.Tensor, torch.Tensor]:
        rewards = token_rewards(scores, round_.logp, round_.reference, round_.mask, kl)
        gains, returns = advantages(rewards, round_.values, round_.mask, self.gamma, self.lam)
        return whiten(gains, round_.mask), returns

    def loss(
        self, logp: torch.Tensor, values: torch.Tensor, round_: Round, places: torch.Tensor, kl: float
    ) -> torch.Tensor:
        """Weighted by the batch's actions: parts of a batch then add up to the same as the whole."""
        of = {name: round_.part(name, places, logp.shape[1]) for name in ("logp", "values", "returns", "advantages")}
        mask = round_.part("mask", places, logp.shape[1])
        policy, _ = clipped_policy_loss(logp, of["logp"], of["advantages"], mask, self.clip)
        worth, _ = clipped_value_loss(values, of["values"], of["returns"], mask, self.value_clip)
        share = mask.sum() / (len(mask) * round_.length)
        return (policy + self.value_coefficient * worth) * share


@dataclass(frozen=True)
class GroupRelative:
    """GRPO: a response's advantage is its score among those to the same prompt; the KL stands in the loss."""

    group: int
    clip: float
    scale: bool

    def estimate(self, scores: torch.Tensor, round_: Round, kl: float) -> tuple[torch.Tensor, torch.Tensor]:
        gains = group_advantages(scores, self.group, self.scale)
        return gains, torch.zeros_like(round_.logp)

    def loss(
        self, logp: torch.Tensor, values: torch.Tensor, round_: Round, places: torch.Tensor, kl: float
    ) -> torch.Tensor:
        of = {name: round_.part(name, places, logp.shape[1]) for name in ("logp", "reference", "advantages", "mask")}
        loss, _ = grpo_loss(logp, of["logp"], of["reference"], of["advantages"], of["mask"], self.clip, kl)
        return loss
