"""The section `Can I believe it?`: verdicts on contamination, planted leaks and their figure, from records alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from probe_records import POWER, by_strategy, membership, run_with

from bench.probed import Check, Verdict
from bench.report.contaminated import contamination_table, orders_table, verdict_sentence
from bench.report.planted import control_table, planted_controls, sentences
from bench.report.power_chart import power_figure
from bench.report.summary import boards


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
