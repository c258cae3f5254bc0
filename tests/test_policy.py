"""PPO's arithmetic: hand-worked numbers, gradients that stop where they are clipped, padding that cannot leak."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from bench.train import policy

NAN, INF = float("nan"), float("inf")
LATE = torch.tensor([[True, True, True], [True, True, False], [False, False, True]])
"""Three tokens; two and padding; a prompt of two and one token."""
CHECKED = torch.float64


def column(*values: float) -> torch.Tensor:
    """One response token a row, in double precision."""
    return torch.tensor(values, dtype=CHECKED)[:, None]


def every(like: torch.Tensor) -> torch.Tensor:
    """A mask that leaves nothing out."""
    return torch.ones(like.shape[:2], dtype=torch.bool)


def test_the_score_falls_on_the_last_response_token() -> None:
    """0.5 * (log reference - log policy) everywhere, the score on top of it once; padding reads as zero."""
    logp = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -1.0, -INF], [NAN, INF, -2.0]])
    reference = torch.tensor([[-2.0, -2.0, -1.0], [-1.5, -3.0, -INF], [NAN, NAN, -2.5]])
    rewards = policy.token_rewards(torch.tensor([10, 20, 30]), logp, reference, LATE, 0.5)
    assert rewards.tolist() == [[-0.5, 0.0, 11.0], [-0.25, 19.0, 0.0], [0.0, 0.0, 29.75]]


def test_advantages_worked_by_hand() -> None:
    """gamma 0.5, lambda 0.8. First row: errors -2, 0.5, 2; so 2, 0.5 + 0.4 * 2 = 1.3 and -2 + 0.4 * 1.3 = -1.48."""
    rewards = torch.tensor([[1.0, 2.0, 3.0], [0.0, 4.0, NAN], [INF, NAN, 5.0]])
    values = torch.tensor([[4.0, 2.0, 1.0], [2.0, 8.0, NAN], [NAN, 7.0, 1.0]], requires_grad=True)
    found, returns = policy.advantages(rewards, values, LATE, gamma=0.5, lam=0.8)
    torch.testing.assert_close(found, torch.tensor([[-1.48, 1.3, 2.0], [0.4, -4.0, 0.0], [0.0, 0.0, 4.0]]))
    torch.testing.assert_close(returns, torch.tensor([[2.52, 3.3, 3.0], [2.4, 4.0, 0.0], [0.0, 0.0, 5.0]]))
    assert not found.requires_grad and not returns.requires_grad


def some(rows: int, steps: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rewards, values and a mask of lengths 1, 2, ... with garbage after."""
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, rows, steps, generator=generator, dtype=CHECKED)
    mask = torch.arange(steps) < (torch.arange(rows) % steps + 1)[:, None]
    return rewards, values, mask


def test_lambda_one_is_discounted_returns_minus_values() -> None:
    rewards, values, mask = some(5, 5, seed=1)
    found, returns = policy.advantages(rewards, values, mask, gamma=0.9, lam=1.0)
    for row, length in enumerate([1, 2, 3, 4, 5]):
        for t in range(length):
            total = sum(0.9 ** (k - t) * float(rewards[row, k]) for k in range(t, length))
            assert float(returns[row, t]) == pytest.approx(total, rel=1e-12)
            assert float(found[row, t]) == pytest.approx(total - float(values[row, t]), rel=1e-12)


def test_lambda_zero_is_the_error_of_one_step() -> None:
    rewards, values, mask = some(5, 5, seed=2)
    found, _ = policy.advantages(rewards, values, mask, gamma=0.9, lam=0.0)
    for row, length in enumerate([1, 2, 3, 4, 5]):
        for t in range(length):
            after = float(values[row, t + 1]) if t + 1 < length else 0.0
            assert float(found[row, t]) == pytest.approx(float(rewards[row, t] + 0.9 * after - values[row, t]))


def test_tokens_outside_of_the_mask_are_passed_over() -> None:
    """Between two response tokens as before and after them: the same as where they are not there."""
    rewards, values, _ = some(3, 4, seed=3)
    dense = policy.advantages(rewards, values, every(rewards), 0.9, 0.7)
    holes, where = torch.full((2, 3, 8), NAN, dtype=CHECKED), torch.tensor([1, 2, 5, 6])
    holes[:, :, where] = torch.stack([rewards, values])
    mask = torch.zeros(3, 8, dtype=torch.bool).index_fill(1, where, True)
    for sparse, wanted in zip(policy.advantages(*holes, mask, 0.9, 0.7), dense, strict=True):
        assert torch.equal(sparse[:, where], wanted) and sparse[~mask].count_nonzero() == 0


