"""Probes on finished cells, and planted leaks: what runs when, on what, and what a record of it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runs import run_here, tokens
from tiny import STRATEGIES, base, context, options, rows

from bench import plan
from bench.budget import Meter
from bench.config import load
from bench.config.probes import FormatProbe
from bench.data.rows import read
from bench.data.sources import Located
from bench.job import Job, asked_of
from bench.live import answer
from bench.probed import ProbeRecord
from bench.probes.membership import members
from bench.records import Result, Status
from bench.report.collect import collect
from bench.store import probe_file, read_probe
from bench.strategy import Unsupported
from bench.train.plant import plant, planting_budget

pytestmark = pytest.mark.usefixtures("forked")

ASKED = ["probes.formats.number=3", "probes.formats.items=4", "probes.contamination.items=20"]
SPLITS = "tasks.sst2.limit=24"


def run(folder: Path, *more: str) -> list[Result]:
    """A tiny run whose cells are asked everything."""
    return run_here(folder, SPLITS, *ASKED, *more)


def asked(folder: Path) -> dict[tuple[str, int, int, str], ProbeRecord]:
    """Every probe's record of the cells last asked for."""
    found = {}
    for job in planned(folder):
        for path in (Path(job.folder) / "probes").glob("*.json"):
            record = read_probe(path)
            found[job.cell.strategy, job.cell.seed, job.cell.plant, record.probe] = record
    return found


def planted_of(results: list[Result], dose: int) -> list[Result]:
    """Records of the cells of a dose."""
    return [result for result in results if result.cell.plant == dose]


LAST: dict[str, list[str]] = {}


def planned(folder: Path) -> list[Job]:
    """The jobs of the last run in this folder."""
    return plan.make(load(tokens(folder, SPLITS, *ASKED, *LAST.get(str(folder), [])))).jobs


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Result]]:
    """One run: a prompted and a trained strategy, one dose planted."""
    folder = tmp_path_factory.mktemp("probed")
    more = ["strategies=zero_shot,few_shot,lora", "probes.contamination.plant=2"]
    LAST[str(folder)] = more
    return folder, run(folder, *more)


def test_a_check_without_power_is_no_acquittal_on_the_screen(done: tuple[Path, list[Result]]) -> None:
    """Checks that could not tell are counted as such, beside those that would have told."""
    for (strategy, _, _, probe), record in asked(done[0]).items():
        if probe == "contamination" and strategy == "zero_shot":
            assert record.contamination is not None
            checks = record.contamination.checks
            silent = sum(check.verdict == "no power" for check in checks)
            assert silent and f"{silent} no power" in answer(record) and answer(record).startswith("no leak seen (")
            seen = [checks[0].model_copy(update={"verdict": "seen"}), *checks[1:]]
            found = record.contamination.model_copy(update={"checks": seen})
            assert answer(record.model_copy(update={"contamination": found})) == "a leak is seen by overlap"


def test_a_changed_file_of_other_wordings_is_asked_again(tmp_path: Path) -> None:
    """No cell's identity holds it, for nothing is trained on it; what the probe was asked does."""
    (tmp_path / "said.jsonl").write_text('{"other": "x"}\n' * 500)
    data = {"data": {"path": str(tmp_path)}, "split": "said", "columns": {"text": "other"}}
    given = ["probes.contamination.items=20", f"tasks.sst2.pairs={json.dumps(data)}"]

    def order(probe: str) -> Job:
        job = plan.make(load(tokens(tmp_path, SPLITS, *given, "strategies=zero_shot"))).jobs[0]
        return job.model_copy(
            update={"probe": probe, "probes": job.probes.model_copy(update={"formats": FormatProbe()})}
        )

    before = {probe: order(probe) for probe in ("contamination", "formats")}
    (tmp_path / "said.jsonl").write_text('{"other": "y"}\n' * 500)
    after = {probe: order(probe) for probe in before}
    assert before["contamination"].cell.id == after["contamination"].cell.id
    assert asked_of(before["contamination"]) != asked_of(after["contamination"])
    assert asked_of(before["formats"]) == asked_of(after["formats"])


def test_every_finished_cell_is_asked(done: tuple[Path, list[Result]]) -> None:
    """Clean and planted cells alike; each probe's record stands beside the cell's and says what it cost."""
    folder, results = done
    assert [r.outcome.status for r in results] == [Status.ok] * 4
    found = asked(folder)
    clean = {(name, 0, probe) for name in ("zero_shot", "few_shot", "lora") for probe in ("formats", "contamination")}
    # a planted cell is a control of contamination checks: nobody asks how it reads other formats
    assert {(s, dose, probe) for s, _, dose, probe in found} == clean | {("lora", 2, "contamination")}
    for record in found.values():
        assert record.outcome.status == Status.ok, record.outcome.reason
        assert record.phase is not None and record.phase.seconds > 0
    assert "probe" not in results[0].phases


