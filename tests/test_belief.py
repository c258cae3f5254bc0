"""The section `Can I believe it?`: its words, tables and figures, from records alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from records_factory import Fake, write_run

from bench.probed import Check, ContaminationFindings, FormatAnswer, FormatFindings, ProbeRecord, Verdict
from bench.records import Outcome, Status
from bench.report.belief import beliefs, caution, separable
from bench.report.claims import conclude
from bench.report.collect import Run, collect
from bench.report.contaminated import contamination_table, orders_table, verdict_sentence
from bench.report.formats_view import formats_view
from bench.report.html import to_html
from bench.report.markdown import to_markdown
from bench.report.page import build
from bench.report.planted import control_table, planted_controls, sentences
from bench.report.power_chart import power_figure
from bench.report.summary import boards
from bench.store import probe_file, read_plan, write_record

SCORES = {"zero_shot": [0.8, 0.5, 0.6, 0.7], "lora": [0.9, 0.85, 0.55, 0.8]}


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


POWER = {0: [0.4, 0.7, 0.9], 1: [0.3, 0.02, 0.5], 8: [0.0001, 0.0002, 0.003]}


def test_a_control_says_from_which_dose_on(tmp_path: Path) -> None:
    """Planted cells are in no leaderboard; the control counts which checks saw which dose, and false alarms."""
    run = run_with(tmp_path, POWER)
    [board] = boards(run.cells)
    assert all(cell.info.plant == 0 for row in board.rows for cell in row.cells) and len(run.planted) == 6
    [control] = planted_controls(run)
    assert control.doses == [0, 1, 8] and control.title == "lora on sst2"
    assert sentences(control) == [
        "Membership sees the leak from dose 8 on (dose 8: 3 of 3).",
        "Overlap sees the leak from dose 1 on (dose 1: 3 of 3, dose 8: 3 of 3).",
        "No false alarm in 3 clean cells.",
    ]
    rows = {row[0].text: [entry.text for entry in row[1:]] for row in control_table(control).rows}
    assert rows["0 (clean)"] == ["3", "0 of 3", "0 of 3", "not measured", "–", "0 of 3", "0.700", "0.800", "0.800"]
    assert rows["8"] == ["3", "3 of 3", "3 of 3", "not measured", "–", "3 of 3", "< 0.001", "0.990", "0.800"]
    assert rows["1"][:2] == ["3", "1 of 3"]


def test_a_check_that_misses_every_dose_acquits_nobody(tmp_path: Path) -> None:
    """Its silence is said to mean nothing; alarms in clean cells are counted."""
    run = run_with(tmp_path, {0: [0.4, 0.001, 0.9], 8: [0.4, 0.6, 0.04]})
    [control] = planted_controls(run)
    missed, _, alarms = sentences(control)
    assert missed.startswith("Membership does not see it reliably at any dose (dose 8: 1 of 3)")
    assert missed.endswith("its silence about a clean cell says nothing.")
    assert alarms == "1 false alarm in 3 clean cells."


def test_holm_over_a_cell_takes_weak_alarms_back(tmp_path: Path) -> None:
    """Two checks of one cell at p = 0.04: neither holds at 0.05 among both."""
    run = run_with(tmp_path, POWER)
    [control] = planted_controls(run)
    split = control.at(8)[0]
    twice = [membership(0.04), membership(0.04, name="membership again")]
    assert not replace(split, checks=twice).sees("membership")
    pool = Check(name="overlap: pool", family="overlap", statistic=0.03, verdict="seen", says="Texts.")
    drawn = pool.model_copy(update={"name": "overlap"})
    assert not replace(split, checks=[pool]).sees("overlap"), "the cell may have drawn none of it"
    assert replace(split, checks=[drawn]).sees("overlap")
    assert replace(split, checks=twice[:1]).sees("membership")


@pytest.mark.parametrize(
    ("clean", "words"),
    [
        (
            "seen",
            "Test items of sst2 were seen by lora (membership in 3 of 3 cells): do not believe these scores as they stand.",
        ),
        (
            "no power",
            "No test item stands in what lora read. Of lora membership tells nothing, neither good nor bad: no",
        ),
        (
            "not applicable",
            "No test item stands in what lora read. Membership does not apply to lora: nothing was trained or held back.",
        ),
        (
            "not seen",
            "No test item stands in what lora read. Membership would have told a leak that matters in lora and saw none.",
        ),
    ],
)
def test_verdicts_in_words(tmp_path: Path, clean: Verdict, words: str) -> None:
    """What silence means is said with it."""
    run = run_with(tmp_path, {0: [0.01, 0.01, 0.01] if clean == "seen" else [0.4] * 3}, clean)
    cells = by_strategy(run)
    assert verdict_sentence("sst2", cells, None).startswith(words)
    table = contamination_table("sst2", cells)
    assert table is not None
    row = next(row for row in table.rows if row[1].text == "membership")
    assert row[2].badges[0][1] == f"{clean}: 3"


def test_what_was_not_asked_or_is_too_short_is_no_verdict(tmp_path: Path) -> None:
    """Overlap alone was asked: membership is not "no power", and no false alarm was to be had."""
    run = run_with(tmp_path, {0: [0.4, 0.4, 0.4], 8: [0.4, 0.4, 0.4]})
    for cell in [*run.cells, *run.planted]:
        if "contamination" in cell.probes:
            checks = cell.probes["contamination"].contamination.checks
            checks[:] = [c for c in checks if c.family == "overlap"]
    cells = by_strategy(run)
    said = "No test item stands in what lora read. Membership was not asked of lora."
    assert verdict_sentence("sst2", cells, "") == said
    [control] = planted_controls(run)
    assert sentences(control) == ["Overlap sees the leak from dose 8 on (dose 8: 3 of 3)."]
    for cell in cells["lora"]:
        [one] = cell.probes["contamination"].contamination.checks
        one.figures["items too short to tell"] = 3.0
    assert verdict_sentence("sst2", cells, "").startswith(
        "No test item of four words or more stands in what lora read."
    )
    for cell in cells["lora"]:
        found = cell.probes["contamination"].contamination
        found.checks[:] = [found.checks[0].model_copy(update={"verdict": "no power"})]
    assert verdict_sentence("sst2", cells, "").startswith(
        "Overlap tells nothing of lora: the test items are too short."
    )


def test_the_figure_has_a_dot_for_every_split(tmp_path: Path) -> None:
    """On a logarithmic axis, with the level drawn; one dose alone is no figure."""
    [control] = planted_controls(run_with(tmp_path, POWER))
    figure = power_figure(control, "k")
    assert figure is not None and "dose 8: p < 0.001, < 0.001, 0.003" in figure.alt
    for svg in (figure.wide, figure.narrow):
        assert svg.count("f-c2") == 9 and "style" not in svg and "http" not in svg
        assert ">clean<" in svg and ">8<" in svg
    alone = replace(control, splits=control.at(8))
    assert power_figure(alone, "k") is None


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


def test_option_orders_are_shown_one_by_one(tmp_path: Path) -> None:
    """Each with its interval, the order as it stands first; without moved options there is no table."""
    run = run_with(tmp_path, {0: [0.4, 0.4, 0.4]})
    cells = by_strategy(run)
    assert orders_table("sst2", cells) is None
    found = cells["lora"][0].probes["contamination"].contamination
    found.correct.update(
        {"plain": [True] * 6 + [False] * 4, "option order #1": [True] * 3 + [False] * 7, "typos": [True]}
    )
    table = orders_table("sst2", cells)
    assert table is not None
    assert [[entry.text for entry in row] for row in table.rows] == [
        ["lora", "as they stand", "0.600", "10"],
        ["lora", "moved by 1", "0.300", "10"],
    ]
    assert table.rows[1][2].sub == "[0.108, 0.603]"
    assert table.notes[-1].startswith("Fewer than 111 items are too few")


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.002, "with 0.2% of the items): so few can move an accuracy by 0.2% of its items at most."),
        (0.02, "with 2.0% of the items): do not believe these scores as they stand."),
    ],
)
def test_a_handful_of_common_sentences_is_told_from_a_leak(tmp_path: Path, share: float, words: str) -> None:
    """CoLA's training sentences hold one or two of its 1,043 test sentences; membership beside it says more."""
    run = run_with(tmp_path, {0: [0.4, 0.4, 0.4]})
    cells = by_strategy(run)
    checks = cells["lora"][0].probes["contamination"].contamination.checks
    checks[:] = [c for c in checks if c.family != "overlap"]
    checks.append(Check(name="overlap", family="overlap", statistic=share, verdict="seen", says="Texts."))
    assert words in verdict_sentence("sst2", cells, "")
    checks.append(Check(name="membership", family="membership", p=0.001, verdict="seen", says="Learnt."))
    assert "do not believe" in verdict_sentence("sst2", cells, "")


def test_a_pool_that_holds_test_items_is_told_apart(tmp_path: Path) -> None:
    """The rows drawn from it may hold none."""
    run = run_with(tmp_path, {0: [0.4, 0.4, 0.4]})
    cells = by_strategy(run)
    order = Check(name="perturbation: option order", family="perturbation", verdict="no power", says="At chance.")
    cells["lora"][0].probes["contamination"].contamination.checks.append(order)
    assert "lora, its options in every order: At chance." in verdict_sentence("sst2", cells, "")
    pool = Check(name="overlap: pool", family="overlap", statistic=0.84, verdict="seen", says="Texts.")
    cells["lora"][0].probes["contamination"].contamination.checks.append(pool)
    words = verdict_sentence("sst2", cells, "")
    assert "No test item stands in what lora read." in words
    assert words.endswith("The pool that training rows are drawn from holds 84.0% of the test items.")


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
