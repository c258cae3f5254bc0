"""What makes a cell another cell and what does not; and that every bundled suite plans."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bench import plan as planning
from bench.config import load, suite_names
from bench.data.sources import samples_folder
from bench.plan import Planned

MIRROR = os.environ.get("BENCH_MIRROR")


def planned(*tokens: str) -> Planned:
    """A plan of small cells on the sample."""
    return planning.make(
        load(["suite=smoke", "model=random:tiny-gpt2", "data.source=sample", "strategies=lora", "device=cpu", *tokens])
    )


def ids(*tokens: str) -> list[str]:
    """Cell ids of a plan."""
    return [job.cell.id for job in planned(*tokens).jobs]


@pytest.mark.parametrize(
    "token",
    ["strategies.lora.r=3", "strategies.lora.readout=head", "seeds=[1]", "budget.labels=9", "budget.train_examples=9",
     "budget.train_tokens=9", "budget.memory_gib=3", "tasks.sst2.limit=9", "tasks.sst2.templates=[{pattern: '{text} so:', "
     "verbalizer: {negative: ' bad', positive: ' good'}}]", "tasks.sst2.metric=matthews", "tasks.sst2.splits.test=dev",
     "batch=2", "sequence=72", "precision=bf16", "readout=head", "model=random:tiny-llama",
     "tasks.sst2.data.sample=cola.jsonl", "tasks.sst2.columns.text=sentence tasks.sst2.positive=negative"],
)  # fmt: skip
def test_what_changes_a_result_changes_the_id(token: str) -> None:
    """Options, seed, budget with caps, template, data, model: another cell."""
    more = [token] if "{" in token else token.split()
    assert ids(*more) != ids()


@pytest.mark.parametrize(
    "token",
    ["results_dir=elsewhere", "reports_dir=elsewhere", "threads=1", "run.name=other", "run.cell_seconds=5", "rerun=all",
     "keep_adapters=false", "description=words", "strategies.lora.r=4", "tasks.sst2.batch=8"],
)  # fmt: skip
def test_how_it_runs_does_not_change_the_id(token: str) -> None:
    """Folders, threads, names and what is written out but equal to the default: the same cell."""
    assert ids(token) == ids()


@pytest.mark.parametrize(("axis", "numerics"), [("train_examples", 4), ("train_seconds", 4), ("train_flops", 5)])
def test_only_cells_that_flops_bind_are_of_the_fifth_numerics(axis: str, numerics: int) -> None:
    """What a step may cost that was not yet counted was mended for them; records of all others stand."""
    assert {job.cell.numerics for job in planned(f"budget.{axis}=1000").jobs} == {numerics}


def test_other_cells_beside_it_do_not_change_the_id() -> None:
    """A cell of a larger suite is the cell of a smaller one; its digest is in its name with task, strategy and seed."""
    [alone] = ids()
    assert alone in ids("strategies=full,lora", "seeds=2")
    assert alone.startswith("sst2-lora-s0-") and len(alone.rpartition("-")[2]) == 8


def test_the_data_changes_the_id(tmp_path: Path) -> None:
    """One changed byte in a user's file is another fingerprint, another cell."""
    for name in ("train", "validation"):
        shutil.copy(samples_folder() / "sst2.jsonl", tmp_path / f"{name}.jsonl")
    token = f"tasks.sst2.data={{path: {tmp_path}, sample: null}}"
    before = ids(token)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write("\n")
    assert ids(token) != before


def test_an_unseeded_strategy_runs_once() -> None:
    """zero_shot has one cell whatever `seeds` says; lora one a seed."""
    assert len(ids("strategies=zero_shot", "seeds=3")) == 1 and len(ids("seeds=3")) == 3


@pytest.mark.parametrize("name", suite_names())
def test_every_bundled_suite_plans(name: str) -> None:
    """It loads, every strategy and option in it exists, and every cell has its own id."""
    tasks = load([f"suite={name}"]).suite.tasks.values()
    bundled = all(task.data.own or task.data.sample for task in tasks)
    if not bundled and not MIRROR:
        pytest.skip("a task of it has no bundled sample, and there is no mirror of real data (BENCH_MIRROR)")
    source = ["data.source=sample"] if bundled else ["data.source=mirror", f"data.mirror={MIRROR}"]
    made = planning.make(load([f"suite={name}", *source]))
    assert len({job.cell.id for job in made.jobs}) == len(made.jobs) > 0
    assert load([f"suite={name}"]).suite.name == name


def test_the_small_suite_stays_small() -> None:
    """An hour is the promise: at most nine strategies, four tasks, one seed."""
    suite = load(["suite=glue-small"]).suite
    assert len(suite.strategies) <= 9 and len(suite.tasks) <= 4 and len(suite.seeds) == 1