def test_asking_again_runs_nothing(done: tuple[Path, list[Result]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe with the same options has its answer; with others it is asked again, and no cell is trained again."""
    folder, _ = done
    before = {job.cell.id: _times(job) for job in planned(folder)}
    run(folder, *LAST[str(folder)])
    assert {job.cell.id: _times(job) for job in planned(folder)} == before
    run(folder, *LAST[str(folder)], "probes.formats.seed=5")
    for job in planned(folder):
        cell, formats, contamination = _times(job)
        assert cell == before[job.cell.id][0] and contamination == before[job.cell.id][2]
        assert job.cell.plant or formats > before[job.cell.id][1]


def _times(job: Job) -> tuple[int, ...]:
    folder = Path(job.folder)
    paths = (folder / "result.json", probe_file(folder, "formats"), probe_file(folder, "contamination"))
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in paths)


def test_a_planted_cell_is_a_cell_of_its_own(done: tuple[Path, list[Result]]) -> None:
    """Trained on its test items outside the budget, scored on them, in no table; the clean cell is what it was."""
    folder, results = done
    [leaked] = planted_of(results, 2)
    clean = next(r for r in results if r.cell.strategy == "lora" and r.cell.plant == 0)
    assert leaked.cell.id != clean.cell.id
    assert leaked.phases["plant"].examples == 2 * leaked.scores["accuracy"].n  # type: ignore[index]
    assert leaked.used is not None and clean.used is not None
    assert leaked.used.train_examples == clean.used.train_examples == 8
    assert any("planted: trained on its 20 test items 2 times" in note for note in leaked.notes)
    gathered = collect(folder / "results" / "smoke")
    assert {cell.info.plant for cell in gathered.cells} == {0}
    assert [cell.info.id for cell in gathered.planted] == [leaked.cell.id]
    alone = plan.make(load(tokens(folder, SPLITS, "strategies=lora"))).jobs
    assert [job.cell.id for job in alone] == [clean.cell.id]


def test_what_is_planted_is_what_is_scored_and_checked(done: tuple[Path, list[Result]]) -> None:
    """The test items drawn by the seed are the rows of the predictions and those the probe compares."""
    import pyarrow.parquet as pq

    folder, _ = done
    job = next(job for job in planned(folder) if job.cell.plant)
    scored = pq.read_table(Path(job.folder) / "predictions.parquet")["row"].to_pylist()
    found = asked(folder)["lora", 0, 2, "contamination"].contamination
    assert found is not None and found.dose == 2
    located = Located(job.located["source"], {k: tuple(map(Path, v)) for k, v in job.located["files"].items()}, "")
    pool = read("sst2", job.task, located).pool
    drawn = pool.take(members(len(pool), 20, 0)[0])
    assert scored == drawn.index
    assert set(found.test_items) <= set(drawn.index) and not set(found.control_items) & set(found.test_items)


def test_planting_moves_the_weights_it_will_train(tmp_path: Path) -> None:
    """Dose times every row, at the plan's own learning rate, and the plan can still be trained as ever."""
    one, model = context("verbalizer"), base("tiny-gpt2")
    prepared = STRATEGIES["lora"].prepare(model, one, options("lora"))
    before = [p.detach().clone() for g in prepared.groups for p in g.params]
    meter = Meter(planting_budget(rows().test, 3))
    meter.watch(prepared.seen)
    plant(prepared, one, rows().test, meter)
    after = [p.detach() for g in prepared.groups for p in g.params]
    assert meter.examples == 3 * len(rows().test)
    assert any(not np.array_equal(a.numpy(), b.numpy()) for a, b in zip(before, after, strict=True))
    assert prepared.examples is not None and len(prepared.examples().labels) == len(one.train)


def test_what_is_not_trained_by_gradients_cannot_be_planted() -> None:
    """In words."""
    one, model = context("head"), base("tiny-gpt2")
    prepared = STRATEGIES["frozen"].prepare(model, one, options("frozen"))
    with pytest.raises(Unsupported, match="cannot be planted: only what is trained by gradients"):
        plant(prepared, one, rows().test, Meter(planting_budget(rows().test, 1)))


def test_probes_that_fail_are_told_and_asked_again(done: tuple[Path, list[Result]], tmp_path: Path) -> None:
    """Weights that are gone or damaged, a record that is damaged: each in words, and nothing of a cell is touched."""
    folder, _ = done
    more = LAST[str(tmp_path)] = LAST[str(folder)]
    shutil.copytree(folder / "results", tmp_path / "results")
    by_name = {(job.cell.strategy, job.cell.plant): Path(job.folder) for job in planned(tmp_path)}
    gone, damaged, prompted = by_name["lora", 0], by_name["lora", 2], by_name["zero_shot", 0]
    before = {path: (path / "result.json").read_bytes() for path in by_name.values()}
    shutil.rmtree(gone / "adapted")
    next((damaged / "adapted").glob("*.safetensors")).write_bytes(b"\x00" * 8)
    probe_file(gone, "formats").unlink()
    probe_file(damaged, "contamination").unlink()
    for damage in (json.dumps({"schema_version": 99}), json.dumps({"schema_version": 1, "cell": 3}), "{"):
        probe_file(prompted, "formats").write_text(damage)
        with pytest.raises(ValueError, match=r"formats\.json"):
            read_probe(probe_file(prompted, "formats"))
    run(tmp_path, *more)
    told = read_probe(probe_file(gone, "formats"))
    assert told.outcome.status == Status.unsupported and "were not kept" in (told.outcome.reason or "")
    told = read_probe(probe_file(damaged, "contamination"))
    assert told.outcome.status == Status.error and told.outcome.reason
    assert "Traceback" in (damaged / "probes" / "contamination.log.txt").read_text()
    assert read_probe(probe_file(prompted, "formats")).outcome.status == Status.ok
    assert before == {path: (path / "result.json").read_bytes() for path in by_name.values()}


@pytest.mark.parametrize(
    ("raw", "names"),
    [("formats,contamination", ["formats", "contamination"]), ({"formats": True}, ["formats"]),
     ({"formats": None, "contamination": {}}, ["contamination"]), ({"formats": False}, [])],
)  # fmt: skip
def test_ways_to_ask(raw: Any, names: list[str]) -> None:
    """By names, by `true`, or by options."""
    from bench.config.probes import Probes

    assert Probes.model_validate(raw).asked == names
