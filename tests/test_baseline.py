"""The committed baseline is of the suite as it is now, small, and says nothing of where it was made."""

from __future__ import annotations

import re

from cli_runs import ROOT

from bench import plan
from bench.compare.sides import read_side
from bench.config import load

FILE = ROOT / "reports" / "baseline" / "smoke.json"


def test_it_holds_the_cells_that_the_suite_has() -> None:
    """By id: a change of a strategy's defaults, of the suite or of our numerics needs a new baseline (docs/gate.md)."""
    jobs = plan.make(load(["suite=smoke", "data.source=sample", "device=cpu"])).jobs
    assert [cell.info.id for cell in read_side(str(FILE)).cells] == [job.cell.id for job in jobs]


def test_every_cell_that_is_ok_can_be_gated() -> None:
    cells = [cell for cell in read_side(str(FILE)).cells if cell.ok]
    assert len(cells) > 70
    for cell in cells:
        assert cell.result is not None and cell.result.predicted.peak_bytes, cell.info.id
        assert cell.items is not None and len(cell.items.rows) == 16, cell.info.id
        assert cell.result.phases["predict"].forwards is not None or cell.info.strategy == "frozen", cell.info.id


def test_it_is_small_and_names_no_place() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert len(text) < 500_000
    assert not re.search(r'"/(?:home|root|tmp|work|usr|Users)\b', text) and "\\\\" not in text
    assert not set(
        re.findall(
            r'"(peak_rss_bytes|step_seconds|tokens_per_second|memory_bytes|time|commit|id": "[0-9a-f]{12})"', text
        )
    )
