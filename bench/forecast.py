"""What cells will need, asked from the predictor's process and remembered. Imports no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.identity import code_digest, digest
from bench.launch import host_environment
from bench.measure.environment import versions
from bench.models.cache import cache_dir
from bench.plan import Job
from bench.records import Predicted
from bench.store import write_record

Tell = Callable[[int, int], None]


def forecast(jobs: list[Job], on_card: set[str], tell: Tell = lambda done, of: None) -> dict[str, Predicted]:
    """A prediction for every job, by cell id; those asked for before come from the cache.

    Cells named by `on_card` are predicted as a card runs them. `tell` hears how many of the missing ones are done. A
    prediction that could not be made holds the reason.
    """
    places = {job.cell.id: place(job, job.cell.id in on_card) for job in jobs}
    found = {key: known for key, path in places.items() if (known := remembered(path)) is not None}
    missing = [job for job in jobs if job.cell.id not in found]
    if not missing:
        return found
    with predictor() as ask:
        for done, job in enumerate(missing):
            tell(done, len(missing))
            found[job.cell.id] = one = Predicted.model_validate(ask(job, job.cell.id in on_card))
            if one.peak_bytes is not None:
                places[job.cell.id].parent.mkdir(parents=True, exist_ok=True)
                write_record(places[job.cell.id], one)
    return found


def place(job: Job, on_card: bool) -> Path:
    """Where the prediction of a cell is kept: by what the cell is, our code and the versions of its libraries."""
    key = digest([job.cell.id, job.cell.model_fingerprint, on_card, code_digest(), versions()], 24)
    return cache_dir() / "predictions" / f"{key}.json"


def remembered(path: Path) -> Predicted | None:
    """What was predicted before; None where there is nothing readable."""
    try:
        return Predicted.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


@contextmanager
def predictor() -> Iterator[Callable[[Job, bool], dict[str, Any]]]:
    """The predictor's process; the block gets a function that asks it."""
    import os

    process = subprocess.Popen(
        [sys.executable, "-m", "bench.predict"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **host_environment()},
    )
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def ask(job: Job, on_card: bool) -> dict[str, Any]:
        try:
            stdin.write(json.dumps({"job": job.model_dump(mode="json"), "on_card": on_card}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return {"reason": f"not predicted: the predictor ended with exit code {process.wait()}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    try:
        yield ask
    finally:
        process.kill()
        process.wait()
