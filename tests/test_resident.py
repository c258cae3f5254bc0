"""Resident memory: what the predictor says of it, against a process that was measured."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import plan
from bench.config import load
from bench.forecast import predictor
from bench.measure.memory import resident
from bench.models.build import build
from bench.models.parts import touch
from bench.predict.heap import Heap, known
from bench.process import ALLOCATOR
from bench.records import Phase, Predicted, Status
from bench.store import read_result
from bench.warm import host_environment

glibc = pytest.mark.skipif(not known(), reason="asks glibc's allocator")
MIB = 2**20
SUITE = """name: resident
model: random:tiny-gpt2
tasks:
  letters:
    data: {random: 8}
    splits: {train: train, test: test}
    kind: classify
    columns: {text: text, label: label}
    labels: ["a", "b"]
    templates: [{pattern: "{text}", verbalizer: {"a": "a", "b": "b"}}]
    metric: accuracy
strategies: {full: {}, lora: {}}
batch: 8
sequence: 480
budget: {labels: 8, train_examples: 16}
"""


@glibc
def test_resident_memory_of_a_cell_is_foretold(tmp_path: Path) -> None:
    (tmp_path / "resident.yaml").write_text(SUITE)
    tokens = [f"suite={tmp_path}/resident.yaml", f"results_dir={tmp_path}", f"reports_dir={tmp_path}", "threads=1"]
    tokens += ["device=cpu", "seeds=3"]
    run = [sys.executable, "-m", "bench", "run", *tokens, "predict=false"]  # asked for below, of one process
    subprocess.run(run, check=True, capture_output=True)
    jobs = plan.make(load(tokens)).jobs
    with predictor() as one:
        told = {job.cell.strategy: Predicted.model_validate(one.ask(job, False)).phases["adapt"] for job in jobs}
        on_card = Predicted.model_validate(one.ask(jobs[0], True)).phases["adapt"]
    assert on_card.resident_bytes is on_card.held_bytes is None
    model = build(jobs[0].model, "fp32").module
    weights = sum(one.nbytes for one in (*model.parameters(), *model.buffers()))
    for strategy, foretold in told.items():
        results = [read_result(Path(job.folder) / "result.json") for job in jobs if job.cell.strategy == strategy]
        assert {result.outcome.status for result in results} == {Status.ok}
        # one process's heap may hold a tenth more than its twin's: the middle one of three is what is foretold
        grown = statistics.median(grown_by(result.phases["adapt"]) for result in results)
        assert foretold.resident_bytes == pytest.approx(grown, rel=0.12), strategy
        assert foretold.held_bytes == weights
        assert foretold.resident_bytes > foretold.peak_bytes  # libraries and holes come on top of so small a model


def grown_by(phase: Phase) -> int:
    """Resident bytes at the peak over those at the phase's start."""
    assert phase.peak_rss_bytes is not None and phase.baseline_rss_bytes is not None
    return phase.peak_rss_bytes - phase.baseline_rss_bytes


@glibc
def test_blocks_count_and_take_no_memory() -> None:
    heap, before = Heap(), resident()
    heap.begin()
    blocks = [heap.allocate(20 * MIB) for _ in range(10)] + [heap.allocate(64 * MIB)]
    assert 264 * MIB <= heap.grown() < 270 * MIB
    assert resident() - before < 20 * MIB
    for block in blocks:
        heap.free(block)
    assert heap.mapped == 0


REUSE = """
from bench.predict.heap import Heap
heap = Heap()
block, last = heap.allocate(20 << 20), heap.allocate(1 << 20)
heap.free(block)
heap.begin()
assert heap.grown() == 0
heap.free(heap.allocate(10 << 20))
block = heap.allocate(10 << 20)
print(heap.grown())
"""


@glibc
def test_memory_used_again_counts_once() -> None:
    """In a process with a cell's allocator: this one's has a history."""
    told = subprocess.run(
        [sys.executable, "-c", REUSE],
        env={**os.environ, **host_environment()},
        check=True,
        capture_output=True,
        text=True,
    )
    assert 10 * MIB <= int(told.stdout) < 11 * MIB


def test_weights_of_a_mapped_file_are_there_after_a_touch(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(32 * MIB))
    module = nn.Module()
    module.weight = nn.Parameter(torch.from_file(str(file), size=8 * MIB, dtype=torch.float32), requires_grad=False)
    before = resident()
    touch(module)
    assert resident() - before > 30 * MIB
    assert module.weight.numpy().tobytes() == file.read_bytes()


def test_the_allocator_is_the_users_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert host_environment()["GLIBC_TUNABLES"] == ALLOCATOR
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.perturb=1")
    assert host_environment()["GLIBC_TUNABLES"] == "glibc.malloc.perturb=1"
