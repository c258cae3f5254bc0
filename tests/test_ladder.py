"""The ladder: one budget a rung, what is run at one rung only, and what the page says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from records_factory import Fake, write_run

from bench import plan as planning
from bench.config import load
from bench.config.schema import Budget
from bench.records import Score
from bench.report.collect import CellView, collect
from bench.report.curve import curve_table, curves


@pytest.mark.parametrize(
    ("axis", "given", "expected"),
    [
        ("train_examples", 256, [64, 256]),
        ("train_tokens", 9, [64, 256]),
        ("train_flops", 1e9, [64.0, 256.0]),
        ("train_seconds", 5.0, [64.0, 256.0]),
    ],
)
def test_a_ladder_is_one_budget_a_rung(axis: str, given: float, expected: list[float]) -> None:
    """Smallest first, in the units of the axis; the caps stay."""
    found = Budget.model_validate({"labels": 8, axis: given, "ladder": [256, 64], "memory_gib": 2}).expanded()
    assert [getattr(b, axis) for b in found] == expected
    assert [type(getattr(b, axis)) for b in found] == [type(value) for value in expected]
    assert all(b.ladder is None and b.axis == axis and b.memory_gib == 2 and b.labels == 8 for b in found)


def test_epochs_climb_with_the_labels() -> None:
    found = Budget(curve=[8, 2], epochs=1, ladder=[1, 4]).expanded()
    assert [(b.labels, b.train_examples) for b in found] == [(2, 2), (2, 8), (8, 8), (8, 32)]


def test_what_spends_nothing_runs_at_one_rung() -> None:
    tokens = ["suite=smoke", "tasks=sst2", "model=random:tiny-gpt2", "strategies=zero_shot,few_shot,lora"]
    jobs = planning.make(load([*tokens, "data.source=sample", "budget.ladder=[8,16]"])).jobs
    rungs = {name: [j.cell.budget["train_examples"] for j in jobs if j.cell.strategy == name] for name in STRATEGIES}
    assert rungs == {"zero_shot": [8], "few_shot": [8], "lora": [8, 16]}
    assert len({job.cell.id for job in jobs}) == len(jobs)


STRATEGIES = ("zero_shot", "few_shot", "lora")
SCORES = {"zero_shot": {256: 0.8}, "lora": {256: 0.8, 1024: 0.81}, "prefix_tuning": {256: 0.5, 1024: 0.9}}


def views(root: Path) -> list[CellView]:
    """Cells of SST-2 with these scores, two points of interval on either side."""
    run = collect(write_run(root, Fake(tasks=("sst2",), strategies=tuple(SCORES))))
    found = []
    for cell in run.cells:
        assert cell.result is not None
        for rung, value in SCORES[cell.info.strategy].items():
            info = cell.info.model_copy(update={"budget": {"labels": 128, "train_examples": rung}})
            score = Score(value=value, low=value - 0.02, high=value + 0.02, n=400, chance=0.51)
            result = cell.result.model_copy(update={"cell": info, "scores": {"accuracy": score}})
            found.append(CellView(info, cell.folder, "ok", None, result))
    return found


def test_it_says_who_was_merely_slow(tmp_path: Path) -> None:
    [curve] = curves(views(tmp_path))
    said = " ".join(curve.sentences)
    assert "prefix_tuning rises clearly: 0.500 with 256 training examples, 0.900 with 1024." in said
    assert "lora rises, within the intervals: 0.800 with 256 training examples, 0.810 with 1024." in said
    assert "zero_shot" not in said, "one rung shows no climb"
    assert "none of this is claimed" in said, "one training run a rung"
    assert [column.name for column in curve_table(curve).columns][1:] == [
        "256 training examples",
        "1024 training examples",
    ]
