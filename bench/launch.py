"""The launcher: runs the planned cells in children of a warm process and sees to it that each gets an outcome.

It never imports torch. It watches time and resident memory from outside, because a process that runs out of memory
cannot be trusted to say so.
"""

from __future__ import annotations

import queue
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from bench.errors import UserFault
from bench.job import Job, asked_of, foreign
from bench.measure.environment import environment
from bench.models.catalog import parse
from bench.probed import ProbeRecord
from bench.process import UNWRITABLE
from bench.records import STOPPED_BY, DataInfo, Outcome, Result, Status, Used
from bench.room import keep_score, log_end, make_room, shorten, why_unwritable
from bench.shortage import REMEDY, again, hopeless, least, over_the_cap
from bench.store import log_file, probe_file, read_probe, read_result, write_record
from bench.warm import Host, children, kill, kill_bereft, oom_kills, resident

WATCH_SECONDS = 0.05
"""How often time and memory of the running cell are looked at."""
GIB = 2**30


class Show(Protocol):
    """Who is told how the run goes."""

    def begin(self, job: Job) -> None: ...

    def progress(self, job: Job, phase: str, share: float) -> None: ...

    def end(self, job: Job, result: Result | ProbeRecord) -> None: ...


class Quiet:
    """Tells nobody."""

    def begin(self, job: Job) -> None:
        """An order begins."""

    def progress(self, job: Job, phase: str, share: float) -> None:
        """It goes on."""

    def end(self, job: Job, result: Result | ProbeRecord) -> None:
        """It ended."""


@dataclass
class Ending:
    """How a cell's process ended, as seen from outside."""

    code: int
    """Exit code; negative: the signal that ended it."""
    reason: str | None = None
    status: Status | None = None
    """Set where the launcher ended it itself."""


