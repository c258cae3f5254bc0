"""Which tasks instruction tuning trains on: none of the type that is scored, none kept for the test."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import tiny
import torch

from bench import plan as planning
from bench.config import load
from bench.errors import UserFault
from bench.job import Job
from bench.records import Result, Status
from bench.store import read_result
from bench.strategy import Examples, Plan
from bench.worker import Cell, run_cell

torch.set_num_threads(1)
SST2, COLA, RTE, MRPC = "sst2", "cola", "rte", "mrpc"


def jobs(tmp_path: Path, *tokens: str) -> list[Job]:
    """Cells of `suite=instruct-small` on a tiny model and the bundled sample."""
    common = ["suite=instruct-small", "model=random:tiny-llama", "data.source=sample", "budget.labels=12", "threads=1",
              "budget.train_examples=40", "batch=4", "sequence=96", "device=cpu", f"results_dir={tmp_path}"]  # fmt: skip
    return planning.make(load([*common, *tokens])).jobs


def recorded(job: Job) -> Result:
    """The record of one cell, run here."""
    Path(job.folder).mkdir(parents=True)
    assert run_cell(job, partial(tiny.base, "tiny-llama"), lambda phase, share: None) == 0
    return read_result(Path(job.folder) / "result.json")


def examples_of(plan: Plan) -> Examples:
    assert plan.examples is not None
    return plan.examples()


def test_no_task_of_the_scored_type_is_trained_on(tmp_path: Path) -> None:
    """Two tasks share a type: neither is a source of the other's cell, and both train for a third."""
    more = ["tasks=sst2,rte,cola,mrpc", "strategies=instruct", "tasks.rte.role=both", "tasks.mrpc.role=both",
            "tasks.mrpc.type=inference", "tasks.mrpc.splits.test=validation"]  # fmt: skip
    found = {job.cell.task: job for job in jobs(tmp_path, *more)}
    assert set(found) == {SST2, RTE, MRPC}, "cola only trains"
    assert {name: list(job.cell.sources) for name, job in found.items()} == {
        SST2: [COLA, MRPC, RTE], RTE: [COLA], MRPC: [COLA],
    }  # fmt: skip
    assert {name: job.cell.held_out for name, job in found.items()} == {
        SST2: "sentiment", RTE: "inference", MRPC: "inference",
    }  # fmt: skip


def test_a_task_without_a_type_is_a_type_of_its_own(tmp_path: Path) -> None:
    [job] = jobs(tmp_path, "tasks=sst2,cola", "strategies=instruct", "tasks.sst2.type=null", "tasks.cola.type=null")
    assert job.cell.held_out == SST2 and list(job.cell.sources) == [COLA]


def test_what_is_read_is_other_tasks_alone(tmp_path: Path) -> None:
    """The record counts no label of the scored task, and as many of the others as were trained on."""
    [job] = jobs(tmp_path, "tasks=sst2,cola,mrpc", "strategies=instruct", "budget.train_examples=24")
    result = recorded(job)
    assert result.outcome.status is Status.ok, result.outcome.reason
    assert result.used is not None and (result.used.labels, result.used.source_labels) == (0, 24)
    assert result.cell.held_out == "sentiment" and result.training is not None
    [note] = [note for note in result.notes if note.startswith("Trained on no task of type sentiment")]
    assert note.endswith("but on cola (acceptability, 12 rows), mrpc (paraphrase, 12 rows).")
    assert not [name for name, _ in examples_of(plan_of(job)).items if name == SST2]
    assert {name for name, _ in examples_of(plan_of(job)).items} == {COLA, MRPC}


def plan_of(job: Job) -> Plan:
    """The plan that a worker makes for a job."""
    base = tiny.base("tiny-llama")
    cell = Cell(job, lambda: base, lambda phase, share: None)
    return cell.prepared(base, cell.opened(base)[0])


def test_rows_come_in_the_formats_of_their_task(tmp_path: Path) -> None:
    """CoLA has three templates and material for more: ten formats, and a row keeps the one it drew."""
    [job] = jobs(tmp_path, "tasks=sst2,cola", "strategies=instruct", "budget.labels=64")
    assert [len(s.formats) for s in job.sources] == [10] and job.formats == []
    plan = plan_of(job)
    tokenizer = tiny.base("tiny-llama").tokenizer
    told = [tokenizer.decode(one.ids, skip_special_tokens=True) for one in examples_of(plan).encoded]
    openings = {text.split(" ")[0] for text in told}
    assert len(openings) > 4 and told == [tokenizer.decode(o.ids, skip_special_tokens=True)
                                          for o in examples_of(plan_of(job)).encoded]  # fmt: skip
    [single] = jobs(tmp_path, "tasks=sst2,cola", "strategies=instruct", "strategies.instruct.formats_in_training=1")
    assert single.cell.id != job.cell.id and [len(s.formats) for s in single.sources] == [1]


def test_material_for_formats_is_part_of_the_identity(tmp_path: Path) -> None:
    """It decides what is trained on here, as it does nowhere else; the scored task's own does not."""
    ids = [
        jobs(tmp_path, "tasks=sst2,cola", "strategies=instruct", *more)[0].cell.id
        for more in ([], ["tasks.cola.formats.fields.text=[Words]"], ["tasks.sst2.formats.fields.text=[Words]"])
    ]
    assert ids[0] != ids[1] and ids[0] == ids[2]


def test_a_run_of_one_type_is_unsupported_in_words(tmp_path: Path) -> None:
    [job] = jobs(tmp_path, "tasks=sst2", "strategies=instruct")
    outcome = recorded(job).outcome
    assert outcome.status is Status.unsupported and "choose tasks of two types or more" in (outcome.reason or "")


def test_a_task_kept_for_the_test_is_no_source(tmp_path: Path) -> None:
    [job, _] = jobs(tmp_path, "tasks=sst2,rte,cola", "strategies=lora", "strategies.lora.sources=all")
    assert (job.cell.task, list(job.cell.sources)) == (SST2, [COLA]), "rte has role: test"
    with pytest.raises(UserFault, match="instruct.sources: rte has role: test, so no other task trains on it; allowed"):
        jobs(tmp_path, "tasks=sst2,rte,cola", "strategies=instruct", "strategies.instruct.sources=[rte]")


def test_tasks_that_only_train_are_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match=r"cola, mrpc only train others \(role: train\); allowed: a task to score"):
        jobs(tmp_path, "tasks=cola,mrpc", "strategies=instruct")


def test_more_labels_are_other_cells(tmp_path: Path) -> None:
    """It reads no label of its own task, and the curve runs over its sources' all the same."""
    curve = ["suite=instruct-small", "model=random:tiny-llama", "data.source=sample", "tasks=sst2,cola", "device=cpu",
             "strategies=instruct,zero_shot", "budget.curve=[4,8]", f"results_dir={tmp_path}"]  # fmt: skip
    found = planning.make(load(curve)).jobs
    assert [(j.cell.strategy, j.cell.budget["labels"]) for j in found] == [
        ("instruct", 4), ("instruct", 8), ("zero_shot", 4),
    ]  # fmt: skip
