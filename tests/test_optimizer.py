"""The optimizer of every plan: its schedule, its clipping, and weights in 16 bits that move by small steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from torch import nn

from bench.budget import Meter
from bench.config.schema import Budget
from bench.models.base import load_base
from bench.models.catalog import parse
from bench.strategy import ParamGroup, Plan, Unsupported
from bench.train.loop import Trained, Training, adapt
from bench.train.optimizer import Optimizer, fuses, schedule
from bench.train.paused import put_down, take_up
from bench.train.plans import selected_plan
from bench.worker import seed_everything


def plan_of(*groups: ParamGroup) -> Plan:
    """A plan of nothing but parameters."""
    return Plan(answer=None, save=lambda folder: None, groups=list(groups))  # type: ignore[arg-type]


def test_a_part_of_the_budget_has_a_schedule_of_its_own() -> None:
    """Nothing before it begins, the whole shape inside of it, zero at its end."""
    assert schedule(0.49, begins=0.5) == 0.0 and schedule(1.0, begins=0.5) == 0.0
    assert schedule(0.5 + 0.5 * 0.06, begins=0.5) == pytest.approx(1.0)
    assert schedule(0.25, ends=0.5) == schedule(0.5) and schedule(0.9, ends=0.5) == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_steps_add_up_in_sixteen_bits(dtype: torch.dtype) -> None:
    """Forty steps of 2e-4 from 1.0 end near 0.992; rounded at every step they would have stayed at 1.0 in bf16."""
    weight = nn.Parameter(torch.ones(4, dtype=dtype))
    optimizer = Optimizer(plan_of(ParamGroup([weight], lr=2e-4)))
    for _ in range(40):
        weight.grad = torch.ones_like(weight)
        optimizer.step(0.06)
        optimizer.zero_grad()
    assert weight.dtype == dtype and float(weight[0]) == pytest.approx(0.992, abs=0.004)
    assert weight.grad is None


def test_gradients_are_clipped_together() -> None:
    """One norm over all groups (Pascanu et al. 2013): with plain sums Adam would hide it, so the gradients are read."""
    one, two = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    optimizer = Optimizer(plan_of(ParamGroup([one], lr=1e-3), ParamGroup([two], lr=1e-3)))
    one.grad, two.grad = torch.tensor([30.0]), torch.tensor([40.0])
    optimizer.step(0.5)
    assert float(one.grad) == pytest.approx(0.6, rel=1e-4) and float(two.grad) == pytest.approx(0.8, rel=1e-4)


def halted(folder: Path) -> list[float]:
    """Losses of a training that was put down half way and taken up in a fresh plan."""
    meter, done = Meter(Budget(train_examples=40)), Trained()
    for share in (0.5, 1.0):
        seed_everything(0)
        strategy, context = tiny.STRATEGIES["full"], tiny.context("verbalizer")
        training = Training(strategy.prepare(tiny.base("tiny-llama"), context, strategy.Options()), context, meter)
        assert training.optimizer.inner.defaults["fused"] is True and training.optimizer.counts_on_device
        if share == 1.0:
            take_up(training, done, folder)
        meter.watch(training.plan.seen)
        training.until(share)
        meter.unwatch()
        done = training.done
        put_down(training, folder)
    return done.losses


def test_a_fused_step_is_the_same_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One kernel for all of AdamW, as on a card: the losses of the plain one to 1e-5, whether halted or not."""
    monkeypatch.setattr("bench.train.optimizer.fuses", lambda device: False)
    plain = tiny.drive("full", "tiny-llama", "verbalizer", train_examples=40).trained.losses
    monkeypatch.setattr("bench.train.optimizer.fuses", lambda device: True)
    assert tiny.drive("full", "tiny-llama", "verbalizer", train_examples=40).trained.losses == pytest.approx(
        plain, abs=1e-5
    )
    assert halted(tmp_path / "state") == pytest.approx(plain, abs=1e-5) and len(plain) == 10


def test_which_kernel_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fused on a card and on a CPU; where all weights at once are asked for, that; elsewhere as torch does."""
    assert fuses(torch.device("cuda")) and fuses(torch.device("cpu")) and not fuses(torch.device("mps"))

    def kernel(foreach: bool) -> tuple[bool | None, bool | None]:
        inner = Optimizer(plan_of(ParamGroup([nn.Parameter(torch.zeros(1))], lr=1e-3)), foreach).inner
        return inner.defaults["foreach"], inner.defaults["fused"]

    assert kernel(False) == (None, True) and kernel(True) == (True, None)
    monkeypatch.setattr("bench.train.optimizer.fuses", lambda device: False)
    assert kernel(False) == (None, None) and kernel(True) == (True, None)


def test_a_model_in_bf16_learns_its_norms() -> None:
    """LayerNorm training on a bf16 model moves its gains at the default rate."""
    base = load_base(parse("random:tiny-llama"), None, torch.bfloat16)
    before = {n: p.detach().clone() for n, p in base.module.named_parameters() if "norm" in n}
    strategy, context = tiny.STRATEGIES["layernorm"], tiny.context("verbalizer")
    plan = strategy.prepare(base, context, strategy.Options())
    meter = Meter(Budget(train_examples=200))
    meter.watch(plan.seen)
    adapt(plan, context, meter)
    meter.unwatch()
    now = dict(base.module.named_parameters())
    moved = [n for n, old in before.items() if not torch.equal(now[n], old)]
    assert len(moved) == len(before)


@pytest.mark.parametrize("readout", ["verbalizer", "head"])
def test_parameters_that_no_gradient_reaches_are_refused(readout: str) -> None:
    """Also under a head, which always has a gradient of its own: what the method trains must have one."""
    context = tiny.context(readout)
    apart = nn.Parameter(torch.ones(3))
    plan = selected_plan(tiny.base("tiny-llama"), context, lambda module: {"apart": apart}, 1e-3)
    meter = Meter(Budget(train_examples=8))
    meter.watch(plan.seen)
    with pytest.raises(Unsupported, match="no gradient reaches what it trains"):
        adapt(plan, context, meter)
    meter.unwatch()
