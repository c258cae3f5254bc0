"""The label curve: which points it has, what it says of where tuning passes prompting, and its place on the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from records_factory import Fake, write_run

from bench.records import Score
from bench.report import render
from bench.report.collect import CellView, Run, collect
from bench.report.curve import curve_table, curves
from bench.report.curve_chart import curve_figure
from bench.report.html import to_html
from bench.report.markdown import to_markdown
from bench.report.page import Page, build

SCORES = {
    # strategy -> label count -> accuracy
    "zero_shot": {0: 0.80},
    "few_shot": {8: 0.70, 32: 0.82},
    "lora": {8: 0.60, 32: 0.85, 128: 0.93},
    "full": {8: 0.55, 32: 0.56, 128: 0.81},
}


def views(root: Path, scores: dict[str, dict[int, float]], rows: int = 67_349) -> list[CellView]:
    """Cells of SST-2 whose scores are these, each with an interval of two points on either side."""
    run = collect(write_run(root, Fake(tasks=("sst2",), strategies=tuple(scores))))
    found = []
    for cell in run.cells:
        assert cell.result is not None
        for labels, value in scores[cell.info.strategy].items():
            info = cell.info.model_copy(update={"budget": {"labels": labels, "train_examples": 2 * labels or 1}})
            score = Score(value=value, low=value - 0.02, high=value + 0.02, n=400, chance=0.51)
            data = cell.result.data.model_copy(update={"train_rows": rows})
            result = cell.result.model_copy(update={"cell": info, "scores": {"accuracy": score}, "data": data})
            found.append(CellView(info, cell.folder, "ok", None, result))
    return found


def test_it_says_where_tuning_passes_the_best_of_prompting(tmp_path: Path) -> None:
    """The first count from which a strategy stays above, whether the intervals are apart, and who never does."""
    [curve] = curves(views(tmp_path, SCORES))
    assert curve.counts == [0, 8, 32, 128]
    said = " ".join(curve.sentences)
    assert "prompting reached is 0.820 [0.800, 0.840] (few_shot with 32 labels" in said
    assert "lora is above it from 32 labels on: 0.850 [0.830, 0.870]; the intervals overlap." in said
    assert "full does not pass it: its best is 0.810 with 128 labels." in said
    assert "none of this is claimed" in said, "one training run a point"


def test_a_dip_later_takes_the_claim_back(tmp_path: Path) -> None:
    """Above once is not above from there on."""
    [curve] = curves(views(tmp_path, {"few_shot": {8: 0.70}, "lora": {8: 0.80, 32: 0.65, 128: 0.9}}))
    assert any(
        "lora is above it from 128 labels on: 0.900 [0.880, 0.920]; the intervals do not" in s for s in curve.sentences
    )


def test_a_count_without_a_score_is_named(tmp_path: Path) -> None:
    """ "From 32 labels on" must not hide that 128 ended without a score."""
    cells = views(tmp_path, {"few_shot": {8: 0.70}, "lora": {32: 0.80, 128: 0.9, 512: 0.91}})
    cells = [
        CellView(c.info, c.folder, "timeout", "words", None) if c.info.budget["labels"] == 128 else c for c in cells
    ]
    [curve] = curves(cells)
    assert any(
        "lora is above it from 32 labels on (the smallest count with a score) (not measured at 128)" in s
        for s in curve.sentences
    )


def test_counts_beyond_the_data_are_no_points(tmp_path: Path) -> None:
    """Where only 100 rows exist, a budget of 128 labels read 100."""
    [curve] = curves(views(tmp_path, SCORES, rows=100))
    assert curve.counts == [0, 8, 32]
    assert "Only 100 labelled rows exist, so 128 labels are no points of this curve." in curve.sentences


def test_random_labels_are_a_control_and_never_the_best_of_prompting(tmp_path: Path) -> None:
    """The control stands beside the gold labels and does not raise the bar."""
    cells = views(tmp_path, {"few_shot": {8: 0.70}, "frozen": {8: 0.90}, "lora": {8: 0.75}})
    marked = []
    for cell in cells:
        update: dict[str, Any] = {"options": {"demonstration_labels": "random"}, "family": "prompting"}
        control = cell.info.strategy == "frozen"
        if control:
            update["base_strategy"] = "few_shot"
        marked.append(
            CellView(cell.info.model_copy(update=update if control else {}), cell.folder, "ok", None, cell.result)
        )
    more = views(tmp_path / "more", {"few_shot": {32: 0.71}})
    gold = {"options": {"demonstration_labels": "gold"}}
    plain = [CellView(c.info.model_copy(update=gold), c.folder, "ok", None, c.result) for c in [marked[0], *more]]
    [curve] = curves([*plain, *marked[1:]])
    said = " ".join(curve.sentences)
    assert "prompting reached is 0.710" in said
    assert "Random labels in the demonstrations (frozen for few_shot): 0.900 for 0.700 with 8." in said


def test_the_figure_draws_every_point_and_has_no_style(tmp_path: Path) -> None:
    """Two widths, a word for those who do not see it, and as many table cells as counts."""
    [curve] = curves(views(tmp_path, SCORES))
    figure = curve_figure(curve, "l0")
    assert figure is not None and "style=" not in figure.wide + figure.narrow
    assert "lora 0.600 with 8, 0.850 with 32, 0.930 with 128" in figure.alt
    table = curve_table(curve)
    assert [len(row) for row in table.rows] == [5] * 4
    assert [entry.text for entry in table.rows[0]] == ["zero_shot", "0.800", "–", "–", "–"]


def test_nothing_scored_is_no_figure(tmp_path: Path) -> None:
    """A curve none of whose cells ended well says so."""
    failed = [CellView(c.info, c.folder, "diverged", "words", None) for c in views(tmp_path, SCORES)]
    [curve] = curves(failed)
    assert curve_figure(curve, "l0") is None and curve.chance is None
    assert "nothing can be said" in curve.sentences[0]


def test_a_run_of_one_budget_has_none(tmp_path: Path) -> None:
    """The page of an ordinary run is as it was."""
    run = write_run(tmp_path, Fake(tasks=("sst2",)))
    assert curves(collect(run).cells) == []
    html, markdown, _ = render(run, tmp_path / "pages")
    assert "How many labels" not in html.read_text() and "How many labels" not in markdown.read_text()


@pytest.mark.parametrize("rendered", [to_html, to_markdown])
def test_the_page_opens_with_the_curve(tmp_path: Path, rendered: Callable[[Page], str]) -> None:
    """Its sentences come first, then figure and table; leaderboards name their label count."""
    cells = views(tmp_path, SCORES)
    plan = collect(next(tmp_path.glob("*/plan.json")).parent).plan
    text = rendered(build(Run(plan, cells, None)))
    assert text.index("The best that prompting reached") < text.index("How many labels") < text.index("Leaderboard")
    assert "verbalizer readout, 32 labels" in text
