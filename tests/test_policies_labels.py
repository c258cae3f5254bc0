"""Preferences among label words: the gold word against every other one, the control, and reward models of words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import STRATEGIES, base, context, drive, options, rows, task

from bench.budget import Meter
from bench.config import load
from bench.config.schema import Budget, Task
from bench.data.rows import Rows
from bench.plan import make
from bench.score.adapted import Adapted
from bench.score.answers import LabelRewardReader
from bench.score.readers import VerbalizerReader
from bench.strategy import Plan, TaskContext
from bench.train.loop import Trained, Training
from bench.train.paused import put_down, take_up
from bench.train.plant import plant, planting_budget
from bench.train.policies import PREFERENCE, SUPERVISED, Pairs
from bench.train.preference import bradley_terry

THREE = {"low": " bad", "middle": " so", "high": " good"}
LETTERS = {"low": "k", "middle": "q", "high": "x"}
"""Words of one token each, which a model of random weights finds about equally likely."""
GIVEN = Rows(
    [{"text": text} for text in ("aaaa aaa", "mmm mmmm mm", "zz zz zzz", "aa aaa aa a", "mm m mmm", "zzzz z")],
    [0, 1, 2, 0, 1, 2],
    [10, 11, 12, 13, 14, 15],
)


def three(words: dict[str, str] = LETTERS) -> Task:
    """Three labels."""
    raw = task().model_dump(mode="json", exclude={"formats"})
    templates = [{"pattern": "{text}", "verbalizer": words}]
    return Task.model_validate(raw | {"labels": list(THREE), "templates": templates, "positive": None})


def given(readout: str = "verbalizer", words: dict[str, str] = LETTERS) -> TaskContext:
    return context(readout, task=three(words), train=GIVEN, batch=3)


def prepared(name: str, words: dict[str, str] = LETTERS, **more: Any) -> Plan:
    readout = "head" if name == "reward_model" else "verbalizer"
    return STRATEGIES[name].prepare(base("tiny-llama"), given(readout, words), options(name, **more))


def train(plan: Plan, examples: int = 180, readout: str = "verbalizer") -> tuple[Trained, Meter]:
    meter = Meter(Budget(labels=6, train_examples=examples))
    meter.watch(plan.seen)
    training = Training(plan, given(readout), meter)
    training.until(1.0)
    meter.unwatch()
    return training.done, meter


def test_a_row_of_three_labels_is_two_pairs_with_the_gold_word_in_each() -> None:
    """By hand: chosen, rejected, their reference and their tokens, of a batch of two rows."""
    plan = prepared("dpo", THREE)
    stage = plan.enter.__self__  # type: ignore[union-attr]
    seen: list[Pairs] = []
    stage.loss = lambda pairs: seen.append(pairs) or pairs.chosen.sum()
    assert plan.examples is not None and plan.collate is not None and plan.loss is not None
    second = [e for e in plan.examples().encoded if e.group == PREFERENCE]
    assert [e.place for e in second] == list(range(6))
    stage.reference = torch.arange(18.0).view(6, 3)
    batch = plan.collate([second[5], second[1]])
    labels = torch.tensor([2, 1])
    plan.loss(batch, labels)
    scores = stage.reader.scores(stage.module, batch)
    [pairs] = seen
    assert torch.allclose(pairs.chosen, scores[[0, 0, 1, 1], [2, 2, 1, 1]])
    assert torch.allclose(pairs.rejected, scores[[0, 0, 1, 1], [0, 1, 2, 0]])
    assert pairs.reference_chosen.tolist() == [17, 17, 4, 4] and pairs.reference_rejected.tolist() == [15, 16, 5, 3]
    assert [t.tolist() for t in pairs.lengths] == [[5, 5, 3, 3], [4, 3, 5, 4]], "bytes of the words"


@pytest.mark.parametrize(
    ("name", "more"), [("dpo", {}), ("dpo", {"loss": "ipo", "beta": 0.5}), ("kto", {}), ("dpo", {"loss": "sft"})]
)
def test_they_learn_labels_and_answer_by_label_scores(name: str, more: dict[str, Any]) -> None:
    """The score is the verbalizer's own, so that it stands beside that of any other strategy."""
    plan = prepared(name, r=4, lr=0.01, **more)
    done, meter = train(plan)
    assert isinstance(plan.answer, Adapted) and type(plan.answer.reader) is VerbalizerReader
    scores = plan.answer.predict(GIVEN.fields, Meter())
    assert scores.shape == (6, 3) and (scores.argmax(-1) == GIVEN.labels).all()
    assert done.read == {("sst2", row) for row in GIVEN.index} and done.entered == {SUPERVISED, PREFERENCE}
    assert meter.examples == 180
    told = done.told.get("log-ratio of the preferred answers", [])
    assert bool(told) == (more.get("loss") != "sft"), "the control watches nothing: it has no reference"


