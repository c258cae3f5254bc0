"""What the gate shows, keeps as a baseline, and refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fault_fixtures import Fault
from gate_runs import LORA, SMALL, answer, changed, phase, runs
from records_factory import Fake, write_run

from bench.cli import main
from bench.compare.show import escaped
from bench.compare.sides import read_side
from bench.compare.whole import compare
from bench.records import Result

pytest_plugins = ("fault_fixtures",)


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
    assert f"REGRESSION: 1 figure got worse: adapt: flops of {LORA}" in capsys.readouterr().out
    again = tmp_path / "again.json"
    assert main(["compare", str(file), f"keep={again}"]) == 0 and again.read_text() == text


def test_a_selection_compares_less(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, new = runs(tmp_path, changed("lora", phase("adapt", flops=4.2e12)))
    assert main(["compare", str(base), str(new), "strategies=zero_shot", "tasks=sst2"]) == 0
    printed = capsys.readouterr().out
    assert "only tasks=sst2 strategies=zero_shot were compared" in printed and "no regression in 1 cell" in printed


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
    assert text.startswith(f"## ❌ REGRESSION: 1 figure got worse: adapt: flops of {LORA}\n")
    assert f"| {LORA} | adapt: flops | 4,100,000,000,000 | 4,200,000,000,000 | +2.44% |  |" in text
    assert "<details><summary>better: 1</summary>" in text
    assert main(["compare", str(base), str(base), "--markdown", str(page)]) == 0
    assert page.read_text().startswith("## ✅ no regression in 2 cells\n")


def test_names_of_others_do_not_break_the_table(tmp_path: Path) -> None:
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


DAMAGES = [
    ({"schema_version": 99}, {}, "written by a newer version (schema_version 99, this version reads 1): update"),
    ({"schema_version": 0}, {}, "is damaged: schema_version 0, this version reads 1 and knows no way from there"),
    ({}, {"label": [1, 0]}, "is damaged: cells.0.predictions: Value error, its columns are not of one length"),
    ({}, {"row": [float("nan")] * 20}, "is damaged: cells.0.predictions: Value error, a row, a label or an answer is no"),
    ({}, {"row": [1e300] * 20}, "is damaged: cells.0.predictions: Value error, a row, a label or an answer is no"),
]  # fmt: skip


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("record", "columns", "says"), DAMAGES)
def test_a_baseline_of_another_schema_or_with_broken_columns_is_refused(
    here: Path, fault: Fault, record: dict[str, Any], columns: dict[str, Any], says: str
) -> None:
    """Silently compared, or read without its answers, it would guard nothing."""
    write_run(here, Fake(**{**SMALL, "name": "base", "items": 20}))
    assert main(["compare", "base", "keep=kept.json"]) == 0
    kept = json.loads((here / "kept.json").read_text())
    assert kept["schema_version"] == 1
    kept["cells"][0]["result"].update(record)
    kept["cells"][0]["predictions"].update(columns)
    (here / "kept.json").write_text(json.dumps(kept))
    assert fault("compare", "kept.json", "base").startswith(f"kept.json{'' if says[0] == 'i' else ':'} {says}")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("cells", ["[1]", "[{}]", '[{"result": 1}]', "1"])
def test_a_baseline_whose_cells_are_none_is_refused(here: Path, fault: Fault, cells: str) -> None:
    (here / "odd.json").write_text(f'{{"baseline_version": 1, "run": "x", "cells": {cells}}}')
    assert fault("compare", "odd.json", "odd.json").startswith("odd.json is damaged: ")
    (here / "deep.json").write_text("[" * 100_000)
    assert "deep.json is no baseline: not JSON" in fault("compare", "deep.json", "odd.json")


def test_a_column_that_holds_no_numbers_is_no_answer(tmp_path: Path) -> None:
    base, new = runs(tmp_path)
    answer(new, "lora", lambda table: table.update(label=[None] * len(table["label"])))
    [worse] = compare(read_side(str(base)), read_side(str(new))).findings
    assert worse.figure == "answers" and worse.kind == "regression"


@pytest.mark.usefixtures("here")
def test_a_number_that_json_cannot_hold_is_not_kept(here: Path, fault: Fault) -> None:
    write_run(here, Fake(**{**SMALL, "name": "base", "items": 20}))
    answer(here / "base", "lora", lambda table: table.update(score_0=[float("-inf")] * 20))
    said = fault("compare", "base", "keep=x.json")
    assert said.startswith("keep: sst2-lora-s0-") and "holds a number that is not finite; run the cell again" in said
    assert not (here / "x.json").exists()
