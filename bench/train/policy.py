"""The arithmetic of policy-gradient training of language models, PPO's and GRPO's, on padded tensors and nothing else.

Per-token tensors have shape (rows, steps): one row a sampled sequence, `mask` true where a token is part of the
response. What stands outside of the mask is never read, so it may be anything, not-a-number too. Log-probabilities and
KL are in nats; they should come from 32-bit logits, for a ratio of two that were rounded to 16 bits is mostly rounding.
16-bit input is computed with in 32 bits. Every function raises `ValueError`, one line, for unequal shapes, for a mask
without a response token in some row and for numbers outside of their range.

PPO: Ouyang et al. 2022 (InstructGPT) with the details of Huang et al. 2024 (The N+ implementation details of RLHF with
PPO). GRPO: Shao et al. 2024 (DeepSeekMath).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

VARIANCE_FLOOR = 1e-8
"""Added to a variance before its root is divided by (Huang et al. 2024)."""
SPREAD_FLOOR = 1e-4
"""Added to a group's standard deviation: rewards that differ by rounding alone must not count as good and bad."""


@torch.no_grad()
def token_rewards(
    score: torch.Tensor,
    policy_logp: torch.Tensor,
    reference_logp: torch.Tensor,
    mask: torch.Tensor,
    kl_coefficient: float,
) -> torch.Tensor:
    """Reward of every token (rows, steps): the KL penalty, and `score` (rows) at the last response token.

    Ouyang et al. 2022, eq. 2 (its KL part), a token at a time as in Ziegler et al. 2019, eq. 2: -coefficient *
    (log policy - log reference), whose expectation over the policy's samples is exactly -coefficient * KL. Zero outside
    of the mask, and a constant to gradients.
    """
    _check(mask, policy_logp=policy_logp, reference_logp=reference_logp)
    _require(score.shape == mask.shape[:1], "score", f"shape {tuple(score.shape)}", f"of shape ({len(mask)},)")
    _require(kl_coefficient >= 0, "kl_coefficient", kl_coefficient, "0 or more")
    policy, reference = _inside(mask, policy_logp, reference_logp)
    rewards = -kl_coefficient * (policy - reference)
    last = (torch.arange(mask.shape[1], device=mask.device) * mask).amax(1)
    rewards[torch.arange(len(mask), device=mask.device), last] += score.to(rewards.dtype)
    return rewards


