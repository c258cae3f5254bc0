"""Policies trained by rewards: rounds of responses, what they cost, stages, storing, halting, and that they learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_prefer import GIVEN, TASK
from tiny import STRATEGIES, base, context, options, question_task, task

from bench.budget import Meter
from bench.config.schema import Budget, Task
from bench.strategy import Plan, TaskContext, Unsupported
from bench.train.loop import Trained, Training
from bench.train.paused import put_down, take_up
from bench.train.rollouts import Rolling
from bench.train.stages import BestOf, Rewarded
from bench.train.versions import REFERENCE

SMALL = {"responses": 8, "tokens": 5, "r": 4}


def given(name: str, **more: Any) -> TaskContext:
    """A task of pairs by default."""
    return context("verbalizer", **({"task": TASK, "train": GIVEN, "batch": 4} | more))


def prepared(name: str, of: TaskContext | None = None, **more: Any) -> Plan:
    """On a model whose random embeddings are large, so that it can prefer one token to another at all."""
    model, small = base("tiny-llama"), {} if name == "best_of_n" else SMALL
    embeddings: Any = model.module.get_output_embeddings()  # type: ignore[operator]
    with torch.no_grad():
        embeddings.weight.mul_(10)
    return STRATEGIES[name].prepare(model, of or given(name), options(name, **{**small, **more}))


def train(plan: Plan, of: TaskContext, **budget: Any) -> tuple[Trained, Meter]:
    meter = Meter(Budget(labels=3, **(budget or {"train_examples": 80})))
    meter.watch(plan.seen)
    training = Training(plan, of, meter)
    training.until(1.0)
    meter.unwatch()
    return training.done, meter


def stage(plan: Plan) -> Rolling:
    assert isinstance(plan.answer, Rewarded) and plan.answer.stages.rolling is not None
    return plan.answer.stages.rolling


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_a_round_is_drawn_kept_and_used_up(name: str) -> None:
    """40 of 80 examples are responses: eight a round, two updates each, five rounds."""
    torch.manual_seed(0)
    of = given(name)
    plan = prepared(name, of, **({"group": 4} if name == "grpo" else {}))
    done, meter = train(plan, of)
    rolling = stage(plan)
    assert meter.examples == 80 and rolling.number == 5 and rolling.left == 0
    assert done.entered == {0, 1, 2}
    assert all(len(values) == 5 for values in done.told.values()) and len(done.told) == 3
    assert done.told["KL to the reference, nats a response"][0] == pytest.approx(0.0, abs=1e-5), "at first they are one"
    assert done.told["reward, SDs of the reference's"][0] == pytest.approx(0.0, abs=1e-5)
    scores = plan.answer.predict(GIVEN.fields, Meter())
    assert scores.shape == (len(GIVEN), 2) and np.isfinite(scores).all() and np.abs(scores).max() > 0


def likes_half(plan: Plan) -> Any:
    """A reward of its own: the share of a response's tokens from one half of the vocabulary, apart by one feature."""
    assert isinstance(plan.module, torch.nn.Module)
    embeddings: Any = plan.module.get_output_embeddings()  # type: ignore[operator]
    liked = (embeddings.weight[:, 0] > 0).tolist()

    def share(rows: list[int], responses: list[Any], meter: Meter) -> torch.Tensor:
        return torch.tensor([sum(liked[token] for token in one.answers[0]) / len(one.answers[0]) for one in responses])

    return share


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_a_policy_says_more_of_what_is_rewarded(name: str) -> None:
    torch.manual_seed(0)
    of = given(name)
    free = {"kl_target": None, "kl": 0.001} if name == "ppo" else {"group": 8, "kl": 0.0}
    plan = prepared(name, of, lr=0.01, responses=32, epochs=2, supervised=0.05, reward_share=0.05, unfinished=0, **free)
    rolling = stage(plan)
    rolling.reward = likes_half(plan)
    train(plan, of, train_examples=960)
    gained = rolling.told["reward, SDs of the reference's"]
    assert gained[0] == 0 and np.mean(gained[-3:]) > 1, gained
    assert rolling.told["KL to the reference, nats a response"][-1] > 0.1


