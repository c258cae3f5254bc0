"""Losses on preferences: values worked out by hand, the direction of their gradients, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tolerance import close

from bench.train.preference import (
    bradley_terry,
    dpo,
    implicit_reward,
    kl_per_token,
    kto,
    kto_reference_point,
    sequence_log_probability,
)

CHOSEN, REJECTED = [-10.0, -4.0], [-12.0, -3.0]
CHOSEN_REFERENCE, REJECTED_REFERENCE = [-11.0, -6.0], [-9.0, -3.5]
"""Log-ratios: 1 and 2 for the chosen, -3 and 0.5 for the rejected; so h is 4 and 1.5."""


def vectors(*values: list[float], grad: bool = False) -> list[torch.Tensor]:
    """One double tensor for each list."""
    return [torch.tensor(v, dtype=torch.float64, requires_grad=grad) for v in values]


def sigmoid(z: float) -> float:
    """The logistic function."""
    return 1 / (1 + math.exp(-z))


def test_a_reward_model_pays_for_the_margin() -> None:
    """Margins 2, 0 and -1; each gradient is minus the chance that the worse one would have been preferred."""
    chosen, rejected = vectors([3.0, 0.5, -1.0], [1.0, 0.5, 0.0], grad=True)
    loss = bradley_terry(chosen, rejected)
    loss.backward()
    assert loss.item() == close((math.log1p(math.exp(-2)) + math.log(2) + math.log1p(math.e)) / 3)
    expected = [-sigmoid(-2) / 3, -0.5 / 3, -sigmoid(1) / 3]
    assert chosen.grad.tolist() == close(expected) and rejected.grad.tolist() == close([-g for g in expected])


def test_a_reward_model_that_is_very_wrong_has_a_finite_loss() -> None:
    """exp(1000) is infinite in 32 bits; the loss is the margin itself."""
    assert bradley_terry(torch.tensor([-500.0]), torch.tensor([500.0])).item() == 1000.0


def test_dpo_by_hand() -> None:
    """h is 4 and 1.5, times beta 0.5; the chosen go up, the rejected down, the reference stays.

    It is the loss of a reward model on implicit rewards.
    """
    policy, rejected = vectors(CHOSEN, REJECTED, grad=True)
    references = vectors(CHOSEN_REFERENCE, REJECTED_REFERENCE, grad=True)
    loss = dpo(policy, rejected, *references, beta=0.5)
    loss.backward()
    assert loss.item() == close((math.log1p(math.exp(-2)) + math.log1p(math.exp(-0.75))) / 2)
    expected = [-0.5 * sigmoid(-2) / 2, -0.5 * sigmoid(-0.75) / 2]
    assert policy.grad.tolist() == close(expected) and rejected.grad.tolist() == close([-g for g in expected])
    rewards = implicit_reward(policy, references[0], 0.5), implicit_reward(rejected, references[1], 0.5)
    assert rewards[0].tolist() == [0.5, 1.0] and rewards[1].tolist() == [-1.5, 0.25]
    assert bradley_terry(*rewards).item() == loss.item()
    bradley_terry(*rewards).backward()
    assert policy.grad.tolist() == close([2 * g for g in expected])
    assert all(reference.grad is None for reference in references)


def test_a_policy_that_is_its_reference_has_no_opinion() -> None:
    """Where every training begins: log 2 for DPO, (1 / (2 beta))^2 for IPO, half the weight for KTO."""
    chosen, rejected = vectors(CHOSEN, REJECTED)
    good = torch.tensor([True, False])
    assert dpo(chosen, rejected, chosen, rejected, 0.1).item() == close(math.log(2))
    assert dpo(chosen, rejected, chosen, rejected, 0.1, "ipo").item() == close(25.0)
    assert kto(chosen, chosen, good, kto_reference_point(rejected, rejected), 0.1).item() == close(0.5)
    assert implicit_reward(chosen, chosen, 0.1).tolist() == [0.0, 0.0]


def test_ipo_by_hand() -> None:
    """Equation 17 on sums: h is 4 and 1.5, and the target 1 / (2 * 0.25) is 2."""
    four = vectors(CHOSEN, REJECTED, CHOSEN_REFERENCE, REJECTED_REFERENCE)
    assert dpo(*four, beta=0.25, loss="ipo").item() == close((2.0**2 + 0.5**2) / 2)


def test_lengths_make_it_a_loss_of_means() -> None:
    """Each log-ratio over its own count: 1/2 and 2/4 less -3/6 and 0.5/1, so h is 1 and 0."""
    four = vectors(CHOSEN, REJECTED, CHOSEN_REFERENCE, REJECTED_REFERENCE)
    lengths = (torch.tensor([2, 4]), torch.tensor([6, 1]))
    assert dpo(*four, beta=0.25, loss="ipo", lengths=lengths).item() == close(((1 - 2) ** 2 + (0 - 2) ** 2) / 2)
    by_hand = (math.log1p(math.exp(-0.25)) + math.log(2)) / 2
    assert dpo(*four, beta=0.25, lengths=lengths).item() == close(by_hand)


def test_ipo_stops_at_its_target_and_dpo_does_not() -> None:
    """At h = 1 / (2 beta) IPO has no gradient, and beyond it pulls back; DPO always pulls on (Azar et al., 5.1)."""
    reference = torch.zeros(1, dtype=torch.float64)
    for h, direction in ((4.0, -1), (5.0, 0), (6.0, 1)):
        chosen, rejected = vectors([h], [0.0], grad=True)
        dpo(chosen, rejected, reference, reference, 0.1, "ipo").backward()
        assert chosen.grad.item() == close(2 * (h - 5)) and chosen.grad.sign().item() == direction
        assert rejected.grad.item() == -chosen.grad.item()
    chosen, rejected = vectors([50.0], [0.0], grad=True)
    dpo(chosen, rejected, reference, reference, 0.1).backward()
    assert chosen.grad.item() < 0 < rejected.grad.item()


def test_kto_by_hand() -> None:
    """Log-ratios 2 and -1 good, 3 and 0 bad, reference point 1, beta 0.5, weights 1 and 2."""
    (policy,), (reference, point) = vectors([2.0, 4.0, 3.0, 0.0], grad=True), vectors([0, 5, 0, 0], [1], grad=True)
    good = torch.tensor([True, True, False, False])
    loss = kto(policy, reference, good, point[0], 0.5, desirable_weight=1.0, undesirable_weight=2.0)
    loss.backward()
    values = [sigmoid(0.5 * 1), sigmoid(0.5 * -2), sigmoid(0.5 * -2), sigmoid(0.5 * 1)]
    weights, signs = [1.0, 1.0, 2.0, 2.0], [-1, -1, 1, 1]
    assert loss.item() == close(sum(w * (1 - v) for w, v in zip(weights, values, strict=True)) / 4)
    slopes = [s * w * 0.5 * v * (1 - v) / 4 for s, w, v in zip(signs, weights, values, strict=True)]
    assert policy.grad.tolist() == close(slopes)
    assert reference.grad is None and point.grad is None


def test_the_reference_point_is_cut_at_zero_and_detached() -> None:
    """Log-ratios 2 and -1 give 0.5; a mean of -0.5 gives 0."""
    (policy,), (reference,) = vectors([-3.0, -5.0], grad=True), vectors([-5.0, -4.0])
    point = kto_reference_point(policy, reference)
    assert point.item() == close(0.5) and point.shape == () and not point.requires_grad
    assert kto_reference_point(reference, policy).item() == 0.0


def odds(*rows: list[float]) -> torch.Tensor:
    """Logits of these odds, to which any constant may be added."""
    return torch.tensor(rows, dtype=torch.float64).log() + 7


def test_log_probabilities_are_those_of_the_next_token() -> None:
    """Probabilities 1/6, 2/6, 3/6 and 1/4, 2/4, 1/4 for what follows; the last position and the prompt do not count."""
    logits = torch.stack([odds([1, 2, 3], [1, 2, 1], [1, 1, 98])] * 3)
    labels = torch.tensor([[0, 2, 1], [-100, -100, 0], [1, -100, -100]])
    summed, counts = sequence_log_probability(logits, labels)
    assert summed.tolist() == close([math.log(3 / 6) + math.log(2 / 4), math.log(1 / 4), 0.0])
    assert counts.tolist() == [2, 1, 0]
    padded, counts = sequence_log_probability(logits[:1], torch.tensor([[1, 1, 0]]), ignore=0)
    assert padded.tolist() == close([math.log(2 / 6)]) and counts.tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_little_is_held_for_the_backward_pass(dtype: torch.dtype) -> None:
    """Besides the logits themselves less than a twentieth of them, with the gradient of a plain log-softmax."""
    torch.manual_seed(0)
    logits = (4 * torch.randn(5, 12, 256)).to(dtype).requires_grad_(True)
    labels = torch.randint(256, (5, 12)).masked_fill(torch.arange(12) < 4, -100)
    held: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() != logits.untyped_storage().data_ptr():
            held.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        summed, counts = sequence_log_probability(logits, labels)
    summed.sum().backward()
    whole = logits.detach().double().requires_grad_(True)
    expected = whole[:, :-1].log_softmax(-1).gather(-1, labels[:, 1:, None].clamp(min=0))[..., 0]
    expected = (expected * (labels[:, 1:] >= 0)).sum(-1)
    expected.sum().backward()
    assert held and sum(held) < logits.nbytes / 20
    assert counts.tolist() == [8] * 5
    assert torch.allclose(summed.double(), expected, rtol=1e-6, atol=1e-6)  # also for logits of 16 bits
    assert torch.allclose(logits.grad.double(), whole.grad, atol=4e-3 if dtype.itemsize == 2 else 1e-6)


def test_both_estimators_average_to_the_kl() -> None:
    """Tokens in the very shares of the policy, 1/2, 1/4, 1/4; under 1/4, 1/4, 1/2 the KL is log(2) / 4."""
    policy, reference = vectors([0.5, 0.5, 0.25, 0.25, 1.0], [0.25, 0.25, 0.25, 0.5, 0.0])
    mask = torch.tensor([1, 1, 1, 1, 0])  # at padding the reference is -inf
    k1, k3 = (kl_per_token(policy.log(), reference.log(), mask, e) for e in ("k1", "k3"))
    assert k1.item() == close(math.log(2) / 4) and k3.item() == close(math.log(2) / 4)
    last = torch.tensor([0, 0, 0, 1, 0])  # the reference is twice as sure of it
    assert kl_per_token(policy.log(), reference.log(), last, "k1").item() == close(-math.log(2))
    assert kl_per_token(policy.log(), reference.log(), last).item() == close(1 - math.log(2))


def test_the_gradients_of_the_estimators_are_not_that_of_the_kl() -> None:
    """In the mean k1 has none, and k3 that of KL(reference || policy), which is policy less reference on logits."""
    tokens = torch.tensor([[0, 0, 1, 2]])
    reference = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64, requires_grad=True)
    for estimator, expected in (("k1", [0.0, 0.0, 0.0]), ("k3", [0.25, 0.0, -0.25])):
        (logits,) = vectors([math.log(2), 0.0, 0.0], grad=True)
        kl = kl_per_token(logits.log_softmax(-1)[tokens], reference.log()[tokens], torch.ones(1, 4), estimator)
        kl.backward()
        assert logits.grad.tolist() == close(expected)
    assert reference.grad is None


ONE, TWO, NONE, TRUE, ZERO = torch.ones(1), torch.ones(2), torch.ones(0), torch.tensor([True]), torch.tensor(0.0)
LOGITS, LABELS = torch.ones(1, 3, 4), torch.ones(1, 3, dtype=torch.long)
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "rewards of unequal shapes": (lambda: bradley_terry(TWO, ONE), r"one shape .* got chosen \(2,\), rejected \(1,\)"),
    "a column of rewards": (lambda: bradley_terry(TWO, TWO[:, None]), r"got chosen \(2,\), rejected \(2, 1\)"),
    "no pair": (lambda: bradley_terry(NONE, NONE), r"at least one element, got chosen \(0,\)"),
    "no response": (lambda: implicit_reward(NONE, NONE, 0.1), "implicit_reward needs .* at least one element"),
    "a negative beta": (lambda: implicit_reward(ONE, ONE, -0.1), "finite beta above 0, got -0.1"),
    "references of another shape": (lambda: dpo(TWO, TWO, ONE, ONE, 0.1), r"dpo needs .* reference_rejected \(1,\)"),
    "no beta": (lambda: dpo(ONE, ONE, ONE, ONE, 0.0), "dpo needs a finite beta above 0, got 0.0"),
    "a beta that is no number": (lambda: dpo(ONE, ONE, ONE, ONE, math.nan), "finite beta above 0, got nan"),
    "another loss": (lambda: dpo(ONE, ONE, ONE, ONE, 0.1, "hinge"), "sigmoid, ipo, got 'hinge'"),  # type: ignore
    "lengths of one side": (lambda: dpo(TWO, TWO, TWO, TWO, 0.1, lengths=(TWO, ONE)), r"rejected_length \(1,\)"),
    "an empty response": (lambda: dpo(ONE, ONE, ONE, ONE, 0.1, lengths=(ONE, 0 * ONE)), "1 token or more, got 0"),
    "labels as numbers": (lambda: kto(ONE, ONE, ONE, ZERO, 0.1), "desirable as booleans, got torch.float32"),
    "labels of another shape": (lambda: kto(TWO, TWO, TRUE, ZERO, 0.1), r"kto needs .* desirable \(1,\)"),
    "a reference point a row": (lambda: kto(ONE, ONE, TRUE, ONE, 0.1), r"one number .* got a tensor of \(1,\)"),
    "a reference point below 0": (lambda: kto(ONE, ONE, TRUE, ZERO - 1, 0.1), "0 or above, got -1"),
    "an infinite beta": (lambda: kto(ONE, ONE, TRUE, ZERO, math.inf), "kto needs a finite beta above 0, got inf"),
    "a negative weight": (lambda: kto(ONE, ONE, TRUE, ZERO, 0.1, 1.0, -1.0), "weights of 0 or above, got 1.0 and -1"),
    "no mismatched pair": (lambda: kto_reference_point(NONE, NONE), "kto_reference_point needs .* at least one"),
    "logits of one row": (lambda: sequence_log_probability(TWO, TWO), r"vocabulary\) .* got \(2,\) and \(2,\)"),
    "shifted labels": (lambda: sequence_log_probability(LOGITS, LABELS[:, 1:]), r"got \(1, 3, 4\) and \(1, 2\)"),
    "a prompt alone": (lambda: sequence_log_probability(LOGITS[:, :1], LABELS[:, :1]), r"two tokens .* \(1, 1, 4\)"),
    "no row": (lambda: sequence_log_probability(LOGITS[:0], LABELS[:0]), r"needs a row .* got \(0, 3, 4\)"),
    "a mask of another shape": (lambda: kl_per_token(TWO, TWO, ONE), r"kl_per_token needs .* mask \(1,\)"),
    "a mask without a token": (lambda: kl_per_token(TWO, TWO, 0 * TWO), "at least one token, got none of 2"),
    "another estimator": (lambda: kl_per_token(TWO, TWO, TWO, "k2"), "k1, k3, got 'k2'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_meaning_is_refused_in_one_line(what: str) -> None:
    """What is wrong, what came, and what would do."""
    call, message = REFUSED[what]
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
