"""A budget that does not hold one optimizer step: one worded outcome, never a score of an untrained model."""

from __future__ import annotations

import pytest
import tiny
from test_accumulation import prepared

from bench.budget import Meter
from bench.config.schema import Budget
from bench.strategy import Unsupported
from bench.train.loop import adapt

AXES = [("train_tokens", 3, "none was taken"), ("train_flops", 10.0, "the work done took")]


@pytest.mark.parametrize(("axis", "value", "words"), AXES)
def test_a_budget_too_small_for_one_step(axis: str, value: float, words: str) -> None:
    context = tiny.context("verbalizer")
    plan, meter = prepared("full", "tiny-gpt2", "verbalizer", context), Meter(Budget.model_validate({axis: value}))
    meter.watch(plan.seen)
    with pytest.raises(Unsupported) as told:
        adapt(plan, context, meter)
    assert f"budget.{axis}={value:.10g} is too small for one step ({words}" in str(told.value)


def test_seconds_are_only_known_afterwards() -> None:
    """The first step may take longer than the budget: it is taken, and ends the training."""
    context = tiny.context("verbalizer")
    plan, meter = prepared("full", "tiny-gpt2", "verbalizer", context), Meter(Budget(train_seconds=1e-6))
    meter.watch(plan.seen)
    assert len(adapt(plan, context, meter).losses) == 1


def test_one_example_is_a_step() -> None:
    """Examples cut the batch: the smallest budget there is trains on one row."""
    context = tiny.context("verbalizer")
    plan, meter = prepared("full", "tiny-gpt2", "verbalizer", context), Meter(Budget(train_examples=1))
    meter.watch(plan.seen)
    assert len(adapt(plan, context, meter).losses) == 1 and meter.examples == 1
