"""The results command: what it lists, what it selects, what it exports, and every fault in one line."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from cli_runs import ROOT, watched
from fault_fixtures import Fault
from records_factory import Fake, write_run

from bench.cli import main
from bench.records import Result, Status
from bench.shelf.export import Rows, as_csv, table, typed
from bench.shelf.found import Found
from bench.store import read_result

pytest_plugins = ("fault_fixtures",)
SMALL = Fake(
    tasks=("sst2", "rte"),
    strategies=("zero_shot", "lora", "full"),
    seeds=(0, 1),
    items=40,
    statuses={("rte", "full", 1): Status.out_of_memory},
    missing=[("rte", "lora", 1)],
    hashed=True,
)


@pytest.fixture
def run(here: Path) -> Path:
    """A run of ten cells below `results/`: one ran out of memory, one was not run."""
    return write_run(here / "results", SMALL)


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    """The cells that the command lists as JSON."""
    capsys.readouterr()
    assert main(["results", *words, "--json"]) == 0
    cells: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["cells"]
    return cells


def test_a_cell_a_row(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the plan's order, with what the record says; what was not measured is null."""
    rows = listed(capsys)
    assert len(rows) == 10 and [row["status"] for row in rows].count("ok") == 8
    lora = next(row for row in rows if (row["task"], row["strategy"], row["seed"]) == ("sst2", "lora", 0))
    record = read_result(run / lora["id"] / "result.json")
    assert record.scores is not None
    score = record.scores["accuracy"]
    assert lora["score"] == {
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "n": 40,
        "chance": score.chance,
    }
    assert lora["train_seconds"] == record.phases["adapt"].seconds and lora["labels"] == 128
    assert lora["peak_bytes"] == record.phases["adapt"].peak_rss_bytes and lora["peak_kind"] == "RSS"
    gone = next(row for row in rows if row["status"] == "not_run")
    assert gone["score"] is gone["train_seconds"] is gone["peak_bytes"] is None and gone["planned"]
    assert main(["results"]) == 0
    shown = capsys.readouterr().out
    assert "glue-small: 10 cells" in shown and "out of memory" in shown and "not run yet" in shown
    assert f"{score.value:.3f}" in shown


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("task=sst2", 5),
        ("tasks=sst2", 5),
        ("strategy=lora,full", 8),
        ("strategies=lora seed=1", 2),
        ("seed=0", 6),
        ("status=ok", 8),
        ("status=out_of_memory,not_run", 2),
        ("status=error", 0),
        ("model=smollm2-135m-instruct task=rte strategy=zero_shot", 1),
        ("glue-small seed=1", 4),
    ],
)
def test_selections(run: Path, capsys: pytest.CaptureFixture[str], words: str, number: int) -> None:
    """Each narrows the list; a status that no cell has leaves nothing and is no fault."""
    assert len(listed(capsys, *words.split())) == number


