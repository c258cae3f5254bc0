"""`engine=trl`: TRL's own trainers in place of our loop, as a check of it; beside our cells and never among them."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny import STRATEGIES, base, changed, context, options, pair_rows, pair_task, question_task, snapshot, task

from bench import plan as planning
from bench.budget import Meter
from bench.config import load
from bench.config.schema import Budget
from bench.models.catalog import parse
from bench.predict.fakes import fake_base
from bench.predict.rehearse import rehearse
from bench.records import Status
from bench.run import execute
from bench.store import read_result
from bench.strategy import Plan, TaskContext, Unsupported
from bench.train import by_trl
from bench.train.loop import Trained, adapt
from bench.train.policies import without_dropout
from bench.worker import run_cell, seed_everything

pytestmark = pytest.mark.usefixtures("forked")

needs_trl = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs TRL (pip install trl)")
LONG = 400
"""Tokens that hold every row whole: TRL cuts longer ones elsewhere."""


def trained(
    name: str, family: str, given: TaskContext, budget: Budget, **more: Any
) -> tuple[Plan, Trained, Meter, dict[int, str]]:
    """A plan trained on a fresh base, what came of it, and which of the base's own weights changed."""
    torch.set_num_threads(1)
    model = base(family)
    without_dropout(model.module)  # two loops draw its noise from other places of the same stream
    before = snapshot(model.module)
    seed_everything(0)
    plan = STRATEGIES[name].prepare(model, given, options(name, **more))
    meter = Meter(budget)
    meter.watch(plan.seen)
    done = adapt(plan, given, meter)
    meter.unwatch()
    return plan, done, meter, changed(before)


def both(name: str, family: str, given: TaskContext, budget: Budget, **more: Any) -> Any:
    """By our own loop and by TRL's."""
    return [trained(name, family, given, budget, engine=engine, **more) for engine in ("own", "trl")]


def pairs(**more: Any) -> TaskContext:
    return context("verbalizer", task=pair_task(), sequence=LONG, **more)


TEN = Budget(labels=12, train_examples=40)
"""Ten steps of four."""


@needs_trl
@pytest.mark.parametrize("family", ["tiny-llama", "tiny-gpt2"])
@pytest.mark.parametrize(
    "more", [{}, {"per_token": True, "beta": 1.0}, {"loss": "ipo", "per_token": True, "beta": 0.5}]
)
def test_ten_steps_of_dpo_have_the_losses_of_ours(family: str, more: dict[str, Any]) -> None:
    """TRL's tokens, padding, loss, reference and loop against ours, over the same rows in the same order."""
    own, trl = both("dpo", family, pairs(), TEN, supervised=0.0, lr=1e-2, **more)
    assert len(trl[1].losses) == 10 and trl[1].ended_by == "train_examples" and trl[1].read == own[1].read
    np.testing.assert_allclose(trl[1].losses, own[1].losses, atol=1e-4)
    assert abs(trl[1].losses[-1] - trl[1].losses[0]) > 0.01, "something was learned"
    fields = pair_rows().test.fields
    np.testing.assert_allclose(
        trl[0].answer.predict(fields, Meter()), own[0].answer.predict(fields, Meter()), atol=5e-3
    )
    assert trl[2].examples == own[2].examples == 40 and len(trl[2].steps) == 10
    assert trl[2].tokens > own[2].tokens and all(step.flops > 0 for step in trl[2].steps), "the reference in every step"


@needs_trl
def test_both_stages_take_the_steps_of_ours(tmp_path: Path) -> None:
    """A quarter of the budget supervised, then pairs: as many steps of each, the model as TRL found it, and stored."""
    own, trl = both("dpo", "tiny-llama", pairs(), Budget(labels=12, train_examples=46))
    assert len(trl[1].losses) == len(own[1].losses) and trl[2].examples == own[2].examples == 46
    plan = trl[0]
    assert list(plan.module.peft_config) == ["default"] and not any(
        ".ref." in n for n, _ in plan.module.named_parameters()
    )
    assert "forward" not in plan.module.get_base_model().__dict__
    assert trl[3] == {}, "the base is as it was"
    plan.save(tmp_path)
    fresh = STRATEGIES["dpo"].prepare(base("tiny-llama"), pairs(), options("dpo", engine="trl"))
    assert fresh.load is not None
    fresh.load(tmp_path)
    fields = pair_rows().test.fields
    np.testing.assert_allclose(fresh.answer.predict(fields, Meter()), plan.answer.predict(fields, Meter()), atol=1e-5)


@needs_trl
@pytest.mark.parametrize("task_", [pair_task, question_task])
def test_supervised_steps_of_one_row_have_the_losses_of_ours(task_: Any) -> None:
    """TRL's mean is over a batch's tokens and ours over its rows first: of one row they are the same."""
    given = context("verbalizer", task=task_(), sequence=LONG, batch=1)
    own, trl = both("lora", "tiny-llama", given, Budget(labels=12, train_examples=10), lr=1e-2)
    assert len(trl[1].losses) == 10
    np.testing.assert_allclose(trl[1].losses, own[1].losses, atol=1e-4)


@needs_trl
@pytest.mark.parametrize("family", ["tiny-llama", "tiny-gpt2"])
def test_ten_steps_of_a_reward_model_have_the_losses_of_ours(family: str) -> None:
    """The same head and factors in transformers' own classifier, trained by TRL: losses and rewards are ours."""
    given = context("head", task=pair_task(), sequence=LONG)
    own, trl = both("reward_model", family, given, TEN, lr=1e-2)
    assert len(trl[1].losses) == 10
    np.testing.assert_allclose(trl[1].losses, own[1].losses, atol=1e-4)
    one, other = (plan.answer.predict(pair_rows().test.fields, Meter()) for plan in (own[0], trl[0]))
    # what both answers share, such as the head's bias, has no gradient but rounding's, which Adam makes as large as any
    np.testing.assert_allclose(other[:, 1] - other[:, 0], one[:, 1] - one[:, 0], atol=5e-3)


