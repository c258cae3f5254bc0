"""A process that has imported the stack once and forks whole command lines from itself.

Every try at a fault starts the command twice or more; importing anew each time would take ten times as long as the
cells do. What runs is the product's own: command line, launcher, warm process, cells. One thing differs: the warm
process is forked from its command line too instead of being executed, which is what would import everything again.

    python -m benchmarks.reliability.cradle     # orders on standard input, replies on standard output, as JSON lines

An order: `words` of the command line, `out` (file of its output), `clock` (a seed: its clock goes backwards).
Replies: its `pid`, and later that with its exit `code` (negative: the signal).
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
import traceback
from datetime import datetime, tzinfo
from types import SimpleNamespace
from typing import IO, Any

JUMPS = (0.5, 60.0, 3600.0, 400 * 86400.0)
"""Seconds that a clock is set back by."""


class Forked:
    """As much of `Popen` as the launcher uses, for the warm process."""

    def __init__(self, arguments: list[str], *, stderr: IO[str], env: dict[str, str], **_: Any) -> None:
        assert arguments[-2:] == ["-m", "bench.host"], arguments
        orders, to = os.pipe()
        back, events = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self.become(orders, events, stderr.fileno(), env)
        os.close(orders)
        os.close(events)
        self.stdin, self.stdout = open(to, "w"), open(back)  # noqa: SIM115

    @staticmethod
    def become(orders: int, events: int, log: int, env: dict[str, str]) -> None:
        """The warm process, with the descriptors that an executed one would have."""
        code = 70
        try:
            os.environ.update(env)
            for here, there in ((orders, 0), (events, 1), (log, 2)):
                os.dup2(here, there)
            os.closerange(3, 4096)
            standard(0)
            from bench import host

            code = host.main([])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        """The exit code, once it has ended."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def standard(source: int) -> None:
    """Python's standard files anew, on the descriptors as they are now."""
    sys.stdin = open(source, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = open(1, "w", 1, closefd=False), open(2, "w", 1, closefd=False)  # noqa: SIM115


def set_back(seed: int) -> None:
    """Have the clock of this process and of those below it go back now and then: by half a second up to a year."""
    import bench.measure.environment
    import bench.run

    real, back = time.time, [0.0]
    draws: dict[int, random.Random] = {}

    def now() -> float:
        me = os.getpid()  # a fork would draw what its parent draws
        draw = draws.setdefault(me, random.Random(f"{seed} {me}"))
        if draw.random() < 0.5:
            back[0] += draw.choice(JUMPS)
        return real() - back[0]

    class SetBack(datetime):
        """The time of day as it is believed to be."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(now(), tz)

    time.time, time.time_ns = now, lambda: int(now() * 1e9)
    for module in (bench.run, bench.measure.environment):
        module.datetime = SetBack  # type: ignore[attr-defined]


def command(order: dict[str, Any]) -> int:
    """The command line in this process; its exit code."""
    import bench.cli
    import bench.warm

    out = os.open(order["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.closerange(3, 4096)
    standard(0)
    if order.get("clock") is not None:
        set_back(order["clock"])
    bench.warm.subprocess = SimpleNamespace(Popen=Forked, PIPE=-1)  # type: ignore[assignment]
    return bench.cli.main(order["words"])


def forked(order: dict[str, Any]) -> int:
    """Fork a command line; its process id."""
    if pid := os.fork():
        return pid
    code = 70
    try:
        os.setsid()
        code = command(order)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def imported() -> None:
    """Everything that command line, warm process and cells import, and what they compute once a process."""
    import altair  # noqa: F401
    import peft  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import sklearn.linear_model  # noqa: F401
    import vl_convert  # noqa: F401

    import bench.cli
    import bench.host
    import bench.probing
    import bench.run
    import bench.warm
    from bench import registry
    from bench.measure.environment import environment

    registry.load()
    environment(1)
    if (number := bench.host.threads()) != 1:
        raise SystemExit(f"cradle: {number} threads; a process that forks may have one only")


def main() -> None:
    """Serve orders until standard input ends."""
    orders, replies = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    imported()
    running: set[int] = set()
    waiting = b""

    def reply(**fields: Any) -> None:
        os.write(replies, (json.dumps(fields) + "\n").encode())

    reply(ready=True)
    while True:
        if select.select([orders], [], [], 0.01 if running else None)[0]:
            if not (data := os.read(orders, 65536)):
                break
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                running.add(pid := forked(json.loads(line)))
                reply(pid=pid)
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.discard(pid)
                reply(pid=pid, code=os.waitstatus_to_exitcode(status))
    for pid in running:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
