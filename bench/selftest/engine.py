"""Whether the engine repeats itself: the same tiny cells again, with other threads, with other scoring batches.

Cells run in processes of their own, as always; this one never imports torch.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console

from bench.config import load
from bench.records import NEAR_TIE, Result, Status
from bench.run import execute
from bench.selftest.figures import Figure
from bench.store import read_plan, read_result

STRATEGIES = ("few_shot", "lora", "full")
"""One that trains nothing, one that trains a part, one that trains all."""
BATCHES = (64, 8192)
"""Padded tokens of a scoring batch that must give the same answers: a row or two, and nearly all."""

RUNS: dict[str, tuple[str, ...]] = {"first": (), "again": (), "threads": ("threads=2",)}
"""Run -> what is different in it."""


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


def run(folder: Path, *more: str) -> list[Result]:
    """The run command, silent; the records of its cells."""
    with open(os.devnull, "w") as nowhere:
        return execute(load(tokens(folder, *more)), Console(file=nowhere))


def batched(folder: Path, size: int) -> list[Result]:
    """The same cells with `size` padded tokens a scoring batch, in a process that may import torch."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.selftest.batches", str(size), *tokens(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    run_dir = folder / "results" / "smoke"
    if done.returncode:
        raise RuntimeError(f"scoring in batches of {size} tokens failed: {done.stderr.strip()[-500:]}")
    return [read_result(run_dir / cell.id / "result.json") for cell in read_plan(run_dir / "plan.json").cells]


def figures(folder: Path) -> list[Figure]:
    """All figures of the engine; runs are kept below `folder`, which must be empty."""
    runs = {name: Ran(folder / name, run(folder / name, *more)) for name, more in RUNS.items()}
    small, large = (Ran(folder / f"{size}", batched(folder / f"{size}", size)) for size in BATCHES)
    return [
        same("the same cells again: other answers or scores", runs["first"], runs["again"], exactly=True),
        same("1 thread and 2: other answers, near-ties apart", runs["first"], runs["threads"]),
        same(f"scoring {BATCHES[0]} and {BATCHES[1]} tokens at once: other answers, near-ties apart", small, large),
    ]


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
    names = [name for name in tables[0].column_names if name.startswith("score_")]
    scores = [np.stack([table[name].to_numpy() for name in names], axis=1) for table in tables]
    changed = predicted[0] != predicted[1]
    if exactly:
        return float((changed | (scores[0] != scores[1]).any(axis=1)).sum()) + (one.scores != other.scores)
    margins = [np.diff(np.sort(each, axis=1)[:, -2:], axis=1)[:, 0] for each in scores]
    return float((changed & ~(np.maximum(*margins) < NEAR_TIE)).sum())
