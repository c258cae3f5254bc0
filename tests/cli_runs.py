"""Runs through the real command path for tests: tokens of a tiny suite, the command line in a process, records."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from bench.config import load
from bench.records import Result
from bench.run import execute
from bench.store import read_plan, read_result

ROOT = Path(__file__).resolve().parent.parent


def tokens(folder: Path, *more: str) -> list[str]:
    """Tokens of a run of tiny cells that keeps everything below `folder`."""
    return ["suite=smoke", "model=random:tiny-gpt2", "tasks.sst2.limit=8", "budget.labels=8", "budget.train_examples=8",
            "batch=4", "sequence=48", "threads=1", "device=cpu", "data.source=sample", f"results_dir={folder / 'results'}",
            f"reports_dir={folder / 'reports'}", *([] if any(m.startswith("predict=") for m in more) else ["predict=false"]), *more]  # fmt: skip


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


WATCHED = """
import sys, time
from bench.cli import main
code = main(sys.argv[1:])
heavy = [m for m in ("torch", "transformers", "peft", "datasets", "ray") if m in sys.modules]
print("seconds", time.process_time(), "heavy", *heavy, file=sys.stderr)
sys.exit(code)
"""


def watched(*arguments: str, cwd: Path = ROOT) -> tuple[int, float, list[str], str]:
    """The command line in a fresh process: exit code, processor seconds, heavy modules imported, output."""
    done = subprocess.run([sys.executable, "-c", WATCHED, *arguments], capture_output=True, text=True, cwd=cwd,
                          env=environment(), timeout=240, check=False)  # fmt: skip
    words = done.stderr.strip().splitlines()[-1].split()
    return done.returncode, float(words[1]), words[3:], done.stdout + done.stderr


def eventually(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until it holds; its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return value


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