def test_whitening_is_over_response_tokens() -> None:
    """1, 2, 3: mean 2, variance 2/3 (of the population); equal values have nothing to scale."""
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.tensor([[1.0, 3.0, NAN], [2.0, INF, 900.0]])
    edge = math.sqrt(1.5)
    torch.testing.assert_close(policy.whiten(values, mask), torch.tensor([[-edge, edge, 0.0], [0.0, 0.0, 0.0]]))
    kept = policy.whiten(values, mask, shift_mean=False)
    torch.testing.assert_close(kept, torch.tensor([[2 - edge, 2 + edge, 0.0], [2.0, 0.0, 0.0]]))
    equal = torch.full((37, 1), 0.1)  # the trap: summed up and divided by 37, they are not quite 0.1
    assert policy.whiten(equal, every(equal)).count_nonzero() == 0
    torch.testing.assert_close(policy.whiten(equal, every(equal), shift_mean=False), equal)


def test_the_ratio_is_clipped_on_the_side_that_gains() -> None:
    """Clip 0.2: losses -1.2, 1.5, -0.5, 0.8, -2.2, mean -0.32; two of five decided by the clip, without a gradient."""
    ratio, gain = [1.5, 1.5, 0.5, 0.5, 1.1], [1.0, -1.0, 1.0, -1.0, 2.0]
    logp = torch.tensor([[math.log(r) - 2.0 for r in ratio] + [INF, NAN]], dtype=CHECKED, requires_grad=True)
    old = torch.tensor([[-2.0] * 5 + [-INF, 0.0]], dtype=CHECKED, requires_grad=True)
    advantages = torch.tensor([[*gain, NAN, INF]], dtype=CHECKED, requires_grad=True)
    mask = torch.tensor([[True] * 5 + [False] * 2])
    loss, stopped = policy.clipped_policy_loss(logp, old, advantages, mask, clip=0.2)
    loss.backward()
    assert loss.item() == pytest.approx(-0.32) and stopped.item() == pytest.approx(0.4)
    assert logp.grad is not None and old.grad is None and advantages.grad is None
    assert logp.grad[0].tolist() == pytest.approx([0.0, 0.3, -0.1, 0.0, -0.44, 0.0, 0.0])
    assert logp.grad[0, [0, 3, 5, 6]].count_nonzero() == 0


def test_a_policy_that_is_its_own_old_one_still_has_a_gradient() -> None:
    """The first step after sampling: the ratio is 1, the gradient that of plain policy gradients."""
    logp = column(-1.0, -2.0).requires_grad_(True)
    loss, stopped = policy.clipped_policy_loss(logp, logp, column(3.0, -5.0), every(logp), clip=0.1)
    loss.backward()
    assert loss.item() == 1.0 and stopped.item() == 0.0
    assert logp.grad is not None and logp.grad[:, 0].tolist() == [-1.5, 2.5]


def test_values_are_clipped_where_that_is_worse() -> None:
    """Clip 0.5 around 1: errors 2.25 (kept at 1.5), 4, 2.25 (kept at 0.5), 4 and 0.64; half their mean is 1.314."""
    values = torch.tensor([[2.0, 2.0, 0.0, 0.0, 1.2, NAN]], dtype=CHECKED, requires_grad=True)
    old = torch.tensor([[1.0] * 5 + [INF]], dtype=CHECKED, requires_grad=True)
    returns = torch.tensor([[3.0, 0.0, -1.0, 2.0, 2.0, -INF]], dtype=CHECKED)
    mask = torch.tensor([[True] * 5 + [False]])
    loss, stopped = policy.clipped_value_loss(values, old, returns, mask, clip=0.5)
    loss.backward()
    assert loss.item() == pytest.approx(1.314) and stopped.item() == pytest.approx(0.4)
    assert values.grad is not None and old.grad is None
    assert values.grad[0].tolist() == pytest.approx([0.0, 0.4, 0.0, -0.4, -0.16, 0.0])
    assert values.grad[0, [0, 2, 5]].count_nonzero() == 0