def test_a_constant_reward_and_no_price_move_a_policy_by_nothing() -> None:
    """GRPO's advantages are exactly zero then; every update's gradient is."""
    torch.manual_seed(0)
    of = given("grpo")
    plan = prepared("grpo", of, lr=0.02, group=4, kl=0.0, unfinished=0)
    stage(plan).reward = lambda rows, responses, meter: torch.ones(len(rows))
    train(plan, of)
    versions = stage(plan).versions
    assert all(torch.equal(p, q) for p, q in zip(versions.params, versions.kept[REFERENCE], strict=True))


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_at_rate_zero_the_policy_stays_its_reference(name: str) -> None:
    torch.manual_seed(0)
    of = given(name)
    plan = prepared(name, of, **({"group": 4} if name == "grpo" else {}))
    plan.groups[0].later = plan.groups[0].later[:1]
    train(plan, of)
    versions = stage(plan).versions
    assert all(torch.equal(p, q) for p, q in zip(versions.params, versions.kept[REFERENCE], strict=True))
    assert np.abs(plan.answer.predict(GIVEN.fields, Meter())).max() < 1e-6


def test_everything_that_is_asked_of_a_model_is_counted() -> None:
    """A round: writing (one forward a token), policy, reference and reward (eight responses each), two updates."""
    torch.manual_seed(0)
    of = given("ppo")
    plan = prepared("ppo", of, supervised=0.1, reward_share=0.1)
    _, meter = train(plan, of, train_examples=38)
    rolling = stage(plan)
    aside = [step for step in meter.steps if step.aside]
    updates = [step for step in meter.steps if not step.aside]
    assert meter.examples == 38 and rolling.number == 4
    assert len(updates) == 2 + 1 + 8, "batches of three rows in the first stages, then two updates a round"
    assert all(step.flops > 0 and step.tokens > 0 for step in meter.steps)
    assert len(aside) >= rolling.number * (1 + 3)
    assert rolling.round is not None
    last = sum(one.length for one in rolling.round.responses)
    prompt = sum(len(one.ids) for one in rolling.round.responses)
    ended = sum(one.answers[0][-1] == rolling.acts.reader.stop[0] for one in rolling.round.responses)  # type: ignore[attr-defined]
    assert last - ended == sum(len(rolling.reward.text(one).answers[0]) for one in rolling.round.responses)  # type: ignore[attr-defined]
    assert prompt > 0


def test_a_token_budget_is_never_passed_and_nearly_used_up() -> None:
    """What ends it is the axis; what is left is less than a batch of responses and its update, at most five passes."""
    torch.manual_seed(0)
    of = given("ppo")
    plan = prepared("ppo", of)
    done, meter = train(plan, of, train_tokens=6000)
    rolling = stage(plan)
    assert meter.tokens <= 6000 and done.ended_by == "train_tokens" and rolling.number > 1
    assert 6000 - meter.tokens < 5 * sum(one.length for one in rolling.acts.slots(4))


