"""How far predicted resident memory lies from measured: every gradient strategy on three models, four shapes each.

    python benchmarks/memory_error.py [--quick] [--times N] [--out DIR] [--records DIR] [--threads N]

Each cell runs as `python -m bench run` runs it, in a process of its own, for two optimizer steps on rows of random
letters as long as `sequence`. Its record's `adapt` phase says how far the resident set rose over where the phase began
(VmHWM minus the baseline). With `--times` the whole grid is run so often, each time under another warm process, for the
heap lies otherwise in each; the median counts. The predictor is asked for the same cell and gets neither weights nor
records. Cells with a record in `--records` are not run again. Writes memory-error.md and memory-error.json; the last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE))

from bench import plan  # noqa: E402
from bench.config import load  # noqa: E402
from bench.forecast import predictor  # noqa: E402
from bench.identity import code_digest  # noqa: E402
from bench.measure.environment import environment  # noqa: E402
from bench.plan import Job  # noqa: E402
from bench.records import Predicted, Result, Status  # noqa: E402
from bench.store import read_result  # noqa: E402
from benchmarks.memory_page import STEPS, WORST, WORST_BYTES, page  # noqa: E402

MODELS = ("minilm", "smollm2-135m-instruct", "random:gpt2")
SHAPES = ((64, 1), (64, 8), (256, 1), (256, 8))
LABELS = 8
STRATEGIES = (
    "full: {}, bitfit: {}, layernorm: {}, selective: {}, frozen: {top_layers: 2}, lora: {}, qlora: {}, adalora: {}, "
    "adapter: {}, adapter_fusion: {}, ia3: {}, prompt_tuning: {}, p_tuning: {}, prefix_tuning: {}, peft: {}"
)
QUICK = ("full", "lora", "prompt_tuning")
SUITE = """name: memory-error
model: ["{model}"]
tasks:
  seq{sequence}-batch{batch}:
    data: {{random: {labels}}}
    splits: {{train: train, test: test}}
    kind: classify
    columns: {{text: text, label: label}}
    labels: ["a", "b"]
    templates: [{{pattern: "{{text}}", verbalizer: {{"a": "a", "b": "b"}}}}]
    metric: accuracy
    sequence: {sequence}
    batch: {batch}
strategies: {{{strategies}}}
seeds: [0]
precision: fp32
budget: {{labels: {labels}, train_examples: {examples}}}
"""


def tokens(model: str, shape: tuple[int, int], folder: Path, only: tuple[str, ...], turn: int = 0) -> list[str]:
    """The command line of one model and shape, its suite is written into `folder`. Each `turn` is a run."""
    sequence, batch = shape
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{model.removeprefix('random:')}-seq{sequence}-batch{batch}"
    run = f"{name}-{turn + 1}" if turn else name
    suite = SUITE.format(
        model=model, sequence=sequence, batch=batch, labels=LABELS, examples=STEPS * batch, strategies=STRATEGIES
    )
    (folder / f"{name}.yaml").write_text(suite)
    chosen = [f"strategies={','.join(only)}"] if only else []
    where = [f"results_dir={folder / 'results'}", f"reports_dir={folder / 'pages'}", f"run.name={run}"]
    once = ["predict=false", "keep_adapters=false"]  # each is predicted once, below, where its cost is measured
    return [f"suite={folder / name}.yaml", "device=cpu", *once, *where, *chosen]


def records(job: Job, folder: Path) -> list[Result]:
    """The cell's records, one of each run that it lies in."""
    found = [read_result(path) for path in sorted((folder / "results").glob(f"*/{job.cell.id}/result.json"))]
    return sorted(found, key=lambda one: one.outcome.status != Status.ok)


def risen(result: Result) -> int:
    """Bytes by which the resident set rose while adapting."""
    phase = result.phases["adapt"]
    return (phase.peak_rss_bytes or 0) - (phase.baseline_rss_bytes or 0)


def predictions(jobs: list[Job], kept: Path) -> dict[str, dict[str, Any]]:
    """What the predictor says of each, with the processor seconds it took and the most memory its process held.

    Those made before by the same code are read from `kept`.
    """
    told: dict[str, dict[str, Any]] = {}
    if kept.is_file() and (before := json.loads(kept.read_text()))["code"] == code_digest():
        told = before["told"]
    todo = [job for job in jobs if job.cell.id not in told]
    if not todo:
        return told
    with predictor() as one:
        process = psutil.Process(one.start().pid)
        for number, job in enumerate(todo):
            begun = sum(process.cpu_times()[:4])
            answer = one.ask(job, False)
            seconds = sum(process.cpu_times()[:4]) - begun
            told[job.cell.id] = {"predicted": answer, "seconds": seconds, "held": one.held()}
            kept.write_text(json.dumps({"code": code_digest(), "told": told}))
            print(f"[{number + 1}/{len(todo)}] {job.cell.model} {job.cell.id}: {seconds:.1f} s", file=sys.stderr)
    return told


