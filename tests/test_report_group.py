"""A group apart: its own table below the others, ranked among itself, named in no answer, curve or break-even."""

from __future__ import annotations

from pathlib import Path

import pytest
from records_factory import Fake, write_run

from bench.report.collect import collect
from bench.report.html import to_html
from bench.report.markdown import to_markdown
from bench.report.page import NONE_DECIDES, Page, build, headline

APART = "preference tuning"


def page_of(tmp_path: Path, fake: Fake) -> Page:
    return build(collect(write_run(tmp_path, fake)))


def told(tmp_path: Path, groups: dict[str, str]) -> Page:
    """`full` and `lora` are the best two of these by construction."""
    fake = Fake(tasks=("sst2",), strategies=("zero_shot", "frozen", "lora", "full"), seeds=(0, 1, 2), groups=groups)
    return page_of(tmp_path, fake)


def test_without_a_group_the_best_is_recommended(tmp_path: Path) -> None:
    """What the next test takes away."""
    page = told(tmp_path, {})
    assert len(page.sections) == 1 and page.sections[0].answer.pick is not None
    assert page.sections[0].answer.pick.strategy in ("full", "lora")


def test_a_group_apart_is_ranked_among_itself_and_decides_nothing(tmp_path: Path) -> None:
    page = told(tmp_path, dict.fromkeys(("lora", "full"), APART))
    deciding, apart = page.sections
    assert [row.strategy for row in deciding.board.rows] == ["frozen", "zero_shot"]
    assert sorted(row.strategy for row in apart.board.rows) == ["full", "lora"]
    assert [row.rank for row in apart.board.rows] == [1, 2] and apart.board.title.endswith(f", {APART} apart")
    assert deciding.answer.pick is not None and deciding.answer.pick.strategy == "frozen"
    assert apart.answer.pick is None and apart.table.strong is None
    assert page.answered == [deciding]
    for words in (headline(page), deciding.answer.use, deciding.answer.caveat):
        assert "lora" not in words and "full" not in words
    assert any("in a group of their own" in note for note in apart.table.notes)
    assert not any("in a group of their own" in note for note in deciding.table.notes)
    for view in page.break_evens:
        assert {one.strategy for one in view.settings} == {"zero_shot", "frozen"}


def test_both_renderings_show_its_table_and_keep_it_from_the_answer(tmp_path: Path) -> None:
    page = told(tmp_path, dict.fromkeys(("lora", "full"), APART))
    markdown, html = to_markdown(page), to_html(page)
    answer = markdown.split("## The answer")[1].split("\n## ")[0]
    assert "frozen" in answer and "lora" not in answer and "full" not in answer
    board = markdown.split("## Leaderboard")[1].split("\n## ")[0]
    assert board.index("frozen (") < board.index(f"{APART} apart") < min(board.index("| full"), board.index("| lora"))
    answer = html.split('id="answer"')[1].split("</section>")[0]
    assert "frozen" in answer and "lora" not in answer and "<h3>" not in answer
    assert f"{APART} apart" in html


def test_a_run_of_nothing_else_says_so(tmp_path: Path) -> None:
    groups = dict.fromkeys(("zero_shot", "frozen", "lora", "full"), APART)
    page = told(tmp_path, groups)
    assert page.answered == [] and headline(page) == NONE_DECIDES
    assert NONE_DECIDES in to_markdown(page) and NONE_DECIDES in to_html(page)


@pytest.mark.parametrize("groups", [{}, {"lora": APART}])
def test_its_score_stays_out_of_curves(tmp_path: Path, groups: dict[str, str]) -> None:
    """Of several budgets' cells only those that decide make a curve."""
    from bench.report.collect import CellView
    from bench.report.curve import curves
    from bench.report.page import deciding

    run = collect(write_run(tmp_path, Fake(tasks=("sst2",), strategies=("few_shot", "lora"), groups=groups)))
    more: list[CellView] = []
    for labels in (8, 128):
        for cell in run.cells:
            info = cell.info.model_copy(update={"budget": {**cell.info.budget, "labels": labels}})
            more.append(CellView(info, cell.folder, cell.status, cell.reason, cell.result))
    [curve] = curves(deciding(more))
    assert [line.strategy for line in curve.lines] == (["few_shot"] if groups else ["few_shot", "lora"])
