"""The section `Can I believe it?`: prompt formats, what was not asked or failed, and the page, from records alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from probe_records import POWER, by_strategy, run_with
from records_factory import Fake, write_run

from bench.probed import ProbeRecord
from bench.records import Outcome, Status
from bench.report.belief import beliefs, caution, separable
from bench.report.claims import conclude
from bench.report.collect import collect
from bench.report.contaminated import contamination_table, verdict_sentence
from bench.report.formats_view import formats_view
from bench.report.html import to_html
from bench.report.markdown import to_markdown
from bench.report.page import build
from bench.report.planted import planted_controls
from bench.report.summary import boards


def test_formats_lead_with_medians_and_name_what_rules_the_range(tmp_path: Path) -> None:
    """Median, quartiles, what tuning and calibration did, reversed orders, formats with one label for all."""
    view = formats_view("sst2", "accuracy", by_strategy(run_with(tmp_path)))
    assert view is not None
    lead, one, other, calibration, turned, calibrated, one_label = view.sentences
    assert lead.startswith("Asked in 4 formats, the median is")
    assert "lora 0.825 (0.738–0.863), zero_shot 0.650 (0.575–0.725)" in lead.replace(" and ", ", ")
    transfer, prompted = sorted([one, other])
    assert transfer == "lora has 0.900 in the format it was trained on and 0.800 in the median of 3 others."
    assert prompted == "zero_shot has 0.800 in the suite's own format and 0.600 in the median of 3 others."
    assert "zero_shot 0.150 → 0.150 (median 0.650 → 0.750)" in calibration
    assert turned == "Which format is asked turns the order of lora and zero_shot in 1 of 4."
    assert calibrated == "Which format is asked, calibrated, turns the order of lora and zero_shot in 1 of 4."
    assert one_label == "Every item got one and the same label from zero_shot in 1 of these formats."
    rows = {row[0].text: [entry.text for entry in row[1:]] for row in view.table.rows}
    assert rows["lora"] == ["0.825", "0.738–0.863", "0.550–0.900", "0.925", "0.900", "0.800", "–", "0 of 4"]
    assert rows["zero_shot"][4:] == ["–", "–", "–", "1 of 4"]
    dots = {row.strategy: row.dots for row in view.rows}
    assert [dot.trained_on for dot in dots["lora"]] == [True, False, False, False]
    assert [dot.degenerate for dot in dots["zero_shot"]] == [False, False, True, False]


def test_a_best_without_predictions_is_compared_with_nobody(tmp_path: Path) -> None:
    """The others are compared among themselves; of the best that must be said, not nothing."""
    run_dir = write_run(tmp_path, Fake(tasks=("sst2",), strategies=("zero_shot", "lora", "full"), seeds=(0, 1, 2)))
    for path in run_dir.glob("*-lora-*/predictions.parquet"):
        path.unlink()
    [board] = boards(collect(run_dir).cells)
    pairs = conclude(board).pairs
    assert {(p.first, p.second) for p in pairs} == {("full", "zero_shot")}
    said = "lora could not be compared with any other: its predictions cannot be used."
    assert separable(board, "sst2", pairs) == said


def changed(cell: Any, options: dict[str, Any] | None = None, **more: Any) -> None:
    """Give a cell's record of formats other options, or its first answer other fields."""
    record = cell.probes["formats"]
    first, *rest = record.formats.answers
    answers = [first.model_copy(update=more), *rest]
    found = record.formats.model_copy(update={"answers": answers})
    cell.probes["formats"] = record.model_copy(update={"asked": options or {}, "formats": found})


def test_a_mean_is_over_one_template_and_one_question(tmp_path: Path) -> None:
    """Tuning chose another template for one seed; another was asked before the options changed. Neither is averaged
    with the rest, and neither makes a strategy vanish."""
    cells = by_strategy(run_with(tmp_path))
    changed(cells["lora"][0], described={"separator": "another"}, scores={"accuracy": 0.1})
    view = formats_view("sst2", "accuracy", cells)
    assert view is not None and view.table.rows[0][0].sub == "2 × 4" and "0.825" in view.sentences[0]
    assert view.sentences[-1] == "Left out: 1 cell of lora whose tuning chose another template."
    cells = by_strategy(run_with(tmp_path / "again"))
    changed(cells["lora"][0], {"number": 2}, scores={"accuracy": 0.1})
    view = formats_view("sst2", "accuracy", cells)
    assert view is not None and view.table.rows[0][0].sub == "2 × 4" and "0.825" in view.sentences[0]
    assert view.sentences[-1] == "Left out: 1 cell asked with other options; the same command asks anew."


