"""Tasks of lm-eval in our engine, against lm-eval's own harness on the same model and items."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import harness_tasks
import numpy as np
import pytest
import tiny
import torch
from harness_runs import context_of, needs_lm_eval, rows_of, task_of

from bench import plan as planning
from bench.budget import Meter
from bench.config import DataSettings, load
from bench.config.schema import Budget, Task
from bench.config.settings import Settings
from bench.data import harness
from bench.data.rows import read
from bench.data.sources import locate
from bench.identity import task_digest
from bench.job import Job, probing
from bench.outcomes import refuse_what_is_missing
from bench.records import Status
from bench.score.adapted import Adapted
from bench.score.continued import ABSENT, ContinuedReader, measures
from bench.store import read_result
from bench.strategy import TaskContext, Unsupported
from bench.train.loop import adapt
from bench.worker import run_cell

pytest_plugins = ("harness_runs",)


@needs_lm_eval
@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("name", ["quiz", "tickets"])
@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama"])
def test_scores_are_lm_evals(cached: Path, name: str, shots: int, family: str) -> None:
    """Log-likelihoods within 1e-4 and the same metrics, with lm-eval's own demonstrations too."""
    base, task = tiny.base(family), task_of(cached, name, shots)
    test = rows_of(name, task).test
    scores = Adapted(base.module, ContinuedReader(base, context_of(name, task))).predict(test.fields, Meter())
    oracle = harness_tasks.by_lm_eval(base, name, cached / name, shots)
    for row, index in enumerate(test.index):
        theirs = oracle["said"][index]
        np.testing.assert_allclose(scores[row, : len(theirs)], theirs, atol=1e-4)
        assert (scores[row, len(theirs) :] == ABSENT).all()
    right = scores.argmax(-1) == test.labels
    assert right.mean() == pytest.approx(oracle["metrics"]["acc,none"], abs=1e-12) and right.sum() > 0
    found = measures(scores, test, task)
    assert set(found) == ({"acc_norm", "acc_bytes"} if name == "quiz" else {"f1", "matthews"})
    for ours, theirs in (("acc_norm", "acc_norm"), ("acc_bytes", "acc_bytes"), ("f1", "f1"), ("matthews", "mcc")):
        if ours in found:
            assert found[ours].value == pytest.approx(oracle["metrics"][f"{theirs},none"], abs=1e-9), ours


@needs_lm_eval
def test_our_demonstrations_are_written_as_lm_evals(cached: Path) -> None:
    """With the rows that lm-eval's `first_n` shows, few_shot asks what lm-eval asks."""
    base, plain, theirs = tiny.base("tiny-llama"), task_of(cached, "quiz"), task_of(cached, "quiz", 2)
    rows = rows_of("quiz", plain)
    plan = tiny.STRATEGIES["few_shot"].prepare(base, context_of("quiz", plain), tiny.options("few_shot"))
    plan.answer.rows = rows.train.take([0, 1])  # type: ignore[attr-defined]
    ours = plan.answer.predict(rows.test.fields, Meter())
    reader = ContinuedReader(base, context_of("quiz", theirs))
    np.testing.assert_array_equal(
        ours, Adapted(base.module, reader).predict(rows_of("quiz", theirs).test.fields, Meter())
    )
    assert plan.labels_used == 2


# ---- strategies


WORK = ("zero_shot", "few_shot", "frozen", "lora", "full", "prompt_tuning", "layernorm")


@needs_lm_eval
@pytest.mark.parametrize("name", sorted(tiny.STRATEGIES))
def test_a_strategy_answers_or_says_why_not(cached: Path, name: str) -> None:
    base, task = tiny.base("tiny-llama"), task_of(cached, "tickets")
    strategy = tiny.STRATEGIES[name]
    readout = strategy.readouts[0]
    context, meter = context_of("tickets", task, readout), Meter(Budget(labels=8, train_examples=8))
    try:
        refuse_what_is_missing(strategy, base, context)
        plan = strategy.prepare(base, context, tiny.options(name))
        meter.watch(plan.seen)
        adapt(plan, context, meter)
        meter.unwatch()
    except Unsupported as error:
        assert name not in WORK and len(str(error)) > 40, error
        return
    scores = plan.answer.predict(rows_of("tickets", task).test.fields, Meter())
    assert scores.shape == (14, 2) and np.isfinite(scores).all()


