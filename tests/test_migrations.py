"""Records of other schema versions: old ones are read and rewritten, newer ones believed by nobody and lost by nobody."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fault_fixtures import Fault
from filelock import FileLock
from records_factory import Fake, unseal, write_run

from bench import migrations
from bench.cli import main
from bench.compare.whole import BROKEN
from bench.earlier import earlier_seconds
from bench.errors import UserFault
from bench.migrations import Newer, raised
from bench.records import Status
from bench.report import render
from bench.report.collect import NEWER, STATUS_WORDS, collect
from bench.store import newer_records, probe_file, read_plan, read_probe, read_result

pytest_plugins = ("fault_fixtures",)
FAKE = Fake(tasks=("sst2",), strategies=("zero_shot", "lora", "full"), items=30, hashed=True, sealed=True)


def from_0(raw: dict[str, Any]) -> dict[str, Any]:
    """A schema that never was: `outcome` was a word called `status`, and the plan's cells were called `asked`."""
    if "asked" in raw:
        return {**{key: value for key, value in raw.items() if key != "asked"}, "cells": raw["asked"]}
    return {**{key: value for key, value in raw.items() if key != "status"}, "outcome": {"status": raw["status"]}}


def aged(path: Path) -> bytes:
    """Write a record as version 0 had it; its bytes."""
    raw = unseal(path) | {"schema_version": 0}
    if path.name == "plan.json":
        raw["asked"] = raw.pop("cells")
    else:
        raw["status"] = raw.pop("outcome")["status"]
    path.write_text(json.dumps(raw))
    return path.read_bytes()


@pytest.fixture
def run(here: Path) -> Path:
    """Three cells below `results/`."""
    return write_run(here / "results", FAKE)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way from version 0."""
    for kind in ("result", "plan"):
        monkeypatch.setitem(migrations.STEPS[kind], 0, from_0)


def test_steps_are_taken_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worked by hand: from 1 to 3 by two steps, each of which sees the version before; the input stays as it was."""
    seen = []

    def step(raw: dict[str, Any]) -> dict[str, Any]:
        seen.append(raw["schema_version"])
        raw["n"] = raw["n"] * 10 + raw["schema_version"]
        return raw

    monkeypatch.setitem(migrations.STEPS, "result", {1: step, 2: step})
    old = {"schema_version": 1, "n": 0}
    assert raised(old, "result", 3) == {"schema_version": 3, "n": 12} and seen == [1, 2]
    assert old == {"schema_version": 1, "n": 0}
    with pytest.raises(ValueError, match="schema_version 0, this version reads 3 and knows no way from there"):
        raised({"schema_version": 0}, "result", 3)
    with pytest.raises(ValueError, match=r"cannot be brought from schema_version 1 to 2 \(KeyError: 'n'\)"):
        raised({"schema_version": 1}, "result", 3)
    with pytest.raises(Newer, match=r"written by a newer version \(schema_version 4, this version reads 3\)"):
        raised({"schema_version": 4}, "result", 3)


@pytest.mark.usefixtures("steps")
def test_old_records_are_read_as_they_are(run: Path, tmp_path: Path) -> None:
    """The report shows them; nothing is rewritten by reading."""
    path = next(run.glob("*/result.json"))
    new, plan = read_result(path), read_plan(run / "plan.json")
    before = aged(path), aged(run / "plan.json")
    assert read_result(path) == new and read_plan(run / "plan.json") == plan
    assert collect(run).statuses == {"ok": 3}
    assert (path.read_bytes(), (run / "plan.json").read_bytes()) == before