@pytest.mark.parametrize("name", ["ppo", "grpo", "best_of_n"])
def test_what_is_stored_answers_as_the_trained_policy_did(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    of = given(name)
    more = {"ppo": {"lr": 0.01}, "grpo": {"lr": 0.01, "group": 4}, "best_of_n": {"r": 4}}[name]
    plan = prepared(name, of, **more)
    train(plan, of)
    before = plan.answer.predict(GIVEN.fields, Meter())
    plan.save(tmp_path)
    fresh = prepared(name, of, **more)
    assert fresh.load is not None
    fresh.load(tmp_path)
    assert np.allclose(fresh.answer.predict(GIVEN.fields, Meter()), before, atol=1e-5) and np.abs(before).max() > 1e-4
    files = {f.name for f in tmp_path.iterdir()}
    assert {"adapter_model.safetensors", "reference.safetensors"} <= files
    assert ("reward.safetensors" in files) == ("head.safetensors" in files) == (name == "best_of_n")


@pytest.mark.parametrize("name", ["ppo", "grpo"])
@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.85])
def test_a_halted_training_goes_on_as_if_nothing_had_been(name: str, share: float, tmp_path: Path) -> None:
    """In every stage; asked amid it, the policy answers and not the reward model."""
    of = given(name)
    more = {"epochs": 2, **({"group": 4} if name == "grpo" else {})}

    def started() -> Training:
        torch.manual_seed(0)
        plan = prepared(name, of, **more)
        meter = Meter(Budget(labels=3, train_examples=80))
        meter.watch(plan.seen)
        return Training(plan, of, meter)

    whole = started()
    whole.until(1.0)
    first = started()
    first.until(share)
    first.meter.unwatch()
    assert np.isfinite(first.plan.answer.predict(GIVEN.fields, Meter())).all()
    put_down(first, tmp_path / "kept")
    second = started()
    second.meter.absorb(first.meter)
    take_up(second, first.done, tmp_path / "kept")
    second.until(1.0)
    assert second.done.losses == pytest.approx(whole.done.losses, abs=1e-5)
    assert second.done.told == {name: pytest.approx(values, abs=1e-4) for name, values in whole.done.told.items()}
    assert second.meter.tokens == whole.meter.tokens


def test_best_of_n_chooses_pairs_by_its_reward_and_keeps_the_supervised_policy() -> None:
    torch.manual_seed(0)
    of = given("best_of_n")
    plan = prepared("best_of_n", of, lr=0.01, r=4)
    train(plan, of, train_examples=120)
    assert isinstance(plan.answer, BestOf)
    assert (plan.answer.predict(GIVEN.fields, Meter()).argmax(-1) == GIVEN.labels).all()
    versions = plan.answer.stages.versions
    assert all(torch.equal(p, q) for p, q in zip(versions.params, versions.kept[REFERENCE], strict=True))


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_label_words_are_said_and_verified(name: str) -> None:
    """One action a prompt; what is rewarded is said in the end, though fine-tuning had the other one."""
    torch.manual_seed(0)
    words = {"pattern": "{text}", "verbalizer": {"negative": "a", "positive": "b"}}  # one token each: neither is rare
    of = context(
        "verbalizer", labels=8, batch=8, task=Task.model_validate(task().model_dump() | {"templates": [words]})
    )
    more = {"group": 4} if name == "grpo" else {}
    plan = prepared(name, of, lr=0.01, supervised=0.05, responses=32, epochs=2, **more)
    rolling, right = stage(plan), of.train.labels
    said = rolling.acts.unpacked([0, 1, 2], torch.tensor([[1, right[0]], [1, 1 - right[1]], [1, right[2]]]))
    assert rolling.reward([0, 1, 2], said, Meter()).tolist() == [1.0, 0.0, 1.0]
    rare = min((0, 1), key=right.count)
    rolling.reward = lambda rows, responses, meter: torch.tensor([float(one.action == rare) for one in responses])  # type: ignore[attr-defined]
    done, _ = train(plan, of, train_examples=640)
    assert rolling.acts.steps == 1 and done.entered == {0, 2}, "nothing is learned of rewards"
    assert (plan.answer.predict(of.train.fields, Meter()).argmax(-1) == rare).all()