def row(job: Job, results: list[Result], told: dict[str, Any] | None) -> dict[str, Any]:
    """One line of the table; what is missing is None, with the reason."""
    cell, predicted = job.cell, Predicted() if told is None else Predicted.model_validate(told["predicted"])
    adapt, each = predicted.phases.get("adapt"), [risen(one) for one in results if one.outcome.status == Status.ok]
    reason = predicted.reason
    if not results:
        reason = "not measured"
    elif not each:
        reason = f"{results[0].outcome.status}: {results[0].outcome.reason}"
    elif told is None:
        reason = "measured, not predicted in this report"
    measured = statistics.median(each) if each else None
    resident = None if adapt is None else adapt.resident_bytes
    error = None if measured is None or resident is None else resident - measured
    return {
        "model": cell.model,
        "strategy": cell.strategy,
        "sequence": cell.sequence,
        "batch": cell.batch,
        "measured_bytes": measured,
        "measured_each": each,
        "resident_bytes": resident,
        "tensor_bytes": None if adapt is None else adapt.peak_bytes,
        "held_bytes": None if adapt is None else adapt.held_bytes,
        "error_bytes": error,
        "error": None if error is None or not measured else error / measured,
        "seconds": None if told is None else told["seconds"],
        "predictor_bytes": None if told is None else told["held"],
        "reason": reason,
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and worst error, and the cost of predicting; None where nothing was measured."""
    known = [r for r in rows if r["error"] is not None]
    asked = [r for r in rows if r["seconds"] is not None]
    out = [r for r in known if abs(r["error"]) > WORST and abs(r["error_bytes"]) > WORST_BYTES]
    return {
        "cells": len(rows),
        "compared": len(known),
        "median_error": statistics.median(abs(r["error"]) for r in known) if known else None,
        "worst_error": max((abs(r["error"]) for r in known), default=None),
        "worst_error_bytes": max((abs(r["error_bytes"]) for r in known), default=None),
        "out_of_bounds": len(out),
        "median_seconds": statistics.median(r["seconds"] for r in asked) if asked else None,
        "worst_seconds": max((r["seconds"] for r in asked), default=None),
        "predictor_bytes": max((r["predictor_bytes"] for r in asked), default=None),
    }


def measure(asked: argparse.Namespace) -> list[Job]:
    """Run what has no record yet; the cells, each once. The whole grid is gone through before its next time."""
    jobs: dict[str, Job] = {}
    for turn in range(asked.times):
        for model in MODELS[:1] if asked.quick else MODELS:
            for shape in SHAPES[:2] if asked.quick else SHAPES:
                line = tokens(model, shape, asked.records.resolve(), QUICK if asked.quick else (), turn)
                line += [f"threads={asked.threads}"] if asked.threads else []
                if not asked.no_run:
                    command = [sys.executable, "-m", "bench", "run", *line]
                    subprocess.run(command, cwd=HERE, stdout=sys.stderr, check=False)
                jobs |= {job.cell.id: job for job in plan.make(load(line)).jobs}
    return [*jobs.values()]


def main() -> int:
    """Run what has no record, predict, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest model at sequence 64, three strategies")
    parser.add_argument("--out", type=Path, default=HERE / "reports" / "benchmarks", help="folder of the report")
    parser.add_argument("--records", type=Path, default=Path("results") / "memory-error", help="folder of the records")
    parser.add_argument("--times", type=int, default=1, help="how often each cell is measured; the median counts")
    parser.add_argument("--threads", type=int, help="CPU threads of a cell; by default all")
    parser.add_argument("--no-run", action="store_true", help="compare the records there are")
    asked = parser.parse_args()
    jobs = measure(asked)
    results = {job.cell.id: records(job, asked.records) for job in jobs}
    ended = [job for job in jobs if results[job.cell.id]]
    told = predictions(ended, asked.records / "predictions.json")
    rows = [row(job, results[job.cell.id], told.get(job.cell.id)) for job in jobs]
    found = summary(rows)
    shown = ["--quick"] * asked.quick + [f"--times {asked.times}"] * (asked.times > 1)
    shown += [f"--threads {asked.threads}"] if asked.threads else []
    around = environment(asked.threads)
    asked.out.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python benchmarks/memory_error.py", *shown])
    (asked.out / "memory-error.md").write_text(page(rows, found, command, around))
    kept = {"command": command, "summary": found, "rows": rows, "environment": around}
    (asked.out / "memory-error.json").write_text(json.dumps(kept, indent=1) + "\n")
    print(json.dumps({"benchmark": "memory_error", **found}))
    return 0


if __name__ == "__main__":
    os.chdir(HERE)
    sys.exit(main())
