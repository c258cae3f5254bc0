"""Learning from preferences: losses on log-probabilities and rewards, implicit rewards, and KL to a reference.

Plain functions on tensors: no model, no tokenizer, no state. Every log-probability, log-ratio and KL is in nats. The
log-probability of a response is the sum over its tokens given the prompt, as in the papers. The policy is what is
trained; the reference is fixed, so no gradient ever reaches it.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Pairwise = Literal["sigmoid", "ipo"]
Estimator = Literal["k1", "k3"]


def bradley_terry(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Loss of a reward model: -log sigmoid(chosen - rejected), averaged over pairs; a scalar in nats.

    `chosen` and `rejected`: (pairs,) rewards of the two responses to one prompt, where a difference of 1 means odds of
    e to 1 that the first is preferred (Bradley & Terry 1952). It is Ouyang et al. 2022, eq. 1, for two responses a
    prompt. Raises `ValueError` for unequal shapes and for no pair.
    """
    _one_shape("bradley_terry", chosen=chosen, rejected=rejected)
    return -F.logsigmoid(chosen - rejected).mean()


def implicit_reward(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> torch.Tensor:
    """The reward a policy stands for: beta * (policy - reference), of the shape given (Rafailov et al. 2023, eq. 5).

    `policy` and `reference`: (rows,) log-probabilities of the same responses. The equation's beta * log Z(x) is left
    out: it is the same for every response to a prompt, so rewards compare within a prompt only. Differentiable in the
    policy. Raises `ValueError` for unequal shapes, for no row, and for a beta that is not above 0.
    """
    _one_shape("implicit_reward", policy=policy, reference=reference)
    return _positive("implicit_reward", beta) * (policy - reference.detach())


def dpo(
    policy_chosen: torch.Tensor,
    policy_rejected: torch.Tensor,
    reference_chosen: torch.Tensor,
    reference_rejected: torch.Tensor,
    beta: float,
    loss: Pairwise = "sigmoid",
    lengths: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Loss of a policy on preferred and rejected responses, averaged over pairs; a scalar.

    The four are (pairs,) log-probabilities. With h = (policy - reference) of chosen less that of rejected:
    `sigmoid` is -log sigmoid(beta * h), in nats: Rafailov et al. 2023, eq. 7, that is `bradley_terry` on implicit
    rewards. `ipo` is (h - 1 / (2 * beta))^2, in nats squared: Azar et al. 2023, eq. 17, beta being their tau.

    `lengths`, the (pairs,) token counts of the chosen and the rejected responses, divides each log-ratio by its own
    count, so that h is in nats a token and one beta suits short and long responses. Equation 17 has sums; TRL computes
    `ipo` with means only, because the paper's authors told it that their results were computed so. For `sigmoid` it
    is length-normalized DPO (Lambert et al. 2024, section 5), TRL's `sigmoid_norm`. A beta for sums is none for means.
    Raises `ValueError` for unequal shapes, no pair, a length below 1, a beta not above 0, and another loss.
    """
    if loss not in get_args(Pairwise):
        raise ValueError(f"dpo needs a loss of {', '.join(get_args(Pairwise))}, got {loss!r}")
    _positive("dpo", beta)
    log_probabilities = {
        "policy_chosen": policy_chosen,
        "policy_rejected": policy_rejected,
        "reference_chosen": reference_chosen,
        "reference_rejected": reference_rejected,
    }
    _one_shape("dpo", **log_probabilities)
    chosen, rejected = policy_chosen - reference_chosen.detach(), policy_rejected - reference_rejected.detach()
    if lengths is not None:
        _one_shape("dpo", policy_chosen=policy_chosen, chosen_length=lengths[0], rejected_length=lengths[1])
        if (shortest := min(float(counts.min()) for counts in lengths)) < 1:
            raise ValueError(f"dpo needs lengths of 1 token or more, got {shortest:g}")
        chosen, rejected = chosen / lengths[0], rejected / lengths[1]
    if loss == "sigmoid":
        return bradley_terry(beta * chosen, beta * rejected)
    return ((chosen - rejected - 1 / (2 * beta)) ** 2).mean()


def kto(
    policy: torch.Tensor,
    reference: torch.Tensor,
    desirable: torch.Tensor,
    kl: torch.Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> torch.Tensor:
    """Loss of a policy on single responses judged good or bad (Ethayarajh et al. 2024, section 4.1, eq. 8).

    `policy` and `reference`: (rows,) log-probabilities; `desirable`: (rows,) booleans; `kl`: the reference point z0, a
    scalar in nats of 0 or above, from `kto_reference_point`; no gradient reaches it. With r = policy - reference, a
    good response costs desirable_weight * (1 - sigmoid(beta * (r - kl))), a bad one
    undesirable_weight * (1 - sigmoid(beta * (kl - r))). The mean over all rows is returned, a scalar without unit
    between 0 and the larger weight; it is not divided by the weights. Equation 8 is 7 in the paper's earlier versions.
    Raises `ValueError` for unequal shapes, no row, a `desirable` that is not boolean, a kl that is no scalar or is
    below 0, a beta not above 0, and a weight below 0.
    """
    _positive("kto", beta)
    _one_shape("kto", policy=policy, reference=reference, desirable=desirable)
    if desirable.dtype != torch.bool:  # numbers would be inverted bit by bit, or be read as weights
        raise ValueError(f"kto needs desirable as booleans, got {desirable.dtype}")
    kl = kl.detach()
    if kl.dim() != 0 or float(kl) < 0:
        got = f"a tensor of {tuple(kl.shape)}" if kl.dim() else f"{float(kl):g}"
        raise ValueError(f"kto needs kl as one number of 0 or above, got {got}")
    if min(desirable_weight, undesirable_weight) < 0:
        raise ValueError(f"kto needs weights of 0 or above, got {desirable_weight} and {undesirable_weight}")
    gain = policy - reference.detach() - kl
    weights = torch.where(desirable, desirable_weight, undesirable_weight).to(gain)
    # 1 - sigmoid(z) is sigmoid(-z), which keeps its digits where the loss is close to 0
    return (weights * torch.sigmoid(-beta * torch.where(desirable, gain, -gain))).mean()


def kto_reference_point(policy_mismatched: torch.Tensor, reference_mismatched: torch.Tensor) -> torch.Tensor:
    """Reference point z0 of `kto`: the mean log-ratio of mismatched pairs, at least 0; a detached scalar in nats.

    Both are (rows,) log-probabilities of responses that belong to *other* prompts of the same batch, such as each
    prompt with the next row's response (Ethayarajh et al. 2024, section 4.1); they need no graph. It stands in for
    KL(policy || reference), which would take samples from the policy, and is cut at 0 because a KL is never below.
    Over several batches or devices, average the log-ratios first and cut then.
    Raises `ValueError` for unequal shapes and for no row.
    """
    _one_shape("kto_reference_point", policy_mismatched=policy_mismatched, reference_mismatched=reference_mismatched)
    return (policy_mismatched - reference_mismatched).detach().mean().clamp(min=0)


def sequence_log_probability(
    logits: torch.Tensor, labels: torch.Tensor, ignore: int = -100
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each row's response, in nats, and its count of tokens: two tensors of (rows,).

    `logits`: (rows, tokens, vocabulary), unshifted; `labels`: (rows, tokens), the token ids themselves, `ignore` where
    a token is prompt or padding. Logits at t are for the token at t + 1, so the first label never counts. A row without
    any counted token has 0 and 0. Logits of 16 bits are summed in 32: rounding to bf16 costs tenths of a nat.

    No log-softmax of everything is made: a token's value is its logit less the logsumexp of its position, one row at a
    time, so nothing of the logits' size is held for the backward pass besides the logits.
    Raises `ValueError` for other shapes, no row, and fewer than two tokens.
    """
    if logits.dim() != 3 or labels.shape != logits.shape[:2]:
        got = f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"sequence_log_probability needs (rows, tokens, vocabulary) and (rows, tokens), got {got}")
    if logits.shape[0] == 0 or logits.shape[1] < 2 or logits.shape[2] == 0:
        raise ValueError(f"sequence_log_probability needs a row of two tokens or more, got {tuple(logits.shape)}")
    targets = labels[:, 1:]
    # one unbind has one backward; an index a row would fill a tensor of all rows for each of them
    rows = [_row_log_probability(row[:-1], of, ignore) for row, of in zip(logits.unbind(), targets, strict=True)]
    return torch.stack(rows), (targets != ignore).sum(dim=-1)


def kl_per_token(
    policy_logp: torch.Tensor, reference_logp: torch.Tensor, mask: torch.Tensor, estimator: Estimator = "k3"
) -> torch.Tensor:
    """KL(policy || reference) estimated from tokens *sampled from the policy*; a scalar in nats a token.

    All three are (rows, tokens): log-probabilities of the sampled tokens, and true or 1 where a token is response. The
    mean is over all counted tokens, so long responses weigh more. With d = reference - policy (Schulman 2020):
    `k1` is -d: without bias, but of high variance, and a mean can be below 0. `k3` is exp(d) - 1 - d: without bias
    too, and no token is below 0.

    Meant to be reported. As a loss to minimise, over tokens taken as given, the expected gradient of `k1` is zero and
    that of `k3` is the gradient of KL(reference || policy), the other direction.
    Raises `ValueError` for unequal shapes, a mask without any token, and another estimator.
    """
    if estimator not in get_args(Estimator):
        raise ValueError(f"kl_per_token needs an estimator of {', '.join(get_args(Estimator))}, got {estimator!r}")
    _one_shape("kl_per_token", policy_logp=policy_logp, reference_logp=reference_logp, mask=mask)
    counted = mask.bool()
    if not counted.any():
        raise ValueError(f"kl_per_token needs a mask with at least one token, got none of {mask.numel()}")
    # picked before the exponential: what stands at padding may be infinite, and 0 * inf is not 0
    d = reference_logp.detach()[counted] - policy_logp[counted]
    return (-d if estimator == "k1" else torch.expm1(d) - d).mean()


def _row_log_probability(logits: torch.Tensor, targets: torch.Tensor, ignore: int) -> torch.Tensor:
    """Summed log-probability of one row's targets, those of `ignore` left out: (tokens, vocabulary) and (tokens,)."""
    left_out = targets == ignore
    picked = logits.gather(-1, targets.masked_fill(left_out, 0)[:, None])[:, 0]
    if logits.dtype in (torch.bfloat16, torch.float16):
        # the 32-bit copy is made anew in the backward pass: kept for every row, it would be twice the logits
        total = checkpoint(_logsumexp, logits, use_reentrant=False, preserve_rng_state=False)
    else:
        total = logits.logsumexp(-1)
    return (picked.to(total) - total).masked_fill(left_out, 0).sum()


def _logsumexp(logits: torch.Tensor) -> torch.Tensor:
    """Logsumexp over the vocabulary in 32 bits."""
    return logits.float().logsumexp(-1)


def _one_shape(function: str, **tensors: torch.Tensor) -> None:
    """Refuse tensors of several shapes, which torch would broadcast in silence, and those without any element."""
    if len({t.shape for t in tensors.values()}) > 1 or any(t.numel() == 0 for t in tensors.values()):
        got = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
        raise ValueError(f"{function} needs tensors of one shape with at least one element, got {got}")


def _positive(function: str, beta: float) -> float:
    """This beta, if it is a finite number above 0."""
    if not 0 < beta < math.inf:
        raise ValueError(f"{function} needs a finite beta above 0, got {beta}")
    return beta
