"""The regression gate over records: what closes it, what it only tells, and what it says of runs it cannot compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fault_fixtures import Fault
from records_factory import Fake, write_run

from bench.cli import main
from bench.compare.sides import read_side
from bench.compare.whole import Comparison, compare
from bench.config.schema import Budget
from bench.records import Predicted, PredictedPhase, Result, Status

pytest_plugins = ("fault_fixtures",)
SMALL = {"tasks": ("sst2",), "strategies": ("zero_shot", "lora"), "items": 200}
LORA = "smollm2-135m-instruct sst2 lora s0"
Edit = Callable[[Result], Result]


def full(result: Result) -> Result:
    """A record with everything the gate looks at."""
    if result.outcome.status is not Status.ok:
        return result
    adapt, predict = result.phases["adapt"], result.phases["predict"]
    trains = adapt.flops is not None
    more = {"steps": 32, "examples": 256, "forwards": 256, "step_seconds": adapt.seconds} if trains else {}
    asked = {"steps": 7, "examples": 200, "forwards": 400, "tokens": 5000, "flops": 2e12, "step_seconds": 3.0}
    phases = {"adapt": adapt.model_copy(update=more), "predict": predict.model_copy(update=asked)}
    peak = PredictedPhase(peak_bytes=1000, parts={"activations": 1000})
    known = Predicted(peak_bytes=1000, flops=4.1e12, phases={"adapt": peak})
    return result.model_copy(update={"phases": {**result.phases, **phases}, "predicted": known})


def changed(strategy: str, change: Edit) -> Edit:
    """`full`, and one strategy's record changed."""
    return lambda result: change(full(result)) if result.cell.strategy == strategy else full(result)


def phase(name: str, **figures: Any) -> Edit:
    """Other figures of one phase."""

    def edit(result: Result) -> Result:
        other = result.phases[name].model_copy(update=figures)
        return result.model_copy(update={"phases": {**result.phases, name: other}})

    return edit


def runs(folder: Path, edit: Edit = full, **new: Any) -> tuple[Path, Path]:
    """A base and a new run of the same cells, the second edited."""
    base = write_run(folder / "base", Fake(**{**SMALL, "edit": full}))
    return base, write_run(folder / "new", Fake(**{**SMALL, "edit": edit, **new}))


def found(folder: Path, edit: Edit = full, **new: Any) -> Comparison:
    """The comparison of such a pair."""
    base, other = runs(folder, edit, **new)
    return compare(read_side(str(base)), read_side(str(other)))


