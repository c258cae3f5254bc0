"""Records of probes beside those of `records_factory`, for the tests of what the report says of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from records_factory import Fake, write_run

from bench.probed import Check, ContaminationFindings, FormatAnswer, FormatFindings, ProbeRecord, Verdict
from bench.records import Outcome, Status
from bench.report.collect import Run, collect
from bench.report.summary import boards
from bench.store import probe_file, read_plan, write_record

SCORES = {"zero_shot": [0.8, 0.5, 0.6, 0.7], "lora": [0.9, 0.85, 0.55, 0.8]}
"""Accuracies in the four formats that a cell of this strategy is asked in."""
POWER = {0: [0.4, 0.7, 0.9], 1: [0.3, 0.02, 0.5], 8: [0.0001, 0.0002, 0.003]}
"""p of each split of lora, by dose: the leak shows from eight copies on."""


def formats(scores: Sequence[float], trains: bool, degenerate: int | None = None) -> FormatFindings:
    """A cell's answers to ten items in as many formats as there are scores; calibration lifts each by a tenth."""
    answers = [
        FormatAnswer(
            number=i,
            described={"separator": f"sep{i}"},
            trained_on=trains and i == 0,
            scores={"accuracy": value},
            calibrated={"accuracy": min(1.0, value + 0.1)},
            answers=[10, 0] if i == degenerate else [5, 5],
            calibrated_answers=[5, 5],
        )
        for i, value in enumerate(scores)
    ]
    return FormatFindings(metric="accuracy", items=list(range(10)), chance=0.5, answers=answers)


def membership(p: float, verdict: Verdict | None = None, name: str = "membership") -> Check:
    """One check."""
    return Check(
        name=name,
        family="membership",
        statistic=0.3,
        p=p,
        n=200,
        verdict=verdict or ("seen" if p <= 0.05 else "no power"),
        says=f"p is {p}.",
    )


def findings(p: float, dose: int, verdict: Verdict | None = None) -> ContaminationFindings:
    """Membership at this p, and overlap, which finds what was planted."""
    found = "seen" if dose else "not seen"
    overlap = Check(name="overlap", family="overlap", verdict=found, says="Texts." if dose else "No text.")  # type: ignore[arg-type]
    checks = [overlap, membership(p, verdict)]
    accuracy = 0.99 if dose else 0.8
    return ContaminationFindings(
        dose=dose, test_items=[1, 2], test_accuracy=accuracy, control_accuracy=0.8, checks=checks
    )


def asked(folder: Path, cell: str, **found: Any) -> None:
    """Write a probe's record beside a cell's."""
    name = next(iter(found))
    path = probe_file(folder, name)
    path.parent.mkdir(exist_ok=True)
    record = ProbeRecord(cell=cell, probe=name, asked={}, outcome=Outcome(status=Status.ok), **found)  # type: ignore[arg-type]
    write_record(path, record)


def run_with(root: Path, ps: dict[int, list[float]] | None = None, clean: Verdict | None = None) -> Run:
    """Three seeds of lora and zero_shot on SST-2, asked in four formats; `ps`: dose -> p of each split of lora."""
    run_dir = write_run(root, Fake(tasks=["sst2"], strategies=["zero_shot", "lora"], seeds=(0, 1, 2)))
    plan = read_plan(run_dir / "plan.json")
    cells = list(plan.cells)
    for info in plan.cells:
        one = degenerate = 2 if info.strategy == "zero_shot" else None
        asked(run_dir / info.id, info.id, formats=formats(SCORES[info.strategy], one is None, degenerate))
        if info.strategy != "lora":
            continue
        for dose, values in (ps or {}).items():
            twin = info.model_copy(update={"plant": dose, "id": f"{info.id}{dose or ''}", "plant_items": 200})
            if dose:
                (run_dir / twin.id).mkdir()
                raw = json.loads((run_dir / info.id / "result.json").read_text())
                (run_dir / twin.id / "result.json").write_text(json.dumps(raw | {"cell": twin.model_dump(mode="json")}))
                cells.append(twin)
            asked(run_dir / twin.id, twin.id, contamination=findings(values[info.seed], dose, None if dose else clean))
    write_record(run_dir / "plan.json", plan.model_copy(update={"cells": cells}))
    return collect(run_dir)


def by_strategy(run: Run) -> dict[str, list[Any]]:
    """Cells of the one task."""
    [board] = boards(run.cells)
    return {row.strategy: row.scores["sst2"].cells for row in board.rows}