@torch.no_grad()
def advantages(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantage estimates and the returns to fit values to, both (rows, steps), zero outside of the mask.

    Schulman et al. 2016, eq. 16: the sum of temporal-difference errors, each later one times gamma * lambda; returns
    are advantages plus `values`. The value after a row's last response token is 0, for there the sequence ends. Tokens
    outside of the mask are passed over as if they were not there, between two response tokens too. Both are constants
    to gradients.
    """
    _check(mask, rewards=rewards, values=values)
    _require(0 <= gamma <= 1, "gamma", gamma, "in 0..1")
    _require(0 <= lam <= 1, "lam", lam, "in 0..1")
    rewards, values = _inside(mask, rewards, values)
    running = next_value = torch.zeros_like(values[:, 0])
    columns = []
    for t in reversed(range(mask.shape[1])):
        error = rewards[:, t] + gamma * next_value - values[:, t]
        running = torch.where(mask[:, t], error + gamma * lam * running, running)
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        columns.append(running)
    estimates = torch.stack(columns[::-1], dim=1).masked_fill(~mask, 0.0)
    return estimates, estimates + values


@torch.no_grad()
def whiten(values: torch.Tensor, mask: torch.Tensor, shift_mean: bool = True) -> torch.Tensor:
    """Values with variance 1 over all response tokens, and mean 0 or (without `shift_mean`) the mean they had.

    Huang et al. 2024; the variance is the population's (divided by n), as it was in the code they reproduce. Equal
    values become exactly their mean or 0: an optimizer that divides by gradient size would make steps out of rounding.
    Zero outside of the mask, a constant to gradients.
    """
    _check(mask, values=values)
    (inside,) = _inside(mask, values)
    mean = _mean(inside, mask)
    whitened = (inside - mean) * torch.rsqrt(_mean((inside - mean) ** 2, mask) + VARIANCE_FLOOR)
    highest, lowest = inside.masked_fill(~mask, -math.inf).amax(), inside.masked_fill(~mask, math.inf).amin()
    whitened = whitened.masked_fill(highest == lowest, 0.0)
    return (whitened if shift_mean else whitened + mean).masked_fill(~mask, 0.0)


def clipped_policy_loss(
    logp: torch.Tensor, old_logp: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """PPO's loss (Schulman et al. 2017, eq. 7, negated), mean over response tokens, and the clip fraction; two scalars.

    `old_logp` is of the policy that sampled; gradients flow through `logp` alone. The clip fraction is the share of
    response tokens for which clipping decides, those without a gradient: a ratio above 1 + clip with an advantage above
    0, or below 1 - clip with one below 0. Parts of a batch are to be weighted by their response tokens.
    """
    _check(mask, logp=logp, old_logp=old_logp, advantages=advantages)
    policy, old, gain = _inside(mask, logp, old_logp, advantages)
    losses, stopped = _clipped(policy, old, gain, clip)
    return _mean(losses, mask), _mean(stopped, mask)


def clipped_value_loss(
    values: torch.Tensor, old_values: torch.Tensor, returns: torch.Tensor, mask: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of the value function, half the mean over response tokens, and the clip fraction; two scalars.

    The larger of two squared errors against `returns`: that of the value, and that of the value kept within `clip` of
    `old_values` (Huang et al. 2024; it is in no equation of Schulman et al. 2017). Gradients flow through `values`
    alone. The clip fraction is the share of response tokens for which the second decides, those without a gradient.
    """
    _check(mask, values=values, old_values=old_values, returns=returns)
    _require(clip > 0, "clip", clip, "above 0")
    value, old, target = _inside(mask, values, old_values, returns)
    old, target = old.detach(), target.detach()
    free = (value - target) ** 2
    kept = (torch.clamp(value, old - clip, old + clip) - target) ** 2
    return 0.5 * _mean(torch.maximum(free, kept), mask), _mean((kept > free).to(free.dtype), mask)


@torch.no_grad()
def group_advantages(rewards: torch.Tensor, group_size: int, scale: bool = True) -> torch.Tensor:
    """GRPO's advantage of every row (rows): its reward minus its group's mean, divided by the group's SD with `scale`.

    Shao et al. 2024, section 4.1.2; without `scale` as Liu et al. 2025 (Dr. GRPO) have it, who show that the division
    favours questions that are nearly all right or all wrong. A group is `group_size` rows that follow each other, the
    responses to one prompt. The SD is the sample's (n - 1), plus 0.0001. A group of equal rewards gives exact zeros.
    Raises `ValueError` for groups of fewer than two, and for rows that are no multiple of them.
    """
    _require(group_size >= 2, "group_size", group_size, "2 or more")
    _require(rewards.dim() == 1, "rewards", f"shape {tuple(rewards.shape)}", "of shape (rows,)")
    whole = len(rewards) > 0 and len(rewards) % group_size == 0
    _require(whole, "rows", len(rewards), f"a multiple of group_size {group_size}, at least one")
    groups = _wide(rewards).reshape(-1, group_size)
    deviations = groups - groups.mean(1, keepdim=True)
    if scale:
        deviations = deviations / (groups.std(1, keepdim=True) + SPREAD_FLOOR)
    constant = groups.amax(1, keepdim=True) == groups.amin(1, keepdim=True)
    return deviations.masked_fill(constant, 0.0).flatten()


def k3(logp: torch.Tensor, reference_logp: torch.Tensor) -> torch.Tensor:
    """Estimate of KL(policy, reference) from each sampled token, in nats, of any shape; never below 0 but by rounding.

    Schulman 2020 (Approximating KL divergence); Shao et al. 2024, eq. 4: r - 1 - log r for r = reference / policy. Its
    expectation over the policy's samples is the KL. Its spread is far smaller than that of log policy - log reference
    while the two are near each other; far apart it is larger, for r has no upper bound.
    """
    gap = reference_logp - logp
    return torch.expm1(gap) - gap  # expm1: r - 1 of nearly equal policies would be rounding


def grpo_loss(
    logp: torch.Tensor,
    old_logp: torch.Tensor,
    reference_logp: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    clip: float,
    kl_coefficient: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """GRPO's loss (Shao et al. 2024, eq. 3, negated) and the clip fraction of `clipped_policy_loss`; two scalars.

    Every token has its row's advantage (`advantages` is of shape (rows)) and a KL penalty in the loss itself, `k3`. As
    in the paper it is averaged over each row's response tokens first and over rows after, so that a token of a long
    response weighs less than one of a short response. Gradients flow through `logp` alone.
    """
    _check(mask, logp=logp, old_logp=old_logp, reference_logp=reference_logp)
    told = f"shape {tuple(advantages.shape)}"
    _require(advantages.shape == mask.shape[:1], "advantages", told, f"of shape ({len(mask)},)")
    _require(kl_coefficient >= 0, "kl_coefficient", kl_coefficient, "0 or more")
    policy, old, reference = _inside(mask, logp, old_logp, reference_logp)
    losses, stopped = _clipped(policy, old, _wide(advantages)[:, None], clip)
    losses = losses + kl_coefficient * k3(policy, reference.detach())
    per_row = losses.masked_fill(~mask, 0.0).sum(1) / mask.sum(1)
    return per_row.mean(), _mean(stopped, mask)


def entropy(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean entropy of the next-token distributions at the response tokens, in nats, with its gradient; a scalar.

    `logits` is of shape (rows, steps, vocabulary), those that each token was drawn from. A logit of minus infinity is a
    token that cannot be drawn and adds nothing.
    """
    _check(mask)
    fits = logits.dim() == 3 and logits.shape[:2] == mask.shape and logits.shape[2] > 0
    allowed = f"of shape ({mask.shape[0]}, {mask.shape[1]}, vocabulary)"
    _require(fits, "logits", f"shape {tuple(logits.shape)}", allowed)
    logp = torch.log_softmax(_wide(logits[mask]), dim=-1)
    logp = logp.clamp(min=torch.finfo(logp.dtype).min)  # 0 * -inf is not a number, 0 * -3e38 is 0
    return -(logp.exp() * logp).sum(-1).mean()


@dataclass(frozen=True)
class AdaptiveKL:
    """A KL coefficient that holds the policy near a chosen KL from its reference (Ziegler et al. 2019, section 2.2)."""

    coefficient: float
    target: float
    """KL of a whole response wanted, nats: the sum over its tokens."""
    gain: float = 0.1
    """Share of the error (kept within 20%) that one step corrects."""

    def __post_init__(self) -> None:
        _require(self.coefficient > 0, "coefficient", self.coefficient, "above 0")
        _require(self.target > 0, "target", self.target, "above 0")
        _require(0 < self.gain < 5, "gain", self.gain, "above 0 and below 5")  # from 5 on the coefficient reaches 0

    def after(self, kl: float) -> AdaptiveKL:
        """The one to use next, when the batch had this KL (nats, summed over tokens, mean over responses)."""
        _require(not math.isnan(kl), "kl", kl, "a number")
        error = max(-0.2, min(0.2, kl / self.target - 1.0))
        return replace(self, coefficient=self.coefficient * (1.0 + self.gain * error))


def _clipped(
    logp: torch.Tensor, old_logp: torch.Tensor, advantages: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss of each token, the worse of the plain one and the clipped one, and 1.0 where the clipped one decides."""
    _require(clip > 0, "clip", clip, "above 0")
    gain = advantages.detach()
    ratio = torch.exp(logp - old_logp.detach())
    plain = -gain * ratio
    clipped = -gain * torch.clamp(ratio, 1.0 - clip, 1.0 + clip)
    return torch.maximum(plain, clipped), (clipped > plain).to(plain.dtype)


def _inside(mask: torch.Tensor, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """In 32 bits at least, zero outside of the mask before anything is computed: infinity times 0 is not a number."""
    return [_wide(tensor).masked_fill(~mask, 0.0) for tensor in tensors]


def _mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over response tokens, of values that are finite everywhere. Nothing is picked out, for a mask without values
    (a rehearsal for memory) cannot say how much it would pick."""
    return values.masked_fill(~mask, 0.0).sum() / mask.sum()


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers in 32 bits at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _check(mask: torch.Tensor, **tensors: torch.Tensor) -> None:
    """Raises `ValueError` unless the mask is boolean with a token in every row and all tensors have its shape."""
    told = f"{mask.dtype} of shape {tuple(mask.shape)}"
    _require(mask.dtype == torch.bool and mask.dim() == 2, "mask", told, "boolean of shape (rows, steps)")
    for name, tensor in tensors.items():
        allowed = f"of the mask's shape {tuple(mask.shape)}"
        _require(tensor.shape == mask.shape, name, f"shape {tuple(tensor.shape)}", allowed)
    rows = int(mask.any(1).sum())
    _require(0 < rows == len(mask), "rows with a response token in mask", rows, f"all {len(mask)}, at least one")


def _require(holds: bool, what: str, got: object, allowed: str) -> None:
    """Raises `ValueError` with one line unless it holds."""
    if not holds:
        raise ValueError(f"{what} must be {allowed}, got {got}")
