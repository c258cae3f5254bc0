"""The self-test: what it says of the harness, and that it notices a figure out of bounds."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_runs import watched
from records_factory import Fake, write_run

from bench import cli
from bench.errors import UserFault
from bench.records import Result, Status
from bench.selftest import claims, coverage, engine, run
from bench.selftest.engine import Ran, same
from bench.selftest.figures import Figure
from bench.store import read_plan, read_result


def test_a_figure_judges_itself() -> None:
    good = Figure("coverage", {"a": 0.93, "b": 0.97}, 0.93, 0.97)
    assert good.ok and good.measured() == "93.0% to 97.0%" and good.bounds() == "93.0% to 97.0%"
    for bad in (0.9299, 0.9701, math.nan):
        assert not replace(good, values={"a": 0.95, "b": bad}).ok
    assert not Figure("nothing", {}).ok and Figure("nothing", {}).measured() == "nothing"
    assert Figure("power", {"a": 0.1}).ok and Figure("power", {"a": 0.1}).bounds() == "stated"
    assert Figure("rate", {"a": 0.051}, None, 0.05).bounds() == "at most 5.0%"
    assert Figure("rate", {"a": 0.9}, 0.5).bounds() == "at least 50.0%"
    counts = Figure("answers", {"lora": 0}, 0, 0, share=False)
    assert counts.ok and counts.measured() == "0" and counts.bounds() == "0"
    assert Figure("x", {"a": math.inf}, 0, 0).as_json()["measured"] == {"a": None}


@pytest.mark.parametrize(
    "tokens, words",
    [
        (["levle=0.8"], "unknown option 'levle'; did you mean 'level'?"),
        (["--json2"], "unknown option '--json2'; allowed: level, parts"),
        (["level"], "option 'level' is given no value; allowed: level=VALUE once"),
        (["level=0.8", "level=0.9"], "option 'level' is given twice; allowed: level=VALUE once"),
        (["level=95"], "level is '95'; allowed: a number between 0 and 1, such as 0.95"),
        (["level=high"], "level is 'high'; allowed: a number between 0 and 1, such as 0.95"),
        (["parts=coverge"], "unknown part 'coverge'; did you mean 'coverage'?"),
    ],
)
def test_what_cannot_be_asked_is_told(tokens: list[str], words: str) -> None:
    with pytest.raises(UserFault) as fault:
        run.options(tokens)
    assert str(fault.value) == words


def test_options_as_asked() -> None:
    assert run.options([]) == run.Options(0.95, ("coverage", "claims", "engine"))
    assert run.options(["level=0.8", "parts=claims"]) == run.Options(0.8, ("claims",))
    assert len(run.orders(run.Options())) == len(run.orders(run.Options(parts=("coverage",)))) + 6
    assert run.orders(run.Options(parts=("engine",))) == []


def test_a_broken_interval_is_seen_without_touching_the_code() -> None:
    """The command a user can try: intervals of 80% held to the bounds of 95%."""
    assert coverage.wilson_coverage(0.95).ok
    broken = coverage.wilson_coverage(0.80)
    code, lines = run.verdict([coverage.wilson_coverage(0.95), broken])
    assert code == 1 and len(lines) == 1
    assert lines[0].startswith("out of bounds: coverage: accuracy (Wilson): 111 items, accuracy 0.5: 8")
    assert lines[0].endswith("(allowed: 93.0% to 97.0%)")


def test_all_within_bounds_says_so() -> None:
    assert run.verdict([Figure("a", {"x": 0.95}, 0.93, 0.97)]) == (0, ["all 1 figures within their bounds"])
    assert run.verdict([Figure("a", {}, 0.93, 0.97)])[1] == [
        "out of bounds: a: nothing was measured (allowed: 93.0% to 97.0%)"
    ]


@pytest.mark.parametrize("broken, code", [(False, 0), (True, 1)])
def test_the_command_exits_1_where_a_figure_is_out_of_bounds(
    broken: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        Figure("coverage", {"here": 0.95}, 0.93, 0.97),
        Figure("rate", {"there": 0.2 if broken else 0.01}, None, 0.05),
    ]
    monkeypatch.setattr(run, "gather", lambda asked: iter(found))
    assert cli.main(["selftest"]) == code
    shown = capsys.readouterr().out
    assert ("out of bounds: rate: there: 20.0% (allowed: at most 5.0%)" in shown) == broken
    assert ("all 2 figures within their bounds" in shown) != broken
    assert cli.main(["selftest", "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is not broken and [one["ok"] for one in told["figures"]] == [True, not broken]


def test_an_unknown_option_is_a_fault_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["selftest", "levle=0.8"]) == 2
    assert capsys.readouterr().err == "error: unknown option 'levle'; did you mean 'level'?\n"


def test_the_command_line_imports_no_torch() -> None:
    code, _, heavy, _ = watched("selftest", "levle=0.8")
    assert (code, heavy) == (2, [])


# Figures that would be wrong --------------------------------------------------------------------------------------------


def test_intervals_of_another_level_fall_out_of_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert coverage.seeds_coverage(3, 100, 0.95).ok
    monkeypatch.setattr(coverage, "SEED_DRAWS", 600)
    monkeypatch.setattr(coverage, "DRAWS", 300)
    assert not coverage.seeds_coverage(3, 100, 0.8).ok
    assert not coverage.tasks_coverage(0.8).ok
    assert not coverage.clusters_coverage("accuracy", 0.8).ok
    assert not coverage.bca_coverage("f1", 100, 0.8).ok
    assert not coverage.metric_seeds_coverage("matthews", 0.8).ok


def test_clusters_taken_for_single_items_fall_out_of_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = coverage.clustered_interval
    monkeypatch.setattr(coverage, "DRAWS", 300)
    monkeypatch.setattr(
        coverage,
        "clustered_interval",
        lambda value, left_out, clusters, *bounds, level: whole(
            value, left_out, np.arange(len(left_out)), *bounds, level=level
        ),
    )
    for metric in ("accuracy", "f1", "matthews"):
        assert not coverage.clusters_coverage(metric, 0.95).ok


def test_seeds_over_clusters_taken_for_single_items_fall_out_of_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = coverage.seeds_interval
    monkeypatch.setattr(coverage, "DRAWS", 300)
    monkeypatch.setattr(
        coverage, "seeds_interval", lambda scores, left_out, clusters, level: whole(scores, left_out, level=level)
    )
    assert not coverage.clusters_seeds_coverage(0.95).ok


def test_the_mean_of_two_seeds_intervals_is_wider_than_it_says_and_only_stated() -> None:
    found = coverage.two_seeds_coverage(0.95)
    assert found.ok and found.bounds() == "stated"
    assert all(share > 0.95 for share in found.values.values())


def test_correlations_are_measured_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(run.orders(run.options(["parts=correlations"]))) == 6
    monkeypatch.setattr(coverage, "CORRELATION_DRAWS", 40)
    assert min(coverage.correlation_coverage("spearman", 100, 0.95).values.values()) > 0.8
    assert min(coverage.correlation_coverage("pearson", 100, 0.95).values.values()) > 0.8
    assert not coverage.correlation_coverage("pearson", 100, 0.6).ok


def test_a_test_that_forgets_the_seeds_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """With McNemar in place of the test over seeds a strategy differs from itself far too often."""
    monkeypatch.setattr(claims, "COMPARISONS", 300)
    monkeypatch.setattr(claims, "SIZES", (1000,))
    assert claims.same_against_same(0.033).ok

    def naive(differences: list[float], item_variance: float, items: int) -> object:
        from bench.stats.pairs import seed_test

        return seed_test(differences[:1], item_variance, items)

    monkeypatch.setattr("bench.report.compare.seed_test", naive)
    assert not claims.same_against_same(0.033).ok


def test_ranks_of_equals_without_correction_are_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BOARDS", 150)
    assert claims.wrong_ranks().ok
    monkeypatch.setattr("bench.report.standing.holm", lambda p: [v / 3 for v in p])
    assert not claims.wrong_ranks().ok


# The engine -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def twice(tmp_path: Path) -> tuple[Ran, Ran]:
    """The same fake run in two folders."""
    found = []
    for name in ("first", "second"):
        run_dir = write_run(
            tmp_path / name / "results", Fake(name="smoke", tasks=("sst2",), strategies=("lora", "full"))
        )
        cells = read_plan(run_dir / "plan.json").cells
        found.append(Ran(tmp_path / name, [read_result(run_dir / cell.id / "result.json") for cell in cells]))
    for ran in found:  # scores as a classifier's: far apart, and for the answer given
        for result in ran.results:
            rewrite(ran, result, lambda table: table)
    return found[0], found[1]


def rewrite(ran: Ran, result: Result, change: object) -> None:
    """Predictions with two label scores, changed."""
    path = ran.run_dir / result.cell.id / "predictions.parquet"
    table = {name: column for name, column in pq.read_table(path).to_pydict().items() if not name.startswith("score_")}
    predicted = np.array(table["predicted"])
    table |= {"score_0": np.where(predicted == 0, 0.0, -2.0), "score_1": np.where(predicted == 1, 0.0, -2.0)}
    pq.write_table(pa.table(change({k: np.array(v) for k, v in table.items()})), path)  # type: ignore[operator]


def test_runs_that_are_alike(twice: tuple[Ran, Ran]) -> None:
    for exactly in (True, False):
        found = same("again", *twice, exactly=exactly)
        assert found.ok and found.values == {"lora": 0, "full": 0}


def test_one_other_answer_is_seen(twice: tuple[Ran, Ran]) -> None:
    def flip(table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        table["predicted"][5] = 1 - table["predicted"][5]
        return table

    rewrite(twice[1], twice[1].results[0], flip)
    for exactly in (True, False):
        found = same("again", *twice, exactly=exactly)
        assert not found.ok and found.values == {"lora": 1, "full": 0}
    code, lines = run.verdict([found])
    assert (code, lines) == (1, ["out of bounds: again: lora: 1 (allowed: 0)"])


def test_near_ties_are_let_go_but_not_where_all_must_be_equal(twice: tuple[Ran, Ran]) -> None:
    def tie(first: bool) -> object:
        def change(table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            table["score_0"][5], table["score_1"][5] = (-0.5, -0.5 - 1e-5) if first else (-0.5 - 1e-5, -0.5)
            table["predicted"][5] = 0 if first else 1
            return table

        return change

    for ran, first in zip(twice, (True, False), strict=True):
        rewrite(ran, ran.results[0], tie(first))
    assert same("threads", *twice).ok
    assert same("again", *twice, exactly=True).values == {"lora": 1, "full": 0}


def test_a_cell_that_is_not_ok_differs_in_everything(twice: tuple[Ran, Ran]) -> None:
    first, second = twice
    failed = second.results[0].model_copy(
        update={"outcome": second.results[0].outcome.model_copy(update={"status": Status.error})}
    )
    found = same("again", first, Ran(second.folder, [failed, second.results[1]]))
    assert not found.ok and found.values["lora"] == math.inf


@pytest.mark.slow
def test_the_engine_repeats_itself(tmp_path: Path) -> None:
    """The real thing: tiny cells through the launcher twice, and in one process with other batches and threads."""
    found = engine.figures(tmp_path)
    assert len(found) == 4 and all(one.ok for one in found), [one.outside for one in found]
    assert set(found[0].values) == set(found[3].values) == set(engine.STRATEGIES)
    assert found[3].bounds() == "stated", "a near-tie is counted, not forbidden"


def test_near_ties_are_counted(twice: tuple[Ran, Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    counted = engine.near_ties(twice[0])
    monkeypatch.setattr(engine, "NEAR_TIE", math.inf)
    everything = engine.near_ties(twice[0])
    assert all(0 <= counted.values[name] < everything.values[name] for name in everything.values)
    assert everything.values, "the cells of the run that are ok"


def test_what_fails_in_the_one_process_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "tokens", lambda folder, *more: ["suite=nonsense"])
    with pytest.raises(RuntimeError, match="the cells could not be run in one process: .*nonsense"):
        engine.inside(tmp_path)
