"""The check of records: every kind of damage is found and named, nothing is changed, and what harms nothing is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fault_fixtures import tree
from records_factory import Fake, unseal, write_run

from bench import migrations
from bench.cli import main
from bench.measured import Score
from bench.probed import ProbeRecord
from bench.records import Outcome, Result, Status
from bench.report.predictions import items_of
from bench.shelf.answers import contradiction
from bench.store import probe_file, write_record

pytest_plugins = ("fault_fixtures",)
FAKE = Fake(tasks=("sst2", "mrpc"), strategies=("lora", "full"), items=30, hashed=True,
            statuses={("mrpc", "full", 0): Status.diverged})  # fmt: skip
SAMPLES = Path(__file__).resolve().parent.parent / "results" / "samples"
Told = tuple[int, list[dict[str, str]]]


@pytest.fixture
def run(here: Path) -> Path:
    """Four cells below `results/`, one of which failed; one has a probe's record."""
    folder = write_run(here / "results", FAKE)
    path = probe_file(cell(folder), "retention")
    path.parent.mkdir()
    write_record(path, ProbeRecord(cell=cell(folder).name, probe="retention", asked={},
                                   outcome=Outcome(status=Status.unsupported, reason="no other task")))  # fmt: skip
    return folder


def cell(run: Path, name: str = "sst2-lora") -> Path:
    """The folder of a cell."""
    return next(path for path in run.iterdir() if path.name.startswith(name))


@pytest.fixture
def check(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """Run the check; exit code and findings. Nothing may change, and both forms must say the same."""

    def checked(*words: str) -> Told:
        before = tree(here)
        capsys.readouterr()
        code = main(["results", "--fsck", *words, "--json"])
        told = json.loads(capsys.readouterr().out)
        assert main(["results", "--fsck", *words]) == code == (0 if told["ok"] else 1)
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[:-1]] == [one["kind"] for one in told["findings"]]
        assert lines[-1].startswith(f"checked {told['records']} record") and tree(here) == before
        return code, told["findings"]

    return checked


def change(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file that holds no hash of itself; a dotted name reaches inside."""
    raw = unseal(path)
    for name, value in fields.items():
        *parts, last = name.split("__")
        place = raw
        for part in parts:
            place = place[part]
        place[last] = value
    path.write_text(json.dumps(raw))


def test_what_was_recorded_is_whole(check: Callable[..., Told], run: Path) -> None:
    """A run as it was written has nothing to tell."""
    assert check() == (0, [])


def test_the_committed_samples_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Records of two versions of our numerics, five kinds of tasks, four probes."""
    assert main(["results", "--fsck", "glue-small", "instruct-small", "mmlu-small", "leak", "preference-small",
                 f"results_dir={SAMPLES}"]) == 0  # fmt: skip
    assert capsys.readouterr().out.endswith("in 5 runs: nothing to tell\n")


def rewritten(path: Path, **columns: Any) -> None:
    """Predictions with other columns."""
    table = pq.read_table(path).to_pydict() | columns
    pq.write_table(pa.table({name: values for name, values in table.items() if values is not None}), path)


ANSWERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "gone": (lambda p: p.unlink(), "missing, and its record holds scores made of it"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-20]), "cannot be read ("),
    "empty": (lambda p: p.write_bytes(b""), "cannot be read ("),
    "garbage": (lambda p: p.write_bytes(b"PAR1 nonsense PAR1"), "cannot be read ("),
    "a column less": (lambda p: rewritten(p, label=None), "cannot be read ("),
    "fewer rows": (lambda p: pq.write_table(pq.read_table(p).slice(0, 29), p), "it holds 29 items, the recorded"),
    "a row twice": (lambda p: rewritten(p, row=[0, 0, *range(2, 30)]), "cannot be read (its predictions have no rows or a row"),
    "other answers": (lambda p: rewritten(p, predicted=(1 - np.array(pq.read_table(p)["predicted"])).tolist()), "it gives accuracy "),
    "absurd answers": (lambda p: rewritten(p, predicted=[10**12] * 30), "it gives no accuracy ("),
    "texts for scores": (lambda p: rewritten(p, score_0=["a"] * 30, score_1=[1.0] * 30), "cannot be read (could not convert string to float"),
    "lists for scores": (lambda p: rewritten(p, score_0=[[1.0], [1.0, 2.0]] * 15, score_1=[1.0] * 30), "cannot be read (setting an array element"),
    "other scores": (lambda p: rewritten(p, score_0=[1.0] * 30, score_1=[0.0] * 30), "of its predicted labels are not those"),
}  # fmt: skip


