"""What cells will need, asked from predictor processes and remembered. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.identity import code_digest, digest
from bench.job import Job
from bench.measure.environment import cores, versions
from bench.models.cache import cache_dir
from bench.records import CellInfo, Predicted
from bench.store import write_record
from bench.warm import host_environment

Tell = Callable[[int, int], None]
MOST_PROCESSES = 4
EACH = 4
"""Fewest cells that are worth a further process: starting one takes as long as a few predictions."""
PATIENCE_SECONDS = 180.0
"""A prediction that takes longer is given up: code of a strategy may wait for something, or loop."""
NO_SHAPE = ("memory_gib", "trials", "search", "folds")
"""Caps of a budget: they change no shape of the fit that is predicted."""
SHAPES = ("base_strategy", "options", "readout", "precision", "batch", "sequence", "checkpointing", "foreach",
          "sources", "formats_digest", "task_digest", "model_fingerprint", "sharding", "devices")  # fmt: skip
"""Of a cell's identity what decides memory and FLOPs, beside budget, data and the drawn rows."""


class Forecaster:
    """Predictor processes, started when first needed and kept until the block ends."""

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self.patience = patience
        self.processes: list[Predictor] = []
        # a process dies with the thread that started it (`die_with_parent`), so threads live as long as processes
        self.threads = ThreadPoolExecutor(MOST_PROCESSES)

    def __enter__(self) -> Forecaster:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.stop()
        self.threads.shutdown(cancel_futures=True)

    def ask(self, jobs: list[Job], on_card: set[str], tell: Tell = lambda done, of: None) -> dict[str, Predicted]:
        """A prediction for every job, by cell id; those asked for before come from the cache.

        Cells named by `on_card` are predicted as a card runs them. `tell` hears how many of the missing ones are done.
        A prediction that could not be made holds the reason.
        """
        places = {job.cell.id: place(job, job.cell.id in on_card) for job in jobs}
        found = {path: known for path in set(places.values()) if (known := remembered(path)) is not None}
        missing = {places[job.cell.id]: job for job in jobs if places[job.cell.id] not in found}
        if missing:
            found |= self.predicted(missing, on_card, tell)
        return {key: found[path] for key, path in places.items()}

    def predicted(self, missing: dict[Path, Job], on_card: set[str], tell: Tell) -> dict[Path, Predicted]:
        """Predictions by place, from as many processes as the cores serve; each is kept as soon as it is made."""
        while len(self.processes) < min(MOST_PROCESSES, cores(), -(-len(missing) // EACH)):
            self.processes.append(Predictor(self.patience))
        orders: queue.SimpleQueue[tuple[Path, Job]] = queue.SimpleQueue()
        for order in missing.items():
            orders.put(order)
        answers: queue.SimpleQueue[tuple[Path, dict[str, Any]]] = queue.SimpleQueue()

        def serve(process: Predictor) -> None:
            with suppress(queue.Empty):
                while True:
                    path, job = orders.get_nowait()
                    try:
                        answer = process.ask(job, job.cell.id in on_card)
                    except Exception as error:  # every order gets an answer: the run waits for all of them
                        answer = {"reason": f"not predicted: {type(error).__name__}: {error}"}
                    answers.put((path, answer))

        for process in self.processes:
            self.threads.submit(serve, process)
        found: dict[Path, Predicted] = {}
        for done in range(len(missing)):
            tell(done, len(missing))
            path, answer = answers.get()
            found[path] = Predicted.model_validate(answer)
            keep(path, found[path])
        return found


def forecast(jobs: list[Job], on_card: set[str], tell: Tell = lambda done, of: None) -> dict[str, Predicted]:
    """`Forecaster.ask` with processes of its own."""
    with Forecaster() as forecaster:
        return forecaster.ask(jobs, on_card, tell)


def place(job: Job, on_card: bool) -> Path:
    """Where the prediction of a cell is kept: by all that decides shapes, our code and the versions of its libraries.

    The cap changes no shape, nor does the name of suite, task or variant. A seed draws rows, and with them the lengths
    of the heaviest batch: it stays in the key unless every row is as long as `sequence` (random data), because a
    prediction for other rows would be wrong by as much as their lengths differ.
    """
    cell: CellInfo = job.cell
    budget = {key: value for key, value in cell.budget.items() if key not in NO_SHAPE}
    alike = job.task.data.random is not None and all(s.task.data.random is not None for s in job.sources)
    data = [job.located["fingerprint"], *(source.located["fingerprint"] for source in job.sources)]
    rows = [data, None if alike or not cell.seeded else cell.seed, job.wants_sources, job.position]
    shapes = [getattr(cell, name) for name in SHAPES]
    made_by = [code_digest(), foreign_digest(job.adapters_path), versions()]
    key = digest([shapes, budget, rows, job.micro_batch, cell.device, on_card, made_by], 24)
    return cache_dir() / "predictions" / f"{key}.json"


def foreign_digest(adapters_path: str | None) -> str | None:
    """Digest of a user's own strategy files, which `code_digest` does not hold."""
    if adapters_path is None:
        return None
    total = hashlib.sha256()
    for path in sorted(Path(adapters_path).glob("*.py")):
        total.update(f"{path.name}\0".encode() + path.read_bytes())
    return total.hexdigest()[:16]


def remembered(path: Path) -> Predicted | None:
    """What was predicted before; None where there is nothing readable."""
    try:
        return Predicted.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


UNSUPPORTED = "unsupported: "
"""How the reason of a cell begins that cannot work at all; such an answer stands like a figure."""


def keep(path: Path, known: Predicted) -> None:
    """Remember a prediction; a cache that cannot be written costs only time."""
    if known.peak_bytes is not None or (known.reason or "").startswith(UNSUPPORTED):
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_record(path, known)


@contextmanager
def predictor(patience: float = PATIENCE_SECONDS) -> Iterator[Predictor]:
    """A single predictor process, for the block."""
    one = Predictor(patience)
    try:
        yield one
    finally:
        one.stop()


class Predictor:
    """One predictor process; it is started again after a prediction that ended it."""

    def __init__(self, patience: float) -> None:
        self.patience, self.stopped = patience, False
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        """The process, alive."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.predict"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, **host_environment()},
            )
        return self.process

    def ask(self, job: Job, on_card: bool) -> dict[str, Any]:
        """The prediction of a job, or the reason why there is none."""
        return self.order({"job": job.model_dump(mode="json"), "on_card": on_card})

    def held(self) -> int:
        """Most bytes that the process, or a rehearsal forked from it, has been resident with."""
        return int(self.order({"held": True})["held_bytes"])

    def order(self, order: dict[str, Any]) -> dict[str, Any]:
        """One line out, one line in."""
        if self.stopped:
            return {"reason": "not predicted: stopped"}
        process = self.start()
        assert process.stdin is not None and process.stdout is not None
        late = threading.Timer(self.patience, process.kill)
        late.start()
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (BrokenPipeError, ValueError):
            line = ""
        finally:
            waits = late.is_alive()
            late.cancel()
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        why = f"the predictor ended with exit code {process.wait()}" if waits else f"no answer in {self.patience:g} s"
        return {"reason": f"not predicted: {why}"}

    def stop(self) -> None:
        """End the process."""
        self.stopped = True
        if self.process is not None:
            self.process.kill()
            self.process.wait()