class Launcher:
    """Runs jobs one after another."""

    def __init__(self, run_dir: Path, cell_seconds: float, show: Show | None = None) -> None:
        self.run_dir, self.cell_seconds, self.show = run_dir, cell_seconds, show or Quiet()
        self.host = Host(run_dir / "host.log")
        self.phase = "load"
        """Phase the running cell has told of last."""

    def run(self, job: Job) -> Result:
        """Run one cell to its outcome, with smaller micro-batches where they are ours to choose.

        Raises `UserFault` where its record cannot be written.
        """
        self.show.begin(job)
        result = self.refused(job) or self.attempt(job)
        while hopeless(job) is None and (smaller := again(job, result, self.scoring(result))) is not None:
            job, result = smaller, self.attempt(smaller)
        self.show.end(job, result)
        return result

    def refused(self, job: Job) -> Result | None:
        """The record of a cell that is not tried, because it surely cannot fit; None for any other."""
        if (why := hopeless(job)) is None:
            return None
        make_room(Path(job.folder))
        self.write(job, Status.out_of_memory, why)
        return read_result(Path(job.folder) / "result.json")

    def scoring(self, result: Result) -> bool:
        """Whether the last attempt had come as far as answering."""
        return self.phase == "predict" or "predict" in result.phases

    def attempt(self, job: Job) -> Result:
        """One attempt at a cell; its record."""
        folder = Path(job.folder)
        make_room(folder)
        try:
            ended = self.served(job, folder / "result.json")
        except KeyboardInterrupt:
            path = folder / "result.json"
            if not path.is_file() or read_result(path).outcome.status != Status.ok:  # else it had just finished
                self.write(job, Status.interrupted, "interrupted by Ctrl-C; it runs again next time")
            raise
        if ended is not None and not self.had_score(folder, *ended):
            self.write(job, *ended)
        return read_result(folder / "result.json")

    def had_score(self, folder: Path, status: Status, why: str) -> bool:
        """Whether memory or time ended the cell after its score, which is its record now."""
        try:
            return status in STOPPED_BY and keep_score(folder, why)
        except OSError as error:
            raise UserFault(f"cannot write into {folder}: {error.strerror}; finished cells are intact") from None

    def probe(self, job: Job) -> ProbeRecord:
        """Ask a finished cell what `job.probe` names; the probe's record. Nothing of the cell's own is touched.

        Raises `UserFault` where the record cannot be written.
        """
        assert job.probe is not None
        self.show.begin(job)
        path = probe_file(Path(job.folder), job.probe)
        try:
            path.unlink(missing_ok=True)
            if (ended := self.served(job, path)) is not None:
                write_record(path, unanswered(job, *ended, self.cell_seconds))
        except OSError as error:
            raise UserFault(f"cannot write {path}: {error.strerror}; finished cells are intact") from None
        record = read_probe(path)
        self.show.end(job, record)
        return record

    def served(self, job: Job, record: Path) -> tuple[Status, str] | None:
        """Have the order carried out; outcome and reason where its process did not write `record` itself."""
        self.phase = "load"
        kills = oom_kills()
        try:
            self.host.send(job)
            ending = self.watch(job)
        except BrokenPipeError:
            ending = Ending(-9, "the warm process ended before the cell began; it is started again for the next one")
        except KeyboardInterrupt:
            self.host.stop()
            raise
        finally:
            shorten(log_file(Path(job.folder), job.probe))  # what it wrote last, nobody had seen yet
        if ending.code == UNWRITABLE and ending.status is None:
            where = Path(job.folder).parent
            why = log_end(job) or why_unwritable(where)  # a full disk had no room for words
            raise UserFault(f"cannot write into {where}: {why}; finished cells are intact")
        if record.is_file() and ending.status is None:
            return None
        return self.judge(ending, job, oom_kills() > kills)

    def watch(self, job: Job) -> Ending:
        """Wait for the cell's end; end it where it overruns its time or memory."""
        pid: int | None = None
        begun, dead = time.monotonic(), False
        while True:
            try:
                event = self.host.events.get(timeout=WATCH_SECONDS)
            except queue.Empty:
                event = {"event": "gone"} if dead else {}
                dead = self.host.ended()  # believed the next time: its last words may still be on their way
            kind = event.get("event")
            if kind == "started":
                pid, begun = event["pid"], time.monotonic()
            elif kind == "progress":
                self.phase = event["phase"]
                self.show.progress(job, event["phase"], event["share"])
            elif kind == "ready":
                self.host.started = event
            elif kind == "ended":
                return Ending(event["code"])
            elif kind == "gone":
                if pid is not None:
                    kill_bereft(pid, self.host.mark)  # the kernel ended the cell itself
                return Ending(-9, "the warm process died; it is started again for the next cell")
            shorten(log_file(Path(job.folder), job.probe))
            if pid is not None and (stop := self.overrun(job, pid, time.monotonic() - begun)) is not None:
                self.end_cell(pid)
                return stop

    def overrun(self, job: Job, pid: int, seconds: float) -> Ending | None:
        """The ending the launcher must bring about now, if any."""
        if seconds > self.cell_seconds:
            return Ending(
                -9,
                f"still running after {self.cell_seconds:g} s: raise run.cell_seconds",
                Status.timeout,
            )
        cap = job.memory_gib
        if cap is None or job.cell.device != "cpu":
            return None
        try:
            held = resident(pid, below=job.cell.sharding is not None)
        except psutil.NoSuchProcess:
            return None
        return None if held <= cap * GIB else Ending(-9, over_the_cap(held, job), Status.out_of_memory)

    def end_cell(self, pid: int) -> None:
        """Kill the cell with everything it started, and wait until the warm process has noticed."""
        for child in [*children(pid), pid]:
            kill(child)
        while True:
            try:
                if self.host.events.get(timeout=10).get("event") in ("ended", "gone"):
                    return
            except queue.Empty:
                return

    def judge(self, ending: Ending, job: Job, kernel_killed: bool) -> tuple[Status, str]:
        """Outcome and reason of a cell that left no record."""
        if ending.status is not None and ending.reason is not None:
            return ending.status, ending.reason
        if kernel_killed:
            return (
                Status.out_of_memory,
                f"the kernel killed it for want of memory{least(job)}: {REMEDY}, or use a larger machine",
            )
        tail = f"; the log ends: {log_end(job)}" if log_end(job) else ""
        if ending.reason is not None:
            return Status.error, ending.reason + tail
        if ending.code < 0:
            name = signal.Signals(-ending.code).name
            return Status.error, f"its process was killed from outside ({name}); it runs again next time{tail}"
        return Status.error, f"its process ended with exit code {ending.code} and wrote no record{tail}"

    def write(self, job: Job, status: Status, reason: str) -> None:
        """The record of a cell that could not write its own."""
        located = job.located
        limit = self.cell_seconds if status == Status.timeout else None
        result = Result(
            cell=job.cell,
            outcome=Outcome(status=status, reason=reason, limit_seconds=limit),
            used=lost(status),
            data=DataInfo(source=located["source"], fingerprint=located["fingerprint"], labels=job.task.labels),
            predicted=job.predicted,
            model_note=parse(job.model).note or None,
            notes=job.notes,
            environment=environment(job.threads) | foreign(job),
        )
        try:
            write_record(Path(job.folder) / "result.json", result)
        except OSError as error:
            raise UserFault(f"cannot write into {job.folder}: {error.strerror}; finished cells are intact") from None

    def stop(self) -> None:
        """End the warm process."""
        self.host.stop()


def lost(status: Status) -> Used:
    """What is known of the budget of a cell whose process is gone: which limit ended it, not what it had used."""
    return Used(
        ended_by=STOPPED_BY.get(status), labels=None, train_examples=None, train_tokens=None, train_seconds=None
    )


def unanswered(job: Job, status: Status, reason: str, limit: float) -> ProbeRecord:
    """The record of a probe whose process could not write its own."""
    assert job.probe is not None
    return ProbeRecord(
        cell=job.cell.id,
        probe=job.probe,
        asked=asked_of(job),
        outcome=Outcome(status=status, reason=reason, limit_seconds=limit if status == Status.timeout else None),
        environment=environment(job.threads),
    )
