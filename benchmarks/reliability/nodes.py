"""SIGKILL of a Ray node: a real second node on loopback, at a random moment of a sweep that both nodes work on."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.warm import host_environment
from benchmarks.reliability.sweep import MARK, SHOWN, Cradle, Reference, Seen, Sweep, again, looked, made

SAYS = "SIGKILL of a Ray node, the second of two"
ROOM = {"num_cpus": 1, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
"""Of a node: one cell at a time, and none of Ray's helpers that nobody here looks at."""
PATIENT = {"health_check_timeout_ms": 60_000}
"""A machine that is busy with other work is not a dead one."""


def killed(cradle: Cradle, known: Reference, folder: Path, tries: int, draw: random.Random) -> dict[str, Any]:
    """Kill the second node so many times, each in a sweep of its own; a new second node joins for the next one. A sweep
    that had ended before its moment came is none, and another one is drawn."""
    if find_spec("ray") is None:
        return {"says": SAYS, "skipped": "needs the package ray"}
    moments: list[list[float]] = []
    seen, tried = Seen(), 0
    with two_nodes(own={**host_environment(), MARK: cradle.mark, "HF_HUB_OFFLINE": "1"}) as nodes:
        peace = made(folder / "peace")
        begun, started = time.monotonic(), time.time()
        if cradle.end(cradle.begin(peace, words(peace, nodes))) != 0:
            raise SystemExit(f"the sweep on two nodes fails without any fault: {peace.output.read_text()[-2000:]}")
        seconds = time.monotonic() - begun
        first = min(path.stat().st_mtime for path in peace.run_dir.glob("*/result.json")) - started
        seen.add(looked(peace, known))
        if len(where(peace)) != 2:
            seen.other.append(f"an undisturbed sweep used {len(where(peace))} of 2 nodes")
        while len(moments) < tries:
            if (tried := tried + 1) > 5 * tries + 5:
                seen.other.append(f"only {len(moments)} of {tries} tries met a command at work")
                break
            # most of the time goes into starting: every other shot falls into what comes after the first record
            amid = len(moments) % 2 == 1
            moment = draw.uniform(0, seconds - first if amid else seconds)
            shot = one(cradle, known, made(folder / f"node-{tried}"), nodes, (amid, moment), seen)
            moments += [] if shot is None else [shot]
            if not nodes.worker_nodes:
                second(nodes)
    return {"says": SAYS, "tries": len(moments), "moments": moments, "seen": seen, "peace": [first, seconds]}


def one(
    cradle: Cradle, known: Reference, sweep: Sweep, nodes: Any, moment: tuple[bool, float], seen: Seen
) -> list[float] | None:
    """One sweep whose second node is killed so many seconds after it began, or after its first record: it ends complete
    by itself, no record that was there is written again, and the same command on this machine alone finds nothing to
    do. When, and with how many records; None where nobody was killed, because the command had ended."""
    resident = set(cradle.alive())
    begun, shot = time.monotonic(), dict[str, Any]()
    over = threading.Event()

    def kill() -> None:
        amid, seconds = moment
        while amid and not sweep.records() and not over.wait(0.01):
            pass
        if over.wait(seconds):
            return
        try:
            shot["after"], shot["before"] = time.monotonic() - begun, sweep.records()
            nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
        except Exception as error:  # of a thread nobody would hear it
            shot["failed"] = f"{type(error).__name__}: {error}"

    pid = cradle.begin(sweep, words(sweep, nodes))
    killer = threading.Thread(target=kill)
    killer.start()
    code = cradle.end(pid)
    over.set()
    killer.join()
    seen.other += [f"{sweep.folder.name}: the command ended with {code}"] if code else []
    seen.left += left(cradle, resident)
    if "failed" in shot:
        seen.other.append(f"{sweep.folder.name}: the node could not be killed: {shot['failed']}")
    if "failed" in shot or not shot:
        return None
    finished = sweep.records()
    if (code := cradle.run(sweep)) != 0:
        seen.other.append(f"{sweep.folder.name}: the same command again, on this machine, ended with {code}")
    seen.add(looked(sweep, known))
    seen.twice += again(shot["before"], sweep) + again(finished, sweep) + sum(sweep.ran().values())
    return [round(shot["after"], 3), len(shot["before"])]


def words(sweep: Sweep, nodes: Any) -> list[str]:
    """The command, for the cluster."""
    return sweep.words("executor=ray", f"ray_address={nodes.address}")


def where(sweep: Sweep) -> set[str]:
    """The nodes its records name."""
    records = [json.loads(path.read_text()) for path in sweep.run_dir.glob("*/result.json")]
    return {record["environment"].get("node", "none") for record in records}


def left(cradle: Cradle, resident: set[int], seconds: float = 60) -> list[str]:
    """Processes of ours that a sweep on the cluster has left; not Ray's own, which wait there for the next one."""
    end = time.monotonic() + seconds
    while True:
        found = {pid: what for pid, what in cradle.alive().items() if pid not in resident and "bench.host" in what}
        if not found or time.monotonic() > end:
            return [f"{pid}: {what[:SHOWN]}" for pid, what in found.items()]
        time.sleep(0.2)


@contextmanager
def two_nodes(own: dict[str, str]) -> Iterator[Any]:
    """A Ray cluster of a head and a second node on this machine, with room for a cell each; their processes have these
    environment variables."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ.update(own)
    os.environ.setdefault("RAY_worker_niceness", "0")
    nodes = Cluster()
    try:
        patiently(lambda: nodes.add_node(**ROOM, **ports(), _system_config=PATIENT))
        second(nodes)
        yield nodes
    finally:
        nodes.shutdown()
        os.environ.clear()
        os.environ.update(before)


def second(nodes: Any) -> None:
    """Have another node join."""
    patiently(lambda: nodes.add_node(**ROOM, **ports()))


def patiently(add: Callable[[], Any]) -> None:
    """A node, at the third try at the latest: Ray gives it 30 seconds, which is little on a machine with other work."""
    for _ in range(2):
        with suppress(Exception):
            add()
            return
    add()


def ports() -> dict[str, int]:
    """Ports for a node's helpers: where Ray picks them itself, the node waits for all of them to have started."""
    with ExitStack() as held:
        free = [held.enter_context(socket.socket()) for _ in range(4)]
        for one in free:
            one.bind(("127.0.0.1", 0))
        names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
        return {name: one.getsockname()[1] for name, one in zip(names, free, strict=True)}
