"""Break-even: where training cost + k x cost of an answer of a tuned model falls below prompting's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from page_checks import Wellformed, check_markdown
from records_factory import Fake, write_run

from bench.records import Phase, Result
from bench.report.breakeven import BreakEven, Cost, Crossing, break_even_table, break_evens, crossing
from bench.report.breakeven_chart import break_even_figures, drawn
from bench.report.collect import collect
from bench.report.html import to_html
from bench.report.markdown import to_markdown
from bench.report.page import Page, build

ITEMS = 872
COSTS = {
    # strategy -> FLOPs of adapting (None: no step), FLOPs of an answer, seconds of adapting, seconds of an answer
    "zero_shot": (None, 10e9, 0.01, 0.08),
    "few_shot": (None, 15e9, 0.01, 0.16),
    "lora": (4e12, 11e9, 40.0, 0.08),
    "full": (5e12, 10e9, 50.0, 0.08),
    "frozen": (1e12, 9e9, 9.0, 0.07),
}


def cost(training: float, answer: float) -> Cost:
    return Cost(training, answer, answer, answer)


def billed(costs: Mapping[str, tuple[float | None, float, float, float]]) -> Callable[[Result], Result]:
    """An edit of fake records: these costs."""

    def edit(result: Result) -> Result:
        flops, answer, seconds, wait = costs[result.cell.strategy]
        adapt = Phase(seconds=seconds, flops=flops, steps=None if flops is None else 32)
        predict = Phase(seconds=wait * ITEMS, flops=answer * ITEMS, steps=40, examples=ITEMS)
        return result.model_copy(update={"phases": {"load": Phase(seconds=1.0), "adapt": adapt, "predict": predict}})

    return edit


def fake(costs: Mapping[str, tuple[float | None, float, float, float]] = COSTS, **more: object) -> Fake:
    return Fake(tasks=("sst2",), strategies=tuple(costs), edit=more.pop("edit", billed(costs)), **more)  # type: ignore[arg-type]


def view_of(tmp_path: Path, given: Fake) -> BreakEven:
    [view] = break_evens(collect(write_run(tmp_path, given)).cells)
    return view


@pytest.mark.parametrize(
    ("tuned", "prompted", "met"),
    [
        (cost(100, 1), cost(0, 2), Crossing("from", 101)),  # at 100 both cost 200: cheaper is strictly less
        (cost(99.5, 1), cost(0, 2), Crossing("from", 100)),
        (cost(0, 1), cost(5, 2), Crossing("from", 1)),  # a searched prompt may cost more than a probe
        (cost(100, 2), cost(0, 2), Crossing("never")),
        (cost(100, 3), cost(0, 2), Crossing("never")),
        (cost(1, 2), cost(5, 2), Crossing("from", 1)),
        (cost(1, 3), cost(5, 2), Crossing("up to", 3)),  # 1 + 3 x 3 = 10 < 11, 1 + 4 x 3 = 13 = 13
        (cost(1, 9), cost(5, 2), Crossing("never")),  # no whole answer fits before it is dearer
        (cost(1e12, 1e9 * (1 - 1e-13)), cost(0, 1e9), Crossing("never")),  # rounding is no saving
    ],
)
def test_where_two_lines_meet(tuned: Cost, prompted: Cost, met: Crossing) -> None:
    """By hand, and the definition holds on both sides of the crossing."""
    found = crossing(tuned, prompted)
    assert (found.kind, found.at) == (met.kind, met.at) or found.kind == met.kind == "never"
    if found.kind == "from" and found.at > 1:
        assert tuned.total(found.at) < prompted.total(found.at)
        assert tuned.total(found.at - 1) >= prompted.total(found.at - 1)


def test_it_says_from_how_many_answers_on(tmp_path: Path) -> None:
    """lora against few_shot: 4e12 / (15e9 - 11e9) = 1,000, so strictly cheaper from 1,001."""
    view = view_of(tmp_path, fake())
    assert [one.name for one in view.references] == ["few_shot", "zero_shot"], "best scores first"
    said = " ".join(view.sentences)
    assert "cheaper than few_shot (accuracy" in said
    assert "lora from 1,001 answers on" in said and "frozen from 167 answers on" in said
    assert "cheaper than zero_shot (accuracy" in said and "frozen from 1,001 answers on; never lora and full" in said
    assert view.sentences[0].startswith("Counted in FLOPs")


def test_the_table_has_costs_and_crossings(tmp_path: Path) -> None:
    """FLOPs in the first line, seconds in small print; prompting has no crossing with itself."""
    table = break_even_table(view_of(tmp_path, fake()))
    rows = {row[0].text: row for row in table.rows}
    assert [rows["lora"][i].text for i in (2, 3)] == ["4.00 T", "11.0 G"]
    assert [rows["lora"][i].sub for i in (2, 3)] == ["40 s", "80 ms"]
    assert rows["few_shot"][2].text == "0" and rows["few_shot"][4].text == "–"
    assert (rows["lora"][4].text, rows["lora"][4].sub) == ("1,001 answers", "500 answers")
    assert (rows["full"][5].text, rows["full"][5].sub) == ("never", "not told apart")


def test_seconds_of_the_same_work_are_not_told_apart(tmp_path: Path) -> None:
    """Half the time for equal FLOPs was the machine; half the FLOPs in 1.2 of the time are too near."""
    costs = {"zero_shot": (None, 10e9, 0.0, 0.08), "full": (5e12, 10e9, 50.0, 0.04), "frozen": (1e9, 5e9, 1.0, 0.07)}
    table = break_even_table(view_of(tmp_path, fake(costs)))
    assert [row[4].sub for row in table.rows[1:]] == ["not told apart", "not told apart"]
    assert [row[4].text for row in table.rows if row[0].text == "frozen"] == ["the first answer"]


def test_trials_and_recomputation_are_part_of_the_training_cost(tmp_path: Path) -> None:
    """A phase `tune` and repeated forward passes are paid before the first answer."""

    def tuned(result: Result) -> Result:
        plain = billed(COSTS)(result)
        if result.cell.strategy != "lora":
            return plain
        more = plain.phases["adapt"].model_copy(update={"recomputed_flops": 1e12})
        tune = Phase(seconds=100.0, flops=15e12, steps=96)
        return plain.model_copy(update={"phases": {**plain.phases, "tune": tune, "adapt": more}})

    view = view_of(tmp_path, fake(edit=tuned))
    [lora] = [one for one in view.tuned if one.name == "lora"]
    assert lora.flops is not None and lora.flops.training == 20e12 and lora.seconds.training == 140.0  # type: ignore[union-attr]
    assert "lora from 5,001 answers on" in " ".join(view.sentences)


def test_seeds_give_medians(tmp_path: Path) -> None:
    """An unlucky seed moves no crossing."""

    def unlucky(result: Result) -> Result:
        plain = billed(COSTS)(result)
        slow = plain.phases["adapt"].model_copy(update={"seconds": 4000.0, "flops": 9e15})
        late = result.cell.seed == 2 and result.cell.strategy == "lora"
        return plain.model_copy(update={"phases": {**plain.phases, "adapt": slow}}) if late else plain

    assert "lora from 1,001 answers on" in " ".join(view_of(tmp_path, fake(edit=unlucky, seeds=(0, 1, 2))).sentences)


@pytest.mark.parametrize("strategies", [("lora", "full"), ("zero_shot", "few_shot")])
def test_one_kind_has_nothing_to_compare(tmp_path: Path, strategies: tuple[str, ...]) -> None:
    page = build(collect(write_run(tmp_path, fake({name: COSTS[name] for name in strategies}))))
    assert page.break_evens == []
    assert "When tuning is cheaper" not in to_markdown(page) + to_html(page)


def test_what_was_not_measured_is_not_guessed(tmp_path: Path) -> None:
    """Steps without FLOPs leave the FLOPs open; seconds are still compared, and the sentence says so."""

    def uncounted(result: Result) -> Result:
        plain = billed(COSTS)(result)
        phases = {k: p.model_copy(update={"flops": None, "steps": 3}) for k, p in plain.phases.items()}
        return plain.model_copy(update={"phases": phases})

    view = view_of(tmp_path, fake(edit=uncounted))
    assert view.sentences == ["FLOPs were not measured: only seconds can be compared."]
    assert all(one.flops is None and one.seconds is not None for one in view.settings)
    assert [figure.title for figure in break_even_figures(view, "k")] == ["Total seconds against the number of answers"]
    assert {row[2].text for row in break_even_table(view).rows} == {"not measured"}


def counted(flops: Mapping[str, float | None]) -> Callable[[Result], Result]:
    """Records whose tuned strategies cost these FLOPs for adapting and for an answer; None: steps nobody counted."""

    def edit(result: Result) -> Result:
        plain = billed(COSTS | {"bag_of_words": COSTS["frozen"]})(result)
        if result.cell.strategy not in flops:
            return plain
        cost = {"flops": flops[result.cell.strategy], "steps": 1}
        phases = {
            name: phase if name == "load" else phase.model_copy(update=cost) for name, phase in plain.phases.items()
        }
        return plain.model_copy(update={"phases": phases})

    return edit


@pytest.mark.parametrize(
    ("flops", "says"),
    [
        # a bag of words runs no model: 0 is measured
        ({"bag_of_words": 0.0}, "Counted in FLOPs, cheaper than zero_shot (accuracy X): bag_of_words from the first answer on."),
        ({"bag_of_words": None}, "Not compared in FLOPs with zero_shot (accuracy X): FLOPs of bag_of_words were not measured."),
        ({"full": None, "lora": None}, "Not compared in FLOPs with zero_shot (accuracy X): FLOPs of lora and full were not measured."),
        ({"full": None, "lora": 9e15}, "Counted in FLOPs, cheaper than zero_shot (accuracy X): never lora, whose answers cost "
                                       "as much or more; FLOPs of full were not measured."),
        ({"full": None, "frozen": 0.0}, "Counted in FLOPs, cheaper than zero_shot (accuracy X): frozen from the first answer on; "
                                        "FLOPs of full were not measured."),
        ({"lora": 9e15}, "Counted in FLOPs, no tuning is ever cheaper than zero_shot (accuracy X): its answers cost as much or more."),
    ],
)  # fmt: skip
def test_a_sentence_says_never_of_what_was_counted_only(
    tmp_path: Path, flops: Mapping[str, float | None], says: str
) -> None:
    costs = {"zero_shot": COSTS["zero_shot"], **dict.fromkeys(flops, COSTS["lora"])}
    [sentence] = view_of(tmp_path, fake(costs, edit=counted(flops))).sentences
    assert re.sub(r"accuracy [0-9.]+", "accuracy X", sentence) == says


def test_several_budgets_are_told_apart_and_the_best_of_each_is_drawn(tmp_path: Path) -> None:
    """Two label counts of one strategy are two rows and one line."""
    run = collect(write_run(tmp_path, fake(seeds=(0, 1))))
    cells = []
    for one in run.cells:
        assert one.result is not None
        info = one.info.model_copy(update={"budget": {"labels": 8 + one.info.seed, "train_examples": 16}, "seed": 0})
        cells.append(type(one)(info, one.folder, one.status, None, one.result.model_copy(update={"cell": info})))
    [view] = break_evens(cells)
    names = {row[0].text for row in break_even_table(view).rows}
    assert {"lora (8 labels)", "lora (9 labels)", "few_shot (9 labels)"} <= names
    assert len({one.strategy for one in drawn(view)}) == len(drawn(view)) == 5


def test_the_page_shows_it(tmp_path: Path) -> None:
    """Figures in both widths with classes for dark pages and no inline style; valid HTML and Markdown tables."""
    page: Page = build(collect(write_run(tmp_path, fake())))
    html, markdown = to_html(page), to_markdown(page)
    Wellformed(html)
    check_markdown(markdown)
    part = html.split('<section id="break-even">')[1].split("</section>")[0]
    assert part.count("<figure>") == part.count('class="wide"') == part.count('class="narrow"') == 2
    assert "style=" not in part and "s-c1" in part and "lora from 1,001 answers on" in part
    assert "## When tuning is cheaper" in markdown and "1,001 answers" in markdown
