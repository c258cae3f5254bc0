"""The regression gate over records: outcomes, counts, and which cell is which."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gate_runs import LORA, SMALL, Edit, changed, found, full, phase, runs
from records_factory import Fake, write_run

from bench.cli import main
from bench.compare.sides import read_side
from bench.compare.whole import compare
from bench.config.schema import Budget
from bench.records import Predicted, PredictedPhase, Result, Status


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
    assert f"{figure} of {LORA}" in one.verdict() and one.verdict().startswith("REGRESSION: 1 figure got worse")


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
    assert "predicted bytes are not gated in 1 cell of new: not predicted: predict=false" in one.remarks
    base = write_run(tmp_path / "d", Fake(**SMALL))
    one = compare(read_side(str(base)), read_side(str(base)))
    assert one.remarks == ["predicted bytes are not gated in 2 cells of base: no reason was recorded"]


def test_a_phase_that_only_the_new_side_has_costs_more_than_none(tmp_path: Path) -> None:
    def warmed(result: Result) -> Result:
        more = {**result.phases, "warm": result.phases["adapt"]}
        peak = PredictedPhase(peak_bytes=900, parts={"activations": 900})
        known = result.predicted.model_copy(update={"phases": {**result.predicted.phases, "warm": peak}})
        return result.model_copy(update={"phases": more, "predicted": known})

    one = found(tmp_path, changed("lora", warmed))
    wanted = {
        "warm: flops": 4.1e12,
        "warm: tokens": 9000,
        "warm: forwards an item": 1,
        "predicted peak bytes, warm": 900,
    }
    worse = {f.figure: (f.before, f.after) for f in one.of("regression")}
    assert one.code == 1 and {name: (0, value) for name, value in wanted.items()}.items() <= worse.items()
    assert one.findings[0].says == "the base has no phase warm"
    base, _ = runs(tmp_path / "unforetold", full)
    known = foretold(peak_bytes=None, phases={}, flops=None)
    before = write_run(tmp_path / "before", Fake(**{**SMALL, "edit": lambda r: known(full(r))}))
    assert compare(read_side(str(before)), read_side(str(base))).code == 0, "it was not predicted before"


def foretold(**figures: object) -> Edit:
    """Other predictions."""
    return lambda r: r.model_copy(update={"predicted": r.predicted.model_copy(update=figures)})


@pytest.mark.parametrize(
    ("gone", "figure", "more"),
    [
        ({"flops": None}, "predicted FLOPs", ""),
        ({"phases": {}}, "predicted peak bytes, adapt", ""),
        ({"phases": {}, "flops": None}, "predicted peak bytes, adapt", "; nor is predicted FLOPs"),
        ({"phases": {}, "peak_bytes": None, "reason": "broken"}, "predicted peak bytes", "broken"),
    ],
)
def test_any_prediction_that_is_gone_guards_nothing(
    tmp_path: Path, gone: dict[str, object], figure: str, more: str
) -> None:
    """One finding a cell; a prediction that nobody asked for is told instead (above)."""
    one = found(tmp_path, changed("lora", foretold(**{"reason": "needs 1 of 2 GiB", **gone})))
    absent = "it is not measured any more, so nothing guards it"
    [worse] = one.of("regression")
    assert (worse.cell, worse.figure, worse.after) == (LORA, figure, None)
    assert worse.says == (more if more == "broken" else absent + more) and one.code == 1


def test_what_the_base_did_not_measure_is_told(tmp_path: Path) -> None:
    base = write_run(tmp_path / "base", Fake(**{**SMALL, "edit": changed("lora", phase("predict", forwards=None))}))
    new = write_run(tmp_path / "new", Fake(**{**SMALL, "edit": full}))
    one = compare(read_side(str(base)), read_side(str(new)))
    assert one.code == 0 and one.remarks == [
        "forwards an item are not gated in 1 cell: the base's records do not hold them"
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
    assert sorted(told) == [("numerics", "1", "2"), ("options.lr", "none", "0.1")]


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


@pytest.mark.parametrize("strategy", ["lora", "zero_shot"])
def test_work_that_a_record_left_out_because_there_was_none_is_0(tmp_path: Path, strategy: str) -> None:
    """Checkpointing that nobody asked for, and steps of a strategy that took none: neither had a figure before."""
    idle = dict.fromkeys(("flops", "tokens", "padded_tokens", "steps", "examples", "forwards"))
    if strategy == "lora":
        before, after = full, phase("adapt", recomputed_flops=1.4e12)
    else:
        before = changed(strategy, phase("adapt", **idle))
        after = phase("adapt", flops=5e12, tokens=9, padded_tokens=9, steps=1, examples=1, forwards=1)
    base = write_run(tmp_path / "base", Fake(**{**SMALL, "edit": before}))
    new = write_run(tmp_path / "new", Fake(**{**SMALL, "edit": changed(strategy, after)}))
    worse = compare(read_side(str(base)), read_side(str(new))).of("regression")
    wanted = {"adapt: recomputed_flops": 1.4e12} if strategy == "lora" else {"adapt: flops": 5e12}
    assert {(f.figure, f.before, f.after) for f in worse} >= {(name, 0, value) for name, value in wanted.items()}
    back = compare(read_side(str(new)), read_side(str(base)))
    assert {f.figure for f in back.of("improvement")} >= set(wanted)


def test_a_count_that_is_no_number_is_not_less(tmp_path: Path) -> None:
    base, new = runs(tmp_path)
    for path in new.glob("*-lora-*/result.json"):
        path.write_text(path.read_text().replace("4100000000000.0", "NaN"))
    assert [f.kind for f in compare(read_side(str(base)), read_side(str(new))).findings] == ["regression"] * 2


def test_other_data_is_told(tmp_path: Path) -> None:
    def other(result: Result) -> Result:
        read = result.data.model_copy(update={"fingerprint": "sha256:" + "0" * 64, "source": "sample"})
        return full(result).model_copy(update={"data": read})

    one = found(tmp_path, other)
    assert one.code == 0 and one.remarks == [
        "the data differ (sst2: mirror sha256:7e7e7e7e -> sample sha256:00000000): counts and scores are of other rows"
    ]
