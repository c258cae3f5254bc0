"""GRPO's arithmetic: groups by hand, its loss against a loop over tokens and against TRL's trainer."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from bench.train import policy

NAN, INF = float("nan"), float("inf")
CHECKED = torch.float64


def test_groups_are_compared_within_themselves() -> None:
    """0, 1, 1, 0 has mean 0.5 and SD sqrt(1/3); a group of one reward, of any size, tells nothing."""
    rewards = torch.tensor([0, 1, 1, 0, 7, 7, 7, 7, 2, 4, 6, 8])
    edge = 0.5 / (math.sqrt(1 / 3) + 1e-4)
    far = 3.0 / (math.sqrt(20 / 3) + 1e-4)
    wanted = [-edge, edge, edge, -edge, 0, 0, 0, 0, -far, -far / 3, far / 3, far]
    assert policy.group_advantages(rewards, 4).tolist() == pytest.approx(wanted, rel=1e-5)
    plain = [-0.5, 0.5, 0.5, -0.5, 0, 0, 0, 0, -3, -1, 1, 3]
    assert policy.group_advantages(rewards, 4, scale=False).tolist() == plain
    equal = torch.full((37,), 0.1)
    assert policy.group_advantages(equal, 37).count_nonzero() == 0
    assert policy.group_advantages(equal, 37, scale=False).count_nonzero() == 0


def group_case() -> dict[str, torch.Tensor]:
    """Six rows of up to five tokens, ratios well beyond a clip of 0.2, finite numbers as padding."""
    generator = torch.Generator().manual_seed(5)
    logp, shift, away = torch.randn(3, 6, 5, generator=generator, dtype=CHECKED)
    mask = torch.arange(5) < torch.tensor([5, 3, 1, 4, 2, 5])[:, None]
    advantages = policy.group_advantages(torch.tensor([0.0, 1.0, 0.5, 2.0, -1.0, 3.0], dtype=CHECKED), 3)
    old, reference = logp - 2 + 0.4 * shift, logp - 2 + 0.8 * away
    return {"logp": logp - 2, "old_logp": old, "reference_logp": reference, "advantages": advantages, "mask": mask}


def test_grpo_loss_token_by_token() -> None:
    """Against plain numbers, one token after the other: tokens of a row first, rows after."""
    case = group_case()
    per_row, stopped = [], []
    for row in range(6):
        told = []
        for t in range(int(case["mask"][row].sum())):
            new, old, reference = (float(case[name][row, t]) for name in ("logp", "old_logp", "reference_logp"))
            gain, ratio = float(case["advantages"][row]), math.exp(new - old)
            kept = min(max(ratio, 0.8), 1.2)
            stopped.append(kept * gain < ratio * gain)
            k3 = math.exp(reference - new) - (reference - new) - 1.0
            told.append(0.3 * k3 - min(ratio * gain, kept * gain))
        per_row.append(sum(told) / len(told))
    loss, fraction = policy.grpo_loss(**case, clip=0.2, kl_coefficient=0.3)
    assert loss.item() == pytest.approx(sum(per_row) / 6, rel=1e-12)
    assert 0 < sum(stopped) < len(stopped) and fraction.item() == pytest.approx(sum(stopped) / len(stopped))


def test_grpo_padding_does_not_leak() -> None:
    """Not into the loss, and not into the gradient of what stands there."""
    case = group_case()
    clean, _ = policy.grpo_loss(**case, clip=0.2, kl_coefficient=0.3)
    for name, junk in (("logp", -INF), ("old_logp", NAN), ("reference_logp", INF)):
        case[name] = case[name].masked_fill(~case["mask"], junk).requires_grad_(True)
    loss, _ = policy.grpo_loss(**case, clip=0.2, kl_coefficient=0.3)
    loss.backward()
    assert torch.equal(loss, clean)
    grad = case["logp"].grad
    assert grad is not None and grad.isfinite().all() and grad[~case["mask"]].count_nonzero() == 0
    assert case["old_logp"].grad is None and case["reference_logp"].grad is None


def test_grpo_loss_is_that_of_trl() -> None:
    """Loss, gradient and clip fraction of TRL 1.16's trainer on the same numbers, its model's answers put in by hand."""
    trl = pytest.importorskip("trl")
    if not trl.__version__.startswith("1.16."):
        pytest.skip(f"calls a private method of trl 1.16, got {trl.__version__}")
    from trl.trainer.grpo_trainer import GRPOTrainer

    case = group_case()
    theirs, ours = (case["logp"].clone().requires_grad_(True) for _ in range(2))
    told: dict[str, list[float]] = {name: [] for name in ("kl", "entropy")}
    told |= {f"clip_ratio/{name}": [] for name in ("low_mean", "high_mean", "region_mean", "low_min", "high_max")}
    trainer = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (theirs, torch.zeros_like(theirs), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=0.3,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None),
        loss_type="grpo",
        epsilon_low=0.2,
        epsilon_high=0.2,
        use_vllm=False,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        accelerator=SimpleNamespace(reduce=lambda x, reduction: x, gather=lambda x: x),
        _metrics={"train": told},
    )
    words = torch.zeros(6, 5, dtype=torch.long)
    inputs = {
        "prompt_ids": words,
        "prompt_mask": words,
        "completion_ids": words,
        "completion_mask": case["mask"].long(),
    }
    inputs |= {"advantages": case["advantages"], "old_per_token_logps": case["old_logp"]}
    inputs |= {"ref_per_token_logps": case["reference_logp"]}
    wanted = GRPOTrainer._compute_loss(trainer, None, inputs)
    wanted.backward()
    loss, fraction = policy.grpo_loss(**case | {"logp": ours}, clip=0.2, kl_coefficient=0.3)
    loss.backward()
    torch.testing.assert_close(loss, wanted)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert fraction.item() == pytest.approx(told["clip_ratio/region_mean"][0]) and fraction.item() > 0