def test_two_labels_of_one_token_take_one_forward_for_both_words() -> None:
    """A row an item, whatever the labels: the second stage costs what the first does."""
    letters = task().templates[0].model_copy(update={"verbalizer": {"negative": "a", "positive": "z"}})
    one = context("verbalizer", task=task().model_copy(update={"templates": [letters]}))
    plan = STRATEGIES["dpo"].prepare(base("tiny-llama"), one, options("dpo"))
    assert plan.examples is not None and plan.collate is not None
    examples = plan.examples()
    first, second = (plan.collate([e for e in examples.encoded if e.group == g]) for g in (SUPERVISED, PREFERENCE))
    assert first.rows == second.rows == 12 and first.tokens == second.tokens


def test_the_control_takes_the_same_batches_at_the_same_rates() -> None:
    """Step for step the rows and rates of DPO; up to where the preference stage begins the losses are the same."""
    found = {}
    for name in ("sigmoid", "sft"):
        torch.manual_seed(0)
        plan = prepared("dpo", loss=name, supervised=0.4)
        rates: list[float] = []
        batches: list[list[list[int]]] = []
        assert plan.collate is not None
        collate = plan.collate

        def watched(encoded: Any, collate: Any = collate, batches: Any = batches) -> Any:
            batches.append([e.ids for e in encoded])
            return collate(encoded)

        plan.collate = watched
        meter = Meter(Budget(labels=6, train_examples=36))
        meter.watch(plan.seen)
        training = Training(plan, given(), meter)
        step = training.optimizer.step

        def stepped(progress: float, step: Any = step, training: Any = training, rates: Any = rates) -> None:
            step(progress)
            rates.append(training.optimizer.inner.param_groups[0]["lr"])

        training.optimizer.step = stepped  # type: ignore[method-assign]
        training.until(1.0)
        found[name] = (training.done.losses, rates, batches)
    (dpo, rates, batches), (control, control_rates, control_batches) = found.values()
    assert batches == control_batches and rates == control_rates
    begins = next(i for i, (one, other) in enumerate(zip(dpo, control, strict=True)) if one != other)
    assert sum(map(len, batches[:begins])) >= 0.4 * 36 > sum(map(len, batches[: begins - 1]))
    assert dpo[begins] == pytest.approx(np.log(2), abs=1e-5), "at first the policy is the reference"


def test_the_control_on_pairs_of_texts_answers_by_log_probability() -> None:
    done = drive("dpo", "tiny-llama", "verbalizer", more={"loss": "sft"})
    assert done.refused is None and done.plan is not None and isinstance(done.plan.answer, Adapted)


