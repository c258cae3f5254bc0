"""What engine tests share: tiny random models, a few rows of the bundled sample, and one cell driven in-process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import accumulate, cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench import registry
from bench.budget import Meter
from bench.config import DataSettings, load
from bench.config.probes import FormatProbe
from bench.config.schema import Budget, Task
from bench.data.draws import draw_labels
from bench.data.rows import Rows, TaskRows, read
from bench.data.sources import locate
from bench.models.base import Base, load_base
from bench.models.catalog import parse
from bench.outcomes import refuse_what_is_missing
from bench.strategy import Options, Plan, Strategy, TaskContext, Unsupported
from bench.train.loop import Trained, adapt
from bench.worker import seed_everything

FAMILIES = ("tiny-gpt2", "tiny-llama", "tiny-bert", "tiny-t5")
STRATEGIES: dict[str, Strategy] = registry.load()
SMALL: dict[str, dict[str, Any]] = {
    "few_shot": {"k": 2},
    "cot": {"k": 0},
    "meta_prompt": {"candidates": 2, "demonstrations": 2, "tokens": 4},
    "prompt_chain": {"chain": ({"name": "notes", "pattern": "{task_prompt}?", "tokens": 4},)},
    "prompt_tuning": {"num_virtual_tokens": 4},
    "p_tuning": {"num_virtual_tokens": 4},
    "prefix_tuning": {"num_virtual_tokens": 4},
    "lora": {"r": 2},
    "instruct": {"r": 2},
    "in_context_tuning": {"r": 2, "k": 2},
}
"""Options that fit a model of 512 positions; a strategy not named here runs with its defaults."""
BATCH, SEQUENCE, LABELS, EXAMPLES = 4, 48, 12, 22
"""22 examples in batches of 4: the last batch must be cut."""
PROBE = FormatProbe(number=10, items=8, demonstrations=2)
"""Ten formats, few items and draws: for cells of the tiny models."""


@cache
def task() -> Task:
    """SST-2 of the smoke suite."""
    return load(["suite=smoke"]).suite.tasks["sst2"].model_copy(update={"limit": 8})


@cache
def rows() -> TaskRows:
    """Its bundled rows: 128 to train on, 8 to test."""
    return read("sst2", task(), locate("sst2", task(), "sample", DataSettings(source="sample")))


@cache
def pair_task() -> Task:
    """Its sentences as pairs, a positive one preferred to a negative one: for what learns from preferences."""
    raw = task().model_dump(mode="json", exclude={"labels", "templates", "formats", "metric"})
    columns = {"text": "sentence", "label": "label"}
    more = {"kind": "prefer", "gap": 1, "columns": columns, "templates": [{"pattern": "A review:"}]}
    return Task.model_validate(raw | more)


@cache
def pair_rows() -> TaskRows:
    """64 pairs to train on, 8 to test."""
    return read("sst2", pair_task(), locate("sst2", pair_task(), "sample", DataSettings(source="sample")))


@cache
def question_task() -> Task:
    """Its labels as numbers to be written, each sentence its own reasoning: for what answers in words."""
    raw = task().model_dump(mode="json", exclude={"labels", "templates", "formats", "metric"})
    columns = {"text": "sentence", "label": "label", "rationale": "sentence"}
    reply = {"reads": "number", "tokens": 3, "rationale_tokens": 4}
    more = {"kind": "generate", "columns": columns, "reply": reply, "templates": [{"pattern": "{text}\nNumber:"}]}
    return Task.model_validate(raw | more)


@cache
def question_rows() -> TaskRows:
    """As many rows as its own."""
    return read("sst2", question_task(), locate("sst2", question_task(), "sample", DataSettings(source="sample")))


@cache
def language_task() -> Task:
    """Its prompts as plain text, of which every next token is predicted."""
    return task().model_copy(update={"objective": "language"})


@cache
def tag_task() -> Task:
    """The longest word of each of its sentences, to be named."""
    raw = task().model_dump(mode="json", exclude={"labels", "templates", "formats", "metric", "positive"})
    return Task.model_validate(raw | {"kind": "tag", "labels": ["longest"], "templates": [{"pattern": "{text}"}]})


@cache
def tag_rows() -> TaskRows:
    """As many rows as its own; sentences of 2 to 48 words."""

    def named(given: Rows) -> Rows:
        fields = [{**f, "target": f"longest: {max(f['text'].split(), key=len)}"} for f in given.fields]
        return replace(given, fields=fields, labels=[0] * len(given))

    return replace(rows(), train=named(rows().train), test=named(rows().test))


def task_of(name: str) -> Task:
    """What a strategy is tried on."""
    needs = STRATEGIES[name].needs
    return pair_task() if needs.pairs else question_task() if needs.replies else task()


def rows_of(name: str) -> TaskRows:
    """Its rows."""
    needs = STRATEGIES[name].needs
    return pair_rows() if needs.pairs else question_rows() if needs.replies else rows()


def base(family: str) -> Base:
    """A fresh model with the same random weights every time."""
    return load_base(parse(f"random:{family}"), None, torch.float32)


def context(readout: str, labels: int = LABELS, seed: int = 0, **update: Any) -> TaskContext:
    """A task as a strategy sees it."""
    chosen: Task = update.pop("task", task())
    of = ((pair_task, pair_rows), (question_task, question_rows), (tag_task, tag_rows))
    drawn_from = next((its_rows() for its, its_rows in of if chosen is its()), rows())
    train: Rows = update.pop("train", None) or draw_labels(drawn_from.train, labels, seed, len(chosen.labels))
    given = {"batch": BATCH, "sequence": SEQUENCE, **update}
    return TaskContext("sst2", chosen, train, seed, readout, **given)  # type: ignore[arg-type]


def with_source(name: str, given: TaskContext) -> TaskContext:
    """The context with a source of the same rows, for a strategy that trains on other types of tasks; else as it is."""
    return replace(given, sources=(replace(given, name="other"),)) if STRATEGIES[name].other_types else given


def options(name: str, **more: Any) -> Options:
    """A strategy's options, small enough for the tiny models."""
    return STRATEGIES[name].Options.model_validate({**SMALL.get(name, {}), **more})


