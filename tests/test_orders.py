"""The order of strategies under several axes: what changes, what may be claimed, and runs that cannot be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from records_factory import Fake, write_run

from bench.records import Result
from benchmarks.orders import main


def under(axis: str, limit: float) -> Any:
    """An edit that gives every record this budget."""

    def edit(result: Result) -> Result:
        budget = {"labels": 128, axis: limit}
        return result.model_copy(update={"cell": result.cell.model_copy(update={"budget": budget})})

    return edit


def run(tmp_path: Path, name: str, axis: str, limit: float, **more: Any) -> str:
    """A run of three strategies and three seeds on one task, its plan holding the budget too."""
    given = {"name": name, "tasks": ("sst2",), "strategies": ("frozen", "lora", "full"), "seeds": (0, 1, 2), **more}
    folder = write_run(tmp_path, Fake(edit=under(axis, limit), **given))
    from bench.store import read_plan, write_record

    plan = read_plan(folder / "plan.json")
    cells = [c.model_copy(update={"budget": {"labels": 128, axis: limit}}) for c in plan.cells]
    write_record(folder / "plan.json", plan.model_copy(update={"cells": cells}))
    return str(folder)


def test_orders_are_told_under_each_axis(tmp_path: Path) -> None:
    """Same records under two names of an axis: same order, nothing changes, and what is claimed is claimed twice."""
    pages = [run(tmp_path, "a", "train_examples", 256), run(tmp_path, "b", "train_flops", 4e12)]
    told = main([*pages, f"out={tmp_path / 'orders'}"])["sst2"]
    assert told["train_examples = 256"] == told["train_flops = 4e+12"] and len(told["train_flops = 4e+12"]) == 3
    assert told["changes"] == []
    assert all(" over frozen" in one for one in told["kept"]) and told["kept"], "two far better than the third"
    text = (tmp_path / "orders.md").read_text()
    assert "| strategy | train_examples = 256 | train_flops = 4e+12 |" in text and "- nowhere" in text


def test_a_change_is_named_with_what_may_be_claimed(tmp_path: Path) -> None:
    """Other draws swap strategies that lie close: told, and not claimed."""
    a = run(tmp_path, "a", "train_examples", 256, items=60)
    b = run(tmp_path, "b", "train_flops", 4e12, items=60, seeds=(7, 8, 9))
    told = main([a, b, f"out={tmp_path / 'orders'}"])["sst2"]
    swapped = told["train_examples = 256"] != told["train_flops = 4e+12"]
    assert swapped == bool(told["changes"])
    for one in told["changes"]:
        assert "no change that may be claimed" in one


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    """One run, several budgets, several models: one line each."""
    with pytest.raises(SystemExit, match="got fewer than two run folders"):
        main([run(tmp_path, "a", "train_examples", 256)])
    two = run(tmp_path, "m", "train_examples", 256, models=("a", "b"))
    with pytest.raises(SystemExit, match="several models"):
        main([two, two])
