"""README's main job on two checkouts, before a change and after it: what each took, and where the time goes.

    python -m benchmarks.main_job BEFORE [AFTER=.] [work=DIR] [KEY=VALUE ...]

`python -m bench run suite=glue-small data.source=sample KEY=VALUE ...` of both, task by task in turn (before, after,
after, before, ...), so that a machine that slowly gets busier hurts both alike. Both use the libraries installed here.
A few cells of each run first and are not timed: they fetch the model and fill the caches. In the end each is asked for
all tasks at once, which does nothing but draw the page of all. `work` keeps the runs (otherwise they are thrown away).

Writes reports/benchmarks/main-job.md and .json and ends with the same JSON on one line; exit 1 where a command failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.config import load
from bench.store import read_plan, read_result
from benchmarks.paired import described
from benchmarks.phases import lines, spent

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "reports" / "benchmarks"
SUITE = "glue-small"
WARM = ("strategies=zero_shot,full", "budget.labels=8", "budget.train_examples=8")


@dataclass
class Side:
    """One checkout and its runs."""

    name: str
    root: Path
    work: Path
    options: list[str]
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each task's command, start to end, on the wall."""

    def command(self, *tokens: str, folder: str = "runs") -> float:
        """Seconds that the checkout's `bench run` took. Raises `RuntimeError` with the end of what it said."""
        places = [f"{key}={self.work / folder / key}" for key in ("results_dir", "reports_dir")]
        command = [sys.executable, "-m", "bench", "run", f"suite={SUITE}", "data.source=sample", *places]
        own = {"PYTHONPATH": str(self.root), "PYTHONSAFEPATH": "1"}
        began = time.perf_counter()
        done = subprocess.run(
            [*command, *self.options, *tokens], cwd=self.root, env={**os.environ, **own}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(tokens)}\n{(done.stdout + done.stderr)[-2000:]}")
        return time.perf_counter() - began

    @property
    def run(self) -> Path:
        """The folder of its records."""
        return self.work / "runs" / "results_dir" / SUITE

    def told(self) -> dict[str, Any]:
        """As JSON holds it: the commit that its records name, how its cells ended, seconds in all and by phase."""
        records = [read_result(self.run / cell.id / "result.json") for cell in read_plan(self.run / "plan.json").cells]
        [commit] = {str(record.environment["commit"]) for record in records}
        return {
            "commit": commit, "cells": len(records), "ok": sum(one.outcome.status == "ok" for one in records),
            "wall": sum(self.seconds.values()), "tasks": self.seconds, "phases": spent(self.run),
        }  # fmt: skip


def measured(sides: list[Side], tasks: list[str]) -> None:
    """Run everything."""
    for side in sides:
        side.command(f"tasks={tasks[0]}", *WARM, folder="warm")
    for number, task in enumerate(tasks):
        for side in sides if number % 2 == 0 else sides[::-1]:
            side.seconds[task] = side.command(f"tasks={task}")
            print(f"{task} {side.name}: {side.seconds[task]:.0f} s", flush=True)
    for side in sides:
        side.seconds["page of all"] = side.command(f"tasks={','.join(tasks)}")


def page(found: dict[str, Any]) -> str:
    """The report as Markdown."""
    before, after = found["before"], found["after"]
    head = [
        "# The main job, before and after",
        "",
        f"`python -m bench run suite={SUITE} data.source=sample` of two checkouts, task by task in turn",
        f"(`python -m benchmarks.main_job BEFORE` writes this page). {found['machine']['name']}, "
        f"{found['machine']['cores']} cores, load {found['load']:.1f} when it ended.",
        "",
        "| | before | after | before / after |",
        "| :--- | ---: | ---: | ---: |",
        f"| commit | {before['commit'][:7]} | {after['commit'][:7]} | |",
        f"| cells with a score | {before['ok']} of {before['cells']} | {after['ok']} of {after['cells']} | |",
    ]
    pairs = [(task, before["tasks"][task], after["tasks"][task]) for task in after["tasks"]]
    pairs.append(("all", before["wall"], after["wall"]))
    told = [f"| {name}, s | {a:.0f} | {b:.0f} | {a / b:.2f} |" for name, a, b in pairs]
    parts = []
    for name, side in (("after", after), ("before", before)):
        parts += ["", f"Where the seconds go, {name}:", "", *lines(side["phases"], side["wall"])]
    return "\n".join([*head, *told, *parts]) + "\n"


def pair(before: str, options: tuple[str, ...], work: Path) -> list[Side]:
    """Both sides of what the command line asks for. Ends the program where one is no checkout: what is installed would
    be measured in its stead."""
    folders = [before, *(o for o in options if "=" not in o), str(ROOT)][:2]
    if none := [folder for folder in folders if not (Path(folder) / "bench" / "__main__.py").is_file()]:
        raise SystemExit(f"benchmarks.main_job: {none[0]} holds no bench/; give a checkout of this repository")
    tokens = [o for o in options if "=" in o and not o.startswith(("work=", "tasks="))]
    named = zip(("before", "after"), folders, strict=True)
    return [Side(name, Path(folder).resolve(), work / name, tokens) for name, folder in named]


def main(before: str, *options: str) -> None:
    """Measure, and write the page. Raises `RuntimeError` where a command failed."""
    kept = next((o.removeprefix("work=") for o in options if o.startswith("work=")), None)
    chosen = [o for o in options if o.startswith("tasks=")]
    with tempfile.TemporaryDirectory() as thrown:
        sides = pair(before, options, Path(kept or thrown).resolve())
        measured(sides, list(load([f"suite={SUITE}", *chosen]).suite.tasks))
        found: dict[str, Any] = {"machine": described(), "load": os.getloadavg()[0]}
        found |= {side.name: side.told() for side in sides}
    (REPORT / "main-job.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (REPORT / "main-job.md").write_text(page(found), encoding="utf-8")
    print(page(found))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
