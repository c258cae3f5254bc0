"""Whether the engine repeats itself: the same tiny cells again, with other threads, with other scoring batches.

Cells run in processes of their own, as always; this one never imports torch.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console

from bench import plan
from bench.config import load
from bench.models.cache import ensure
from bench.process import importable
from bench.records import NEAR_TIE, Result, Status
from bench.run import held, run_all, write_plan
from bench.run import launched as warm_launcher
from bench.selftest.figures import Figure
from bench.store import read_plan, read_result

STRATEGIES = ("few_shot", "lora", "full")
"""One that trains nothing, one that trains a part, one that trains all."""
INSIDE: dict[str, tuple[int | None, int]] = {"small": (1, 1), "large": (64 * 1024, 1), "threads": (None, 2)}
"""Run -> padded tokens of a scoring batch (1: a row each; None: the usual), and threads."""


@dataclass(frozen=True)
class Ran:
    """A run below its own folder, with the records of its cells in order."""

    folder: Path
    results: list[Result]

    @property
    def run_dir(self) -> Path:
        """Where its records are."""
        return self.folder / "results" / "smoke"


def tokens(folder: Path, *more: str) -> list[str]:
    """A run of tiny random cells on the bundled sample, with everything below `folder`."""
    return [
        "suite=smoke", "model=random:tiny-gpt2", f"strategies={','.join(STRATEGIES)}", "tasks.sst2.limit=60",
        "budget.labels=16", "budget.train_examples=32", "batch=4", "sequence=64", "threads=1", "device=cpu",
        "data.source=sample", "predict=false", "keep_adapters=false", f"results_dir={folder / 'results'}",
        f"reports_dir={folder / 'reports'}", *more,
    ]  # fmt: skip


def launched(folder: Path) -> Ran:
    """The cells as the run command carries them out: each in a process of its own."""
    request = load(tokens(folder))
    planned, run_dir = plan.make(request), Ran(folder, []).run_dir
    with open(os.devnull, "w") as nowhere, held(run_dir), warm_launcher(request, run_dir) as launcher:
        write_plan(request, planned, run_dir)
        for ref in planned.models.values():
            ensure(ref)
        run_all(request, planned.jobs, launcher, Console(file=nowhere))
    return Ran(folder, [read_result(Path(job.folder) / "result.json") for job in planned.jobs])


def inside(folder: Path) -> dict[str, Ran]:
    """The same cells all in one process, once for each of `INSIDE`."""
    orders = [
        {"size": size, "tokens": tokens(folder / name, f"threads={threads}")}
        for name, (size, threads) in INSIDE.items()
    ]
    done = subprocess.run(
        [sys.executable, "-m", "bench.selftest.inside"],
        input=json.dumps(orders),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **importable()},
    )
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"the cells could not be run in one process: {last}")
    return {name: ran(folder / name) for name in INSIDE}


def ran(folder: Path) -> Ran:
    """A run that is on disk."""
    run_dir = Ran(folder, []).run_dir
    cells = read_plan(run_dir / "plan.json").cells
    return Ran(folder, [read_result(run_dir / cell.id / "result.json") for cell in cells])


def figures(folder: Path) -> list[Figure]:
    """All figures of the engine; runs are kept below `folder`, which must be empty."""
    first, again = launched(folder / "first"), launched(folder / "again")
    one = inside(folder)
    return [
        same("the same cells again: other answers or scores", first, again, exactly=True),
        same("processes of their own or one, 1 thread or 2: other answers, near-ties apart", first, one["threads"]),
        same("a row or all rows a scoring batch: other answers, near-ties apart", one["small"], one["large"]),
        near_ties(first),
    ]


def near_ties(found: Ran) -> Figure:
    """How many answers hang on a near-tie, by strategy: what the comparisons above would let go."""
    values = {}
    for one in found.results:
        if one.outcome.status == Status.ok:
            scores = label_scores(pq.read_table(found.run_dir / one.cell.id / "predictions.parquet"))
            values[one.cell.strategy] = float((margins(scores) < NEAR_TIE).sum())
    return Figure(f"answers whose best two scores lie within {NEAR_TIE:g} nats", values, share=False)


def same(name: str, first: Ran, second: Ran, exactly: bool = False) -> Figure:
    """How many answers differ between two runs, by strategy; cells that are not ok differ in everything.

    Answers that hang on a near-tie in both runs are let go; but where `exactly`, label scores and every recorded metric
    must be the same to the last bit.
    """
    pairs = zip(first.results, second.results, strict=True)
    values = {one.cell.strategy: differing(first, one, second, other, exactly) for one, other in pairs}
    return Figure(name, values, 0, 0, share=False)


def differing(first: Ran, one: Result, second: Ran, other: Result, exactly: bool) -> float:
    """Answers of two records of one cell that differ; infinite where one is not ok or answers other items."""
    if one.outcome.status != Status.ok or other.outcome.status != Status.ok or one.cell.id != other.cell.id:
        return math.inf
    tables = [pq.read_table(ran.run_dir / one.cell.id / "predictions.parquet") for ran in (first, second)]
    if tables[0].column_names != tables[1].column_names or tables[0]["row"] != tables[1]["row"]:
        return math.inf
    predicted = [table["predicted"].to_numpy() for table in tables]
    scores = [label_scores(table) for table in tables]
    changed = predicted[0] != predicted[1]
    if exactly:
        return float((changed | (scores[0] != scores[1]).any(axis=1)).sum()) + (one.scores != other.scores)
    return float((changed & ~(np.maximum(*map(margins, scores)) < NEAR_TIE)).sum())


def label_scores(table: pa.Table) -> NDArray[np.floating]:
    """The log-probability of every label, (items, labels)."""
    names = [name for name in table.column_names if name.startswith("score_")]
    return np.stack([table[name].to_numpy() for name in names], axis=1)


def margins(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """How far the best label lies above the next, (items,), of scores (items, labels)."""
    found: NDArray[np.floating] = np.diff(np.sort(scores, axis=1)[:, -2:], axis=1)[:, 0]
    return found
