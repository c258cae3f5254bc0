"""Warm processes and predictors forked from one process that has imported the stack.

A run of tiny cells spends most of its time importing torch, transformers and peft, once in its warm process and once in
its predictor. Tests of what a run gives say `pytestmark = pytest.mark.usefixtures("forked")`: all else stays the
product's own. Tests of how processes start, end and are watched do without. Linux only; elsewhere nothing is forked.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from bench.warm import host_environment
from benchmarks.reliability.cradle import standard

ROOT = Path(__file__).resolve().parent.parent
MODULES = ("bench.host", "bench.predict")
MESSAGE = 1 << 20
"""Bytes of the longest order: a whole environment."""


class Zygote:
    """The process that forks others, as tests see it."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = {**os.environ, **host_environment(), "PYTHONPATH": str(ROOT)}
        with theirs:
            arguments = [sys.executable, __file__, str(theirs.fileno())]
            self.process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], env=environment, cwd=ROOT)
        self.codes: dict[int, int] = {}
        self.lock = threading.Lock()
        self.hear("ready")

    def hear(self, key: str) -> Any:
        """The next message with this key; exit codes on the way are kept."""
        while data := self.socket.recv(MESSAGE):
            told = json.loads(data)
            if "code" in told:
                self.codes[told["pid"]] = told["code"]
            if key in told:
                return told[key]
        raise RuntimeError(f"the process that forks ended with {self.process.wait()}")

    def fork(self, module: str, environment: dict[str, str], files: list[int]) -> int:
        """A process that runs the module with these standard files; its id."""
        order = json.dumps({"module": module, "environment": environment, "cwd": os.getcwd()}).encode()
        with self.lock:
            socket.send_fds(self.socket, [order], files)
            return int(self.hear("forked"))

    def code(self, pid: int) -> int | None:
        """The exit code of a process, once it has ended."""
        with self.lock:
            while pid not in self.codes and select.select([self.socket], [], [], 0)[0]:
                self.hear("code")
            return self.codes.get(pid)

    def stop(self) -> None:
        """End it; whatever it has forked ends with it."""
        self.socket.close()
        self.process.wait()


class Forked:
    """As much of `Popen` as launcher and forecaster use."""

    def __init__(
        self, zygote: Zygote, arguments: list[str], *, stderr: IO[str] | int, env: dict[str, str], **_: Any
    ) -> None:
        self.zygote, self.returncode, null = zygote, None, None
        *_, flag, module = arguments
        assert flag == "-m" and module in MODULES, arguments
        orders, to = os.pipe()
        back, events = os.pipe()
        if isinstance(stderr, int):
            assert stderr == subprocess.DEVNULL
            log = null = os.open(os.devnull, os.O_WRONLY)
        else:
            log = stderr.fileno()
        self.pid = zygote.fork(module, env, [orders, events, log])
        for one in (orders, events, *([] if null is None else [null])):
            os.close(one)
        self.stdin, self.stdout = open(to, "w"), open(back)  # noqa: SIM115

    returncode: int | None

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        if self.returncode is None:
            self.returncode = self.zygote.code(self.pid)
        return self.returncode

    def wait(self) -> int:
        """The exit code, once it has ended."""
        while (code := self.poll()) is None:
            time.sleep(0.002)
        return code

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, 9)


def stand_in(zygote: Zygote) -> Any:
    """What stands where the module `subprocess` stood."""

    def start(arguments: list[str], **options: Any) -> Forked:
        return Forked(zygote, arguments, **options)

    return SimpleNamespace(Popen=start, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)


# The process itself -----------------------------------------------------------------------------------------------------


def become(order: dict[str, Any], files: list[int]) -> None:
    """What was ordered, with standard files as an executed process would have them."""
    code = 70
    try:
        os.environ.clear()
        os.environ.update(order["environment"])
        os.chdir(order["cwd"])
        for there, here in enumerate(files):
            os.dup2(here, there)
        os.closerange(3, 4096)
        standard(0)
        if order["module"] == "bench.host":
            from bench import host

            code = host.main([])
        else:
            from bench.predict import __main__ as predict

            code = predict.main()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def imported() -> None:
    """All that the two kinds of process import before their first order, and on it."""
    import peft  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.linear_model  # noqa: F401

    import bench.host
    import bench.predict.depth
    import bench.probing
    from bench import registry

    registry.load()
    if (number := bench.host.threads()) != 1:
        raise SystemExit(f"{number} threads; a process that forks may have one only")


def main(descriptor: int) -> None:
    """Fork what is asked for until nobody asks any more."""
    from bench.process import die_with_parent

    die_with_parent()
    imported()
    orders, running = socket.socket(fileno=descriptor), set[int]()
    orders.send(json.dumps({"ready": True}).encode())
    while True:
        if select.select([orders], [], [], 0.005 if running else None)[0]:
            data, files, _, _ = socket.recv_fds(orders, MESSAGE, 3)
            if not data:
                return
            if (pid := os.fork()) == 0:
                become(json.loads(data), files)
            for one in files:
                os.close(one)
            running.add(pid)
            orders.send(json.dumps({"forked": pid}).encode())
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.discard(pid)
                orders.send(json.dumps({"pid": pid, "code": os.waitstatus_to_exitcode(status)}).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