@pytest.mark.parametrize("damage", ANSWERS)
def test_predictions_that_are_not_the_records(check: Callable[..., Told], run: Path, damage: str) -> None:
    """Whatever is wrong with the file of an older record, which holds no hash of it, is found by what it gives."""
    path = cell(run) / "predictions.parquet"
    ANSWERS[damage][0](path)
    code, [found] = check()
    assert code == 1 and found["kind"] == "damaged" and found["path"].endswith(f"{path.parent.name}/{path.name}")
    assert ANSWERS[damage][1] in found["says"]


def test_f1_of_either_label_is_a_records_score(check: Callable[..., Told], run: Path) -> None:
    """Which label is the positive one is not in a record; of a changed score neither gives it."""
    change(cell(run, "mrpc-lora") / "result.json", scores__f1__value=0.123)
    code, [found] = check()
    assert code == 1 and found["says"].startswith("it gives f1 ") and found["says"].endswith("the record says 0.123")


def test_sums_over_items_are_checked_too() -> None:
    """Worked by hand: 2 of 3 spans right, 4 found, so F1 is 4/7; a measure of lm-eval's is not in the items."""
    columns = {"row": [0, 1], "hits": [1.0, 1.0], "found": [2.0, 2.0], "gold": [1.0, 2.0]}
    items = items_of({name: np.array(values) for name, values in columns.items()})
    right = Score(value=4 / 7, n=2, chance=0)
    assert contradiction("span_f1", right, items) is None
    assert (
        contradiction("span_f1", right.model_copy(update={"value": 0.5}), items)
        == "it gives span_f1 0.571429, the record says 0.5"
    )
    assert contradiction("acc_norm", right, items) is None


RECORDS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "not JSON": (lambda p: p.write_text(p.read_text()[:200]), "not JSON"),
    "not text": (lambda p: p.write_bytes(b"\xff\xfe\x00"), "not JSON"),
    "too deep": (lambda p: p.write_text("[" * 100_000), "not JSON of a record (nested too deeply)"),
    "a list": (lambda p: p.write_text("[]"), "schema_version None, this version reads 1"),
    "no version": (lambda p: change(p, schema_version=None), "schema_version None, this version reads 1"),
    "a word for a version": (lambda p: change(p, schema_version="1"), "schema_version '1', this version reads 1"),
    "an unknown old version": (lambda p: change(p, schema_version=0), "schema_version 0, this version reads 1 and knows no way"),
    "a field too many": (lambda p: change(p, extra=1), "extra: Extra inputs are not permitted"),
    "another cell": (lambda p: change(p, cell__id="sst2-lora-s0-00000000"), "the record is of another cell (sst2-lora-s0-00000000)"),
    "another seed": (lambda p: change(p, cell__seed=5), "one of them was changed"),
    "other options": (lambda p: change(p, cell__options={"r": 9}), "one of them was changed"),
    "other data": (lambda p: change(p, data__fingerprint="sha256:0"), "one of them was changed"),
    "no score": (lambda p: change(p, scores=None), "it is ok and holds no accuracy"),
}  # fmt: skip


@pytest.mark.parametrize("damage", RECORDS)
def test_records_that_are_not_what_they_say(check: Callable[..., Told], run: Path, damage: str) -> None:
    """Damage, and a field that was changed, which the id gives away."""
    path = cell(run) / "result.json"
    RECORDS[damage][0](path)
    code, [found] = check()
    assert code == 1 and found["kind"] == "damaged" and found["path"].endswith(f"{path.parent.name}/{path.name}")
    assert RECORDS[damage][1] in found["says"] and str(path) not in found["says"]


def test_hashes_of_predictions_where_a_record_has_one(check: Callable[..., Told], run: Path) -> None:
    """Another file, though it gives the same scores, is not the one that was recorded."""
    change(cell(run) / "result.json", predictions_sha256="0" * 64)
    code, [found] = check()
    assert code == 1 and found["says"] == "not the predictions.parquet that was recorded: its sha256 is another one"


