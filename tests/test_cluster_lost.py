"""What a run on Ray does where nodes are lost, results come back late or Ray itself gives up: with a stand-in for Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cli_runs import tokens
from cluster_fakes import TWO, Fake, carried_out, exceptions, jobs_of, raises

from bench.cluster import crew
from bench.config import load
from bench.errors import UserFault
from bench.job import Job
from bench.launch import Launcher
from bench.records import Predicted, Status
from bench.stopping import Stop
from bench.store import read_result

THREE = "strategies=zero_shot,lora,frozen"


def lost(number: int) -> Any:
    """An order that ends in a record of the command's own making."""
    return raises(exceptions.NodeDiedError("gone"))


def recorded(jobs: list[Job]) -> list[str | None]:
    """Outcome of every record."""
    paths = [Path(job.folder) / "result.json" for job in jobs]
    return [read_result(path).outcome.status.value if path.is_file() else None for path in paths]


def test_what_failed_comes_after_what_was_never_tried(tmp_path: Path) -> None:
    """Under hours only: of a cell that fails nothing is known, which would put it before all others each time."""
    failed, short, long = (
        job.model_copy(update={"predicted": Predicted(seconds=seconds)})
        for job, seconds in zip(jobs_of(tmp_path, "strategies=zero_shot,lora,frozen"), (None, 1.0, 9.0), strict=True)
    )
    Path(failed.folder).mkdir(parents=True)
    Launcher(tmp_path, 60.0).write(failed, Status.error, "fails")
    for more, order in (([], [failed, long, short]), (["run.max_hours=1"], [long, short, failed])):
        hands = crew.Crew(tmp_path, load(tokens(tmp_path, "executor=ray", *more)).settings)
        assert hands.in_turn([failed, short, long]) == order


def test_a_fault_of_one_node_drops_no_result_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have come back: the fault is told once the other's record is written."""
    fake = Fake(lambda number: lost(number) if number else {"node": "n1", "fault": "node n1: no room"}, at_once=2)
    with pytest.raises(UserFault, match="^node n1: no room$"):
        carried_out(tmp_path, monkeypatch, fake, TWO)
    assert recorded(jobs_of(tmp_path, TWO)) == [None, "error"] and fake.cancelled == []


def test_ctrl_c_keeps_what_has_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is done at that moment: its record is its own and not `interrupted`; a fault beside it hides nothing."""

    class Interrupted(Fake):
        def wait(self, references: list[Any], timeout: float = 0, num_returns: int = 1) -> Any:
            if num_returns == 1 and timeout:
                raise KeyboardInterrupt
            return super().wait(references, timeout, num_returns)

    fake = Interrupted(lambda number: {"node": "n1", "fault": "no room"} if number == 1 else lost(number), at_once=2)
    with pytest.raises(KeyboardInterrupt):
        carried_out(tmp_path, monkeypatch, fake, THREE)
    assert recorded(jobs_of(tmp_path, THREE)) == ["error", None, None] and fake.cancelled == [2]


def test_hours_that_are_over_drop_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three have come back when the hours are, and no letter has told that they had begun."""
    clock = iter([False] * 3)

    class Later(Stop):
        @property
        def over(self) -> bool:
            return next(clock, True)

    fake = Fake(lost, at_once=3)
    jobs, left, _ = carried_out(tmp_path, monkeypatch, fake, THREE, stop=Later(1.0))
    assert left == 0 and recorded(jobs) == ["error"] * 3 and fake.cancelled == []
