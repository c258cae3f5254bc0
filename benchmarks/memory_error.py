"""How far predicted resident memory lies from measured: every gradient strategy on three models, four shapes each.

    python benchmarks/memory_error.py [--quick] [--out DIR] [--records DIR] [--threads N]

Each cell runs as `python -m bench run` runs it, in a process of its own, for two optimizer steps on rows of random
letters as long as `sequence`. Its record's `adapt` phase says how far the resident set rose over where the phase began
(VmHWM minus the baseline). The predictor is asked for the same cell and gets neither weights nor record. Cells with a
record in `--records` are not run again. Writes memory-error.md and memory-error.json; the last line is JSON.
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

MODELS = ("minilm", "smollm2-135m-instruct", "random:gpt2")
SHAPES = ((64, 1), (64, 8), (256, 1), (256, 8))
STEPS, LABELS = 2, 8
STRATEGIES = (
    "full: {}, bitfit: {}, layernorm: {}, selective: {}, frozen: {top_layers: 2}, lora: {}, qlora: {}, adalora: {}, "
    "adapter: {}, adapter_fusion: {}, ia3: {}, prompt_tuning: {}, p_tuning: {}, prefix_tuning: {}, peft: {}"
)
QUICK = ("full", "lora", "prompt_tuning")
MEDIAN, WORST, WORST_BYTES = 0.05, 0.12, 64e6
SECONDS, PREDICTOR_BYTES = 8.0, 1e9
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


def tokens(model: str, shape: tuple[int, int], folder: Path, only: tuple[str, ...]) -> list[str]:
    """The command line of one model and shape; its suite is written into `folder`."""
    sequence, batch = shape
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{model.removeprefix('random:')}-seq{sequence}-batch{batch}"
    suite = SUITE.format(
        model=model, sequence=sequence, batch=batch, labels=LABELS, examples=STEPS * batch, strategies=STRATEGIES
    )
    (folder / f"{name}.yaml").write_text(suite)
    chosen = [f"strategies={','.join(only)}"] if only else []
    where = [f"results_dir={folder / 'results'}", f"reports_dir={folder / 'pages'}", f"run.name={name}"]
    once = ["predict=false", "keep_adapters=false"]  # each is predicted once, below, where its cost is measured
    return [f"suite={folder / name}.yaml", "device=cpu", *once, *where, *chosen]


def record(job: Job, folder: Path) -> Result | None:
    """The cell's record, in whatever run it lies."""
    found = sorted((folder / "results").glob(f"*/{job.cell.id}/result.json"))
    return read_result(found[0]) if found else None


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


