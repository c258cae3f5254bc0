"""What a method watched while it trained, as a table of the report."""

from __future__ import annotations

import json
from pathlib import Path

from records_factory import Fake, write_run

from bench.report.collect import collect
from bench.report.summary import boards
from bench.report.watched import ended, watched_table


def test_where_the_answers_ended_is_shown_by_strategy(tmp_path: Path) -> None:
    """Mean over the last tenth of the steps, then over seeds; a strategy that watched nothing has no row."""
    run_dir = write_run(tmp_path, Fake(tasks=("sst2",), strategies=("lora", "full"), seeds=(0, 1)))
    for seed, low in ((0, -4.0), (1, -6.0)):
        path = next(p for p in run_dir.glob(f"sst2-lora-s{seed}-*/result.json"))
        raw = json.loads(path.read_text())
        told = {
            "log-ratio of the preferred answers": [0.0] * 18 + [1.0, 3.0],
            "log-ratio of the other answers": [low] * 20,
        }
        raw["training"] = (raw["training"] or {}) | {"told": told}
        path.write_text(json.dumps(raw))
    [board] = boards(collect(run_dir).cells)
    table = watched_table(board, "sst2")
    assert table is not None and [column.name for column in table.columns][1:] == [
        "log-ratio of the preferred answers",
        "log-ratio of the other answers",
    ]
    assert [[entry.text for entry in row] for row in table.rows] == [["lora", "+2.00", "-5.00"]]
    assert table.rows[0][0].sub == "2 seeds" and "both become less likely" in table.notes[0]


def test_nothing_watched_is_no_table(tmp_path: Path) -> None:
    [board] = boards(collect(write_run(tmp_path, Fake(tasks=("sst2",), strategies=("lora",)))).cells)
    assert watched_table(board, "sst2") is None
    assert ended([3.0]) == 3.0