def test_a_format_that_one_seed_did_not_answer_is_left_out(tmp_path: Path) -> None:
    """Trained on or not: nothing is summed up over it."""
    cells = by_strategy(run_with(tmp_path))
    record = cells["lora"][0].probes["formats"]
    first, *rest = record.formats.answers
    answers = [first, *(one.model_copy(update={"trained_on": True}) for one in rest)]
    cells["lora"][0].probes["formats"] = record.model_copy(
        update={"formats": record.formats.model_copy(update={"answers": answers})}
    )
    cells["lora"][1].probes["formats"].formats.answers.pop()
    view = formats_view("sst2", "accuracy", cells)
    assert view is not None and view.table.rows[0][0].sub == "3 × 3"


def test_nothing_asked_is_said(tmp_path: Path) -> None:
    """With the command that would ask."""
    run = collect(write_run(tmp_path, Fake(tasks=["sst2"], strategies=["zero_shot", "lora"])))
    [board] = boards(run.cells)
    [belief] = beliefs(planted_controls(run), board, conclude(board).pairs, False)
    alone = replace(board, rows=board.rows[:1])
    assert separable(alone, "sst2", []) == "It is the only strategy: it is compared with nothing."
    answers = {question: " ".join(lines) for question, lines in belief.answers}
    assert answers["Does the wording of the prompt matter?"].endswith("probes=formats asks in ten of them.")
    assert answers["Has it seen the test items?"].endswith("probes=contamination asks for it.")
    assert belief.formats is None and belief.tables == [] and belief.controls == []
    assert "Training again with another seed moves it too" in answers["How sure is the score?"]
    assert contamination_table("sst2", by_strategy(run)) is None


def test_the_page_shows_it(tmp_path: Path) -> None:
    """In HTML with both figures, in Markdown with the tables."""
    page = build(run_with(tmp_path, POWER))
    html, text = to_html(page), to_markdown(page)
    assert html.count("<h2>Can I believe it?</h2>") == 1 and "When membership sees a planted leak" in html
    for words in ("How sure is the score?", "sst2 in other prompt formats", "A planted leak: lora on sst2"):
        assert words in html and words in text
    assert np.isclose(page.sections[0].board.rows[0].scores["sst2"].value or 0, 0.88, atol=0.1)


def test_the_answer_says_that_the_wording_favours_it(tmp_path: Path) -> None:
    """The recommended strategy is held to its median over formats; one that leads there too is left alone."""
    run = run_with(tmp_path)
    [board] = boards(run.cells)
    found = beliefs([], board, [], False)
    by_name = {row.strategy: row for row in board.rows}
    assert caution(found, ["sst2"], by_name["zero_shot"]) == (
        " The wording favours it: in the median of all formats asked it has 0.650, below lora (0.825) on sst2."
    )
    assert caution(found, ["sst2"], by_name["lora"]) == ""
    assert caution(found, [], by_name["zero_shot"]) == "", "a task that is not in the mean decides nothing"
    assert caution(found, ["sst2"], None) == ""
    pick = build(run).sections[0].answer.pick
    assert pick is not None
    said = "The wording favours it" in build(run).sections[0].answer.caveat
    assert said == (pick.strategy == "zero_shot") and said == ("The wording favours it" in to_markdown(build(run)))


def test_a_probe_that_failed_is_told_as_such(tmp_path: Path) -> None:
    """Not as one that nobody asked for."""
    run = run_with(tmp_path, {0: [0.4, 0.4, 0.4]})
    cells = by_strategy(run)
    reason = "the prompt is not read: use readout=verbalizer"
    for of in cells.values():
        for cell in of:
            for name in list(cell.probes):
                outcome = Outcome(status=Status.unsupported, reason=reason)
                cell.probes[name] = ProbeRecord(cell=cell.info.id, probe=name, asked={}, outcome=outcome)  # type: ignore[arg-type]
    assert verdict_sentence("sst2", cells, None) == f"No cell could be checked for contamination: lora: {reason}"
    [board] = boards(run.cells)
    answers = dict(beliefs(planted_controls(run), board, [], False)[0].answers)
    assert reason in answers["Does the wording of the prompt matter?"][0]


def test_failed_probes_and_planted_cells_are_rows_of_the_failures(tmp_path: Path) -> None:
    """With their reason, the dose and the probe named."""
    run = run_with(tmp_path, {0: [0.4, 0.4, 0.4], 8: [0.4, 0.4, 0.4]})
    outcome = Outcome(status=Status.error, reason="it broke")
    leaked = run.planted[0]
    leaked.probes["contamination"] = ProbeRecord(cell=leaked.info.id, probe="contamination", asked={}, outcome=outcome)
    page = build(run)
    assert page.failures is not None
    [row] = page.failures.rows
    assert row[1].sub == "planted 8× probe contamination" and row[4].badges == (("error", "error"),)
    assert row[5].text == "it broke"
