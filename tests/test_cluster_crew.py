"""The command's side of a run on Ray, with a stand-in for Ray that carries out what it is given when it is waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_runs import tokens
from cluster_fakes import TWO, Fake, Letters, carried_out, exceptions, jobs_of, raises

from bench.cluster import crew, entry, node, watch
from bench.config import load
from bench.errors import UserFault
from bench.job import Job
from bench.records import Status
from bench.stopping import Stop
from bench.store import read_probe, read_result


def reasons(jobs: list[Job]) -> list[tuple[str, str]]:
    """Outcome and reason of every record."""
    found = [read_result(Path(job.folder) / "result.json") for job in jobs]
    return [(one.outcome.status.value, one.outcome.reason or "") for one in found]


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (exceptions.NodeDiedError("gone"), "error", "lost 4 times with its node; it runs again next time (gone)"),
        (exceptions.LocalRayletDiedError(), "error", "lost 4 times with its node; it runs again next time"),
        (exceptions.RaySystemError("no port"), "error", "Ray: RaySystemError: System error: no port"),
        (exceptions.WorkerCrashedError(), "error", "lost 4 times with its node; it runs again next time"),
        (exceptions.OutOfMemoryError("95%"), "out_of_memory", "its node ran short of memory, and Ray ended it: 95%"),
        (exceptions.TaskCancelledError(), "interrupted", "Ray cancelled it from outside; it runs again next time"),
        (exceptions.RayTaskError("f", "t", ValueError("x")), "error", "its Ray task failed: ValueError: x"),
    ],
)
def test_what_never_came_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str, says: str
) -> None:
    """Each is a row with its reason, and the run goes on to its end."""
    jobs, left, _ = carried_out(tmp_path, monkeypatch, Fake(lambda number: raises(error)), TWO)
    assert left == 0 and [told[0] for told in reasons(jobs)] == [status] * 2
    assert all(told[1].startswith(says) for told in reasons(jobs)), reasons(jobs)


def test_short_of_memory_beside_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another cell on that node it is not known whose fault it was: it runs again."""
    hands = crew.Crew(tmp_path, load(tokens(tmp_path, "executor=ray")).settings)
    hands.ray = Fake(lambda number: None)
    one, two = (watch.Open(job, i, "n1") for i, job in enumerate(jobs_of(tmp_path, TWO)))
    hands.open = {1: two}
    status, says = hands.lost(one, exceptions.OutOfMemoryError("95%"))
    assert status is Status.error and "with 2 cells on it" in says and "say threads=" in says
    two.node = "n2"
    assert hands.lost(one, exceptions.OutOfMemoryError("95%"))[0] is Status.out_of_memory


def test_a_probe_that_never_came_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [job] = jobs_of(tmp_path, "strategies=zero_shot", "probes=formats")
    Path(job.folder).mkdir(parents=True)
    hands = crew.Crew(tmp_path, load(tokens(tmp_path, "executor=ray")).settings)
    hands.recorded(job.model_copy(update={"probe": "formats"}), Status.error, "lost")
    assert read_probe(Path(job.folder) / "probes" / "formats.json").outcome.reason == "lost"


def test_a_fault_of_a_node_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something to be put right by hand: one line; what is open is called off."""

    def serve(number: int) -> Any:
        fake.at_once = 0  # the other order is not done yet
        return {"node": "n1", "fault": "node n1: no room"}

    fake = Fake(serve)
    with pytest.raises(UserFault, match="^node n1: no room$"):
        carried_out(tmp_path, monkeypatch, fake, TWO)
    assert fake.cancelled == [1]


def test_ctrl_c_records_what_was_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cell that had begun is `interrupted`, the other has no record; both are called off."""
    jobs = jobs_of(tmp_path, TWO)

    class Interrupted(Fake):
        def wait(self, references: list[Any], timeout: float = 0, num_returns: int = 1) -> Any:
            if num_returns == 1 and isinstance(references[0], int):
                if self.waiting[0].box.letters:
                    raise KeyboardInterrupt
                self.waiting[0].put.remote((0, "n1", "begin", 0.0))
                return [], references
            if num_returns == 1:
                self.waiting[0].put.remote((0, "n1", "adapt", 0.5))
            elif timeout == 0:
                return [], references
            return references, []

    fake = Interrupted(lambda number: None)
    with pytest.raises(KeyboardInterrupt):
        carried_out(tmp_path, monkeypatch, fake, TWO)
    assert fake.cancelled == [0, 1]
    assert reasons(jobs[:1]) == [("interrupted", "interrupted by Ctrl-C; it runs again next time")]
    assert not (Path(jobs[1].folder) / "result.json").exists()


def test_hours_that_are_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over at once: one order is handed over. Over in the middle: what has not begun is taken back, but never all."""
    lost = exceptions.NodeDiedError("gone")
    three = "strategies=zero_shot,lora,frozen"
    jobs, left, _ = carried_out(tmp_path / "a", monkeypatch, Fake(lambda number: raises(lost)), three, stop=Stop(1e-9))
    assert left == 2 and [(Path(job.folder) / "result.json").exists() for job in jobs] == [True, False, False]
    clock = iter([False, False, False, False])  # while the three are handed over, and then no more

    class Later(Stop):
        @property
        def over(self) -> bool:
            return next(clock, True)

    fake = Fake(lambda number: raises(lost))
    jobs, left, _ = carried_out(tmp_path / "b", monkeypatch, fake, three, stop=Later(1.0))
    assert left + sum((Path(job.folder) / "result.json").exists() for job in jobs) == 3
    assert left == len(fake.cancelled) == 1 and fake.cancelled == [2]


def test_a_run_on_the_stand_in_is_one_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole cell through both sides, its processes real: files, record with its node, and Ray's options."""
    orders: dict[int, tuple[dict[str, str], tuple[Any, ...], Any]] = {}

    class Whole(Fake):
        def submit(self, order: dict[str, str], mailbox: Letters, *contents: Any) -> int:
            orders[0] = (order, contents, mailbox)
            return 0

    def serve(number: int) -> Any:
        order, contents, mailbox = orders[number]
        return entry.serve(order, mailbox, *contents)

    monkeypatch.setattr(node, "node_id", lambda: "abc")
    fake = Whole(serve)
    [job], left, hands = carried_out(tmp_path, monkeypatch, fake, "strategies=lora", "strategies.lora.r=2")
    node.end_all()
    found = read_result(Path(job.folder) / "result.json")
    assert left == 0 and found.outcome.status is Status.ok and found.environment["node"] == "abc"
    assert found.environment["threads"] == 1 and found.cell == job.cell
    assert {"result.json", "predictions.parquet", "log.txt", "adapted"} == {p.name for p in Path(job.folder).iterdir()}
    assert any(phase == "adapt" for _, _, phase, _ in orders[0][2].box.letters) or hands.some_began
    assert fake.asked[0]["max_calls"] == 0 and fake.asked[0]["num_cpus"] == 1
