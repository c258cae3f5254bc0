"""On a node: an order is unpacked, carried out by the same launcher and the same processes as on one machine, and sent
back whole. Ray's own process imports no torch and runs no cell."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from bench.cluster.parcel import Content, Parcel, Plugins, gathered, moved, sha256_of
from bench.errors import UserFault
from bench.identity import code_digest, digest
from bench.job import Job
from bench.launch import Launcher
from bench.models.cache import cache_dir, ensure
from bench.models.catalog import ModelRef, parse
from bench.probed import ProbeRecord
from bench.records import Result, Status
from bench.store import log_file, write_atomically

TOLD_SECONDS = 0.5
"""How often progress within a phase is told over the network."""
NODE_DIGITS = 12
"""Of Ray's own id of a node, which names no host."""


def carry_out(order: dict[str, str], mailbox: Any, contents: tuple[Content, ...]) -> dict[str, Any]:
    """Carry out one order: `node`, and `files` (path below the cell's folder -> content) or, where something on this
    node must be put right by hand, `fault` in words."""
    node = node_id()
    if order["code"] != code_digest():
        other = f"node {node} has other code of adaptbench than the machine the command runs on"
        return {"node": node, "fault": f"{other}; allowed: the same on every node"}
    parcel = Parcel.model_validate_json(order["parcel"])
    telling = Telling(parcel.number, node, mailbox)
    telling.begin(parcel.job)
    try:
        with tempfile.TemporaryDirectory(prefix="adaptbench-", ignore_cleanup_errors=True) as scratch:
            job = settled(parcel, dict(zip(parcel.needed, contents, strict=True)), Path(scratch))
            launcher = warm(os.environ.get("CUDA_VISIBLE_DEVICES"))
            launcher.cell_seconds, launcher.show = parcel.cell_seconds, telling
            record = (launcher.probe if job.probe else launcher.run)(job)
            explained(job, record, launcher)
            return {"node": node, "files": gathered(job)}
    except UserFault as fault:
        return {"node": node, "fault": f"node {node}: {fault}"}
    except OSError as error:
        return {"node": node, "fault": f"node {node}: {error.strerror}: {error.filename}"}


def node_id() -> str:
    """The beginning of Ray's id of the node this process is on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())[:NODE_DIGITS]


class Telling:
    """Tells the command how an order goes on, and waits for no answer."""

    def __init__(self, number: int, node: str, mailbox: Any) -> None:
        self.number, self.node, self.mailbox = number, node, mailbox
        self.last = ("", 0.0)

    def begin(self, job: Job) -> None:
        """It is at work here."""
        self.put("begin", 0.0)

    def progress(self, job: Job, phase: str, share: float) -> None:
        """It goes on; not more often than anyone could see."""
        now = time.monotonic()
        if phase != self.last[0] or now - self.last[1] >= TOLD_SECONDS:
            self.last = (phase, now)
            self.put(phase, share)

    def end(self, job: Job, result: Result | ProbeRecord) -> None:
        """Its record says so."""

    def put(self, phase: str, share: float) -> None:
        """One letter."""
        self.mailbox.put.remote((self.number, self.node, phase, share))


_warm: dict[str | None, Launcher] = {}


def warm(cards: str | None) -> Launcher:
    """The launcher of this process of Ray's, kept from one task to the next: its warm process has imported the stack
    once. Ray may lend the next task another card, and a warm process keeps the environment it was started in."""
    for other in [key for key in _warm if key != cards]:
        end(other)
    if cards not in _warm:
        _warm[cards] = Launcher(Path(tempfile.mkdtemp(prefix="adaptbench-host-")), 0.0)
    return _warm[cards]


def end(cards: str | None) -> None:
    """End the warm process for these cards; its folder, which held its log, goes with it."""
    launcher = _warm.pop(cards)
    launcher.stop()
    shutil.rmtree(launcher.run_dir, ignore_errors=True)


@atexit.register
def end_all() -> None:
    """End whatever this process of Ray's keeps warm."""
    for cards in list(_warm):
        end(cards)


def settled(parcel: Parcel, contents: dict[str, Content], scratch: Path) -> Job:
    """The order as this node can carry it out: with its own paths. Raises `UserFault` where it cannot, `OSError` where
    the cache cannot be written."""
    places = {}
    for path, sha256 in parcel.data.items():
        place = cache_dir() / "shipped" / f"{sha256}{Path(path).suffix}"
        places[path] = str(placed(place, sha256, contents))
    for name, sha256 in parcel.cell.items():
        placed(scratch / name, sha256, contents)
    job = moved(parcel.job, places)
    model(parse(job.model), job.cell.model_fingerprint)
    plugins = None if parcel.plugins is None else str(unpacked(parcel.plugins, contents))
    return job.model_copy(update={"folder": str(scratch), "adapters_path": plugins})


def placed(path: Path, sha256: str, contents: dict[str, Content]) -> Path:
    """The file with this content; written unless what lies there is it. A changed file is written again."""
    import numpy as np

    if not path.is_file() or sha256_of(np.fromfile(path, dtype=np.uint8)) != sha256:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, contents[sha256].tobytes())
    return path


def unpacked(plugins: Plugins, contents: dict[str, Content]) -> Path:
    """The user's strategies in this node's cache, in a folder of their own for these very files."""
    folder = cache_dir() / "plugins" / digest(plugins.files, 24) / plugins.name
    for name, sha256 in plugins.files.items():
        placed(folder / name, sha256, contents)
    return folder


@cache
def model(ref: ModelRef, fingerprint: str) -> None:
    """Have the weights in this node's cache. A folder must lie here under the same path, and hold the same weights."""
    ensure(ref)
    if ref.form == "path" and ref.fingerprint() != fingerprint:
        raise UserFault(f"model folder '{ref.name}' holds other weights here than where the command runs")


def explained(job: Job, record: Result | ProbeRecord, launcher: Launcher, characters: int = 2000) -> None:
    """Where something broke, what the warm process said last goes into the log that is sent back: nobody looks here."""
    if record.outcome.status != Status.error or not launcher.host.log.is_file():
        return
    said = launcher.host.log.read_text(encoding="utf-8", errors="replace")[-characters:].strip()
    if said:
        with log_file(Path(job.folder), job.probe).open("a", encoding="utf-8") as log:
            log.write(f"\nthe warm process on the node said last:\n{said}\n")
