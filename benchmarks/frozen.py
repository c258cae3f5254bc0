"""How often the strategy `frozen` reads each row of a task over seeds: with features kept, and without.

    python -m benchmarks.frozen [MIRROR] [seeds=3] [model=minilm] [tasks=sst2,rte]

Passes are rows forwarded, over all cells of a task, by distinct rows that they read (test items, and the labels that
any seed draws). Also told: seconds that the cells took, without over with. The last line is JSON; exit 1 where a task's
passes are above 1.1 or a prediction is not the same on both sides, byte for byte.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.config import load
from bench.data.draws import draw_labels
from bench.data.rows import read
from bench.data.sources import locate
from bench.store import read_result
from benchmarks.sweep import ROOT, predictions

WANTED = 1.1
"""Passes at most."""


def asked(mirror: str | None, told: dict[str, str], folder: Path, shared: bool) -> list[str]:
    """The run as the command line says it."""
    source = ["data.source=sample"] if mirror is None else [f"data.mirror={Path(mirror).resolve()}"]
    return [
        "suite=glue-small", f"model={told['model']}", f"tasks={told['tasks']}", "strategies=frozen", *source,
        f"seeds={told['seeds']}", "threads=1", "predict=false", f"features={str(shared).lower()}", "run.name=frozen",
        f"results_dir={folder}/results", f"reports_dir={folder}/reports",
    ]  # fmt: skip


def ran(tokens: list[str], folder: Path) -> dict[str, dict[str, float]]:
    """Rows forwarded and seconds taken, by task."""
    command = [sys.executable, "-m", "bench", "run", *tokens]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-2000:])
    found: dict[str, dict[str, float]] = {}
    for path in (folder / "results").glob("frozen/*/result.json"):
        result = read_result(path)
        one = found.setdefault(result.cell.task, {"rows": 0, "seconds": 0.0})
        for phase in result.phases.values():
            one["rows"] += (phase.forwards or 0) - (phase.cached_forwards or 0)
            one["seconds"] += phase.seconds - (phase.cached_seconds or 0.0)
    return found


def distinct(tokens: list[str]) -> dict[str, int]:
    """Rows that any cell reads, by task."""
    request = load(tokens)
    suite, settings = request.suite, request.settings.data
    source = "mirror" if settings.mirror else "sample"
    found = {}
    for name, task in suite.tasks.items():
        rows = read(name, task, locate(name, task, source, settings))
        labels = [draw_labels(rows.train, suite.budget.labels or 0, seed, len(task.labels)) for seed in suite.seeds]
        found[name] = len(rows.test.fields) + len({index for drawn in labels for index in drawn.index})
    return found


def main(*options: str) -> int:
    """Print a line a task, then all as JSON."""
    mirror = next((o for o in options if "=" not in o), None)
    told = {"seeds": "3", "model": "minilm", "tasks": "sst2,rte"} | dict(o.split("=", 1) for o in options if "=" in o)
    with tempfile.TemporaryDirectory() as work:
        sides = {}
        for name, shared in (("with", True), ("without", False)):
            tokens = asked(mirror, told, folder := Path(work) / name, shared)
            sides[name] = ran(tokens, folder), predictions(folder / "results")
        rows = distinct(tokens)
    (kept, ours), (alone, theirs) = sides["with"], sides["without"]
    other = sorted(cell for cell in ours.keys() | theirs.keys() if ours.get(cell) != theirs.get(cell))
    passes = {task: round(kept[task]["rows"] / number, 3) for task, number in rows.items()}
    before = {task: round(alone[task]["rows"] / number, 3) for task, number in rows.items()}
    took = sum(one["seconds"] for one in alone.values()) / sum(one["seconds"] for one in kept.values())
    for task in rows:
        print(f"{task}: {passes[task]} passes with features kept, {before[task]} without (wanted: at most {WANTED})")
    most = max(passes.values())
    one = {
        "ratio": most, "wanted": WANTED, "at_most": True, "passes": passes, "without": before,
        "wall_ratio": round(took, 2), "other": other,
    }  # fmt: skip
    print(json.dumps(one))
    return 1 if other or not ours or most > WANTED else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
