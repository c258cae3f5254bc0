"""The main job of two checkouts: which they are, what is asked of them, and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import main_job
from benchmarks.main_job import ROOT, Side, measured, page, pair


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks like one."""
    (tmp_path / "other" / "bench").mkdir(parents=True)
    (tmp_path / "other" / "bench" / "__main__.py").write_text("raise SystemExit('this one fails')")
    return tmp_path / "other"


def test_the_second_checkout_is_this_one_where_none_is_named(checkout: Path, tmp_path: Path) -> None:
    before, after = pair(str(checkout), ("tasks=rte", "model=minilm", "work=x"), tmp_path)
    assert (before.root, after.root) == (checkout, ROOT) and before.work != after.work
    assert before.options == after.options == ["model=minilm"]
    assert pair(str(ROOT), (str(checkout),), tmp_path)[1].root == checkout


def test_a_folder_without_the_package_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as fault:
        pair(str(tmp_path), (), tmp_path)
    assert str(fault.value) == f"benchmarks.main_job: {tmp_path} holds no bench/; give a checkout of this repository"


def test_tasks_go_in_turn(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each side first half the time, a run that warms up before all and in a place of its own, all tasks at the end."""
    asked: list[tuple[str, ...]] = []

    def command(side: Side, *tokens: str, folder: str = "runs") -> float:
        asked.append((side.name, tokens[0], folder))
        return float(len(asked))

    monkeypatch.setattr(Side, "command", command)
    sides = pair(str(checkout), (), tmp_path)
    measured(sides, ["sst2", "rte"])
    assert [one[2] for one in asked] == ["warm"] * 2 + ["runs"] * 6
    assert [one[:2] for one in asked[2:]] == [
        ("before", "tasks=sst2"), ("after", "tasks=sst2"), ("after", "tasks=rte"), ("before", "tasks=rte"),
        ("before", "tasks=sst2,rte"), ("after", "tasks=sst2,rte"),
    ]  # fmt: skip
    assert sides[0].seconds == {"sst2": 3.0, "rte": 6.0, "page of all": 7.0}


def test_a_command_that_fails_says_what_it_said(checkout: Path, tmp_path: Path) -> None:
    """And it is the checkout's own package that ran."""
    (checkout / "bench" / "__init__.py").touch()
    with pytest.raises(RuntimeError, match="before: tasks=sst3\nthis one fails"):
        Side("before", checkout, tmp_path, []).command("tasks=sst3")


def test_the_page_divides_before_by_after() -> None:
    def side(wall: float, ok: int) -> dict[str, Any]:
        phases = {"full": {"load": 1.0, "steps": 20.0, "around steps": 2.0, "predict": 5.0, "probe": 0.0}}
        return {"commit": "c" * 40, "cells": 3, "ok": ok, "wall": wall, "tasks": {"sst2": wall}, "phases": phases}

    told = page({"machine": {"name": "CPU", "cores": 2}, "load": 1.0, "before": side(80.0, 3), "after": side(40.0, 2)})
    assert "| sst2, s | 80 | 40 | 2.00 |" in told and "| all, s | 80 | 40 | 2.00 |" in told
    assert "| cells with a score | 3 of 3 | 2 of 3 | |" in told
    assert "| outside of cells | | | | | | 12.0 | 30.0% |" in told and "| | | | | 52.0 | 65.0% |" in told
    assert main_job.SUITE == "glue-small"
