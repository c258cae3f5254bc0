"""The report's table of predictions: what stands beside what, and the errors it states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from records_factory import Fake, write_run

from bench.config.schema import Claim
from bench.records import Predicted, PredictedPhase, Result
from bench.report.collect import collect
from bench.report.foretold import ALLOCATED, RESIDENT, TENSORS, compared, foretold
from bench.report.html import to_html
from bench.report.literature import literature
from bench.report.markdown import to_markdown
from bench.report.page import build

MIB = 2**20
SMALL = Fake(tasks=("sst2",), strategies=("lora", "full"), seeds=(0, 1, 2))


def with_prediction(resident: int | None, flops: float | None = 4.0e12) -> object:
    """An edit of fake records: adapting grew by 200 MiB (full: 400) and 100 + 10 MiB were predicted."""

    def edit(result: Result) -> Result:
        grew = (400 if result.cell.strategy == "full" else 200) * MIB
        adapt = result.phases["adapt"]
        update = {"peak_rss_bytes": 500 * MIB + grew, "baseline_rss_bytes": 500 * MIB}
        if result.cell.device == "cuda":
            update = {"peak_allocated_bytes": grew}
        phase = PredictedPhase(peak_bytes=110 * MIB, resident_bytes=resident, parts={"parameters": 10 * MIB})
        known = Predicted(peak_bytes=110 * MIB, phases={"adapt": phase}, flops=flops)
        used = result.used.model_copy(update={"train_flops": 5.0e12}) if result.used else None
        phases = {**result.phases, "adapt": adapt.model_copy(update=update)}
        return result.model_copy(update={"phases": phases, "predicted": known, "used": used})

    return edit


def pages(root: Path, **more: object) -> tuple[str, str, list[str]]:
    """HTML, Markdown and the table's notes of a fake run."""
    run = collect(write_run(root, Fake(**{**SMALL.__dict__, **more})))  # type: ignore[arg-type]
    table = foretold(run.cells)
    assert table is not None and len(table.rows) == 2, "one row a model, task and strategy"
    page = build(run)
    return to_html(page), to_markdown(page), table.notes


@pytest.mark.parametrize(
    ("resident", "cuda", "kind", "median", "worst"),
    [
        # 150 of 200 and of 400 MiB; then tensors without the weights, 100 of 200 and of 400; then the peak, 110
        (150 * MIB, False, RESIDENT, "43.8%", "-62.5%"),
        (None, False, TENSORS, "62.5%", "-75.0%"),
        (150 * MIB, True, ALLOCATED, "58.7%", "-72.5%"),
    ],
)
def test_errors_are_those_of_what_is_compared(
    resident: int | None, cuda: bool, kind: str, median: str, worst: str, tmp_path: Path
) -> None:
    html, markdown, notes = pages(tmp_path, edit=with_prediction(resident), cuda=cuda)
    assert notes[0].startswith(f"Memory ({kind}), 6 cells: median error {median}, worst {worst}; at most ")
    assert notes[1] == "FLOPs, 6 cells: median error 20.0%, worst -20.0%."
    for text in (html, markdown):
        assert "Predicted beside measured memory" in text and worst in text
        assert text.count("-20.0%") >= 3 and "of 3 cells" in text


def test_without_predictions_the_page_is_as_before(tmp_path: Path) -> None:
    run = collect(write_run(tmp_path, SMALL))
    assert foretold(run.cells) is None
    assert "Predicted beside measured" not in to_html(build(run)) + to_markdown(build(run))


def test_cells_without_either_side_are_left_out(tmp_path: Path) -> None:
    """No baseline, or nothing grown: there is nothing to divide by."""
    run = collect(write_run(tmp_path, Fake(**{**SMALL.__dict__, "edit": with_prediction(1)})))  # type: ignore[arg-type]
    result = run.cells[0].result
    assert result is not None and compared(result) is not None
    for update in ({"baseline_rss_bytes": None}, {"baseline_rss_bytes": result.phases["adapt"].peak_rss_bytes}):
        adapt = result.phases["adapt"].model_copy(update=update)
        assert compared(result.model_copy(update={"phases": {"adapt": adapt}})) is None


def test_flops_that_were_not_predicted_are_not_measured_as_wrong(tmp_path: Path) -> None:
    run = collect(write_run(tmp_path, Fake(**{**SMALL.__dict__, "edit": with_prediction(1, None)})))  # type: ignore[arg-type]
    table = foretold(run.cells)
    assert table is not None and all(row[-1].text == "not measured" for row in table.rows)
    assert not any(note.startswith("FLOPs") for note in table.notes)


@pytest.mark.parametrize(("cuda", "says"), [(False, "0.75 GB"), (True, "0.21 GB")])
def test_a_claim_stands_beside_what_its_cell_held(cuda: bool, says: str, tmp_path: Path) -> None:
    """On a CPU the weights (134,515,008 in fp32) and 200 MiB of growth, on a card what was allocated there."""
    run = collect(write_run(tmp_path, replace(SMALL, edit=with_prediction(None), cuda=cuda)))  # type: ignore[arg-type]
    claim = Claim(task="sst2", strategy="lora", gigabytes=(0.7, 0.8), says="It fits.", under="fp32", source="a paper")
    table = literature({"one": claim}, run.cells)
    assert table is not None
    [row] = table.rows
    assert row[3].text == says and row[2].text == "0.12 GB" and row[4].text == "no"
    assert "It fits.: does not hold." in " ".join(table.notes)


def test_the_report_leaves_a_claim_open_where_another_cell_ran(tmp_path: Path) -> None:
    """And does not say that it was computed with what it was not."""
    run = collect(write_run(tmp_path, replace(SMALL, edit=with_prediction(None))))  # type: ignore[arg-type]
    about = {"task": "sst2", "strategy": "lora", "gigabytes": (0.7, 0.8), "says": "It fits.", "source": "a paper"}
    claim = Claim.model_validate({**about, "under": "bf16, batch 3", "precision": "bf16", "batch": 3})
    table = literature({"one": claim}, run.cells)
    assert table is not None
    words = "the cell computes with precision=fp32, batch=8, the claim is about precision=bf16, batch=3"
    [row] = table.rows
    assert row[4].text == "open" and row[5].text == words and row[2].text == "0.12 GB"
    assert table.notes[0] == f"It fits.: open for sst2 ({words})."
