"""Two tasks in lm-eval's form, and what the tests of them share."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import harness_tasks
import pytest
import tiny

from bench.config import DataSettings
from bench.config.schema import Task
from bench.data import harness
from bench.data.rows import TaskRows, read
from bench.data.sources import locate
from bench.strategy import TaskContext

needs_lm_eval = pytest.mark.skipif(
    not importlib.util.find_spec("lm_eval"), reason="lm-eval is not installed (the extra 'lmeval')"
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks in lm-eval's form, and the cache their rows go to."""
    return harness_tasks.write(tmp_path_factory.mktemp("tasks"))


@pytest.fixture
def cached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of tasks, with a cache of its own for rows."""
    monkeypatch.setenv("BENCH_CACHE", str(folder / "cache"))
    harness._exported.cache_clear()
    return folder


def task_of(folder: Path, name: str, shots: int | None = None, **more) -> Task:
    """A task as the planner has it."""
    raw = {"data": {"lm_eval": str(folder / name), "shots": shots}, **more}
    return harness.told(name, Task.model_validate(raw), DataSettings())


def rows_of(name: str, task: Task) -> TaskRows:
    return read(name, task, locate(name, task, "path", DataSettings()))


def context_of(name: str, task: Task, readout: str = "verbalizer", **more) -> TaskContext:
    train = rows_of(name, task).train.take(range(8))
    return TaskContext(name, task, train, 0, readout, 4, tiny.SEQUENCE, **more)  # type: ignore[arg-type]


# ---- what a suite may say
