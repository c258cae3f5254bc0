"""What is said of a cell's prompt formats: spread, reversals of order, and the figure."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.probed import FormatAnswer, FormatFindings
from bench.report.formats_chart import Dot, FormatRow, formats_figure
from bench.stats.spread import by_key, reversals, spread, summary

CALIBRATED = 0.25


def answer(
    number: int, score: float, draw: int | None = None, trained: bool = False, constant: bool = False
) -> FormatAnswer:
    """A format's answer about eight items."""
    return FormatAnswer(
        number=number,
        described={"separator": f"{number}", "chat": "no"},
        trained_on=trained,
        demonstrations=draw,
        scores={"f1": score, "accuracy": score / 2},
        calibrated={"f1": score + CALIBRATED, "accuracy": score},
        answers=[8, 0] if constant else [5, 3],
        calibrated_answers=[4, 4],
    )


def findings(*answers: FormatAnswer) -> FormatFindings:
    return FormatFindings(metric="f1", items=list(range(8)), chance=0.5, answers=list(answers))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_quartiles_lie_in_order(values: list[float]) -> None:
    found = spread(values)
    assert found is not None and found.number == len(values)
    assert found.low <= found.q1 <= found.median <= found.q3 <= found.high
    assert (found.low, found.high) == (min(values), max(values)) and found.range == max(values) - min(values)


def test_a_spread_by_hand() -> None:
    """0.5, 0.6, 0.7, 0.9: quartiles between the neighbours; none of no scores."""
    found = spread([0.9, 0.5, 0.7, 0.6])
    assert found is not None
    assert [found.q1, found.median, found.q3] == pytest.approx([0.575, 0.65, 0.75]) and found.range == pytest.approx(
        0.4
    )
    assert spread([]) is None


def test_a_cells_formats_are_summed_up() -> None:
    """In the task's metric: trained on and never apart, the degenerate one named, the own one told."""
    said = summary(findings(answer(0, 0.9, trained=True), answer(1, 0.5, constant=True), answer(2, 0.7)))
    assert said is not None and said.trained_on is not None and said.never is not None
    assert (said.metric, said.own, said.every.median, said.degenerate) == ("f1", 0.9, 0.7, [1])
    assert (said.trained_on.number, said.never.number, said.never.high) == (1, 2, 0.7)
    assert said.draws is None and said.with_draws is None


def test_calibrated_scores_are_summed_up_apart() -> None:
    """With answers of their own: what was degenerate need not be it calibrated. A head has none."""
    plain = answer(1, 0.5, constant=True)
    said = summary(findings(answer(0, 0.5), plain), calibrated=True)
    assert said is not None and said.own == 0.75 and said.degenerate == []
    bare = plain.model_copy(update={"number": 0, "calibrated": None, "calibrated_answers": None})
    assert summary(findings(bare), calibrated=True) is None
    assert (said := summary(findings(answer(0, 0.5)), "accuracy")) is not None and said.own == 0.25
    assert summary(findings(answer(0, 0.5)), "matthews") is None


def test_draws_of_demonstrations_do_not_widen_the_spread_over_formats() -> None:
    """A strategy is held against others by its own demonstrations; what other draws do is told beside it."""
    said = summary(findings(answer(0, 0.6, 0), answer(0, 0.8, 1), answer(1, 0.7, 0), answer(1, 0.3, 1)))
    assert said is not None and said.with_draws is not None
    assert (said.every.low, said.every.high) == (0.6, 0.7)
    assert said.draws == pytest.approx(0.3) and (said.with_draws.number, said.with_draws.low) == (4, 0.3)


def test_reversals_are_counted_with_ties_apart() -> None:
    """The first leads by the median difference, ties with the second once and falls behind once."""
    first = findings(*(answer(i, s) for i, s in enumerate([0.9, 0.8, 0.5, 0.7])))
    second = findings(*(answer(i, s) for i, s in enumerate([0.7, 0.7, 0.6, 0.7])))
    found = reversals(by_key(first), by_key(second))
    assert found is not None and (found.compared, found.ties, found.reversed) == (4, 1, 1)
    assert found.median == pytest.approx(0.05) and found.share == pytest.approx(1 / 3)
    other = reversals(by_key(second), by_key(first))
    assert other is not None and other.share == found.share, "whichever is named first"


def test_reversals_need_formats_in_common_and_a_sign() -> None:
    """Formats are told by what they are made of, not by their number."""
    one, same = by_key(findings(answer(0, 0.5))), by_key(findings(answer(0, 0.5)))
    assert reversals(one, by_key(findings(answer(3, 0.5)))) is None
    found = reversals(one, same)
    assert found is not None and found.share is None and found.ties == 1
    calibrated = by_key(findings(answer(0, 0.5)), calibrated=True)
    assert list(calibrated.values()) == [0.75]


def test_the_figure_shows_every_format_and_says_what_its_marks_mean() -> None:
    """Full, hollow and crossed dots, a box and a name a row, chance; ids unique; nothing a strict page forbids."""
    rows = [
        FormatRow("zero_shot", "c1", [Dot(0.8, False, False), Dot(0.5, False, True), Dot(0.7, False, False)]),
        FormatRow("<b>lora</b>", "c2", [Dot(0.9, True, False), Dot(0.88, False, False)]),
    ]
    found = formats_figure(rows, "sst2: accuracy in three prompt formats", 0.52, "sst2-formats")
    assert found is not None and found.wide != found.narrow
    for svg, kind in ((found.wide, "wide"), (found.narrow, "narrow")):
        assert "zero_shot" in svg and "&lt;b&gt;lora" in svg and ">chance<" in svg and ">accuracy<" in svg
        assert "style=" not in svg and "http" not in svg
        assert all(name.startswith(f"sst2-formats-{kind}-") for name in re.findall(r' id="([^"]+)"', svg))
    assert "zero_shot median 0.700, 0.500 to 0.800" in found.alt
    assert "Hollow: never trained on. A cross: every item got the same label in some seed." in found.note


def test_without_dots_there_is_no_figure_and_without_training_no_hollow_ones_to_explain() -> None:
    assert formats_figure([FormatRow("lora", "c1", [])], "t", 0.5, "k") is None
    found = formats_figure([FormatRow("zero_shot", "c1", [Dot(0.8, True, False)])], "t", None, "k")
    assert found is not None and "Hollow" not in found.note and "chance" not in found.wide