def answer(folder: Path, strategy: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the stored predictions of a strategy's cells."""
    for path in folder.glob(f"*-{strategy}-*/predictions.parquet"):
        table = pq.read_table(path).to_pydict()
        change(table)
        pq.write_table(pa.table(table), path)


def test_equals_pass_ten_times_in_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, new = runs(tmp_path)
    for _ in range(10):
        assert main(["compare", str(base), str(new)]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "no regression in 2 cells"


@pytest.mark.parametrize(
    ("edit", "figure", "before", "after"),
    [
        (phase("adapt", flops=4.2e12), "adapt: flops", 4.1e12, 4.2e12),
        (phase("adapt", tokens=9001), "adapt: tokens", 9000, 9001),
        (phase("predict", forwards=600), "predict: forwards an item", 2.0, 3.0),
        (lambda r: r.model_copy(update={"predicted": r.predicted.model_copy(update={"peak_bytes": 1001})}),
         "predicted peak bytes", 1000, 1001),
        (lambda r: r.model_copy(update={"parameters": r.parameters.model_copy(update={"stored_bytes": 2**30})}),
         "stored bytes", 9_768_960, 2**30),
    ],
)  # fmt: skip
def test_any_increase_of_a_count_is_a_regression_by_name(
    tmp_path: Path, edit: Edit, figure: str, before: float, after: float
) -> None:
    one = found(tmp_path, changed("lora", edit))
    assert one.code == 1
    assert [(f.cell, f.figure, f.before, f.after) for f in one.findings] == [(LORA, figure, before, after)]
    assert f"{figure} of {LORA}" in one.verdict() and one.verdict().startswith("REGRESSION: 1 figures got worse")


def test_a_decrease_is_an_improvement(tmp_path: Path) -> None:
    one = found(tmp_path, changed("lora", phase("adapt", flops=4.0e12)))
    assert one.code == 0 and [f.figure for f in one.of("improvement")] == ["adapt: flops"]
    assert one.verdict() == "no regression in 2 cells, 1 better"
    assert (
        one.findings[0].line() == f"improvement: {LORA}: adapt: flops 4,100,000,000,000 -> 4,000,000,000,000 (-2.44%)"
    )


def test_cuda_peaks_are_exact_and_resident_sets_are_not(tmp_path: Path) -> None:
    """torch's allocator asks for the same blocks every time; a process's pages depend on the machine."""
    base = write_run(tmp_path / "base", Fake(**{**SMALL, "edit": full, "cuda": True}))
    lora = changed("lora", phase("adapt", peak_allocated_bytes=2**40, peak_rss_bytes=2**40))
    new = write_run(tmp_path / "new", Fake(**{**SMALL, "edit": lora, "cuda": True}))
    one = compare(read_side(str(base)), read_side(str(new)))
    assert [f.figure for f in one.of("regression")] == ["adapt: peak_allocated_bytes"]


def test_work_that_was_asked_for_must_not_change_even_downwards(tmp_path: Path) -> None:
    one = found(tmp_path, changed("lora", phase("adapt", steps=31)))
    assert [(f.figure, f.before, f.after) for f in one.of("regression")] == [("adapt: steps", 32, 31)]
    assert "must not change at all" in one.findings[0].says


def test_a_budget_of_seconds_leaves_its_steps_to_the_machine(tmp_path: Path) -> None:
    def timed(result: Result) -> Result:
        budget = Budget(labels=128, train_seconds=60).model_dump(exclude_none=True)
        return full(result).model_copy(update={"cell": result.cell.model_copy(update={"budget": budget})})

    base = write_run(tmp_path / "base", Fake(**{**SMALL, "edit": timed}))
    slow = phase("adapt", steps=99, flops=9e12, tokens=99_000)
    new = write_run(tmp_path / "new", Fake(**{**SMALL, "edit": lambda r: slow(timed(r))}))
    assert compare(read_side(str(base)), read_side(str(new))).code == 0


def test_a_figure_that_is_gone_guards_nothing(tmp_path: Path) -> None:
    one = found(tmp_path / "a", changed("lora", phase("adapt", flops=None)))
    assert one.code == 1 and "not measured any more" in one.of("regression")[0].line()
    broken = Predicted(reason="not predicted: RuntimeError: x")
    one = found(tmp_path / "b", changed("lora", lambda r: r.model_copy(update={"predicted": broken})))
    assert one.code == 1 and one.of("regression")[0].says == "not predicted: RuntimeError: x"
    unasked = Predicted(reason="not predicted: predict=false")
    one = found(tmp_path / "c", changed("lora", lambda r: r.model_copy(update={"predicted": unasked})))
    assert one.code == 0
    assert "predicted bytes are not gated in 1 cells: the new run had predict=false" in one.remarks


def test_what_the_base_did_not_measure_is_told(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", Fake(**{**SMALL, "edit": changed("lora", phase("predict", forwards=None))}))
    new = write_run(tmp_path / "new", Fake(**{**SMALL, "edit": full}))
    one = compare(read_side(str(base)), read_side(str(new)))
    assert one.code == 0 and one.remarks == [
        "forwards an item are not gated in 1 cells: the base's records do not hold them"
    ]


@pytest.mark.parametrize("status", [Status.error, Status.out_of_memory, Status.unsupported, Status.timeout])
def test_a_cell_that_was_ok_and_is_not_is_a_regression_with_its_reason(tmp_path: Path, status: Status) -> None:
    one = found(tmp_path, statuses={("sst2", "lora", 0): status})
    [worse] = one.of("regression")
    assert (worse.cell, worse.figure, worse.before, worse.after) == (LORA, "outcome", "ok", status.value)
    assert worse.says and one.code == 1


def test_missing_new_and_healed_cells(tmp_path: Path) -> None:
    one = found(tmp_path / "a", strategies=("zero_shot", "full"))
    assert [(f.kind, f.cell, f.after) for f in one.findings] == [
        ("regression", LORA, "missing"), ("told", "smollm2-135m-instruct sst2 full s0", "ok")]  # fmt: skip
    one = found(tmp_path / "b", missing=[("sst2", "lora", 0)])
    assert [(f.figure, f.after, f.says) for f in one.of("regression")] == [("outcome", "not_run", "not run yet")]
    base, new = runs(tmp_path / "c", statuses={("sst2", "lora", 0): Status.out_of_memory})
    healed = compare(read_side(str(new)), read_side(str(base)))
    assert healed.code == 0 and healed.of("improvement")[0].line().startswith(
        f"improvement: {LORA}: outcome out_of_memory -> ok"
    )


def test_a_refusal_that_became_a_crash_is_a_regression_and_another_refusal_is_told(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", Fake(**{**SMALL, "statuses": {("sst2", "lora", 0): Status.unsupported}}))
    for status, code in ((Status.error, 1), (Status.diverged, 0)):
        new = write_run(tmp_path / status, Fake(**{**SMALL, "statuses": {("sst2", "lora", 0): status}}))
        one = compare(read_side(str(base)), read_side(str(new)))
        assert one.code == code and [f.after for f in one.findings] == [status.value]


def test_cells_are_matched_by_what_they_are_and_the_rest_is_told(tmp_path: Path) -> None:
    """New numerics and a new default give another id; it is still the same cell."""
    base, new = runs(tmp_path)
    plan = json.loads((new / "plan.json").read_text())
    for cell in plan["cells"]:
        old, cell["id"] = cell["id"], cell["id"][:-8] + "00000000"
        cell["numerics"], cell["options"]["lr"] = 2, 0.1
        record = json.loads((new / old / "result.json").read_text())
        (new / old).rename(new / cell["id"])
        (new / cell["id"] / "result.json").write_text(json.dumps({**record, "cell": cell}))
    (new / "plan.json").write_text(json.dumps(plan))
    one = compare(read_side(str(base)), read_side(str(new)))
    assert one.code == 0 and one.cells == 2
    told = [(f.figure, f.before, f.after) for f in one.of("told") if f.cell == LORA]
    assert told == [("options.lr", "none", "0.1"), ("numerics", "1", "2")] or set(told) == {
        ("options.lr", "none", "0.1"), ("numerics", "1", "2")}  # fmt: skip


def test_a_score_that_falls_by_more_than_chance_is_a_regression(tmp_path: Path) -> None:
    one = found(tmp_path, skill=0.6)
    [worse] = [f for f in one.of("regression") if f.cell == LORA]
    assert worse.gate == "score" and worse.figure == "accuracy" and worse.after < worse.before
    assert "exact one-sided McNemar test" in worse.says and "after Holm over 2 tests" in worse.says


def test_a_score_that_falls_by_chance_or_rises_passes(tmp_path: Path) -> None:
    def lose(number: int, table: dict[str, Any]) -> None:
        right = [i for i, (a, b) in enumerate(zip(table["label"], table["predicted"], strict=True)) if a == b]
        for i in right[:number]:
            table["predicted"][i] = 1 - table["predicted"][i]

    def scored(result: Result, by: int) -> Result:
        score = result.scores["accuracy"]  # type: ignore[index]
        lower = score.model_copy(update={"value": score.value - by / score.n})
        return result.model_copy(update={"scores": {"accuracy": lower}})

    # of n discordant items, all lost: p = 2^-n; after Holm over 2 tests 5 lost items give 0.06, 6 give 0.03
    for lost, code in ((5, 0), (6, 1)):
        base, new = runs(tmp_path / str(lost), changed("lora", lambda r, by=lost: scored(r, by)))  # type: ignore[misc]
        answer(new, "lora", lambda table, number=lost: lose(number, table))  # type: ignore[misc]
        one = compare(read_side(str(base)), read_side(str(new)))
        assert one.code == code, one.findings
        if lost == 5:
            back = compare(read_side(str(new)), read_side(str(base)))
            assert back.code == 0 and [f.gate for f in back.of("improvement")] == ["score"]
            told = {f.gate: f for f in one.of("told")}
            assert "(5 items lost, 0 won), p = 0.031, 0.062 after Holm" in told["score"].says
            assert told["answers"].after == "5 of 200"


def test_seeds_are_tested_together_over_items(tmp_path: Path) -> None:
    """Three seeds of one strategy make one test, in which an item's seeds stand or fall together."""
    one = found(tmp_path / "a", skill=0.6, seeds=(0, 1, 2))
    assert one.code == 0 or one.of("regression")  # the base has one seed: two cells are only new
    base = write_run(tmp_path / "base", Fake(**{**SMALL, "edit": full, "seeds": (0, 1, 2)}))
    new = write_run(tmp_path / "new", Fake(**{**SMALL, "edit": full, "seeds": (0, 1, 2), "skill": 0.6}))
    two = compare(read_side(str(base)), read_side(str(new)))
    [worse] = [f for f in two.of("regression") if "lora" in f.cell]
    assert worse.cell == "smollm2-135m-instruct sst2 lora over 3 seeds"
    assert "one-sided randomisation test over items, 3 seeds of each together" in worse.says


def test_other_metrics_are_tested_by_the_jackknife(tmp_path: Path) -> None:
    fakes = [Fake(**{**SMALL, "tasks": ("mrpc", "cola"), "edit": full, "skill": skill}) for skill in (2.0, 0.4)]
    base, new = (write_run(tmp_path / str(i), fake) for i, fake in enumerate(fakes))
    one = compare(read_side(str(base)), read_side(str(new)))
    worse = {f.figure: f.says for f in one.of("regression") if " lora " in f.cell}
    assert set(worse) == {"f1", "matthews"}
    assert all(words.startswith("one-sided t test, jackknife over items, p = ") for words in worse.values())


def test_a_wrong_label_map_is_seen_where_the_score_is_chance(tmp_path: Path) -> None:
    """Half right before, half right after: no score tells, but every answer turned over."""

    def half(table: dict[str, Any]) -> None:
        table["predicted"] = [label if i % 2 else 1 - label for i, label in enumerate(table["label"])]
        table["score_0"] = [-0.1 if p == 0 else -3.0 for p in table["predicted"]]
        table["score_1"] = [-3.0 if p == 0 else -0.1 for p in table["predicted"]]

    def permuted(table: dict[str, Any]) -> None:
        half(table)
        table["predicted"] = [1 - p for p in table["predicted"]]
        table["score_0"], table["score_1"] = table["score_1"], table["score_0"]

    def at_half(result: Result) -> Result:
        scores = {"accuracy": full(result).scores["accuracy"].model_copy(update={"value": 0.5})}  # type: ignore[index]
        return full(result).model_copy(update={"scores": scores})

    base = write_run(tmp_path / "base", Fake(**{**SMALL, "edit": at_half}))
    new = write_run(tmp_path / "new", Fake(**{**SMALL, "edit": at_half}))
    answer(base, "*", half)
    answer(new, "zero_shot", half)
    answer(new, "lora", permuted)
    one = compare(read_side(str(base)), read_side(str(new)))
    [worse] = one.findings
    assert (worse.kind, worse.gate, worse.cell, worse.after) == ("regression", "answers", LORA, "200 of 200")
    assert "most answers turned over, as under a wrong label map" in worse.says

    def near(table: dict[str, Any]) -> None:
        permuted(table)
        table["score_0"], table["score_1"] = ([s / 1e5 for s in table[n]] for n in ("score_0", "score_1"))

    answer(new, "lora", near)  # rounding may turn near-ties over, another processor is enough
    one = compare(read_side(str(base)), read_side(str(new)))
    assert one.code == 0 and one.of("told")[0].says.startswith("0 of them no near-tie")


def test_labels_read_otherwise_are_a_regression_unless_the_data_changed(tmp_path: Path) -> None:
    def swap(table: dict[str, Any]) -> None:
        table["label"] = [1 - label for label in table["label"]]

    base, new = runs(tmp_path / "a")
    answer(new, "lora", swap)
    one = compare(read_side(str(base)), read_side(str(new)))
    [worse] = one.of("regression")
    assert (worse.cell, worse.figure, worse.after) == (LORA, "right answers changed", "200 of 200")
    other = changed(
        "lora", lambda r: r.model_copy(update={"data": r.data.model_copy(update={"fingerprint": "sha256:0"})})
    )
    base, new = runs(tmp_path / "b", other)
    answer(new, "lora", swap)
    one = compare(read_side(str(base)), read_side(str(new)))
    assert one.code == 0 and one.of("told")[0].says == "the data's fingerprint changed"


def test_a_drop_without_predictions_has_no_excuse(tmp_path: Path) -> None:
    base, new = runs(tmp_path, skill=0.95)
    for path in new.glob("*/predictions.parquet"):
        path.unlink()
    one = compare(read_side(str(base)), read_side(str(new)))
    assert one.code == 1
    assert one.of("regression")[0].says == "the predictions of new are missing, so no test can call it chance"


def test_other_libraries_and_processors_are_told(tmp_path: Path) -> None:
    def moved(result: Result) -> Result:
        place = result.environment
        other = {**place, "versions": {**place["versions"], "torch": "2.14.0"}, "threads": 4,
                 "machine": {**place["machine"], "cpu": "another"}}  # fmt: skip
        return full(result).model_copy(update={"environment": other})

    one = found(tmp_path, moved)
    assert one.code == 0
    assert one.remarks[0].startswith(
        "the environment differs (torch 2.13.0 -> 2.14.0, processor AMD EPYC 7B13 -> another, threads 2 -> 4): "
    )


def test_a_baseline_file_holds_what_the_gate_needs_and_nothing_of_the_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, new = runs(tmp_path, changed("lora", phase("adapt", flops=4.2e12)))
    file = tmp_path / "kept" / "smoke.json"
    assert main(["compare", str(base), f"keep={file}"]) == 0
    assert capsys.readouterr().out == f"kept: 2 cells in {file}, {file.stat().st_size / 1024:.0f} KiB\n"
    text = file.read_text()
    assert str(tmp_path) not in text and "ab12cd34ef56" not in text and "peak_rss_bytes" not in text
    assert main(["compare", str(file), str(base)]) == 0
    assert "speed: not gated: a baseline file holds no times" in capsys.readouterr().out
    assert main(["compare", str(file), str(new)]) == 1
    assert f"REGRESSION: 1 figures got worse: adapt: flops of {LORA}" in capsys.readouterr().out
    again = tmp_path / "again.json"
    assert main(["compare", str(file), f"keep={again}"]) == 0 and again.read_text() == text


def test_a_selection_compares_less(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, new = runs(tmp_path, changed("lora", phase("adapt", flops=4.2e12)))
    assert main(["compare", str(base), str(new), "strategies=zero_shot", "tasks=sst2"]) == 0
    printed = capsys.readouterr().out
    assert "only tasks=sst2 strategies=zero_shot were compared" in printed and "no regression in 1 cells" in printed


def test_json_and_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, new = runs(tmp_path, changed("lora", phase("adapt", flops=4.2e12, tokens=8999)))
    page = tmp_path / "gate.md"
    assert main(["compare", str(base), str(new), "--json", "--markdown", str(page)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["ok"] and told["cells"] == 2
    assert [(f["cell"], f["figure"], f["after"]) for f in told["regressions"]] == [(LORA, "adapt: flops", 4.2e12)]
    assert [f["figure"] for f in told["improvements"]] == ["adapt: tokens"]
    assert [one["figure"] for one in told["speed"]["runs"]] == ["adapt seconds a token", "predict seconds a token"]
    text = page.read_text()
    assert text.startswith(f"## ❌ REGRESSION: 1 figures got worse: adapt: flops of {LORA}\n")
    assert f"| {LORA} | adapt: flops | 4,100,000,000,000 | 4,200,000,000,000 | +2.44% |  |" in text
    assert "<details><summary>better: 1</summary>" in text
    assert main(["compare", str(base), str(base), "--markdown", str(page)]) == 0
    assert page.read_text().startswith("## ✅ no regression in 2 cells\n")


def test_names_of_others_do_not_break_the_table(tmp_path: Path) -> None:
    from bench.compare.show import escaped

    assert escaped("a|b<c>`d`\n\x1b[31m") == "a\\|b&lt;c&gt;\\`d\\` \ufffd[31m"


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "compare takes two runs, got 0; allowed: compare BASE NEW"),
        ("base", "compare takes two runs, got 1; allowed: compare BASE NEW"),
        ("base new third", "compare takes two runs, got 3"),
        ("base nwe", "no run 'nwe': got neither a folder with a plan.json nor a run below results; allowed: a run's folder"),
        ("base new pair=3", "unknown option 'pair'; did you mean 'pairs'?"),
        ("base new pairs=3", "pairs= goes with base_code=DIR new_code=DIR"),
        ("base new work=x", "work= goes with base_code=DIR new_code=DIR"),
        ("base new floors=x floors=y", "option 'floors' is given twice"),
        ("base new floors=", "option 'floors' is given no value"),
        ("base new --jsn", "unknown option '--jsn'; allowed: --json, --markdown FILE, and KEY=VALUE with base_code"),
        ("base new strategies=lroa", "unknown strategy 'lroa'; did you mean 'lora'?"),
        ("base new tasks=sts2", "unknown task 'sts2'; did you mean 'sst2'?"),
        ("base new models=smollm2", "unknown model 'smollm2'; did you mean 'smollm2-135m-instruct'?"),
        ("base new floors=none.json", "cannot read the floors none.json: No such file or directory; learn=FILE makes"),
        ("base new floors=bad.json", "bad.json holds no noise floors; allowed: a file written by learn=FILE"),
        ("base new --markdown nowhere/x.md", "--markdown: cannot write nowhere/x.md: No such file or directory"),
        ("base none.json", "cannot read the baseline none.json: No such file or directory"),
        ("base broken.json", "broken.json is no baseline: not JSON"),
        ("base bad.json", "bad.json is no baseline: baseline_version None, this version reads 1"),
        ("base damaged.json", "damaged.json is damaged: cells: Field required"),
        ("base new keep=x.json", "keep= takes one run, got 2; allowed: compare RUN keep=FILE"),
        ("base keep=x", "keep=x: a baseline file ends in .json"),
        ("base keep=x.json learn=y.json", "got keep= and learn=; allowed: one of them"),
        ("empty keep=x.json", "keep: empty holds no record; run the suite first"),
        ("base keep=base/plan.json/x.json", "keep: cannot write base/plan.json/x.json"),
        ("base new learn=x.json", "learn: 2 runs are too few; allowed: 3 or more of the same code"),
        ("base new other learn=x.json", "learn: the runs are of different code, so they are no equals"),
        ("base new elsewhere learn=x.json", "learn: the runs are of several machines, or do not say of which"),
        ("empty empty empty learn=x.json", "learn: the runs are of several machines, or do not say of which"),
        ("base cards", "no cell of base is in cards: model is smollm2-135m-instruct there and minilm here; device is cpu there and cuda here"),
        ("base_code=.", "new_code is missing; allowed: base_code=DIR new_code=DIR"),
        ("base_code=. new_code=. base", "got base_code= and the run 'base'; allowed: two checkouts, or two recorded runs"),
        ("base_code=. new_code=.", "base_code=. is no checkout of this project: it has no bench/__init__.py"),
        ("base_code=. new_code=. pairs=2", "pairs is '2'; allowed: a whole number from 3 to 200"),
        ("base_code=. new_code=. pairs=many", "pairs is 'many'; allowed: a whole number from 3 to 200"),
        ("base_code=. new_code=. work=base", "work=base is not empty; allowed: a new or empty folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_one_line(here: Path, fault: Fault, words: str, says: str) -> None:
    for name in ("base", "new"):
        write_run(here, Fake(**{**SMALL, "name": name, "items": 20}))
    if "other" in words:
        write_run(here, Fake(**{**SMALL, "name": "other", "items": 20, "code_digest": "x"}))
    if "elsewhere" in words:

        def away(r: Result) -> Result:
            machine = {**r.environment["machine"], "id": "another"}
            return r.model_copy(update={"environment": {**r.environment, "machine": machine}})

        write_run(here, Fake(**{**SMALL, "name": "elsewhere", "items": 20, "edit": away}))
    write_run(here, Fake(**{**SMALL, "name": "cards", "items": 20, "cuda": True, "models": ("minilm",)}))
    write_run(here, Fake(**{**SMALL, "name": "empty", "missing": [("sst2", s, 0) for s in SMALL["strategies"]]}))
    (here / "broken.json").write_text("{")
    (here / "bad.json").write_text("{}")
    (here / "damaged.json").write_text('{"baseline_version": 1, "run": "x"}')
    assert fault("compare", *words.split()).startswith(says)


def test_the_runs_below_results_are_named_where_one_is_missing(here: Path, fault: Fault) -> None:
    write_run(here / "results", Fake(**SMALL))
    assert main(["compare", "glue-small", "glue-small"]) == 0
    assert fault("compare", "glue-smal", "glue-small").endswith("a baseline .json, or one of: glue-small")


def test_it_needs_no_torch(tmp_path: Path) -> None:
    from cli_runs import watched

    base, new = runs(tmp_path)
    code, _, heavy, _ = watched("compare", str(base), str(new))
    assert code == 0 and heavy == []


def test_label_scores_that_moved_are_told(tmp_path: Path) -> None:
    base, new = runs(tmp_path)
    answer(new, "lora", lambda table: table.update(score_0=(np.array(table["score_0"]) + 0.25).tolist()))
    one = compare(read_side(str(base)), read_side(str(new)))
    assert one.code == 0
    assert one.remarks == [f"label scores moved in 1 cells whose answers stand, by at most 0.25 ({LORA})"]