def test_nothing_to_list(here: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Said in words, with exit code 0."""
    assert main(["results", "status=error"]) == 0
    assert capsys.readouterr().out == "no cell is of all that was selected\n"
    (here / "empty").mkdir()
    assert main(["results", "results_dir=empty"]) == 0
    assert capsys.readouterr().out == "no run in empty\n"


def test_several_runs_and_a_record_no_plan_names(here: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs are found by name or folder; a record beside the plan's is listed and marked; `samples` is no run."""
    other = write_run(
        here / "results", Fake(name="other", tasks=("sst2",), strategies=("lora",), items=20, hashed=True)
    )
    write_run(here / "results" / "samples", Fake(name="kept", tasks=("sst2",), strategies=("lora",), items=20))
    (other / "plan.json").unlink()
    rows = listed(capsys)
    assert {row["run"] for row in rows} == {"glue-small", "other"} and len(rows) == 11
    assert [row["planned"] for row in rows if row["run"] == "other"] == [False]
    assert listed(capsys, "other") == listed(capsys, "results/other") == rows[-1:]
    assert len(listed(capsys, "results/samples/kept")) == 1
    assert main(["results"]) == 0
    assert "glue-small, other: 11 cells" in capsys.readouterr().out


def test_records_nobody_can_believe_are_rows(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Damaged, newer, of another cell: a row each, and the reason in words below the table."""
    paths = sorted(run.glob("sst2-*/result.json"))
    paths[0].write_text("{")
    paths[1].write_text(json.dumps(json.loads(paths[1].read_text()) | {"schema_version": 2}))
    paths[2].write_text(paths[3].read_text())
    rows = {row["id"]: row for row in listed(capsys)}
    told = [rows[path.parent.name] for path in paths[:3]]
    assert [row["status"] for row in told] == ["damaged", "newer", "damaged"]
    assert all(row["score"] is None and row["task"] == "sst2" for row in told)
    assert main(["results"]) == 0
    shown = capsys.readouterr().out
    assert "not JSON" in shown and f"the record is of another cell ({paths[3].parent.name})" in shown
    assert "written by a newer version (schema_version 2, this version reads 1): update adaptbench" in shown


@pytest.fixture
def exported(run: Path, here: Path) -> Path:
    """The run in all three formats, in the current folder."""
    for suffix in ("csv", "jsonl", "parquet"):
        assert main(["results", f"export=cells.{suffix}"]) == 0
    return here


def test_the_three_formats_hold_the_same(exported: Path, run: Path) -> None:
    """One row a record, the same columns; values as the record has them, absent empty or null."""
    lines = [json.loads(line) for line in (exported / "cells.jsonl").read_text().splitlines()]
    with (exported / "cells.csv").open(newline="") as file:
        texts = list(csv.DictReader(file))
    columns = pq.read_table(exported / "cells.parquet").to_pylist()
    assert len(lines) == len(texts) == len(columns) == 9  # one was not run
    assert list(lines[0]) == list(texts[0]) == list(columns[0])
    for line, text, column in zip(lines, texts, columns, strict=True):
        assert line == column
        for name, value in line.items():
            if value is None:
                assert text[name] == ""
            elif isinstance(value, bool):
                assert text[name] == str(value).lower()
            elif isinstance(value, float):
                assert float(text[name]) == value
            else:
                assert text[name] == str(value)
    lora = next(line for line in lines if line["cell.strategy"] == "lora")
    record = read_result(run / lora["cell.id"] / "result.json")
    assert record.scores is not None
    assert lora["scores.accuracy.value"] == record.scores["accuracy"].value
    assert lora["phases.adapt.seconds"] == record.phases["adapt"].seconds
    assert lora["parameters.trainable"] == 2_442_240 and lora["used.labels"] == 128
    assert lora["environment.machine.cpu"] == "AMD EPYC 7B13" and lora["data.labels"] == '["negative", "positive"]'
    assert lora["run"] == "glue-small" and lora["planned"] is True and lora["cell.options.r"] == 8
    failed = next(line for line in lines if line["outcome.status"] == "out_of_memory")
    assert failed["scores.accuracy.value"] is failed["parameters.trainable"] is None
    assert not {"parameters", "used", "training", "scores", "training.losses"} & set(lora)
    assert list(lora)[:2] == ["run", "planned"]


def test_an_export_replaces_nothing_unasked(exported: Path, fault: Fault, capsys: pytest.CaptureFixture[str]) -> None:
    """The second one is refused and the file stays; `--force` replaces it."""
    before = (exported / "cells.csv").read_bytes()
    told = fault("results", "export=cells.csv", "task=sst2")
    assert told == "export=cells.csv: the file exists; allowed: another name, or --force to replace it"
    assert (exported / "cells.csv").read_bytes() == before
    assert main(["results", "export=cells.csv", "task=sst2", "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exported"] == "cells.csv"
    assert len((exported / "cells.csv").read_text().splitlines()) == 6
    assert main(["results", "export=cells.csv", "task=rte", "--force"]) == 0
    assert capsys.readouterr().out.endswith("in cells.csv; 1 cell without a readable record left out\n")


def test_line_ends_of_any_kind_stay_within_their_field() -> None:
    """Read again by the library that has to: a carriage return alone, a newline, both, quotes, nothing."""
    rows: Rows = [{"a": "x\ry", "b": "1\n2"}, {"a": "\r\n", "b": 'he said "no"'}, {"a": None, "b": "plain"}]
    for some in (rows, rows[2:]):
        read = list(csv.DictReader(io.StringIO(as_csv(some), newline="")))
        assert read == [{key: value or "" for key, value in row.items()} for row in some]
    assert as_csv(rows[2:]) == "a,b\n,plain\n"


def test_columns_of_several_types_are_text() -> None:
    """Worked by hand: whole and broken numbers are floats, a number or a word is text, 65 bits are text."""
    assert typed([1, None, 2.5]).to_pylist() == [1.0, None, 2.5]
    assert typed([8, "all", None, True]).to_pylist() == ["8", "all", None, "true"]
    assert typed([2**70, 1]).to_pylist() == [str(2**70), "1"]
    assert typed([None, None]).to_pylist() == [None, None]


def test_hostile_records_can_be_exported(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not-a-number and half a surrogate pair, which no writer of ours makes, break no format and no list."""

    def edit(result: Result) -> Result:
        return result.model_copy(update={"notes": ["a,b\n\"c\""], "environment": {"x": "\x1b[31m"}})  # fmt: skip

    run = write_run(here / "results", Fake(tasks=("sst2",), strategies=("lora",), items=20, edit=edit))
    path = next(run.glob("*/result.json"))
    raw = json.loads(path.read_text())
    raw["scores"]["accuracy"]["value"], raw["model_note"] = math.nan, "\ud800"
    path.write_text(json.dumps(raw))
    for suffix in ("csv", "jsonl", "parquet"):
        assert main(["results", f"export=cells.{suffix}"]) == 0
    line = json.loads((here / "cells.jsonl").read_text())
    assert line["scores.accuracy.value"] is None and line["model_note"] == "?"
    with (here / "cells.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["notes"] == json.dumps(['a,b\n"c"'])
    assert main(["results"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_parts_stand_in_a_records_order() -> None:
    """A column that only a later record has stands with its part, and a part that is absent is no column of its own."""
    path = next((ROOT / "results" / "samples").glob("*/*/result.json"))
    first = read_result(path)
    second = first.model_copy(
        update={"parameters": None, "scores": {"late": next(iter((first.scores or {}).values()))}}
    )
    rows: Rows = table([Found("r", path.parent, "ok", result=one) for one in (first, second)])
    names = list(rows[0])
    assert names == list(rows[1]) and "parameters" not in names and rows[1]["parameters.total"] is None
    assert names.index("scores.late.value") < names.index("parameters.total") < names.index("environment.commit")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("glue-smal", "unknown run 'glue-smal'; did you mean 'glue-small'?"),
        ("elsewhere", "unknown run 'elsewhere'; allowed: glue-small"),
        ("task=sts2", "unknown task 'sts2'; did you mean 'sst2'?"),
        ("strategies=lroa", "unknown strategy 'lroa'; did you mean 'lora'?"),
        ("model=smollm2", "unknown model 'smollm2'; did you mean 'smollm2-135m-instruct'?"),
        ("seed=7", "unknown seed '7'; "),
        ("seed=x", "seed is 'x'; allowed: whole numbers joined by commas, e.g. seed=0,1"),
        ("seed=-1", "seed is '-1'; allowed: whole numbers"),
        ("seeds=1", "unknown option 'seeds'; did you mean 'seed'?"),
        ("status=okay", "unknown status 'okay'; did you mean 'ok'?"),
        ("task=sst2,sst2", "task=sst2,sst2 names one twice"),
        ("task=,", "task= selects nothing; allowed: at least one name"),
        ("task=sst2 tasks=rte", "option 'task' is given twice; allowed: task=VALUE once"),
        ("task=", "option 'task' is given no value; allowed: task=VALUE once"),
        ("taks=sst2", "unknown option 'taks'; did you mean 'task'?"),
        ("--jsn", "unknown option '--jsn'; allowed: --json, --fsck, --migrate, --force, and KEY=VALUE with task"),
        ("results_dir=nowhere", "results_dir=nowhere is not a folder; allowed: the folder that runs are recorded in"),
        ("results_dir=nowhere x", "unknown run 'x'; allowed: none"),
        ("export=cells.txt", "export=cells.txt: the ending names the format; allowed: .csv, .parquet, .jsonl"),
        (
            "export=nowhere/x.csv",
            "export=nowhere/x.csv: cannot write it: No such file or directory; allowed: a writable",
        ),
        ("export=x.csv status=not_run", "export=x.csv: none of the 1 cell selected has a readable record"),
        ("--force", "--force goes with export=FILE: it lets an export replace a file"),
        ("--fsck --migrate", "got --fsck and --migrate; allowed: one of them, --fsck changes nothing"),
        ("--fsck task=sst2", "--fsck takes whole runs, got task=; allowed: --fsck [RUN ...] results_dir=DIR"),
        ("--migrate export=x.csv", "--migrate takes whole runs, got export=; allowed: --migrate [RUN ...]"),
        ("--fsck nowhere", "unknown run 'nowhere'; allowed: glue-small"),
    ],
)
def test_a_bad_request_is_one_worded_line(run: Path, fault: Fault, words: str, says: str) -> None:
    """What is wrong, what was got, what is allowed, the nearest name; nothing is written."""
    assert fault("results", *words.split()).startswith(says)


def test_it_needs_no_torch() -> None:
    """Not to list, not to export, not to check."""
    code, _, heavy, text = watched("results", "glue-small", "results_dir=results/samples", "--fsck")
    assert code == 0 and heavy == [], text