@pytest.mark.parametrize(("apart", "smaller"), [(0.1, True), (2.0, False)])
def test_both_estimators_have_the_kl_as_their_expectation(apart: float, smaller: bool) -> None:
    """Over all 50 tokens, weighted by the policy, against torch's KL of the two distributions, near and far."""
    generator = torch.Generator().manual_seed(4)
    one, other = 2 * torch.randn(2, 50, generator=generator, dtype=CHECKED)
    ours = torch.distributions.Categorical(logits=one)
    theirs = torch.distributions.Categorical(logits=one + apart * other)
    exact = float(torch.distributions.kl_divergence(ours, theirs))
    logp, reference = ours.logits[:, None], theirs.logits[:, None]
    first = -policy.token_rewards(torch.zeros(50), logp, reference, every(logp), 1.0)
    third = policy.k3(logp, reference)
    assert exact > 0.005
    assert float((logp.exp() * first).sum()) == pytest.approx(exact, rel=1e-9)
    assert float((logp.exp() * third).sum()) == pytest.approx(exact, rel=1e-9)
    assert float(third.min()) >= 0.0 > float(first.min()), "only the first goes below zero"
    spread = [float((logp.exp() * (estimate - exact) ** 2).sum()) for estimate in (third, first)]
    assert (spread[0] < spread[1]) is smaller


def test_entropy_of_known_distributions() -> None:
    """ln 4 of four alike, 0 of a certain one, ln 2 where two of four cannot be drawn; their mean is ln 2."""
    alike, certain, two = [0.0] * 4, [80.0, 0, 0, 0], [1.0, 1.0, -INF, -INF]
    logits = torch.tensor([[alike, certain], [two, [NAN] * 4]], dtype=CHECKED, requires_grad=True)
    found = policy.entropy(logits, torch.tensor([[True, True], [True, False]]))
    found.backward()
    assert found.item() == pytest.approx(math.log(2), rel=1e-12)
    assert logits.grad is not None and logits.grad.isfinite().all()
    alone = policy.entropy(logits.detach()[1:], torch.tensor([[True, False]]))
    assert alone.item() == pytest.approx(math.log(2), rel=1e-12)


def test_entropy_has_the_gradient_of_its_definition() -> None:
    generator = torch.Generator().manual_seed(6)
    logits = torch.randn(2, 3, 5, generator=generator, dtype=CHECKED, requires_grad=True)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    (ours,) = torch.autograd.grad(policy.entropy(logits, mask), logits)
    wanted = torch.distributions.Categorical(logits=logits).entropy()[mask].mean()
    (theirs,) = torch.autograd.grad(wanted, logits)
    torch.testing.assert_close(ours, theirs)


def test_sixteen_bits_are_computed_with_in_thirty_two() -> None:
    """The same as of the same numbers in 32 bits, to the last bit."""
    generator = torch.Generator().manual_seed(7)
    a, b, c = torch.randn(3, 4, 6, generator=generator).to(torch.bfloat16)
    mask, rows = every(a), a[:, 0]
    calls: list[Callable[..., torch.Tensor]] = [
        lambda a, b, c, r: policy.token_rewards(r, a, b, mask, 0.1),
        lambda a, b, c, r: torch.stack(policy.advantages(a, b, mask, 0.9, 0.9)),
        lambda a, b, c, r: policy.whiten(a, mask),
        lambda a, b, c, r: torch.stack(policy.clipped_policy_loss(a, b, c, mask, 0.2)),
        lambda a, b, c, r: torch.stack(policy.clipped_value_loss(a, b, c, mask, 0.2)),
        lambda a, b, c, r: policy.group_advantages(r, 2),
        lambda a, b, c, r: torch.stack(policy.grpo_loss(a, b, c, r, mask, 0.2, 0.1)),
        lambda a, b, c, r: policy.entropy(torch.stack([a, b, c], dim=-1), mask),
    ]
    for call in calls:
        half, whole = call(a, b, c, rows), call(a.float(), b.float(), c.float(), rows.float())
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, whole, rtol=0.0, atol=0.0)


def test_the_coefficient_follows_the_kl() -> None:
    """Twice the target and more: 2% up; half of it and less: 2% down; 10% over: 1% up."""
    control = policy.AdaptiveKL(0.2, target=6.0)
    assert control.after(6.0) == control
    assert control.after(6.6).coefficient == pytest.approx(0.202)
    assert control.after(12.0) == control.after(900.0) and control.after(12.0).coefficient == pytest.approx(0.204)
    assert control.after(3.0) == control.after(-1.0) and control.after(3.0).coefficient == pytest.approx(0.196)
    assert control.after(12.0).after(12.0).coefficient == pytest.approx(0.2 * 1.02**2)


