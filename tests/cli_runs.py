"""Runs through the real command path for tests: tokens of a tiny suite, the command line in a process, records."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from rich.console import Console

from bench.config import load
from bench.records import Result, read_plan, read_result
from bench.run import execute

ROOT = Path(__file__).resolve().parent.parent


def tokens(folder: Path, *more: str) -> list[str]:
    """Tokens of a run of tiny cells that keeps everything below `folder`."""
    return ["suite=smoke", "model=random:tiny-gpt2", "tasks.sst2.limit=8", "budget.labels=8", "budget.train_examples=8",
            "batch=4", "sequence=48", "threads=1", "device=cpu", "data.source=sample", f"results_dir={folder / 'results'}",
            f"reports_dir={folder / 'reports'}", *more]  # fmt: skip


def run_here(folder: Path, *more: str) -> list[Result]:
    """The run command in this process (its cells in processes of their own); the records in the plan's order."""
    with (folder / "output.txt").open("a") as out:
        return execute(load(tokens(folder, *more)), Console(file=out, width=200))


def command(*arguments: str) -> list[str]:
    """The command line as an argument vector."""
    return [sys.executable, "-m", "bench", *arguments]


def environment(**more: str) -> dict[str, str]:
    """The environment of a command started anywhere."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **more}


def run_there(*arguments: str, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process, to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=cwd, env=environment(**more), timeout=240, check=False
    )


def write_strategies(folder: Path, bodies: dict[str, str]) -> Path:
    """A folder of strategy files; each body is what `prepare(self, base, context, options)` does."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in bodies.items():
        (folder / f"{name}.py").write_text(
            STRATEGY.format(body=textwrap.indent(textwrap.dedent(body).strip(), " " * 8))
        )
    return folder


STRATEGY = '''"""A strategy written by a test."""

from bench.strategy import Diverged, Needs, Options, Plan, Strategy, Unsupported


class Faulty(Strategy):
    """Does what the test wants."""

    family = "test"
    trains = "nothing"
    paper = "none, 2026"
    needs = Needs(train_labels=0)

    def prepare(self, base, context, options):
{body}


strategy = Faulty()
'''

AS_ZERO_SHOT = """
    from bench.score.adapted import Adapted
    from bench.score.readers import VerbalizerReader
    return Plan(answer=Adapted(base.module, VerbalizerReader(base, context)), save=lambda folder: None, labels_used=0)
"""
"""The end of a body that answers like zero_shot."""


def records(folder: Path, run: str = "smoke") -> dict[str, Path]:
    """Record files of the cells last asked for, by strategy name."""
    run_dir = folder / "results" / run
    return {cell.strategy: run_dir / cell.id / "result.json" for cell in read_plan(run_dir / "plan.json").cells}


def times(folder: Path, run: str = "smoke") -> dict[str, int]:
    """When each record that exists was written, nanoseconds, by strategy."""
    return {name: path.stat().st_mtime_ns for name, path in records(folder, run).items() if path.is_file()}


def result(folder: Path, strategy: str, run: str = "smoke") -> Result:
    """One record."""
    return read_result(records(folder, run)[strategy])