@pytest.mark.usefixtures("steps")
def test_migrating_rewrites_old_records_only(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Old ones are as if written today, the others keep their bytes and times, damaged and newer ones are named."""
    paths = sorted(run.glob("*/result.json"))
    new = {path: path.read_bytes() for path in (*paths, run / "plan.json")}
    aged(paths[0])
    aged(run / "plan.json")
    paths[1].write_text("{")
    paths[2].write_text(json.dumps(json.loads(new[paths[2]]) | {"schema_version": 2}))
    kept = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths[1:]}
    assert main(["results", "--migrate", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rewritten"] == [str(p.relative_to(Path.cwd())) for p in (paths[0], run / "plan.json")]
    assert told["present"] == 0 and list(map(Path, told["left"])) == [p.relative_to(Path.cwd()) for p in paths[1:]]
    assert paths[0].read_bytes() == new[paths[0]] and (run / "plan.json").read_bytes() == new[run / "plan.json"]
    assert kept == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths[1:]}
    assert not list(run.rglob("*.old"))
    assert main(["results", "--migrate"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "migrated: 0 records rewritten, 2 of this version already, 2 left as they are"
    assert "not JSON" in lines[0] and "written by a newer version" in lines[1]


@pytest.mark.usefixtures("steps")
def test_a_migration_cut_short_loses_nothing(
    run: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk: one line, the old record where it was. A new record that is not the old one's is taken back."""
    path = next(run.glob("*/result.json"))
    before = aged(path)
    (run / ".lock").write_text("")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("bench.store.os.fsync", full)
        told = fault("results", "--migrate")
    assert told == (f"--migrate: cannot write into {path.parent.relative_to(Path.cwd())}: No space left on device; "
                    "allowed: a writable folder")  # fmt: skip
    assert path.read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setattr("bench.shelf.migrate.write_record", lambda path, record: path.write_text("{"))
        with pytest.raises(ValueError, match="not JSON"):
            main(["results", "--migrate"])
    kept = next(path.parent.glob("*.old"))
    assert kept.name == "result.json.v0.old" and kept.read_bytes() == before
    os.replace(kept, path)

    def other(path: Path, record: Any) -> None:
        path.write_text(json.dumps(record.model_dump(mode="json") | {"notes": ["changed"]}))

    with monkeypatch.context() as patch:
        patch.setattr("bench.shelf.migrate.write_record", other)
        told = fault("results", "--migrate")
    assert told.endswith("what was written is not what was read; the old record is back in its place")
    assert path.read_bytes() == before and not list(run.rglob("*.old"))


def test_a_run_at_work_is_not_migrated(run: Path, fault: Fault) -> None:
    with FileLock(run / ".lock"):
        assert fault("results", "--migrate").startswith("another run is writing results/glue-small; wait for it")


def newer(path: Path) -> bytes:
    """Make a record a newer version's, with fields unheard of; its bytes."""
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2, "unheard_of": 1}))
    return path.read_bytes()


def test_a_newer_record_is_a_row_of_the_report(run: Path, tmp_path: Path) -> None:
    """It says what it is and what to do, its score counts nowhere, and no path of the author's is told."""
    path = next(run.glob("sst2-lora*/result.json"))
    before = newer(path)
    view = next(cell for cell in collect(run).cells if cell.info.strategy == "lora")
    assert view.status == NEWER and view.score is None and NEWER in BROKEN
    page = render(run, tmp_path / "pages").markdown.read_text()
    assert STATUS_WORDS[NEWER] in page and "update adaptbench" in page and str(run) not in page
    assert path.read_bytes() == before
    machine = json.loads(before)["environment"]["machine"]["id"]
    assert not any("lora" in key for key in earlier_seconds(run.parent, machine))


def test_a_newer_probe_or_plan_is_not_believed(run: Path, tmp_path: Path, fault: Fault) -> None:
    """A probe's record counts as not asked, a plan cannot be reported: each in words."""
    folder = next(run.glob("sst2-lora*"))
    probe = probe_file(folder, "retention")
    probe.parent.mkdir()
    probe.write_text('{"schema_version": 2}')
    with pytest.raises(Newer, match="written by a newer version"):
        read_probe(probe)
    assert all(not cell.probes for cell in collect(run).cells)
    assert newer_records(folder) == [probe]
    before = newer(run / "plan.json")
    with pytest.raises(UserFault, match="written by a newer version"):
        read_plan(run / "plan.json")
    assert fault("report", "suite=glue-small") == (
        "results/glue-small/plan.json: written by a newer version (schema_version 2, this version reads 1): update "
        "adaptbench"
    )
    assert (run / "plan.json").read_bytes() == before


def test_statuses_of_records_have_words() -> None:
    """Whatever a listing can show has a name in it."""
    assert {status.value for status in Status} < set(STATUS_WORDS)