def row(job: Job, result: Result | None, told: dict[str, Any] | None) -> dict[str, Any]:
    """One line of the table; what is missing is None, with the reason."""
    cell, predicted = job.cell, Predicted() if told is None else Predicted.model_validate(told["predicted"])
    adapt, phase = predicted.phases.get("adapt"), None
    reason = predicted.reason
    if result is None:
        reason = "not measured"
    elif result.outcome.status != Status.ok:
        reason = f"{result.outcome.status}: {result.outcome.reason}"
    else:
        phase = result.phases["adapt"]
        reason = "measured, not predicted in this report" if told is None else reason
    measured = None if phase is None else (phase.peak_rss_bytes or 0) - (phase.baseline_rss_bytes or 0)
    resident = None if adapt is None else adapt.resident_bytes
    error = None if measured is None or resident is None else resident - measured
    return {
        "model": cell.model,
        "strategy": cell.strategy,
        "sequence": cell.sequence,
        "batch": cell.batch,
        "measured_bytes": measured,
        "resident_bytes": resident,
        "tensor_bytes": None if adapt is None else adapt.peak_bytes,
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


def mb(value: float | None) -> str:
    """Megabytes of 10^6 bytes."""
    return "-" if value is None else f"{value / 1e6:,.0f}"


def percent(value: float | None) -> str:
    """A share, signed."""
    return "-" if value is None else f"{value:+.1%}"


def page(rows: list[dict[str, Any]], found: dict[str, Any], command: str, around: dict[str, Any]) -> str:
    """The report in Markdown."""
    versions = ", ".join(f"{name} {v}" for name, v in around["versions"].items() if v)
    lines = [
        "# Predicted against measured resident memory",
        "",
        f"Remade by `{command}`. {STEPS} optimizer steps a cell, fp32, CPU. MB are 10^6 bytes.",
        "Measured: highest resident set of the cell's process in its `adapt` phase, less that at the phase's start.",
        "Resident: `resident_bytes` of the prediction, made without weights. Tensors: all of them, the",
        "model's weights too, which lie in the resident set before the phase begins.",
        "",
        f"{found['compared']} of {found['cells']} cells were compared (the others are named below, with "
        "the reason): median error "
        f"{percent(found['median_error'])[1:]}, worst {percent(found['worst_error'])[1:]} (worst in bytes "
        f"{mb(found['worst_error_bytes'])} MB). Beyond {WORST:.0%} and {mb(WORST_BYTES)} MB at once: "
        f"{found['out_of_bounds']}; the aim is none, and a median of at most {MEDIAN:.0%}.",
        f"A prediction took {found['median_seconds']:.1f} s of one core in the median and "
        f"{found['worst_seconds']:.1f} s at most (aim: {SECONDS:g} s, "
        f"the first one holds the imports); the predictor's process held {mb(found['predictor_bytes'])} MB at most "
        f"(aim: {mb(PREDICTOR_BYTES)} MB).",
        "",
        "| model | compared | median error | worst error | mean signed error |",
        "|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(r["model"] for r in rows):
        of = [r["error"] for r in rows if r["model"] == model and r["error"] is not None]
        if of:
            sizes = [abs(e) for e in of]
            figures = percent(statistics.median(sizes))[1:], percent(max(sizes))[1:], percent(statistics.mean(of))
            lines.append(f"| {model} | {len(of)} | {' | '.join(figures)} |")
    lines += table(rows)
    lines += ["", f"{versions}. {around['machine']['cpu']}, {around['machine']['cores']} cores.", ""]
    return "\n".join(lines)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Every cell compared, then every cell that was not, with the reason."""
    heads = ("model", "strategy", "sequence", "batch", "measured MB", "resident MB", "tensors MB", "error", "s")
    lines = ["", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for r in rows:
        if r["error"] is not None:
            sizes = " | ".join(mb(r[key]) for key in ("measured_bytes", "resident_bytes", "tensor_bytes"))
            what = f"{r['model']} | {r['strategy']} | {r['sequence']} | {r['batch']}"
            lines.append(f"| {what} | {sizes} | {percent(r['error'])} | {r['seconds']:.1f} |")
    missing = [r for r in rows if r["error"] is None]
    if missing:
        lines += ["", "Not compared:", ""]
    for reason in dict.fromkeys(r["reason"] for r in missing):
        of = [f"{r['model']} {r['strategy']} {r['sequence']}x{r['batch']}" for r in missing if r["reason"] == reason]
        lines.append(f"- {reason}: {', '.join(of)}")
    return lines


def main() -> int:
    """Run what has no record, predict, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest model at sequence 64, three strategies")
    parser.add_argument("--out", type=Path, default=HERE / "reports" / "benchmarks", help="folder of the report")
    parser.add_argument("--records", type=Path, default=Path("results") / "memory-error", help="folder of the records")
    parser.add_argument("--threads", type=int, help="CPU threads of a cell; by default all")
    parser.add_argument("--no-run", action="store_true", help="compare the records there are")
    asked = parser.parse_args()
    jobs: list[Job] = []
    for model in MODELS[:1] if asked.quick else MODELS:
        for shape in SHAPES[:2] if asked.quick else SHAPES:
            line = tokens(model, shape, asked.records.resolve(), QUICK if asked.quick else ())
            line += [f"threads={asked.threads}"] if asked.threads else []
            if not asked.no_run:
                subprocess.run([sys.executable, "-m", "bench", "run", *line], cwd=HERE, stdout=sys.stderr, check=False)
            jobs += plan.make(load(line)).jobs
    results = {job.cell.id: record(job, asked.records) for job in jobs}
    ended = [job for job in jobs if results[job.cell.id] is not None]
    told = predictions(ended, asked.records / "predictions.json")
    rows = [row(job, results[job.cell.id], told.get(job.cell.id)) for job in jobs]
    found = summary(rows)
    shown = ["--quick"] * asked.quick + ([f"--threads {asked.threads}"] if asked.threads else [])
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