Snapshot = dict[int, tuple[str, torch.nn.Parameter, torch.Tensor]]


def snapshot(*modules: torch.nn.Module) -> Snapshot:
    """Copies of all parameters by identity: names change when a wrapper goes around a layer, the objects stay."""
    return {id(p): (n, p, p.detach().clone()) for m in modules for n, p in m.named_parameters()}


def changed(before: Snapshot) -> dict[int, str]:
    """Which of them differ now in any bit, by identity."""
    return {i: name for i, (name, now, then) in before.items() if not torch.equal(now.detach(), then)}


@dataclass
class Driven:
    """One cell that ran to its end, or why it was refused."""

    base: Base
    context: TaskContext
    budget: Budget
    originals: Snapshot
    refused: str | None = None
    plan: Plan | None = None
    prepared: Snapshot = field(default_factory=dict)
    """Every parameter there is after `prepare`, before training."""
    meter: Meter = field(default_factory=Meter)
    trained: Trained = field(default_factory=Trained)
    scores: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    @property
    def labels_used(self) -> int:
        """As the worker counts them."""
        assert self.plan is not None
        return len(self.context.train) if self.plan.labels_used is None else self.plan.labels_used


def drive(
    name: str,
    family: str,
    readout: str,
    seed: int = 0,
    labels: int = LABELS,
    more: dict[str, Any] | None = None,
    **axis: Any,
) -> Driven:
    """What the worker does with a cell, without process, ledger and record."""
    torch.set_num_threads(1)
    strategy, model, budget = (
        STRATEGIES[name],
        base(family),
        Budget(labels=labels, **(axis or {"train_examples": EXAMPLES})),
    )
    done = Driven(
        model, with_source(name, context(readout, labels, seed, task=task_of(name))), budget, snapshot(model.module)
    )
    seed_everything(seed)
    try:
        refuse_what_is_missing(strategy, model, done.context)
        done.meter = Meter(budget)
        plan = strategy.prepare(model, done.context, options(name, **(more or {})))
        modules = [model.module, *([plan.module] if plan.module is not None else [])]
        done.prepared = snapshot(*modules) | {
            id(p): ("group", p, p.detach().clone()) for g in plan.groups for p in g.params
        }
        done.meter.watch(plan.seen)
        done.trained = adapt(plan, done.context, done.meter)
        done.meter.unwatch()
        done.scores = plan.answer.predict(rows_of(name).test.fields, Meter())
        done.plan = plan
    except Unsupported as error:
        done.refused = str(error)
    return done


@cache
def driven(name: str, family: str, readout: str) -> Driven:
    """A cell with the usual budget, run once for all tests that look at it."""
    return drive(name, family, readout)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


@contextmanager
def plainly(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scores with a row a choice, whatever could stand side by side in one."""
    with monkeypatch.context() as patch:
        patch.setattr("bench.score.adapted.can_stand_beside", lambda base, module: False)
        yield


def steps_take(monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """Metered steps take these times in turn, over and over, whatever the machine is doing beside."""
    clock = partial(next, accumulate(cycle(seconds), initial=0.0))
    monkeypatch.setattr("bench.budget.time", SimpleNamespace(perf_counter=clock))
