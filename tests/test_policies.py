"""Policies trained on pairs: two stages, a reference asked once, answers by implicit reward, stored and taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_prefer import GIVEN, TASK
from tiny import STRATEGIES, base, context, options, pair_rows, pair_task, question_task

from bench.budget import Meter
from bench.config.schema import Budget
from bench.outcomes import refuse_what_is_missing
from bench.strategy import Plan, Unsupported
from bench.train.loop import Trained, Training
from bench.train.paused import put_down, take_up
from bench.train.policies import PREFERENCE, ImplicitReward
from bench.train.versions import REFERENCE
from bench.worker import seed_everything

METHODS = [("dpo", {}), ("dpo", {"loss": "ipo", "beta": 0.5}), ("dpo", {"per_token": True}), ("kto", {})]


def prepared(name: str, **more: Any) -> Plan:
    given = context("verbalizer", task=TASK, train=GIVEN, batch=3)
    return STRATEGIES[name].prepare(base("tiny-llama"), given, options(name, **more))


def train(plan: Plan, **budget: Any) -> tuple[Trained, Meter]:
    meter = Meter(Budget(labels=3, **(budget or {"train_examples": 90})))
    meter.watch(plan.seen)
    training = Training(plan, context("verbalizer", task=TASK, train=GIVEN, batch=3), meter)
    training.until(1.0)
    meter.unwatch()
    return training.done, meter


@pytest.mark.parametrize(("name", "more"), METHODS)
def test_the_preferred_answers_gain_over_the_others(name: str, more: dict[str, Any]) -> None:
    """Measured against the reference, which is what the first stage left."""
    plan = prepared(name, r=4, lr=0.01, supervised=0.3, **more)
    done, _ = train(plan)
    assert isinstance(plan.answer, ImplicitReward)
    rewards = plan.answer.predict(GIVEN.fields, Meter())
    assert (rewards.argmax(-1) == GIVEN.labels).all()
    chosen, other = done.told["log-ratio of the preferred answers"], done.told["log-ratio of the other answers"]
    assert len(chosen) == len(other) == 21 and chosen[0] == other[0] == 0, "at first the policy is the reference"
    assert chosen[-1] > other[-1]
    assert done.entered == {0, 1} and done.read == {("sst2", 0), ("sst2", 1), ("sst2", 2)}


def test_the_reference_is_asked_once_and_counted() -> None:
    """One forward of both answers of every pair, in tokens and FLOPs, and no more examples for it."""
    plan = prepared("dpo", supervised=0.5)
    assert plan.examples is not None and plan.collate is not None
    _, meter = train(plan, train_examples=12)
    examples = plan.examples()
    pairs = plan.collate([e for e in examples.encoded if e.group == PREFERENCE])
    single = plan.collate([e for e in examples.encoded if e.group != PREFERENCE])
    assert meter.examples == 12 and len(meter.steps) == 5, "two supervised steps, the reference, two preference steps"
    assert meter.tokens == 2 * single.tokens + 3 * pairs.tokens
    assert all(step.flops > 0 for step in meter.steps)
    assert meter.steps[2].flops < 0.5 * meter.steps[3].flops, "a forward pass alone"


def test_the_reference_answers_as_the_policy_did_where_its_stage_began() -> None:
    plan = prepared("dpo", supervised=0.5, lr=0.01)
    seen: list[np.ndarray] = []
    answer = plan.answer
    assert isinstance(answer, ImplicitReward) and plan.enter is not None
    enter = plan.enter

    def watched(group: int, meter: Meter) -> bool:
        if group == PREFERENCE:
            seen.append(answer.inner.predict(GIVEN.fields, Meter()))
        return enter(group, meter)

    plan.enter = watched
    train(plan)
    now = answer.inner.predict(GIVEN.fields, Meter())
    with answer.stage.versions.held(REFERENCE):
        assert np.allclose(answer.inner.predict(GIVEN.fields, Meter()), seen[0], atol=1e-6)
    assert np.allclose(answer.inner.predict(GIVEN.fields, Meter()), now, atol=1e-6) and not np.allclose(now, seen[0])
    assert torch.allclose(answer.stage.reference, torch.tensor(seen[0], dtype=torch.float32), atol=1e-4)
    assert np.allclose(answer.predict(GIVEN.fields, Meter()), 0.1 * (now - seen[0]), atol=1e-5)


def test_a_budget_too_small_for_the_reference_ends_there() -> None:
    """Nothing overshoots: the policy stays what fine-tuning made it, and answers by its log-probabilities."""
    plan = prepared("dpo", supervised=0.6)
    assert plan.examples is not None and plan.collate is not None
    encoded = plan.examples().encoded
    single = plan.collate([e for e in encoded if e.group != PREFERENCE]).tokens
    pairs = plan.collate([e for e in encoded if e.group == PREFERENCE]).tokens
    limit = 2 * single + pairs - 1
    done, meter = train(plan, train_tokens=limit)
    assert (
        single <= meter.tokens <= limit and done.entered == {0, 1} and not done.told["log-ratio of the other answers"]
    )


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_what_is_stored_answers_as_the_trained_policy_did(name: str, tmp_path: Path) -> None:
    plan = prepared(name, lr=0.01)
    train(plan)
    before = plan.answer.predict(GIVEN.fields, Meter())
    plan.save(tmp_path)
    fresh = prepared(name, lr=0.01)
    assert fresh.load is not None
    fresh.load(tmp_path)
    assert np.allclose(fresh.answer.predict(GIVEN.fields, Meter()), before, atol=1e-5)
    assert {"adapter_model.safetensors", "reference.safetensors"} <= {f.name for f in tmp_path.iterdir()}


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_a_halted_training_goes_on_as_if_nothing_had_been(share: float, tmp_path: Path) -> None:
    """Before and amid the preference stage, whose reference is not asked again."""
    given = context("verbalizer", task=TASK, train=GIVEN, batch=3)

    def started(plan: Plan) -> Training:
        meter = Meter(Budget(labels=3, train_examples=60))
        meter.watch(plan.seen)
        return Training(plan, given, meter)

    torch.manual_seed(0)
    whole = started(prepared("dpo", supervised=0.4))
    whole.until(1.0)
    torch.manual_seed(0)
    first = started(prepared("dpo", supervised=0.4))
    first.until(share)
    put_down(first, tmp_path / "kept")
    second = started(prepared("dpo", supervised=0.4))
    second.meter.absorb(first.meter)
    take_up(second, first.done, tmp_path / "kept")
    second.until(1.0)
    assert second.done.losses == pytest.approx(whole.done.losses, abs=1e-6)
    assert second.meter.tokens == whole.meter.tokens


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_a_halted_stage_goes_on_without_dropout(name: str, tmp_path: Path) -> None:
    """GPT-2 has dropout, which its preference stage turns off: bit for bit the same weights, halted amid it or not."""
    given = context("verbalizer", task=pair_task(), train=pair_rows().train.take(range(12)))

    def started() -> Training:
        seed_everything(0)
        plan = STRATEGIES[name].prepare(base("tiny-gpt2"), given, options(name, supervised=0.4, lr=0.01))
        return Training(plan, given, Meter(Budget(labels=12, train_examples=48)))

    def dropouts(training: Training) -> set[float]:
        assert training.plan.module is not None
        return {part.p for part in training.plan.module.modules() if isinstance(part, torch.nn.Dropout)}

    whole = started()
    assert dropouts(whole) == {0.1}
    whole.until(1.0)
    first = started()
    assert not first.until(0.5) and PREFERENCE in first.done.entered
    put_down(first, tmp_path / "kept")
    again = started()
    again.meter.absorb(first.meter)
    take_up(again, first.done, tmp_path / "kept")
    again.until(1.0)
    assert again.done.losses == whole.done.losses and dropouts(again) == dropouts(whole) == {0.0}
    pairs = zip(again.optimizer.params, whole.optimizer.params, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("name", ["dpo", "kto", "reward_model"])
def test_a_written_answer_is_no_preference(name: str) -> None:
    readout = "head" if name == "reward_model" else "verbalizer"
    said = f"{name} learns which of several answers is preferred, and sst2 is answered by writing: use lora or full"
    with pytest.raises(Unsupported, match=said):
        refuse_what_is_missing(STRATEGIES[name], base("tiny-llama"), context(readout, task=question_task()))
