"""A sweep in one run against the same cells as separate scripts, one process each, none of which draws a report.

    python -m benchmarks.sweep [MIRROR] [rounds=1] [seeds=2]

A separate script is the order of one cell, carried out by a fresh process: it imports the stack, loads the model, reads
and tokenises the data, trains, scores and writes its record. Both sides have one thread and foretell no memory. The
last line is JSON; exit 1 where a prediction is not the same on both sides, byte for byte.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import plan
from bench.config import load
from bench.job import Job
from benchmarks.paired import in_turn, of_children

STRATEGIES = "frozen,prompt_tuning,bitfit,layernorm,lora,adapter,ia3,full"
ROOT = Path(__file__).resolve().parents[1]


def asked(mirror: str | None, seeds: str, folder: Path) -> list[str]:
    """The sweep as the command line says it."""
    source = ["data.source=sample"] if mirror is None else [f"data.mirror={Path(mirror).resolve()}"]
    return [
        "suite=glue-small", "model=minilm", "tasks=sst2,mrpc", f"strategies={STRATEGIES}", f"seeds={seeds}", *source,
        "budget.labels=256", "budget.train_examples=256", "tasks.sst2.limit=120", "tasks.mrpc.limit=120", "threads=1",
        "predict=false", "device=cpu", f"results_dir={folder}/results", f"reports_dir={folder}/reports",
    ]  # fmt: skip


class Sweep:
    """Both ways of doing it, each time in a folder of its own."""

    def __init__(self, work: Path, mirror: str | None, seeds: str) -> None:
        self.work, self.mirror, self.seeds, self.times = work, mirror, seeds, 0
        self.found: dict[str, dict[str, bytes]] = {}

    def folder(self) -> Path:
        """A new one."""
        self.times += 1
        return self.work / str(self.times)

    def whole(self) -> None:
        """One run."""
        tokens = asked(self.mirror, self.seeds, folder := self.folder())
        done = subprocess.run(
            [sys.executable, "-m", "bench", "run", *tokens], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError((done.stdout + done.stderr)[-2000:])
        self.found["whole"] = predictions(folder / "results")

    def apart(self) -> None:
        """A process a cell."""
        tokens = asked(self.mirror, self.seeds, folder := self.folder())
        for job in self.jobs(tokens):
            subprocess.run(
                [sys.executable, "-m", "bench.host", "--one"], cwd=ROOT, input=job.model_dump_json(), text=True,
                capture_output=True, check=True,
            )  # fmt: skip
        self.found["apart"] = predictions(folder / "results")

    def jobs(self, tokens: list[str]) -> list[Job]:
        """The orders of all cells."""
        return plan.make(load(tokens)).jobs


def predictions(results: Path) -> dict[str, bytes]:
    """Bytes of every cell's predictions."""
    return {path.parent.name: path.read_bytes() for path in results.glob("*/*/predictions.parquet")}


def measured(mirror: str | None, rounds: int, seeds: str) -> dict[str, Any]:
    """The ratio of whole sweeps with its spread, and cells whose predictions differ."""
    with tempfile.TemporaryDirectory() as work:
        sweep = Sweep(Path(work), mirror, seeds)
        pair = in_turn(sweep.whole, sweep.apart, rounds, of_children)
        whole, apart = sweep.found["whole"], sweep.found["apart"]
    other = [cell for cell in whole.keys() | apart.keys() if whole.get(cell) != apart.get(cell)]
    return {"name": "sweep", "cells": len(apart), "wanted": 2.0, **pair.told(), "other": sorted(other)}


def main(*options: str) -> int:
    """Print the figures; 1 where a result is another one."""
    mirror = next((o for o in options if "=" not in o), None)
    told = {"rounds": "1", "seeds": "2"} | dict(o.split("=", 1) for o in options if "=" in o)
    one = measured(mirror, int(told["rounds"]), told["seeds"])
    print(
        f"sweep of {one['cells']} cells: {one['ratio']:.2f} times as fast as separate scripts (processor seconds; "
        f"{one['wall_ratio']:.2f} times on the wall; wanted: 2); {len(one['other'])} cells with other predictions"
    )
    print(json.dumps(one))
    return 1 if one["other"] or not one["cells"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