@needs_lm_eval
def test_what_a_strategy_refuses(cached: Path) -> None:
    quiz, tickets = task_of(cached, "quiz"), task_of(cached, "tickets", 2)
    base, strategies = tiny.base("tiny-llama"), tiny.STRATEGIES

    def refused(name: str, context: TaskContext, of=base, **options) -> str:
        with pytest.raises(Unsupported) as caught:
            refuse_what_is_missing(strategies[name], of, context)
            strategies[name].prepare(of, context, tiny.options(name, **options))
        return str(caught.value)

    assert "dpo needs label words, pairs or prompts of its own making, and quiz is a task of lm-eval" in refused(
        "dpo", context_of("quiz", quiz)
    )
    assert "each row of quiz has options of its own: use readout=verbalizer" in refused(
        "frozen", context_of("quiz", quiz, "head")
    )
    assert "every prompt holds 2 demonstrations of lm-eval's own already" in refused(
        "few_shot", context_of("tickets", tickets)
    )
    assert "calibrate divides by" in refused("few_shot", context_of("quiz", quiz), calibrate=True)
    assert "demonstration_labels=random needs options that all rows share" in refused(
        "few_shot", context_of("quiz", quiz), demonstration_labels="random"
    )
    assert "engine=trl trains decoders on answers that follow a prompt" in refused(
        "lora", context_of("quiz", quiz), engine="trl"
    )
    otherwise = quiz.model_copy(update={"harness": quiz.harness.model_copy(update={"between": None})})
    assert "lm-eval writes demonstrations of this task otherwise" in refused("few_shot", context_of("quiz", otherwise))
    assert "options of lm-eval's tasks continue their prompt, and this model is masked" in refused(
        "lora", context_of("quiz", quiz), tiny.base("tiny-bert")
    )
    nothing = replace(context_of("quiz", quiz), train=rows_of("quiz", quiz).train.take([]))
    assert "lm-eval names nothing to train on for quiz: cut its test rows, such as tasks.quiz.splits=" in refused(
        "lora", nothing
    )
    with pytest.raises(Unsupported, match="prompts of a task of lm-eval stand as they are"):
        strategies["few_shot"].prepare(base, context_of("quiz", quiz), tiny.options("few_shot")).answer.through(
            quiz.templates[0]
        )


# ---- a whole cell


@needs_lm_eval
def test_a_cell_and_its_record(cached: Path, tmp_path: Path) -> None:
    """Planned, sent as JSON, run, recorded: lm-eval's metrics with intervals, and where the prompts come from."""
    [job] = planning.make(
        load([
            "suite=smoke", "model=random:tiny-llama", "tasks=quiz", f"tasks.quiz.data.lm_eval={cached / 'quiz' / 'quiz.yaml'}",
            "strategies=lora", "strategies.lora.r=2", "budget.labels=8", "budget.train_examples=8", "batch=4", "sequence=48",
            "threads=1", "device=cpu", f"results_dir={tmp_path}", "probes=formats,contamination",
        ])
    ).jobs  # fmt: skip
    job = Job.model_validate_json(job.model_dump_json())
    assert job.located["source"] == "lm_eval" and not probing(job), "no probe changes lm-eval's texts"
    Path(job.folder).mkdir(parents=True)
    torch.manual_seed(0)
    assert run_cell(job, partial(tiny.base, "tiny-llama"), lambda phase, share: None) == 0
    record = read_result(Path(job.folder) / "result.json")
    assert record.outcome.status is Status.ok, record.outcome.reason
    assert record.scores is not None and set(record.scores) == {"accuracy", "acc_norm", "acc_bytes"}
    assert all(score.low <= score.value <= score.high and score.n == 14 for score in record.scores.values())
    version = importlib.metadata.version("lm_eval")
    assert (
        f"prompts and options as lm-eval {version} writes quiz (version 2.5); of its metrics exact_match is not measured"
        in record.notes
    )
    assert record.used.labels == 8 and record.data.labels == ["A", "B", "C", "D"]
    assert record.data.truncated == 8, "training rows, which keep to the cell's sequence"


@needs_lm_eval
def test_what_lm_eval_says_is_part_of_the_data_and_not_of_the_task(cached: Path) -> None:
    plain, shown = task_of(cached, "quiz"), task_of(cached, "quiz", 2)
    assert task_digest(plain) == task_digest(shown), "the rows themselves tell"
    settings = DataSettings()
    assert locate("q", plain, "path", settings).fingerprint != locate("q", shown, "path", settings).fingerprint
    assert json.loads((harness.exported("q", plain, settings) / "task.json").read_text())["harness"]["shots"] == 0


# ---- real data


MIRROR = os.environ.get("BENCH_MIRROR")
BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks" / "lm_eval"


@needs_lm_eval
@pytest.mark.skipif(not MIRROR, reason="no mirror of real data (BENCH_MIRROR)")
@pytest.mark.parametrize("name", ["sst2", "boolq", "mmlu_anatomy"])
def test_real_tasks_agree_item_by_item(cached: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The task files of `benchmarks/lm_eval` on the mirror's data: the same items through both harnesses."""
    assert MIRROR is not None
    settings = Settings(data=DataSettings(mirror=MIRROR), adapters_path=str(BENCHMARKS)).data
    raw = {"data": {"lm_eval": str(BENCHMARKS / f"{name}.yaml")}, "limit": 6}
    task = harness.told(name, Task.model_validate(raw), settings)
    rows = read(name, task, locate(name, task, "mirror", settings))
    base = tiny.base("tiny-llama")
    reader = ContinuedReader(base, TaskContext(name, task, rows.train, 0, "verbalizer", 4, tiny.SEQUENCE))
    ours = Adapted(base.module, reader).predict(rows.test.fields, Meter())
    monkeypatch.chdir(MIRROR)
    oracle = harness_tasks.by_lm_eval(base, f"mirror_{name}", BENCHMARKS, 0, rows.test.index)
    np.testing.assert_allclose(ours, [oracle["said"][index] for index in rows.test.index], atol=1e-4)
    accuracy = float((ours.argmax(-1) == rows.test.labels).mean())
    assert accuracy == pytest.approx(oracle["metrics"]["acc,none"], abs=1e-12)
