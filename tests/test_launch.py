"""Processes: no torch in the command line, and a warm process that may fork."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from cli_runs import (
    AS_ZERO_SHOT,
    environment,
    eventually,
    gone,
    tokens,
    watched,
    write_strategies,
)

from bench import plan as planning
from bench.config import load
from bench.errors import UserFault
from bench.job import Job
from bench.launch import Ending, Launcher
from bench.recording import Recorder
from bench.records import Status
from bench.room import LOG_BYTES, make_room
from bench.store import SCORED, log_file, read_result
from bench.warm import host_environment

LISTING = ["--help", "run --help", "list strategies", "list suites --json", "list models", "list gpus"]
PLANNING = "plan suite=smoke model=random:tiny-gpt2 strategies=zero_shot data.source=sample results_dir=/nowhere/at/all"


@pytest.mark.parametrize("arguments", [*LISTING, PLANNING])
def test_commands_that_measure_nothing_import_no_torch(arguments: str) -> None:
    """Listing and help start fast because the heavy stack stays out of their process; a plan's is the predictor's."""
    code, seconds, heavy, text = watched(*arguments.split())
    assert code == 0 and heavy == [], text
    assert seconds < 5 or arguments == PLANNING


class Warm:
    """The warm process, spoken to directly: orders in, events out."""

    def __init__(self, log: Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "bench.host"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=log.open("w"), text=True, env={**environment(), **host_environment()})  # fmt: skip

    def event(self, kind: str) -> dict[str, Any]:
        """The next event of this kind."""
        assert self.process.stdout is not None
        while (event := json.loads(self.process.stdout.readline()))["event"] != kind:
            pass
        return dict(event)

    def order(self, job: Job) -> dict[str, Any]:
        """Run one cell to its end; the event that told it."""
        assert self.process.stdin is not None
        self.process.stdin.write(job.model_dump_json() + "\n")
        self.process.stdin.flush()
        return self.event("ended")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Warm, dict[str, Any]]]:
    """One warm process for several tests, and its `ready` event."""
    host = Warm(tmp_path_factory.mktemp("warm") / "host.log")
    yield host, host.event("ready")
    host.process.kill()
    host.process.wait()


def job_of(folder: Path, *more: str) -> Job:
    """One planned cell that trains."""
    [job] = planning.make(load(tokens(folder, "strategies=lora", "strategies.lora.r=2", *more))).jobs
    return job


def predictions(job: Job) -> dict[str, list[Any]]:
    """A cell's stored predictions."""
    table: dict[str, list[Any]] = pq.read_table(Path(job.folder) / "predictions.parquet").to_pydict()
    return table


def test_the_warm_process_has_one_thread_before_every_fork(warm: tuple[Warm, dict[str, Any]], tmp_path: Path) -> None:
    """A process with a second thread must not fork: a lock that thread holds would hang the child (DESIGN 9)."""
    host, ready = warm
    assert ready["threads"] == 1 and ready["start_method"] == "fork"
    for model in ("random:tiny-gpt2", "random:tiny-bert"):
        ended = host.order(job_of(tmp_path, f"model={model}"))
        assert ended["threads"] == 1 and ended["code"] == 0
    assert len(os.listdir(f"/proc/{host.process.pid}/task")) == 1


def test_the_warm_process_makes_no_cuda_call(warm: tuple[Warm, dict[str, Any]], tmp_path: Path) -> None:
    """A context made before the fork is useless in the child: no card is open, and the child finds CUDA untouched."""
    host, _ = warm
    note = f'import torch; open("{tmp_path / "cuda"}", "w").write(str(torch.cuda.is_initialized()))\n{AS_ZERO_SHOT.strip()}'
    body = "\n".join(line.strip() for line in note.splitlines())
    adapters = write_strategies(tmp_path / "adapters", {"looks": body})
    [job] = planning.make(load(tokens(tmp_path, "strategies=looks", f"adapters_path={adapters}"))).jobs
    assert host.order(job)["code"] == 0
    assert (tmp_path / "cuda").read_text() == "False"
    opened = [os.readlink(f) for f in Path(f"/proc/{host.process.pid}/fd").iterdir() if f.exists()]
    assert not [f for f in opened if f.startswith("/dev/nvidia") and f != "/dev/nvidiactl"]


