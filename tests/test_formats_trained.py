"""A cell trained on several prompt formats, on tiny models."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import PROBE, STRATEGIES

from bench import plan as planning
from bench.budget import Meter
from bench.config import load
from bench.config.schema import Budget
from bench.data.formats import sample
from bench.outcomes import refuse_what_is_missing
from bench.probes.formats import ask
from bench.records import Result, Status
from bench.store import read_result
from bench.strategy import Unsupported
from bench.train.loop import adapt
from bench.worker import run_cell, seed_everything

NAMES = sorted(STRATEGIES)


def taught(name: str, family: str, readout: str, number: int = 3) -> Any:
    """A finished cell that trains on several formats, and its plan's examples; or why it was refused."""
    torch.set_num_threads(1)
    formats = tuple(f.template for f in sample(tiny.task(), number, 0, chat=False))
    context, base = tiny.context(readout, formats=formats), tiny.base(family)
    refuse_what_is_missing(STRATEGIES[name], base, context)
    seed_everything(0)
    plan = STRATEGIES[name].prepare(base, context, tiny.options(name))
    if plan.formats < number:
        return plan, context, None
    meter = Meter(Budget(labels=tiny.LABELS, train_examples=number * tiny.LABELS))
    meter.watch(plan.seen)
    done = adapt(plan, context, meter)
    meter.unwatch()
    return plan, context, (meter, done)


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in NAMES
        if "lr" in STRATEGIES[n].Options.model_fields
        and n not in ("adapter_fusion", "frozen")
        and not STRATEGIES[n].other_types  # every row of a source in a format of its own (tests/test_instruct.py)
        and n not in ("ppo", "grpo")  # stages, of which each has one format
        and not STRATEGIES[n].needs.pairs  # rows hold the answers, which no format can reword
    ],
)
@pytest.mark.parametrize("readout", ["verbalizer", "head"])
def test_every_gradient_strategy_trains_on_several_formats(name: str, readout: str) -> None:
    """Each labelled row once in each format; labels counted once; the head, where there is one, shared."""
    if readout not in STRATEGIES[name].readouts:
        pytest.skip("it has no such readout")
    # PEFT's OFT knows no layer of GPT-2, and Llama has no biases
    plan, context, done = taught(name, "tiny-llama" if name == "peft" else "tiny-gpt2", readout)
    assert done is not None and plan.examples is not None
    meter, trained = done
    examples = plan.examples()
    assert Counter(examples.groups) == dict.fromkeys(range(3), tiny.LABELS)
    assert meter.examples == 3 * tiny.LABELS and len(trained.read) == tiny.LABELS
    encoded = {g: [e.ids for e in examples.encoded if e.group == g] for g in range(3)}
    assert len({tuple(map(tuple, ids)) for ids in encoded.values()}) == 3, "the formats are read apart"
    listed = [id(p) for g in plan.groups for p in g.params]
    assert len(listed) == len(set(listed))
    findings = ask(plan, context, tiny.rows().test, PROBE, Meter())
    assert [a.trained_on for a in findings.answers] == [True] * 3 + [False] * 7


@pytest.mark.parametrize("name", ["zero_shot", "few_shot", "autoprompt", "adapter_fusion", "ppo", "grpo"])
def test_what_would_not_train_on_them_says_so_in_its_plan(name: str) -> None:
    plan, _, done = taught(name, "tiny-gpt2", "verbalizer")
    assert done is None and plan.formats == 1


def test_an_encoders_head_cannot_train_on_formats() -> None:
    with pytest.raises(Unsupported, match="which no prompt can change"):
        taught("lora", "tiny-bert", "head")


def recorded(tmp_path: Path, *tokens: str) -> list[Result]:
    """Records of cells of `suite=glue-all` on a tiny model and the bundled sample."""
    common = ["suite=glue-all", "model=random:tiny-llama", "data.source=sample", "budget.labels=8", "threads=1",
              "budget.train_examples=24", "batch=4", "sequence=128", "device=cpu", f"results_dir={tmp_path}"]  # fmt: skip
    results = []
    for job in planning.make(load([*common, *tokens])).jobs:
        Path(job.folder).mkdir(parents=True)
        assert run_cell(job, partial(tiny.base, "tiny-llama"), lambda phase, share: None) == 0
        results.append(read_result(Path(job.folder) / "result.json"))
    return results


def test_a_worker_trains_on_formats_within_the_same_budget(tmp_path: Path) -> None:
    """Eight labels in three formats are 24 examples; the record names them by digest."""
    [result] = recorded(tmp_path, "tasks=sst2", "strategies=lora", "strategies.lora.formats_in_training=3")
    assert result.outcome.status is Status.ok, result.outcome.reason
    assert result.used is not None and (result.used.labels, result.used.train_examples) == (8, 24)
    assert result.cell.formats_digest is not None


def test_formats_and_sources_work_together(tmp_path: Path) -> None:
    """Every task of the set in its own formats; the same digest and the same training, whichever task is scored."""
    tokens = ["tasks=sst2,rte", "strategies=lora_multitask", "strategies.lora_multitask.formats_in_training=2"]
    first, second = recorded(tmp_path, *tokens)
    assert first.outcome.status is Status.ok, first.outcome.reason
    assert first.training is not None and second.training is not None
    assert first.training.losses == second.training.losses
    assert first.cell.formats_digest == second.cell.formats_digest is not None


@pytest.mark.parametrize("name", ["zero_shot", "frozen", "adapter_fusion"])
def test_a_worker_refuses_formats_that_would_not_be_trained_on(name: str, tmp_path: Path) -> None:
    [result] = recorded(
        tmp_path,
        "tasks=sst2",
        f"strategies={name}",
        f"strategies.{name}.sources=[]",
        f"strategies.{name}.formats_in_training=2",
    )
    assert result.outcome.status is Status.unsupported
    assert "does not train on several prompt formats: take away formats_in_training, or use lora" in (
        result.outcome.reason or ""
    )
