"""What a plan prints: columns that tell something, and cells by their whole names."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from bench.planned import COLUMNS, cells_table


def cell(
    model: str = "random:llama-8b", seconds: float | None = None, limit: int | None = 15 * 2**30
) -> dict[str, Any]:
    """A row of a plan."""
    known = {"peak_bytes": 42 * 2**30, "flops": 1.9e15, "seconds": seconds}
    return {
        "id": "sst2-prompt_tuning-s0-44bf9d75", "model": model, "limit_bytes": limit, "fits": False, "predicted": known,
    }  # fmt: skip


def printed(rows: list[dict[str, Any]]) -> str:
    """The table on a terminal of 80 columns."""
    console = Console(file=io.StringIO(), width=80)
    console.print(cells_table("mine", rows, "data from sample"))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_one_model_stands_in_the_title_and_names_stay_whole() -> None:
    said = printed([cell(), cell()])
    assert "mine: 2 cells of random:llama-8b, data from sample" in said
    assert said.count("sst2-prompt_tuning-s0-44bf9d75") == 2 and "42.00" in said and "15.00" in said


@pytest.mark.parametrize(
    ("rows", "left_out"),
    [
        ([cell(), cell()], {"model", "seconds"}),
        ([cell(), cell(seconds=12.0)], {"model"}),
        ([cell(), cell("minilm")], {"seconds"}),
        ([cell(), cell("minilm", 12.0, None)], set()),
    ],
)
def test_columns_that_say_nothing_are_left_out(rows: list[dict[str, Any]], left_out: set[str]) -> None:
    shown = [str(column.header) for column in cells_table("mine", rows, "data from sample").columns]
    assert shown == [name for name in COLUMNS if name not in left_out]