def test_identical_cells_in_two_children_agree(warm: tuple[Warm, dict[str, Any]], tmp_path: Path) -> None:
    """Children of one warm process share its weights and still start alike: same losses, same predictions."""
    host, _ = warm
    jobs = [job_of(tmp_path / name) for name in ("one", "two")]
    assert jobs[0].cell.id == jobs[1].cell.id and jobs[0].folder != jobs[1].folder
    for job in jobs:
        assert host.order(job)["code"] == 0
    first, second = (read_result(Path(job.folder) / "result.json") for job in jobs)
    assert first.training is not None and second.training is not None and len(first.training.losses) == 2
    assert first.training.losses == second.training.losses
    assert predictions(jobs[0]) == predictions(jobs[1])


def test_spawned_cells_give_the_same_answers(
    warm: tuple[Warm, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where fork is missing a fresh process serves each cell: slower, not different."""
    host, _ = warm
    forked, spawned = job_of(tmp_path / "forked"), job_of(tmp_path / "spawned")
    assert host.order(forked)["code"] == 0
    monkeypatch.setenv("BENCH_START_METHOD", "spawn")
    other = Warm(tmp_path / "host.log")
    try:
        assert other.event("ready")["start_method"] == "spawn"
        assert other.order(spawned)["code"] == 0
    finally:
        other.process.kill()
        other.process.wait()
    assert predictions(forked) == predictions(spawned)


def test_a_warm_process_dies_with_its_parent(tmp_path: Path) -> None:
    """However the launcher ends, the kernel ends the warm process."""
    script = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-m', 'bench.host'], stdin=subprocess.PIPE, " \
             "stdout=subprocess.PIPE, text=True); p.stdout.readline(); print(p.pid, flush=True); sys.stdin.read()"  # fmt: skip
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              env=environment(BENCH_START_METHOD="spawn"))  # fmt: skip
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    eventually(lambda: gone(pid), 10)


@pytest.mark.parametrize("ended", [Status.ok, Status.out_of_memory, None])
def test_ctrl_c_leaves_a_record_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: Status | None
) -> None:
    """A cell that finished just before is finished; one that would have been tried again is not."""
    job, launcher = job_of(tmp_path), Launcher(tmp_path, 60)
    record = Path(job.folder) / "result.json"

    def served(job: Job, path: Path) -> None:
        if ended is not None:
            launcher.write(job, ended, "as it ended")
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher, "served", served)
    with pytest.raises(KeyboardInterrupt):
        launcher.attempt(job)
    assert read_result(record).outcome.status is (Status.ok if ended is Status.ok else Status.interrupted)


@pytest.mark.parametrize("status", [Status.out_of_memory, Status.timeout, Status.error])
def test_a_score_outlives_a_process_ended_while_defaults_were_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    """For want of memory or time, that is: one that was killed from outside runs again and tries them again."""
    job, launcher = job_of(tmp_path), Launcher(tmp_path, 60)
    folder = Path(job.folder)

    def served(job: Job, path: Path) -> tuple[Status, str]:
        Recorder(job).write(Status.ok, None, SCORED)
        assert not path.exists()
        return status, "it held 3.00 GiB"

    monkeypatch.setattr(launcher, "served", served)
    result, kept = launcher.attempt(job), status is not Status.error
    assert result.outcome.status is (Status.ok if kept else status)
    assert (result.notes[-1:] == ["the defaults have no score: it held 3.00 GiB"]) is kept
    make_room(folder)
    assert not (folder / SCORED).exists()


def test_a_score_that_cannot_be_kept_is_a_fault_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, launcher = job_of(tmp_path), Launcher(tmp_path, 60)

    def served(job: Job, path: Path) -> tuple[Status, str]:
        Recorder(job).write(Status.ok, None, SCORED)
        return Status.out_of_memory, "it held 3.00 GiB"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(launcher, "served", served)
    monkeypatch.setattr("bench.room.write_record", full)
    with pytest.raises(UserFault, match="cannot write into .*: No space left on device; finished cells are intact"):
        launcher.attempt(job)


def test_what_a_cell_wrote_last_is_shortened_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may print faster than its log is looked at, and end."""
    job, launcher = job_of(tmp_path), Launcher(tmp_path, 60)
    log = log_file(Path(job.folder), None)
    log.parent.mkdir(parents=True)

    def watch(job: Job) -> Ending:
        log.write_bytes(b"first" + bytes(LOG_BYTES) + b"last")
        return Ending(3)

    monkeypatch.setattr(launcher.host, "send", lambda job: None)
    monkeypatch.setattr(launcher, "watch", watch)
    launcher.served(job, log.with_name("result.json"))
    kept = log.read_bytes()
    assert len(kept) < LOG_BYTES and kept.startswith(b"first") and kept.endswith(b"last")


def test_threads_wait_as_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short spin by default; a policy in the user's environment is not overruled."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert host_environment()["GOMP_SPINCOUNT"] == "3000"
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(host_environment())