def test_without_trl_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_trl.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match="not installed: python -m pip install 'trl>=1.16', or use engine=own"):
        STRATEGIES["dpo"].prepare(base("tiny-llama"), pairs(), options("dpo", engine="trl"))


@needs_trl
def test_what_trl_does_not_train_is_refused_in_words() -> None:
    def why(name: str, given: TaskContext, budget: Budget = TEN, **more: Any) -> str:
        with pytest.raises(Unsupported) as error:
            trained(name, "tiny-llama", given, budget, engine="trl", **more)
        return str(error.value)

    answers = "or rewards of pairs: use engine=own, or a task of kind prefer or generate"
    assert answers in why("lora", context("verbalizer", task=task()))
    assert answers in why("lora", context("head", task=task()))
    assert "means over tokens: use per_token=true, or engine=own" in why("dpo", pairs(), loss="ipo")
    assert "in one pass: take away micro_batch or use engine=own" in why("dpo", pairs(micro_batch=2))
    seconds = why("dpo", pairs(), Budget(labels=12, train_seconds=1))
    assert "budget.train_seconds leaves it open: use budget.train_examples or budget.epochs" in seconds
    chat = pair_task().templates[0].model_copy(update={"chat": True})
    spoken = replace(pairs(), task=pair_task().model_copy(update={"templates": [chat]}))
    # a tiny model has no chat template at all, which is found first
    assert "chat" in why("dpo", spoken)
    assert "whose prompt fills the sequence: raise sequence" in why("dpo", replace(pairs(), sequence=8))


def suite(tmp_path: Path, **more: Any) -> list[str]:
    """Ours and TRL's beside each other."""
    raw = pair_task().model_dump(mode="json", exclude_none=True)
    given = {"name": "engines", "model": "random:tiny-llama", "tasks": {"pairs": raw}, "sequence": 200, "batch": 4,
             "strategies": {"dpo": {}, "dpo_trl": {"base": "dpo", "engine": "trl"}, "zero_shot": {}},
             "budget": {"labels": 12, "train_examples": 16}} | more  # fmt: skip
    path = tmp_path / "engines.yaml"
    path.write_text(json.dumps(given))
    folders = [f"results_dir={tmp_path / 'results'}", f"reports_dir={tmp_path / 'reports'}"]
    return [f"suite={path}", "threads=1", "device=cpu", "predict=false", "data.source=sample", *folders]


def test_our_own_cells_are_what_they_were(tmp_path: Path) -> None:
    """The option at its default is no part of a cell; another engine is another cell and says so."""
    cells = {job.cell.strategy: job.cell for job in planning.make(load(suite(tmp_path))).jobs}
    assert "engine" not in cells["dpo"].options and cells["dpo"].engine is None
    assert cells["dpo_trl"].options["engine"] == cells["dpo_trl"].engine == "trl"
    assert cells["dpo"].id.rpartition("-")[2] != cells["dpo_trl"].id.rpartition("-")[2]


@needs_trl
def test_a_run_shows_it_beside_ours_and_ranks_it_nowhere(tmp_path: Path) -> None:
    """Through the command: a record that says `trl`, a table of its own, no row on the leaderboard."""
    with (tmp_path / "output.txt").open("w") as out:
        done = {one.cell.strategy: one for one in execute(load(suite(tmp_path)), Console(file=out, width=200))}
    assert all(one.outcome.status is Status.ok for one in done.values()), [one.outcome for one in done.values()]
    assert done["dpo_trl"].cell.engine == "trl" and done["dpo"].cell.engine is None
    text = (tmp_path / "reports" / "engines.md").read_text()
    before, _, after = text.partition("## Another library's loop")
    assert "dpo_trl" not in before and "Trained by another library" in after and "Not matched" in after
    table = [line for line in after.partition("## Failures")[0].splitlines() if line.startswith("| dpo")]
    assert [line.split("|")[1].strip() for line in table] == ["dpo (own)", "dpo_trl (trl)"]
    assert [line.split("|")[7].strip() for line in table] == ["16", "16"], "as many examples"
    assert "dpo_trl" in (tmp_path / "reports" / "engines.html").read_text()


@needs_trl
def test_it_is_not_foretold(tmp_path: Path) -> None:
    """Memory is rehearsed in our loop only; the reason stands in place of a figure."""
    jobs = {job.cell.strategy: job for job in planning.make(load(suite(tmp_path))).jobs}
    with pytest.raises(RuntimeError, match="it trains in another library's loop, which is not rehearsed"):
        rehearse(jobs["dpo_trl"], fake_base(parse("random:tiny-llama"), None, torch.float32), on_card=False)


@needs_trl
def test_trials_are_refused(tmp_path: Path) -> None:
    budget = {"labels": 12, "train_examples": 16, "trials": 2}
    tokens = [*suite(tmp_path, budget=budget), "strategies=dpo_trl"]
    [job] = planning.make(load(tokens)).jobs
    Path(job.folder).mkdir(parents=True)
    assert run_cell(job, partial(base, "tiny-llama"), lambda phase, share: None) == 0
    one = read_result(Path(job.folder) / "result.json")
    assert one.outcome.status is Status.unsupported
    assert one.outcome.reason == "engine=trl is not tuned: take away budget.trials or use engine=own"
