"""The warm process as its parent sees it: started, listened to, ordered, ended with all it started."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.errors import UserFault
from bench.job import Job
from bench.process import ALLOCATOR, importable

MARK = "BENCH_WARM"
"""Environment variable that tells the processes below one warm process from all others."""


@dataclass
class Host:
    """The warm process and its events."""

    log: Path
    process: subprocess.Popen[str] | None = None
    events: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    started: dict[str, Any] = field(default_factory=dict)
    mark: str = ""
    """In the environment of the process and of all that is below it, wherever that has gone."""

    def start(self) -> None:
        """Start the process unless it is alive."""
        if self.process is not None and self.process.poll() is None:
            return
        self.events = queue.Queue()
        try:
            log = self.log.open("a")
        except OSError as error:
            raise UserFault(f"cannot write {self.log}: {error.strerror}; finished cells are intact") from None
        self.mark = uuid.uuid4().hex
        with log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.host"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **host_environment(), MARK: self.mark},
            )
        threading.Thread(target=self._listen, args=(self.process, self.events), daemon=True).start()

    @staticmethod
    def _listen(process: subprocess.Popen[str], events: queue.Queue[dict[str, Any]]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                events.put(json.loads(line))
            except json.JSONDecodeError:  # a foreign library wrote to the descriptor: not an event
                continue
        events.put({"event": "gone"})

    def send(self, job: Job) -> None:
        """Order one cell."""
        self.start()
        assert self.process is not None and self.process.stdin is not None
        self.process.stdin.write(job.model_dump_json() + "\n")
        self.process.stdin.flush()

    def stop(self) -> None:
        """End the process and whatever it still runs."""
        if self.process is None:
            return
        for _ in range(2):  # the second time what was started meanwhile, or was nobody's child the first time
            for child in children(self.process.pid):
                kill(child)
        kill(self.process.pid)
        self.process.wait()

    def ended(self) -> bool:
        """Whether the process is gone, which its events cannot say while something it started holds them open."""
        return self.process is not None and self.process.poll() is not None


def host_environment() -> dict[str, str]:
    """What keeps the warm process single-threaded and off CUDA, and this package importable in it."""
    return {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_DEACTIVATE_ASYNC_LOAD": "1",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's allocator starts a thread of its own
        "HF_HUB_OFFLINE": "1",  # everything was fetched before; nothing may reach out inside a measured cell
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        **importable(),
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES") or ALLOCATOR,
        **waiting(),
    }


def waiting() -> dict[str, str]:
    """OpenMP threads spin for some microseconds before they sleep, unless the user's environment says otherwise.

    Sleeping at once costs a third of the speed on small batches; spinning for long slows every other process.
    """
    return {} if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ) else {"GOMP_SPINCOUNT": "3000"}


def children(pid: int) -> list[int]:
    """Process ids below `pid`."""
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(pid: int) -> None:
    """SIGKILL, if it is still there; on Windows, terminate."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def kill_bereft(pid: int, mark: str) -> None:
    """SIGKILL for what a cell has started and that its warm process can no longer end: its group, and whatever has the
    mark in its environment."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark:
                process.kill()


def sweep(seconds: float = 5.0) -> None:
    """End and bury whatever is left below this process; nothing is waited for where there is nothing."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:  # some are alive
            for child in children(os.getpid()):
                kill(child)
            time.sleep(0.005)


def resident(pid: int, below: bool) -> int:
    """Resident bytes of a process; with `below` those of the largest among it and all it started, for a cap holds for
    each. Raises `psutil.NoSuchProcess` where it is gone."""
    held = [int(psutil.Process(pid).memory_info().rss)]
    for one in children(pid) if below else ():
        with suppress(psutil.NoSuchProcess):
            held.append(int(psutil.Process(one).memory_info().rss))
    return max(held)


def oom_kills() -> int:
    """Kills for want of memory the kernel counted in our control group; 0 where it does not tell."""
    total = 0
    for path in (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control")):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    return total
