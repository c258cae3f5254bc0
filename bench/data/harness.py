"""Tasks of lm-eval, as the planner sees them: rows that lm-eval wrote, kept in the cache, and what it says of them.

The planner imports neither torch nor lm-eval: `harness_export` runs in a process of its own, once for as long as the
files it read stay as they were.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.config.data import OPTIONS
from bench.config.harness import OPENING, QUESTION
from bench.config.load import worded
from bench.config.schema import Task
from bench.config.settings import DataSettings
from bench.errors import UserFault
from bench.process import importable

LAYOUT = 1
"""Part of a folder's name: raised when what is written changes."""
HARNESS = ":harness"
"""Stands among a task's files for what lm-eval says of it: no split's name, for it holds a colon."""
SPLITS = ("train", "validation", "test")
OWN_DATASETS = 4
"""The first version of `datasets` that runs no script of a data set's own."""
Values = dict[str, list[Any]]


def told(name: str, task: Task, settings: DataSettings) -> Task:
    """The task as lm-eval defines it, its labels and `harness` filled in; one of ours as it is.

    Raises `UserFault`: lm-eval is not installed, has no such task, or cannot read it, or the suite asks for a metric or
    label that the task has not.
    """
    if not task.continued or task.harness is not None:
        return task
    known = json.loads((exported(name, task, settings) / "task.json").read_text(encoding="utf-8"))
    raw = {**task.model_dump(mode="json"), **known}
    if len(known["labels"]) != len(set(known["labels"])):
        raise UserFault(f"task '{name}': options named twice: {known['labels']}")
    try:
        return Task.model_validate(raw)
    except ValidationError as error:
        raise worded(error, Task, f"tasks.{name}") from None


def files_of(name: str, task: Task, splits: list[str], settings: DataSettings) -> dict[str, tuple[Path, ...]]:
    """The files of these splits, and what lm-eval says of them, which is part of the data's fingerprint."""
    folder = exported(name, task, settings)
    for split in splits:
        if not (folder / f"{split}.jsonl").is_file():
            there = ", ".join(one for one in SPLITS if (folder / f"{one}.jsonl").is_file())
            raise UserFault(f"task '{name}': lm-eval gives no split '{split}'; allowed: {there}, or slices of these")
    files: dict[str, tuple[Path, ...]] = {split: (folder / f"{split}.jsonl",) for split in splits}
    return files | {HARNESS: (folder / "task.json",)}


def exported(name: str, task: Task, settings: DataSettings) -> Path:
    """The folder of a task's rows, made where it is not there or what it was made from has changed."""
    assert task.data.lm_eval is not None
    try:
        spec = _spec(task.data.lm_eval)
        own = settings.code if Path(spec).is_absolute() else None
        return _exported(spec, task.data.shots, _root(settings), own)
    except UserFault as fault:
        raise UserFault(f"task '{name}' (data.lm_eval={task.data.lm_eval}): {fault}") from None


def _spec(given: str) -> str:
    """A name as it is, a file or folder as its absolute path."""
    path = Path(given).expanduser()
    if not (given.endswith((".yaml", ".yml")) or "/" in given or path.is_dir()):
        return given
    if not path.exists():
        raise UserFault(
            f"there is no file or folder '{given}'; allowed: one that is there, or a name that lm-eval knows"
        )
    return str(path.resolve())


def _root(settings: DataSettings) -> str:
    """Where relative paths in a task's file start: the mirror where one is named, else here."""
    from bench.data.sources import mirror_folder

    return str((mirror_folder(settings) or Path.cwd()).resolve())


def version() -> str:
    """lm-eval's version. Raises `UserFault` where it is not installed, or `datasets` would run scripts for it."""
    try:
        found = importlib.metadata.version("lm_eval")
        datasets = importlib.metadata.version("datasets")
    except importlib.metadata.PackageNotFoundError:
        raise UserFault(
            "it needs lm-eval, which is not installed: python -m pip install 'lm-eval>=0.4.13' (the extra 'lmeval')"
        ) from None
    if int(datasets.partition(".")[0]) < OWN_DATASETS:
        raise UserFault(
            f"lm-eval reads by datasets {datasets}, which runs scripts that come with data; allowed: {OWN_DATASETS} or "
            f"newer (python -m pip install 'datasets>={OWN_DATASETS}')"
        )
    return found


@cache
def _exported(spec: str, shots: int | None, root: str, code: str | None) -> Path:
    from filelock import FileLock

    from bench.models.cache import cache_dir

    order = {"spec": spec, "shots": shots, "version": version()}
    if code is not None:  # in the key too: rows that such code made are not found by a run that does not name it
        order["code"] = str(Path(code).expanduser().resolve())
    key = hashlib.sha256(json.dumps([LAYOUT, order, root]).encode()).hexdigest()[:16]
    target = cache_dir() / "lm_eval" / f"{Path(spec).stem}-{key}"
    if not Path(root).is_dir():
        raise UserFault(f"relative paths of its file start at {root}, which is no folder; allowed: data.mirror=DIR")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{target.name}.lock"):
            if not _stands(target):
                _write(target, order, root)
    except OSError as error:
        raise UserFault(f"its rows cannot be stored in {target}: {error}; BENCH_CACHE names another folder") from None
    return target


def _stands(folder: Path) -> bool:
    """Whether the rows are there and the local files they were read from are as they were."""
    try:
        read = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
        return all((s := os.stat(path)).st_size == size and s.st_mtime_ns == when for path, size, when in read)
    except (OSError, ValueError):
        return False


def _write(target: Path, order: dict[str, Any], root: str) -> None:
    """Rows by lm-eval's own code, seen under the folder's name only when they are whole."""
    work = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.data.harness_export"],
            input=json.dumps({**order, "out": str(work)}), capture_output=True, text=True, check=False, cwd=root,
            env={**os.environ, **importable()},
        )  # fmt: skip
        if done.returncode:
            why = (done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1]
            raise UserFault(why)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def fields_of(task: Task, values: Values) -> tuple[list[dict[str, str]], list[int]]:
    """Fields and labels of rows that lm-eval wrote, to the letter: a row has a field for every option that it has."""
    fields = []
    for opening, question, options in zip(values[OPENING], values[QUESTION], values[OPTIONS], strict=True):
        fields.append({OPENING: opening, QUESTION: question, **dict(zip(task.labels, options, strict=False))})
    return fields, values["label"]