def test_replies_are_written_read_and_verified() -> None:
    torch.manual_seed(0)
    of = context("verbalizer", task=question_task(), labels=4, batch=4)
    plan = prepared("ppo", of, tokens=3)
    done, _ = train(plan, of)
    assert done.entered == {0, 2} and len(done.told["actions a response"]) > 1
    rolling = stage(plan)
    said = rolling.acts.unpacked([0, 1], torch.tensor([[3, 17, 18, 19], [1, 20, 0, 0]]))
    tokenizer = base("tiny-llama").tokenizer
    digits = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (" 0", " 1")]
    assert said[1].answers == ((20,),)  # type: ignore[attr-defined]
    answers = [digits[label] for label in (of.train.labels[0], 1 - of.train.labels[1])]
    packed = torch.tensor([[len(ids), *ids] for ids in answers])
    assert rolling.reward([0, 1], rolling.acts.unpacked([0, 1], packed), Meter()).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "of", "more", "match"),
    [
        (
            "ppo",
            {"task": question_task(), "train": None},
            {"reward": "learned"},
            "a reward is learned from pairs of answers or labels, and sst2 has none: use reward=verifiable",
        ),
        ("ppo", {}, {"reward": "verifiable"}, "nothing can be verified of an answer to a pair: use reward=learned"),
        ("ppo", {"sequence": 6}, {"tokens": 6}, "responses of 6 tokens leave no room for a prompt in 6"),
    ],
)
def test_what_cannot_be_rewarded_is_refused(name: str, of: dict[str, Any], more: dict[str, Any], match: str) -> None:
    with pytest.raises(Unsupported, match=match):
        prepared(name, given(name, **of), **more)


@pytest.mark.parametrize(
    ("name", "more", "match"),
    [
        ("ppo", {"supervised": 0.5, "reward_share": 0.5}, "supervised=0.5 and reward_share=0.5 leave nothing for the"),
        ("grpo", {"responses": 10, "group": 4}, "responses=10 is no multiple of group=4"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(name: str, more: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        options(name, **more)


WORDS = {"pattern": "{text}", "verbalizer": {"negative": "a", "positive": "b"}}


@pytest.mark.parametrize(("name", "more"), [("best_of_n", {"r": 4, "n": 4}), ("ppo", {"reward": "learned"})])
def test_rewards_of_label_words_are_learned_too(name: str, more: dict[str, Any], tmp_path: Path) -> None:
    """Best of n takes the best of those labels the policy says; what it never says has the lowest score."""
    torch.manual_seed(0)
    of = context(
        "verbalizer", labels=8, batch=8, task=Task.model_validate(task().model_dump() | {"templates": [WORDS]})
    )
    plan = prepared(name, of, **more)
    done, _ = train(plan, of, train_examples=160)
    assert done.entered == ({0, 1} if name == "best_of_n" else {0, 1, 2})
    scores = plan.answer.predict(of.train.fields, Meter())
    assert scores.shape == (8, 2) and np.isfinite(scores).all()
    plan.save(tmp_path)
    fresh = prepared(name, of, **more)
    assert fresh.load is not None
    fresh.load(tmp_path)
    assert np.allclose(fresh.answer.predict(of.train.fields, Meter()), scores, atol=1e-4)
    if isinstance(plan.answer, BestOf):
        plan.answer.number = 10**6
        assert (plan.answer.predict(of.train.fields, Meter()).min(0) > scores.min() - 1).all(), "all are drawn then"


def test_a_learned_reward_is_that_of_the_label_said() -> None:
    torch.manual_seed(0)
    of = context(
        "verbalizer", labels=4, batch=4, task=Task.model_validate(task().model_dump() | {"templates": [WORDS]})
    )
    plan = prepared("ppo", of, reward="learned")
    rolling = stage(plan)
    rolling.versions.keep("reward")
    judge = rolling.reward.reader  # type: ignore[attr-defined]
    all_ = judge.scores(judge.target(), judge.collate(judge.encode(of.train.fields))).tolist()
    said = rolling.acts.unpacked([2, 0, 2], torch.tensor([[1, 1], [1, 0], [1, 0]]))
    found = rolling.reward([2, 0, 2], said, Meter()).tolist()
    assert found == pytest.approx([all_[2][1], all_[0][0], all_[2][0]], abs=1e-5)
