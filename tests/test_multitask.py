"""One adaptation over several tasks: the same for every task of the set, scored on each, its source labels apart."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import tiny

from bench import plan as planning
from bench.config import load
from bench.errors import UserFault
from bench.job import Job
from bench.records import Result, Status
from bench.store import read_result
from bench.worker import run_cell


def jobs(tmp_path: Path, *tokens: str) -> list[Job]:
    """Cells of `suite=glue-all` on a tiny model and the bundled sample."""
    common = ["suite=glue-all", "model=random:tiny-llama", "data.source=sample", "budget.labels=8", "threads=1",
              "budget.train_examples=24", "batch=4", "sequence=64", "device=cpu", f"results_dir={tmp_path}"]  # fmt: skip
    return planning.make(load([*common, *tokens])).jobs


def recorded(job: Job) -> Result:
    """The record of one cell, run here."""
    Path(job.folder).mkdir(parents=True)
    assert run_cell(job, partial(tiny.base, "tiny-llama"), lambda phase, share: None) == 0
    return read_result(Path(job.folder) / "result.json")


@pytest.mark.parametrize("readout", ["verbalizer", "head"])
@pytest.mark.parametrize("strategy", ["lora_multitask", "full_multitask"])
def test_every_task_of_a_set_gets_the_same_adaptation(strategy: str, readout: str, tmp_path: Path) -> None:
    """Stored weights are equal byte by byte, whichever task the cell is of; scores are its own task's."""
    done = {}
    for job in jobs(tmp_path, "tasks=sst2,rte,cola", f"strategies={strategy}", f"readout={readout}"):
        result = recorded(job)
        assert result.outcome.status is Status.ok, result.outcome.reason
        assert result.used is not None and (result.used.labels, result.used.source_labels) == (8, 16)
        assert result.used.train_examples == 24, "sources are trained within the same budget"
        assert set(result.cell.sources) == {"sst2", "rte", "cola"} - {result.cell.task}
        assert result.scores is not None and result.cell.metric in result.scores
        stored = Path(job.folder) / "adapted"
        done[result.cell.task] = {
            f.name: f.read_bytes() for f in stored.iterdir() if f.name.endswith("safetensors") and "head" not in f.name
        }
    assert set(done) == {"sst2", "rte", "cola"} and done["sst2"]
    assert done["sst2"] == done["rte"] == done["cola"]


def test_a_single_task_trains_apart_and_has_another_identity(tmp_path: Path) -> None:
    """The multitask cell stands beside the single-task one: other id, because its data and task set are part of it."""
    [alone] = jobs(tmp_path, "tasks=sst2", "strategies=lora")
    two, three = (jobs(tmp_path, f"tasks={t}", "strategies=lora_multitask")[0] for t in ("sst2,rte", "sst2,rte,cola"))
    assert (
        alone.cell.sources == {} and list(two.cell.sources) == ["rte"] and list(three.cell.sources) == ["cola", "rte"]
    )
    assert len({alone.cell.id, two.cell.id, three.cell.id}) == 3
    assert (two.position, jobs(tmp_path, "tasks=sst2,rte", "strategies=lora_multitask")[1].position) == (1, 0)


def test_without_another_task_it_is_unsupported_in_words(tmp_path: Path) -> None:
    """A selection that leaves one task leaves nothing to train together with."""
    [job] = jobs(tmp_path, "tasks=sst2", "strategies=lora_multitask")
    outcome = recorded(job).outcome
    assert outcome.status is Status.unsupported and "choose two tasks or more" in (outcome.reason or "")


@pytest.mark.parametrize("strategy", ["zero_shot", "frozen", "autoprompt"])
def test_what_trains_on_one_task_only_says_so(strategy: str, tmp_path: Path) -> None:
    """Sources given to a strategy that would not read them are refused, not ignored."""
    job = jobs(tmp_path, "tasks=sst2,rte", f"strategies={strategy}", f"strategies.{strategy}.sources=all")[0]
    outcome = recorded(job).outcome
    assert outcome.status is Status.unsupported and "trains on one task only" in (outcome.reason or "")


def test_named_sources_come_by_name(tmp_path: Path) -> None:
    """However they are listed, so that every task of the set trains alike."""
    [job, *_] = jobs(tmp_path, "tasks=sst2,mrpc,rte,cola", "strategies=lora", "strategies.lora.sources=[cola,mrpc]")
    assert [s.name for s in job.sources] == ["cola", "mrpc"]


def test_the_order_tasks_are_named_in_changes_nothing(tmp_path: Path) -> None:
    """The same cells with the same ids, sources and places in the set."""
    one = jobs(tmp_path, "tasks=sst2,rte", "strategies=lora_multitask")
    other = jobs(tmp_path, "tasks=rte,sst2", "strategies=lora_multitask")
    look = lambda found: {(j.cell.id, j.position, tuple(s.name for s in j.sources)) for j in found}  # noqa: E731
    assert look(one) == look(other)


def test_only_labels_that_were_read_are_counted(tmp_path: Path) -> None:
    """A budget of eight examples reads two batches of four: eight labels in all, of whichever tasks."""
    [job, _] = jobs(tmp_path, "tasks=sst2,rte", "strategies=lora_multitask", "budget.train_examples=8")
    used = recorded(job).used
    assert used is not None and used.labels + used.source_labels == 8
    [job] = jobs(tmp_path, "tasks=sst2", "strategies=lora", "budget.train_examples=5")
    used = recorded(job).used
    assert used is not None and (used.labels, used.source_labels) == (5, 0)


def test_tasks_read_in_different_ways_are_not_trained_together(tmp_path: Path) -> None:
    """A task with a batch of its own would make the adaptation depend on which task is scored."""
    with pytest.raises(UserFault, match="sst2 and rte have each their own batch"):
        jobs(tmp_path, "tasks=sst2,rte", "strategies=lora_multitask", "tasks.sst2.batch=2")
