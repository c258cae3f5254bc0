"""The warm process: imports the stack once, maps base weights, and forks one child a cell.

Rules that make the fork safe (DESIGN 5 and 9): one thread only, no CUDA call, no tokenising and no conversion here.
Orders come in as one JSON line each on standard input; events go out as JSON lines on the original standard output.
Where fork is missing or unsafe (Windows, macOS) a fresh process serves every cell instead.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bench.events import Events
from bench.process import UNWRITABLE, adopt_orphans, can_fork, die_with_parent
from bench.store import log_file
from bench.warm import sweep

if TYPE_CHECKING:
    from bench.job import Job
    from bench.models.base import Base


class Models:
    """The base model held for the coming cells; one at a time, so that a run over several models fits in memory."""

    def __init__(self) -> None:
        self.key: tuple[str, str] | None = None
        self.base: Base | None = None
        self.error: Exception | None = None

    def hold(self, model: str, precision: str) -> None:
        """Load the model unless it is the one held. An error is kept and raised where the cell asks for the model."""
        if self.key == (model, precision):
            return
        from bench.models.build import build

        self.key, self.base, self.error = (model, precision), None, None
        try:
            self.base = build(model, precision)
        except Exception as error:  # told by the cell's record, with its reason
            self.error = error

    def get(self) -> Base:
        """The model held, or the error it ended in."""
        if self.base is None:
            raise self.error or RuntimeError("no model held")
        return self.base


def threads() -> int:
    """Threads of this process as the kernel counts them; Python's own count where it does not tell."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()


def redirect_to_log(job: Job) -> None:
    """From here on all output of this process is the cell's log.txt, or its probe's."""
    path = log_file(Path(job.folder), job.probe)
    path.parent.mkdir(parents=True, exist_ok=True)
    # appending, so that the launcher can shorten it while it is written
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)


def serve_one(job: Job, load: Callable[[], Base], events: Events) -> int:
    """Run the cell, or a probe of it, in this process, a sharded one in processes of its own; the exit code."""
    from bench.probing import run_probe
    from bench.worker import run_cell

    redirect_to_log(job)
    if not loads_here(job):
        from bench.outcomes import unsharded
        from bench.torchrun import serve

        if unsharded(job) is None:
            return serve(job, events)  # else the cell itself says why, before it loads anything
    return UNWRITABLE if (run_probe if job.probe else run_cell)(job, load, events.teller()) else 0


def loads_here(job: Job) -> bool:
    """Whether one process carries this order out, with the model held here: those of a sharded cell load it themselves.
    Probes are asked by one."""
    return job.cell.sharding is None or job.probe is not None


def fork_one(job: Job, models: Models, events: Events) -> int:
    """Fork a child for the cell and wait for it; its wait status as a return code (negative: the signal).

    What the cell started and left behind ends with it, whatever group or session it went into.
    """
    if loads_here(job):
        models.hold(job.model, job.cell.precision)
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            die_with_parent()
            os.setpgrp()  # so that whatever the cell starts can be ended with it
            code = serve_one(job, models.get, events)
        except OSError:
            code = UNWRITABLE
        except BaseException:
            traceback.print_exc()  # into the cell's log, whose end the launcher tells
        finally:
            os._exit(code)
    events.emit("started", pid=pid)
    _, status = os.waitpid(pid, 0)
    sweep()
    return os.waitstatus_to_exitcode(status)


def spawn_one(line: str, events: Events) -> int:
    """A fresh process for the cell, where fork is missing."""
    child = subprocess.Popen(
        [sys.executable, "-m", "bench.host", "--one"],
        stdin=subprocess.PIPE,
        stdout=events.descriptor,
        text=True,
    )
    events.emit("started", pid=child.pid)
    child.communicate(line)
    return child.returncode


def end_all(*_: object) -> None:
    """End this process and whatever is below it: the launcher is gone and can no longer do it."""
    sweep()
    os._exit(1)


def main(arguments: list[str]) -> int:
    """Serve orders until standard input ends; with `--one`, serve the single order on it in this very process."""
    if "--one" in arguments:
        die_with_parent()
    else:
        signal.signal(signal.SIGTERM, end_all)
        die_with_parent(signal.SIGTERM)
        if can_fork():
            adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle
    events = Events(os.dup(1))
    os.dup2(2, 1)
    from bench.job import Job

    if "--one" in arguments:
        job = Job.model_validate_json(sys.stdin.read())
        models = Models()
        if loads_here(job):
            models.hold(job.model, job.cell.precision)
        return serve_one(job, models.get, events)
    forks = can_fork()
    if forks:
        import peft  # noqa: F401  # seconds of imports, paid once here instead of in every cell
        import pyarrow.parquet  # noqa: F401
        import sklearn.linear_model  # noqa: F401

        import bench.probing  # noqa: F401
        from bench import registry

        registry.load()  # a user's own strategies are foreign code: only the cell that needs them imports them
    events.emit("ready", threads=threads(), start_method="fork" if forks else "spawn")
    models = Models()
    for line in sys.stdin:
        code = fork_one(Job.model_validate_json(line), models, events) if forks else spawn_one(line, events)
        events.emit("ended", code=code, threads=threads())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
