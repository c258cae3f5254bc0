"""The optimizer of every plan: its schedule, its clipping, and weights in 16 bits that move by small steps."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from bench.budget import Meter
from bench.config.schema import Budget
from bench.models.base import load_base
from bench.models.catalog import parse
from bench.strategy import ParamGroup, Plan, Unsupported
from bench.train.loop import adapt
from bench.train.optimizer import Optimizer, schedule
from bench.train.plans import selected_plan


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