def test_nothing_is_kept_for_answers_that_need_no_reference(tmp_path: Path) -> None:
    plan = prepared("dpo", lr=0.01)
    train(plan, 36)
    before = plan.answer.predict(GIVEN.fields, Meter())
    plan.save(tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    fresh = prepared("dpo", lr=0.01)
    assert fresh.load is not None
    fresh.load(tmp_path)
    assert np.allclose(fresh.answer.predict(GIVEN.fields, Meter()), before, atol=1e-5)


def test_a_reward_model_of_words_learns_the_gold_one_against_all_others(tmp_path: Path) -> None:
    plan = prepared("reward_model", lr=0.02, r=4)
    assert isinstance(plan.answer, Adapted)
    reader, answer = plan.answer.reader, plan.answer
    assert isinstance(reader, LabelRewardReader)
    with torch.no_grad():
        batch = reader.collate(reader.encode(GIVEN.fields))
        rewards, labels = reader.scores(answer.module, batch), torch.tensor(GIVEN.labels)
        loss = float(reader.loss(answer.module, batch, labels))
    assert rewards.shape == (6, 3)
    pairs = [(r[y], r[o]) for r, y in zip(rewards, GIVEN.labels, strict=True) for o in range(3) if o != y]
    by_hand = bradley_terry(*(torch.stack(side) for side in zip(*pairs, strict=True)))
    assert loss == pytest.approx(float(by_hand), abs=1e-6)
    alone = reader.scores(answer.module, reader.collate(reader.encode(GIVEN.fields[2:3])))
    assert torch.allclose(alone[0], rewards[2], atol=1e-5), "a reward is of one word, whatever stands beside it"
    train(plan, readout="head")
    scores = plan.answer.predict(GIVEN.fields, Meter())
    assert (scores.argmax(-1) == GIVEN.labels).all()
    plan.save(tmp_path)
    fresh = prepared("reward_model", lr=0.02, r=4)
    assert fresh.load is not None
    fresh.load(tmp_path)
    assert np.allclose(fresh.answer.predict(GIVEN.fields, Meter()), scores, atol=1e-5)


@pytest.mark.parametrize("more", [{}, {"loss": "sft"}])
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_a_halted_training_goes_on_as_if_nothing_had_been(share: float, more: dict[str, Any], tmp_path: Path) -> None:
    """Before and amid the second stage: the reference of the labels is kept, and the moments are forgotten once."""

    def started() -> Training:
        torch.manual_seed(0)
        plan = prepared("dpo", supervised=0.4, lr=0.01, **more)
        meter = Meter(Budget(labels=6, train_examples=60))
        meter.watch(plan.seen)
        return Training(plan, given(), meter)

    whole, first, second = started(), started(), started()
    whole.until(1.0)
    first.until(share)
    put_down(first, tmp_path / "kept")
    second.meter.absorb(first.meter)
    take_up(second, first.done, tmp_path / "kept")
    second.until(1.0)
    assert second.done.losses == pytest.approx(whole.done.losses, abs=1e-6)
    assert second.meter.tokens == whole.meter.tokens


@pytest.mark.parametrize(("name", "more"), [("dpo", {}), ("dpo", {"loss": "sft"}), ("reward_model", {})])
def test_a_leak_of_labels_can_be_planted(name: str, more: dict[str, Any]) -> None:
    """As in whatever trains on labels: the planted rows are learned before the cell's own training begins."""
    plan = prepared(name, lr=0.02, **more)
    readout = "head" if name == "reward_model" else "verbalizer"
    meter = Meter(planting_budget(GIVEN, 20))
    meter.watch(plan.seen)
    plant(plan, given(readout), GIVEN, meter)
    meter.unwatch()
    assert meter.examples == 120
    done, _ = train(plan, 36, readout)
    assert done.losses and np.isfinite(plan.answer.predict(GIVEN.fields, Meter())).all()


@pytest.mark.parametrize("name", ["dpo", "kto", "reward_model"])
def test_several_tasks_or_formats_are_not_for_them(name: str) -> None:
    """The worker refuses what the plan says it does not do."""
    readout = "head" if name == "reward_model" else "verbalizer"
    other = context(readout, train=rows().train.take(range(4)))
    plan = STRATEGIES[name].prepare(base("tiny-llama"), context(readout, sources=(other,)), options(name))
    assert plan.mixed == 0
    if name != "reward_model":
        plan = STRATEGIES[name].prepare(
            base("tiny-llama"), context(readout, formats=tuple(task().templates) * 2), options(name)
        )
        assert plan.formats == 1


def test_on_labels_they_stand_in_a_group_of_their_own() -> None:
    """By family; on pairs of texts they decide as all others do. The group is no part of a cell's identity."""
    tokens = ["strategies=dpo,kto,reward_model,lora,sft_continued", "strategies.sft_continued.base=dpo",
              "strategies.sft_continued.loss=sft", "data.source=sample", "device=cpu"]  # fmt: skip
    on_labels = {job.cell.strategy: job.cell.group for job in make(load(["suite=smoke", *tokens])).jobs}
    assert on_labels == dict.fromkeys(("dpo", "kto", "reward_model", "sft_continued"), "preference tuning") | {
        "lora": None
    }
    on_pairs = make(load(["suite=preference-small", "data.source=sample", "device=cpu"])).jobs
    assert {job.cell.group for job in on_pairs} == {None}
