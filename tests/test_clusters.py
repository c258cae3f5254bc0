"""Items that share a passage: named by the task, written with the predictions, and no part of older identities."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from cli_runs import records, run_here

from bench.config import load
from bench.identity import task_digest


def test_a_cluster_is_part_of_a_tasks_digest_only_where_it_is_named() -> None:
    task = load(["suite=smoke"]).suite.tasks["sst2"]
    named = task.model_copy(update={"cluster": "text"})
    assert task_digest(task) != task_digest(named)
    # what this task's digest was before tasks could name a cluster
    assert "cluster" in task.model_dump() and task_digest(task) == DIGEST


DIGEST = "c3e63cd549bd45db"


def test_clusters_are_written_and_scored_over(tmp_path: Path) -> None:
    [result] = run_here(tmp_path, "strategies=zero_shot", "tasks.sst2.cluster=text")
    table = pq.read_table(records(tmp_path)["zero_shot"].parent / "predictions.parquet")
    assert table["cluster"].to_pylist() == list(range(8))  # eight sentences, no two alike
    assert result.scores is not None
    assert (result.scores["accuracy"].interval, result.scores["accuracy"].clusters) == ("clusters", 8)
