"""Damage that JSON does not show: every flipped bit of a record, a plan, a probe or predictions is found or harmless."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from records_factory import Fake, unseal, write_run

from bench.cli import main
from bench.compare.sides import seen
from bench.config import Settings
from bench.earlier import finished
from bench.errors import UserFault
from bench.migrations import Newer
from bench.probed import ProbeRecord
from bench.records import Outcome, Status
from bench.report import render
from bench.report.collect import collect
from bench.report.predictions import Unusable, predictions_of
from bench.room import set_aside
from bench.store import probe_file, read_plan, read_probe, read_record, read_result, write_record

SMALL = Fake(tasks=("sst2",), strategies=("lora", "full"), items=30, hashed=True, sealed=True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two cells whose records hold hashes, one with a probe's record."""
    folder = write_run(tmp_path / "results", SMALL)
    for path in folder.glob("*/result.json"):
        with_hash(path)
    path = probe_file(one(folder).parent, "retention")
    path.parent.mkdir()
    write_record(path, ProbeRecord(cell=one(folder).parent.name, probe="retention", asked={"items": 30},
                                   outcome=Outcome(status=Status.unsupported, reason="no other task")))  # fmt: skip
    return folder


def with_hash(path: Path) -> None:
    """Record the hash of the predictions beside a record."""
    known = hashlib.sha256(path.with_name("predictions.parquet").read_bytes()).hexdigest()
    write_record(path, read_result(path).model_copy(update={"predictions_sha256": known}))


def one(run: Path) -> Path:
    """A record."""
    return next(run.glob("sst2-lora*/result.json"))


def flipped(data: bytes, seed: int) -> list[bytes]:
    """The data with one bit flipped, once in every byte."""
    draw = random.Random(seed)
    return [data[:i] + bytes([data[i] ^ 1 << draw.randrange(8)]) + data[i + 1 :] for i in range(len(data))]


@pytest.mark.parametrize(
    ("file", "read"),
    [(one, read_result), (lambda run: run / "plan.json", read_plan),
     (lambda run: probe_file(one(run).parent, "retention"), read_probe)],
    ids=["record", "plan", "probe"],
)  # fmt: skip
def test_no_flipped_bit_is_believed(run: Path, file: Callable[[Path], Path], read: Callable[[Path], Any]) -> None:
    """One in every byte, and every shorter file: it is refused, or says the same (`1e-05` and `1E-05`)."""
    path = file(run)
    right, data = read(path), path.read_bytes()
    refused = 0
    for damaged in [*flipped(data, 0), *(data[:n] for n in range(0, len(data) - 1, 7))]:
        path.write_bytes(damaged)
        try:
            assert read(path) == right
        except (ValueError, UserFault):
            refused += 1
    assert refused > 0.99 * (len(data) + (len(data) - 1) // 7)


def test_what_the_hash_is_of(run: Path) -> None:
    """Content, not layout; a record without one is an older one, and stands; one that is null is damage."""
    path = one(run)
    right, raw = read_result(path), json.loads(path.read_text())
    assert right.sha256 is None and len(raw["sha256"]) == 64 and "sha256" not in right.model_dump()
    path.write_text(json.dumps(raw, sort_keys=True))
    assert read_result(path) == right
    path.write_text(json.dumps(raw | {"sha256": None}))
    with pytest.raises(ValueError, match=r"result.json: it is not what was written: its sha256 is of another content"):
        read_result(path)
    path.write_text(json.dumps(raw | {"near_ties": 3}))
    with pytest.raises(ValueError, match="it is not what was written"):
        read_result(path)
    unseal(path)
    assert read_result(path).near_ties == 3
    path.write_text(json.dumps(raw | {"schema_version": 2}))
    with pytest.raises(Newer):
        read_record(path)


def test_a_changed_score_is_named_by_every_command(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A digit that changed on the disk: the check names it, the page shows it as damaged, the cell runs again."""
    path = one(run)
    path.write_text(path.read_text().replace('"n": 30', '"n": 31', 1))
    assert main(["results", "--fsck", f"results_dir={run.parent}"]) == 1
    assert "it is not what was written" in capsys.readouterr().out
    assert collect(run).statuses == {"damaged": 1, "ok": 1}
    assert "it is not what was written" in render(run, tmp_path / "pages").html.read_text()
    assert not done(path)[0] and "it is not what was written" in (done(path)[1] or "")


def done(path: Path, **more: Any) -> tuple[bool, str | None]:
    """Whether a resumed run takes the record as it is, and what it says of damage."""
    job: Any = SimpleNamespace(folder=str(path.parent), cell=SimpleNamespace(id=path.parent.name))
    return finished(job, Settings(**more), "digest-now")


def test_no_damaged_predictions_are_believed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bit in every byte, cut short, or gone: the report's and the comparison's reader refuse them, a resumed run says so
    and does the cell again, and the check finds them."""
    path, view = one(run), next(view for view in collect(run).cells if view.info.strategy == "lora")
    file = path.with_name("predictions.parquet")
    right = predictions_of(view)
    assert done(path) == (True, None) and seen(view).items is not None
    data = file.read_bytes()
    for damaged in [*flipped(data, 1), data[:-1], b""]:
        file.write_bytes(damaged)
        with pytest.raises(Unusable, match="its predictions are not those that were recorded"):
            predictions_of(view)
        stands, says = done(path)
        assert not stands and "not the predictions.parquet that was recorded" in (says or "")
    assert seen(view).items is None
    assert main(["results", "--fsck", f"results_dir={run.parent}"]) == 1
    assert "its sha256 is another one" in capsys.readouterr().out
    file.unlink()
    assert done(path) == (False, f"{file}: missing, and its record holds scores made of it")
    file.write_bytes(data)
    assert predictions_of(view).same(right) and done(path) == (True, None)


def test_an_older_record_without_a_hash_stands(run: Path) -> None:
    """What was recorded before there were hashes is finished as ever, whatever became of its predictions."""
    path = one(run)
    raw = unseal(path) | {"predictions_sha256": None}
    path.write_text(json.dumps(raw))
    path.with_name("predictions.parquet").unlink()
    assert done(path) == (True, None)


def test_no_record_that_was_set_aside_is_overwritten(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three in one second, and one after the clock was set back: all are kept."""
    path = one(run)
    for now in (1000.0, 1000.2, 1000.9, 999.0):
        monkeypatch.setattr("bench.room.time.time", lambda now=now: now)
        path.write_text(str(now))
        set_aside(path.parent)
    kept = {p.name: p.read_text() for p in path.parent.glob("result.damaged-*.json")}
    assert kept == {"result.damaged-1000.json": "1000.0", "result.damaged-1001.json": "1000.2",
                    "result.damaged-1002.json": "1000.9", "result.damaged-999.json": "999.0"}  # fmt: skip
