"""The command's side of a run on Ray: it hands orders over, shows how they go on and alone writes their records."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from bench.cluster import connect
from bench.cluster.demand import LOSSES, demand, longest_first
from bench.cluster.parcel import Content, Packer, record_name
from bench.cluster.watch import Open, Watch
from bench.config import Settings
from bench.earlier import untried_first
from bench.errors import UserFault
from bench.identity import code_digest
from bench.job import Job
from bench.launch import Launcher, Quiet, Show, unanswered
from bench.live import name_of
from bench.probed import PROBE_VERSION, ProbeRecord
from bench.records import SCHEMA_VERSION, Result, Status
from bench.room import make_room
from bench.stopping import Stop
from bench.store import probe_file, read_probe, read_result, unsealed, write_atomically, write_record

TURN_SECONDS = 0.5
"""How often it is looked what has come back and what is told."""
AHEAD = 2
"""How many probes Ray has for each that can be at work."""
ENDING_SECONDS = 5.0
"""For cells to be ended after Ctrl-C; what is left then goes with the connection."""
Tables = Callable[[list[Job], int], AbstractContextManager[Show]]
"""Makes what is shown for orders, of which so many run at a time."""


class Crew:
    """Has orders carried out by a Ray cluster, which it is connected to from the first of them on."""

    def __init__(self, run_dir: Path, settings: Settings, say: Callable[[str], None] = lambda line: None) -> None:
        self.settings, self.say = settings, say
        self.scribe = Launcher(run_dir, settings.run.cell_seconds)
        self.show: Show = Quiet()
        self.ray: Any = None
        self.open: dict[int, Open] = {}
        self.back: list[Open] = []
        """Orders that came back together, as far as they are recorded."""
        self.some_began = False
        self.watch: Watch
        self.packer: Packer
        self.task: Any = None
        """What carries out an order on a node."""
        self.untold: list[Result] = []
        """Records of cells that trackers have yet to hear of."""
        self.mailbox: Any = None
        self.post: Any = None
        """The mailbox's answer to come."""

    def carry_out(
        self, jobs: list[Job], tables: Tables, stop: Stop, tell: Callable[[Result], None] = lambda record: None
    ) -> int:
        """Have all orders carried out, as far as `stop` lets them begin; how many it left. `tell` hears of every cell
        that came back, once its record is on disk, whatever ends the run.

        Raises `UserFault` where the cluster cannot serve them, a node lacks something or a record cannot be written,
        and `KeyboardInterrupt`: what runs is ended then, and recorded as interrupted.
        """
        self.ray = self.ray or connect.connected(self.settings.ray_address)
        asked = demand(self.ray.nodes(), self.settings, jobs[0].cell.device)
        self.say(str(asked))
        jobs = [job.model_copy(update={"threads": asked.cpus}) for job in self.in_turn(jobs)]
        self.mailbox, self.post, self.task = self.mailbox_here(), None, self.task_here()
        self.packer, self.some_began = Packer(self.ray.put, self.settings.run.cell_seconds), False
        self.watch = Watch(self.ray.nodes, asked, self.say)
        waiting = deque(enumerate(jobs))
        try:
            with tables(jobs, asked.slots) as self.show:
                left = self.hand_over(waiting, stop)
                while self.open:
                    left += self.turn(stop)
                    self.tell_all(tell)
                    left += self.hand_over(waiting, stop)
        except BaseException as error:
            self.abandon(isinstance(error, KeyboardInterrupt))
            raise
        finally:
            self.tell_all(tell)
        return left

    def in_turn(self, jobs: list[Job]) -> list[Job]:
        """The longest first; under `run.max_hours` what was never tried comes before what has failed, however long."""
        jobs = longest_first(jobs)
        return jobs if self.settings.run.max_hours is None else untried_first(jobs)

    def hand_over(self, waiting: deque[tuple[int, Job]], stop: Stop) -> int:
        """Give Ray the orders that wait; how many of them `stop` leaves. Of probes only so many that no node waits for
        one: each needs what its cell has stored, which is in Ray's memory from now on until it is answered."""
        most = max(1, AHEAD * self.watch.slots)
        while waiting and (waiting[0][1].probe is None or len(self.open) < most):
            if not stop.begins():
                left = len(waiting)
                waiting.clear()
                return left
            number, job = waiting.popleft()
            order, contents = self.packed(number, job)
            reference = self.task.options(**self.watch.asked.options(job)).remote(order, self.mailbox, *contents)
            self.open[number] = Open(job, reference)
        return 0

    def packed(self, number: int, job: Job) -> tuple[dict[str, str], list[Any]]:
        """An order as the task takes it, and references to its contents. Raises `UserFault` for a file that cannot be
        read, or that Ray has no room for."""
        try:
            parcel, references = self.packer.pack(number, job)
        except OSError as error:
            raise UserFault(f"cannot read {error.filename}: {error.strerror}; finished cells are intact") from None
        except self.ray.exceptions.RayError as error:
            why = " ".join(str(error).split())[:300]
            raise UserFault(
                f"Ray cannot take the files that {name_of(job, True)} needs ({type(error).__name__}: {why}); finished "
                "cells are intact; allowed: more room on the disk of this machine, or for Ray's objects "
                "(ray start --object-store-memory=BYTES)"
            ) from None
        return {"code": code_digest(), "parcel": parcel.model_dump_json()}, references

    def mailbox_here(self) -> Any:
        """The actor that hears how orders go on: beside the command, so that no other node's loss ends it."""
        from ray import cloudpickle
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from bench.cluster import entry

        cloudpickle.register_pickle_by_value(entry)
        here = NodeAffinitySchedulingStrategy(self.ray.get_runtime_context().get_node_id(), soft=False)
        return self.ray.remote(num_cpus=0, scheduling_strategy=here)(entry.Mailbox).remote()

    def task_here(self) -> Any:
        """What carries out an order on a node. Without `max_calls=0` Ray ends its process after every task with a card,
        and our warm one with it."""
        from bench.cluster.entry import serve

        return self.ray.remote(max_calls=0)(serve)

    def turn(self, stop: Stop) -> int:
        """Wait a moment, take what has come back; how many orders were called off because the hours are over."""
        self.ray.wait([one.reference for one in self.open.values()], timeout=TURN_SECONDS)  # until one is done
        self.hear()
        self.take_back()
        self.watch.look(list(self.open.values()))
        return self.call_off() if stop.over else 0

    def take_back(self) -> None:
        """Record every order that has come back. Raises the first `UserFault` among them, the others being recorded."""
        numbers, faults = {one.reference: number for number, one in self.open.items()}, []
        self.back = []
        if not numbers:
            return
        for reference in self.ray.wait(list(numbers), num_returns=len(numbers), timeout=0)[0]:
            try:
                self.take(self.open[numbers[reference]])
            except UserFault as fault:
                faults.append(fault)
            self.back.append(self.open.pop(numbers[reference]))  # once it is recorded: Ctrl-C may come at any moment
        if faults:
            raise faults[0]

    def hear(self) -> None:
        """Show what was told since the last turn. Nobody waits for a mailbox that is slow: nothing depends on it."""
        self.post = self.post or self.mailbox.take.remote()
        if not self.ray.wait([self.post], timeout=0)[0]:
            return
        try:
            letters = self.ray.get(self.post)
        except self.ray.exceptions.RayError:
            letters = []
        self.post = None
        for number, node, phase, share in letters:
            if (one := self.open.get(number)) is None:
                continue
            one.node, self.some_began = node, True
            if phase == "begin":
                self.show.begin(one.job)
            else:
                self.show.progress(one.job, phase, share)

    def take(self, one: Open) -> None:
        """Record what an order ended in. Raises `UserFault` where its node needs a hand."""
        self.some_began = True
        try:
            back = self.ray.get(one.reference)
        except self.ray.exceptions.RayError as error:
            record = self.recorded(one.job, *self.lost(one, error))
        else:
            if "fault" in back:
                raise UserFault(back["fault"])
            record = written(one.job, back["node"], back["files"])
        if isinstance(record, Result):
            self.untold.append(record)
        self.show.end(one.job, record)

    def tell_all(self, tell: Callable[[Result], None]) -> None:
        """Tell of every record that came back; each once."""
        while self.untold:
            tell(self.untold.pop(0))

    def lost(self, one: Open, error: Exception) -> tuple[Status, str]:
        """Outcome and reason of an order that never came back."""
        kinds, why = self.ray.exceptions, " ".join(str(error).split())[:300]
        if isinstance(error, kinds.OutOfMemoryError):
            others = [other.node for other in (*self.open.values(), *self.back) if other is not one]
            beside = 0 if one.node is None else others.count(one.node)
            if beside == 0:
                return Status.out_of_memory, f"its node ran short of memory, and Ray ended it: {why}"
            return Status.error, (
                f"its node ran short of memory with {beside + 1} cells on it, and Ray ended this one: say threads= for "
                f"fewer cells a node; it runs again next time ({why})"
            )
        if isinstance(error, kinds.TaskCancelledError):
            return Status.interrupted, "Ray cancelled it from outside; it runs again next time"
        if isinstance(error, kinds.RayTaskError):
            return Status.error, f"its Ray task failed: {type(error.cause).__name__}: {error.cause}"
        if isinstance(error, kinds.NodeDiedError | kinds.WorkerCrashedError | kinds.LocalRayletDiedError):
            return Status.error, f"lost {LOSSES + 1} times with its node; it runs again next time ({why})"
        return Status.error, f"Ray: {type(error).__name__}: {why}"

    def recorded(self, job: Job, status: Status, reason: str) -> Result | ProbeRecord:
        """The record of an order whose node wrote none. Raises `UserFault` where it cannot be written."""
        folder = Path(job.folder)
        if job.probe is None:
            make_room(folder)
            self.scribe.write(job, status, reason)
            return read_result(folder / "result.json")
        path = probe_file(folder, job.probe)
        try:
            path.parent.mkdir(exist_ok=True)
            write_record(path, unanswered(job, status, reason, self.scribe.cell_seconds))
        except OSError as error:
            raise UserFault(f"cannot write {path}: {error.strerror}; finished cells are intact") from None
        return read_probe(path)

    def call_off(self) -> int:
        """Give up the orders that have not begun, but never all there ever were; how many."""
        waiting = [number for number, one in self.open.items() if one.node is None]
        if not self.some_began:
            waiting = waiting[1:]
        for number in waiting:
            self.ray.cancel(self.open.pop(number).reference)
        return len(waiting)

    def abandon(self, interrupted: bool) -> None:
        """Record what has come back, end whatever else Ray still has of this run; after Ctrl-C cells that were at work
        get a record that says so."""
        with suppress(UserFault, self.ray.exceptions.RayError):
            self.take_back()
        left, self.open = self.open, {}
        for one in left.values():
            self.ray.cancel(one.reference)
        for one in left.values():
            if interrupted and one.node is not None and one.job.probe is None:
                self.recorded(one.job, Status.interrupted, "interrupted by Ctrl-C; it runs again next time")
        if left:
            references = [one.reference for one in left.values()]
            self.ray.wait(references, num_returns=len(references), timeout=ENDING_SECONDS)

    def stop(self) -> None:
        """Leave the cluster; one that was started for this run ends."""
        if self.ray is not None:
            self.ray.shutdown()


def written(job: Job, node: str, files: dict[str, Content]) -> Result | ProbeRecord:
    """Write what a node sent back into the cell's folder, the record last and with the node it is from; the record.

    Raises `UserFault` where the folder cannot be written.
    """
    folder, name = Path(job.folder), record_name(job)
    if job.probe is None:
        make_room(folder)
    kind, version = (Result, SCHEMA_VERSION) if job.probe is None else (ProbeRecord, PROBE_VERSION)
    record = kind.model_validate(unsealed(json.loads(files[name].tobytes()), version))
    assert isinstance(record, Result | ProbeRecord)
    record = record.model_copy(update={"environment": record.environment | {"executor": "ray", "node": node}})
    try:
        for path, content in files.items():
            if path != name:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(folder / path, content.tobytes())
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_record(folder / name, record)
    except OSError as error:
        raise UserFault(f"cannot write into {folder}: {error.strerror}; finished cells are intact") from None
    return record
