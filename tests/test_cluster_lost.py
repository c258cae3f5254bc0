"""What a run on Ray does where nodes are lost, results come back late or Ray itself gives up: with a stand-in for Ray."""

from __future__ import annotations

from pathlib import Path

from cli_runs import tokens
from cluster_fakes import jobs_of

from bench.cluster import crew
from bench.config import load
from bench.launch import Launcher
from bench.records import Predicted, Status


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
