"""What planning, the resume check and the report cost at 10, 1,000 and 10,000 cells.

The store is written by the product's own planner and writer: every planned cell gets a record of its own and
predictions that give its score. Then the command is timed in processes of its own, processor seconds and the clock; a
browser opens the page where one is installed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench import plan
from bench.config import load
from bench.records import CellInfo, DataInfo, Outcome, Parameters, Phase, Result, Score, Status, Training, Used
from bench.run import write_plan
from bench.stats.metrics import chance, value
from bench.store import write_atomically, write_record
from benchmarks.reliability.sweep import ROOT, Cradle, Reference, Seen

SIZES = {10: (1, 5, 2), 1000: (4, 25, 10), 10_000: (4, 25, 100)}
"""Cells -> tasks, variants of strategies, seeds."""
LIMIT, ITEMS = 20.0, 40
"""Seconds in which 10,000 cells are to be planned and found finished; items a cell is scored on."""
COMMAND = """
import resource, sys, time
begun, used = time.monotonic(), time.process_time()
from bench.config import load
from bench import plan
from bench.run import refuse_newer, unfinished
import pathlib
stamps = [time.process_time()]
request = load(sys.argv[1:])
planned = plan.make(request)
stamps.append(time.process_time())
refuse_newer(planned, pathlib.Path(request.settings.results_dir) / request.run_name)
todo = unfinished(request, planned, print)
stamps.append(time.process_time())
print(len(planned.jobs), len(todo), stamps[0] - used, stamps[1] - stamps[0], stamps[2] - stamps[1],
      time.monotonic() - begun)
"""


def words(folder: Path, cells: int) -> list[str]:
    """The command for a suite of so many cells: learning rates make variants of one strategy."""
    tasks, variants, seeds = SIZES[cells]
    names = [f"lora{number}" for number in range(variants)]
    options = [f"strategies.{name}.base=lora" for name in names]
    options += [f"strategies.{name}.lr={1e-4 * (number + 1):g}" for number, name in enumerate(names)]
    return ["suite=glue-small", "model=random:tiny-gpt2", f"tasks={','.join(('sst2', 'cola', 'mrpc', 'rte')[:tasks])}",
            f"strategies={','.join(names)}", *options, f"seeds={seeds}", "data.source=sample", "predict=false",
            f"results_dir={folder / 'results'}", f"reports_dir={folder / 'reports'}"]  # fmt: skip


def stored(folder: Path, cells: int) -> None:
    """Plan them and write what finished cells leave."""
    request = load(words(folder, cells))
    planned = plan.make(request)
    run_dir = Path(request.settings.results_dir) / request.run_name
    run_dir.mkdir(parents=True)
    write_plan(request, planned, run_dir)
    with patch("os.fsync"):  # what is timed is reading them
        for job in planned.jobs:
            data = DataInfo(source="sample", fingerprint=job.located["fingerprint"], labels=job.task.labels)
            Path(job.folder).mkdir()
            finished(Path(job.folder), job.cell, data)


def finished(folder: Path, cell: CellInfo, data: DataInfo) -> None:
    """A record and predictions; how good a variant is depends on its name, so that there is something to tell apart."""
    draw = np.random.default_rng(list(hashlib.sha256(cell.id.encode()).digest()[:8]))
    labels = np.arange(ITEMS) % 2
    right = draw.random(ITEMS) < 0.55 + 0.4 * (hash_of(cell.strategy) % 25) / 25
    predicted = np.where(right, labels, 1 - labels)
    scores = draw.random((ITEMS, 2)) + np.eye(2)[predicted]
    columns = {
        "row": range(ITEMS),
        "label": labels,
        "predicted": predicted,
        "score_0": scores[:, 0],
        "score_1": scores[:, 1],
    }
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    written = out.getvalue()
    write_atomically(folder / "predictions.parquet", written)
    names = dict.fromkeys((cell.metric, "accuracy"))
    spent = {"step_seconds": 1.0, "steps": 32, "tokens": 9000, "padded_tokens": 9900, "flops": 4.1e12}
    phases = {
        name: Phase(seconds=float(draw.uniform(1, 2)), peak_rss_bytes=int(draw.integers(10**9, 2 * 10**9)), **spent)
        for name in ("load", "adapt", "predict")
    }
    result = Result(
        cell=cell,
        outcome=Outcome(status=Status.ok),
        scores={name: scored(name, labels, predicted) for name in names},
        parameters=Parameters(trainable=2_442_240, total=134_515_008, stored_bytes=9_768_960),
        phases=phases,
        used=Used(labels=128, train_examples=256, train_tokens=9000, train_seconds=30.0, ended_by="train_examples"),
        training=Training(losses=draw.random(32).tolist(), learning_rate=1e-4, still_improving=False),
        data=data,
        predictions_sha256=hashlib.sha256(written).hexdigest(),
        environment={"machine": {"id": "none", "cpu": "none", "cores": 2}, "code_digest": "none"},
    )
    write_record(folder / "result.json", result)


def scored(metric: str, labels: Any, predicted: Any) -> Score:
    """A score with an interval that nobody computed: a bootstrap a record would take longer than all that is timed."""
    found = value(metric, labels, predicted)
    return Score(value=found, low=found - 0.1, high=found + 0.1, n=ITEMS, chance=chance(metric, labels), interval="bca")


def hash_of(name: str) -> int:
    """A number of a name, the same in every process."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)


def timed(*command: str) -> tuple[float, float, str]:
    """A command to its end: processor seconds, seconds on the clock, what it printed."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**os.environ, "HF_HUB_OFFLINE": "1"})  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{command[:3]} ended with {done.returncode}: {done.stderr[-2000:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.monotonic() - begun, done.stdout


def measured(folder: Path, cells: int) -> dict[str, Any]:
    """All figures of one size."""
    stored(folder, cells)
    given = words(folder, cells)
    _, _, told = timed("-c", COMMAND, *given)
    number, todo, *seconds = (float(word) for word in told.split())
    assert (number, todo) == (cells, 0), told
    used, _, _ = timed("-m", "bench", "report", *given)
    again, wall, _ = timed("-m", "bench", "run", *given)
    page = folder / "reports" / "glue-small.html"
    figures = {"cells": cells, "imports": seconds[0], "plan": seconds[1], "resume": seconds[2], "wall": seconds[3],
               "report": used, "again": again, "again_wall": wall, "page_bytes": page.stat().st_size}  # fmt: skip
    return {name: round(value, 3) for name, value in figures.items()} | {"browser": opened(page)}


def opened(page: Path) -> float | None:
    """Seconds in which a browser has laid the page out, its last line included; None where there is no browser."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        return None
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as profile:
        own = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
        command = [browser, *own, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if "</html>" not in done.stdout[-200:] or "<table" not in done.stdout:
        raise SystemExit(f"{browser} does not show {page}: {done.stderr[-500:]}")
    return round(time.monotonic() - begun, 2)


def growth(cradle: Cradle, known: Reference, folder: Path, tries: int, draw: random.Random) -> dict[str, Any]:
    """The figures of every size; too slow is a fault like any other."""
    rows, seen = [], Seen()
    for cells in SIZES:
        rows.append(measured(folder / str(cells), cells))
        print(json.dumps(rows[-1]), flush=True)
        shutil.rmtree(folder / str(cells))
    last = rows[-1]
    if (both := last["imports"] + last["plan"] + last["resume"]) > LIMIT:
        seen.other.append(f"{last['cells']} cells took {both:.1f} s to plan and to find finished, {LIMIT:g} at most")
    return {"says": "planning, resume check and report", "tries": 1, "moments": [], "seen": seen, "rows": rows}