def test_stored_weights_of_another_size(check: Callable[..., Told], run: Path) -> None:
    """A file cut short is found by the bytes that were recorded."""
    stored = cell(run) / "adapted"
    stored.mkdir()
    (stored / "adapter_model.safetensors").write_bytes(b"\0" * 2_442_240 * 4)
    assert check() == (0, [])
    (stored / "adapter_model.safetensors").write_bytes(b"\0" * 10)
    code, [found] = check()
    assert code == 1 and found["says"] == "its files hold 10 bytes, 9,768,960 were recorded"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"cell": "sst2-lora-s0-1"}, "the record is of another cell (sst2-lora-s0-1)"),
        ({"probe": "writing"}, "the record is of another probe (writing)"),
        ({"outcome": {"status": "ok"}}, "it is ok and holds no findings"),
        ({"probe": "fromats"}, "probe: Input should be"),
    ],
)
def test_probes(check: Callable[..., Told], run: Path, fields: dict[str, Any], says: str) -> None:
    """Their records are checked like the cells'."""
    change(probe_file(cell(run), "retention"), **fields)
    code, [found] = check()
    assert code == 1 and found["kind"] == "damaged" and found["says"].startswith(says)


def test_newer_and_older_records_are_no_damage(
    check: Callable[..., Told], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer version's are named and left alone, its fields unread; old ones that can be read are named."""
    change(cell(run) / "result.json", schema_version=2, unheard_of=1)
    change(probe_file(cell(run), "retention"), schema_version=7)
    monkeypatch.setitem(migrations.STEPS["result"], 0, lambda raw: raw)
    change(cell(run, "mrpc-lora") / "result.json", schema_version=0)
    code, found = check()
    assert code == 0 and {one["kind"] for one in found} == {"newer", "older"} and len(found) == 3
    said = [one["says"] for one in found]
    assert "written by a newer version (schema_version 2, this version reads 1): update adaptbench" in said
    assert "written by a newer version (schema_version 7, this version reads 1): update adaptbench" in said
    assert "schema_version 0; --migrate rewrites it as 1" in said


def test_orphans_leftovers_and_missing_records(check: Callable[..., Told], run: Path) -> None:
    """Told by name; none is damage."""
    lora, full = cell(run), cell(run, "sst2-full")
    shutil.copytree(lora, run / "no-record")
    (run / "no-record" / "result.json").unlink()
    plan = json.loads((run / "plan.json").read_text())
    kept = [info for info in plan["cells"] if info["id"] != full.name]
    (run / "plan.json").write_text(json.dumps(plan | {"cells": kept}))
    (lora / ".result.json.ab12_xyz").write_text("")
    (lora / "probes" / ".retention.json.ab12_xyz").write_text("")
    (lora / "result.damaged-1700000000.json").write_text("{")
    (lora / "result.json.v0.old").write_text("{}")
    (run / "model.part").write_text("")
    (run / ".lock").write_text("")
    (lora / "tmpabcd1234").mkdir()
    diverged = cell(run, "mrpc-full")
    shutil.copy(lora / "predictions.parquet", diverged)
    shutil.rmtree(cell(run, "mrpc-lora"))
    code, found = check()
    assert code == 0
    by_kind = {
        kind: {Path(one["path"]).name for one in found if one["kind"] == kind}
        for kind in ("orphan", "leftover", "missing")
    }
    assert by_kind["orphan"] == {"no-record", full.name}
    assert by_kind["leftover"] == {".result.json.ab12_xyz", ".retention.json.ab12_xyz", "result.damaged-1700000000.json",
                                   "result.json.v0.old", "model.part", "tmpabcd1234", "predictions.parquet"}  # fmt: skip
    assert len(by_kind["missing"]) == 1 and len(found) == 10


def test_a_plan_that_is_gone_damaged_or_newer(check: Callable[..., Told], run: Path) -> None:
    """One line for the run, not one a cell; an id that leads out of the run is damage."""
    plan = json.loads((run / "plan.json").read_text())
    cells = [plan["cells"][0] | {"id": "../out"}, *plan["cells"][1:]]
    (run / "plan.json").write_text(json.dumps(plan | {"cells": cells}))
    code, found = check()
    assert code == 1 and "the cell id '../out' is not a folder name" in [one["says"] for one in found]
    for text, kind in (("{", "damaged"), (json.dumps(plan | {"schema_version": 2}), "newer")):
        (run / "plan.json").write_text(text)
        code, [found_one] = check()
        assert found_one["kind"] == kind and code == (kind == "damaged")
    (run / "plan.json").unlink()
    code, [found_one] = check()
    assert (code, found_one["kind"]) == (0, "orphan") and "no plan.json names its 4 cells" in found_one["says"]


def test_a_failed_cell_needs_no_predictions(check: Callable[..., Told], run: Path) -> None:
    """What it scored was taken back when it failed."""
    record = Result.model_validate_json((cell(run, "mrpc-full") / "result.json").read_text())
    assert record.outcome.status is Status.diverged and check() == (0, [])