ONES, SHORT, NONE = torch.ones(2, 3), torch.ones(2, 2), torch.zeros(2, 3, dtype=torch.bool)
ALL, ROWS, HALF = ~NONE, torch.ones(2), torch.tensor([[True] * 3, [False] * 3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: policy.token_rewards(torch.ones(3), ONES, ONES, ALL, 0.1),
            "score must be of shape (2,), got shape (3,)",
        ),
        (
            lambda: policy.token_rewards(ROWS, ONES, SHORT, ALL, 0.1),
            "reference_logp must be of the mask's shape (2, 3)",
        ),
        (lambda: policy.token_rewards(ROWS, ONES, ONES, ALL, -1.0), "kl_coefficient must be 0 or more, got -1.0"),
        (lambda: policy.token_rewards(ROWS, ONES, ONES, ALL, NAN), "kl_coefficient must be 0 or more, got nan"),
        (lambda: policy.token_rewards(ROWS, ONES, ONES, HALF, 0.1), "token in mask must be all 2, at least one, got 1"),
        (
            lambda: policy.advantages(ONES, SHORT, ALL, 1.0, 1.0),
            "values must be of the mask's shape (2, 3), got shape (2, 2)",
        ),
        (lambda: policy.advantages(ONES, ONES, ALL, 1.1, 1.0), "gamma must be in 0..1, got 1.1"),
        (lambda: policy.advantages(ONES, ONES, ALL, 1.0, -0.1), "lam must be in 0..1, got -0.1"),
        (lambda: policy.advantages(ONES, ONES, ALL, NAN, 1.0), "gamma must be in 0..1, got nan"),
        (
            lambda: policy.advantages(ONES[:, :0], ONES[:, :0], ALL[:, :0], 1.0, 1.0),
            "must be all 2, at least one, got 0",
        ),
        (lambda: policy.whiten(ONES, NONE), "must be all 2, at least one, got 0"),
        (lambda: policy.whiten(ONES[:0], ALL[:0]), "must be all 0, at least one, got 0"),
        (lambda: policy.whiten(ONES, ONES), "mask must be boolean of shape (rows, steps), got torch.float32"),
        (
            lambda: policy.whiten(ROWS, ALL[0, :2]),
            "mask must be boolean of shape (rows, steps), got torch.bool of shape (2,)",
        ),
        (
            lambda: policy.clipped_policy_loss(ONES, ONES, SHORT, ALL, 0.2),
            "advantages must be of the mask's shape (2, 3)",
        ),
        (lambda: policy.clipped_policy_loss(ONES, ONES, ONES, ALL, 0.0), "clip must be above 0, got 0.0"),
        (
            lambda: policy.clipped_value_loss(ONES, SHORT, ONES, ALL, 0.2),
            "old_values must be of the mask's shape (2, 3)",
        ),
        (lambda: policy.clipped_value_loss(ONES, ONES, ONES, ALL, -0.2), "clip must be above 0, got -0.2"),
        (
            lambda: policy.group_advantages(torch.ones(6), 4),
            "rows must be a multiple of group_size 4, at least one, got 6",
        ),
        (
            lambda: policy.group_advantages(torch.ones(0), 4),
            "rows must be a multiple of group_size 4, at least one, got 0",
        ),
        (lambda: policy.group_advantages(torch.ones(4), 1), "group_size must be 2 or more, got 1"),
        (lambda: policy.group_advantages(ONES, 2), "rewards must be of shape (rows,), got shape (2, 3)"),
        (
            lambda: policy.grpo_loss(ONES, ONES, ONES, ONES, ALL, 0.2, 0.1),
            "advantages must be of shape (2,), got shape (2, 3)",
        ),
        (lambda: policy.grpo_loss(ONES, ONES, ONES, ROWS, HALF, 0.2, 0.1), "must be all 2, at least one, got 1"),
        (lambda: policy.grpo_loss(ONES, ONES, ONES, ROWS, ALL, 0.0, 0.1), "clip must be above 0, got 0.0"),
        (
            lambda: policy.grpo_loss(ONES, ONES, ONES, ROWS, ALL, 0.2, -0.1),
            "kl_coefficient must be 0 or more, got -0.1",
        ),
        (lambda: policy.entropy(ONES, ALL), "logits must be of shape (2, 3, vocabulary), got shape (2, 3)"),
        (lambda: policy.AdaptiveKL(0.0, 6.0), "coefficient must be above 0, got 0.0"),
        (lambda: policy.AdaptiveKL(0.1, 0.0), "target must be above 0, got 0.0"),
        (lambda: policy.AdaptiveKL(0.1, 6.0, gain=5.0), "gain must be above 0 and below 5, got 5.0"),
        (lambda: policy.AdaptiveKL(0.1, 6.0).after(NAN), "kl must be a number, got nan"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        call()
    assert message in str(refused.value) and "\n" not in str(refused.value)
