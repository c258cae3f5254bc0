"""`run.max_hours`: what it leaves, what the command says and returns, and that the same command goes on. The runs are
real, so what they record is checked, damaged and left alone here too."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path

import pytest
from cli_runs import records, result, times, tokens
from fault_fixtures import Fault
from rich.console import Console

from bench import plan
from bench.cli import main
from bench.config import load
from bench.job import Job
from bench.launch import Launcher, unanswered
from bench.probed import ProbeRecord
from bench.records import Outcome, Status
from bench.run import exit_code, probe_all, unfinished
from bench.stopping import LEFT, Stop
from bench.store import probe_file, read_result, write_record

pytest_plugins = ("fault_fixtures",)
AT_ONCE = "run.max_hours=1e-9"


def test_the_first_of_a_run_always_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worked by hand, a clock that is turned: one at least, none once the hours are over, all without a rule."""
    now = [1000.0]
    monkeypatch.setattr("bench.stopping.time.monotonic", lambda: now[0])
    stop = Stop(0.5)
    now[0] += 1799
    assert stop.begins() and stop.begins()
    now[0] += 1
    assert not stop.begins() and not stop.begins()
    late = Stop(0.5)
    now[0] += 10**6
    assert late.begins() and not late.begins()
    free = Stop(None)
    now[0] += 10**9
    assert free.begins() and free.begins() and not free.stopped


def test_what_is_left_is_one_line() -> None:
    """Cells before probes, one or several."""
    stop = Stop(2.5)
    assert not stop.stopped
    for cells, probes, says in ((3, 0, "3 of 8 cells are left"), (1, 0, "1 of 8 cells is left"),
                                (0, 1, "1 probe is left"), (0, 4, "4 probes are left")):  # fmt: skip
        stop.cells, stop.probes = cells, probes
        assert (
            stop.stopped and stop.line(8) == f"stopped by run.max_hours=2.5: {says}; the same command goes on from here"
        )


def test_exit_code_75_comes_first() -> None:
    """A cell that is `error` runs again with the same command anyway."""
    failed = ProbeRecord(cell="x", probe="writing", asked={}, outcome=Outcome(status=Status.error, reason="x"))
    stop = Stop(1)
    assert exit_code([failed], stop) == 1 and exit_code([], stop) == 0
    stop.cells = 1
    assert exit_code([failed], stop) == exit_code([], stop) == LEFT == 75


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("run.max_hours=0", "run.max_hours: input should be greater than 0, got 0"),
        ("run.max_hours=-1", "run.max_hours: input should be greater than 0, got -1"),
        ("run.max_hours=soon", "run.max_hours: input should be a valid number"),
        ("run.max_hours=inf", "run.max_hours: input should be a "),
        ("run.max_huors=1", "unknown key 'run.max_huors'; did you mean 'max_hours'?"),
        (
            "run.max_hours=1 rerun=all",
            "rerun=all begins again with every cell each time, so under run.max_hours the last",
        ),
        (
            "run.max_hours=1 rerun=failed",
            "rerun=failed begins again with every cell that failed each time, so under run.max_hours the last ones may "
            "never be reached; allowed: rerun=none or changed, or no run.max_hours",
        ),
    ],
)
def test_hours_that_are_none(fault: Fault, words: str, says: str) -> None:
    assert fault("plan", "suite=smoke", "data.source=sample", *words.split()).startswith(says)


def test_cells_that_fail_keep_nobody_waiting(tmp_path: Path) -> None:
    """Three cells, the first two fail each time, and the hours are for one cell a command: the third has its turn at the
    third command, and then the oldest failure comes first. Without hours the order is the plan's."""
    request = load(tokens(tmp_path, "strategies=zero_shot,lora,frozen", AT_ONCE))
    planned = plan.make(request)
    scribe, begun = Launcher(tmp_path, 60.0), []
    for step in range(5):
        first = unfinished(request, planned, pytest.fail)[0]
        begun.append(first.cell.strategy)
        record = Path(first.folder) / "result.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        scribe.write(first, Status.ok if first.cell.strategy == "frozen" else Status.error, "fails")
        os.utime(record, (step, step))
    assert begun == ["zero_shot", "lora", "frozen", "zero_shot", "lora"]
    free = load(tokens(tmp_path, "strategies=zero_shot,lora,frozen"))
    os.utime(Path(planned.jobs[0].folder) / "result.json", (9, 9))
    assert [job.cell.strategy for job in unfinished(free, planned, pytest.fail)] == ["zero_shot", "lora"]
    assert [job.cell.strategy for job in unfinished(request, planned, pytest.fail)] == ["lora", "zero_shot"]


def test_probes_that_fail_keep_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of probes: the one whose record says `error` comes after the one that was never asked."""
    request = load(tokens(tmp_path, "strategies=zero_shot,lora", "probes=formats", "probes.formats.number=2", AT_ONCE))
    planned = plan.make(request)
    scribe, asked = Launcher(tmp_path, 60.0), []
    for job in planned.jobs:
        Path(job.folder).mkdir(parents=True)
        scribe.write(job, Status.ok, "")

    def fails(order: Job) -> None:
        asked.append(order.cell.strategy)
        path = probe_file(Path(order.folder), "formats")
        path.parent.mkdir(exist_ok=True)
        write_record(path, unanswered(order, Status.error, "fails", 60.0))
        os.utime(path, (len(asked), len(asked)))

    monkeypatch.setattr(scribe, "probe", fails)
    monkeypatch.setattr("bench.run.ensure", lambda *given: None)
    monkeypatch.setattr("bench.run.render", lambda request: None)
    for _ in range(3):
        probe_all(request, planned, scribe, Console(file=io.StringIO()), Stop(1e-9), None)
    assert asked == ["zero_shot", "lora", "zero_shot"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict[str, object]]:
    """Two cells and a probe, one an invocation: folder, tokens, and what was seen after each."""
    folder, seen = tmp_path_factory.mktemp("stopped"), dict[str, object]()
    given = tokens(folder, "strategies=zero_shot,lora", "probes=formats", "probes.formats.number=2", AT_ONCE)
    for step in range(4):
        with pytest.MonkeyPatch.context() as patch:
            out = (folder / f"{step}.txt").open("w+")
            patch.setattr("bench.cli.out", lambda out=out: Console(file=out, width=200))
            code = main(["run", *given])
            out.seek(0)
            seen[str(step)] = (code, out.read(), times(folder), sorted(folder.glob("results/*/*/probes/*.json")))
            out.close()
    return folder, given, seen


def test_it_leaves_a_run_that_goes_on(stopped: tuple[Path, list[str], dict[str, object]]) -> None:
    """One cell an invocation, then one probe; the report is rendered each time and finished cells are kept."""
    folder, _, seen = stopped
    codes, texts, stamps, probes = zip(*(seen[str(step)] for step in range(4)), strict=True)  # type: ignore[misc]
    assert codes == (75, 75, 75, 0), texts
    assert "stopped by run.max_hours=1e-09: 1 of 2 cells is left; the same command goes on from here" in texts[0]
    assert "2 probes are left" in texts[1] and "1 probe is left" in texts[2]
    assert "stopped by" not in texts[3]
    assert [set(one) for one in stamps] == [{"zero_shot"}, *[{"zero_shot", "lora"}] * 3]
    assert stamps[0]["zero_shot"] == stamps[3]["zero_shot"] and stamps[1] == stamps[2] == stamps[3]
    assert [len(found) for found in probes] == [0, 0, 1, 2]
    assert all("report: " in text for text in texts) and (folder / "reports" / "smoke.html").is_file()


def test_records_of_a_real_run_are_whole(
    stopped: tuple[Path, list[str], dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing to tell; one byte of the predictions or a shorter adapter is found, and then all is whole again."""
    folder, _, _ = stopped
    check = ["results", "--fsck", f"results_dir={folder / 'results'}"]
    assert (
        main(check) == 0
        and capsys.readouterr().out == "checked 2 records and 2 probe records in 1 run: nothing to tell\n"
    )
    home = records(folder)["lora"].parent
    answers, weights = home / "predictions.parquet", next((home / "adapted").glob("*.safetensors"))
    recorded = result(folder, "lora").predictions_sha256
    assert recorded == hashlib.sha256(answers.read_bytes()).hexdigest()
    for path, says in ((answers, "its sha256 is another one"), (weights, "its files hold ")):
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(
            data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if path == answers else data[:-1]
        )
        assert main(check) == 1 and says in capsys.readouterr().out
        path.write_bytes(data)
    assert main(check) == 0


def test_a_run_writes_over_no_newer_record(
    stopped: tuple[Path, list[str], dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a cell, a probe or the plan: one line, exit 2, nothing changed, whatever `rerun` says."""
    folder, given, _ = stopped
    free = [token for token in given if token != AT_ONCE]
    run_dir, record = folder / "results" / "smoke", records(folder)["lora"]
    for path in (record, record.parent / "probes" / "formats.json", run_dir / "plan.json"):
        before = path.read_bytes()
        path.write_text(json.dumps(json.loads(before) | {"schema_version": 2}))
        changed = path.read_bytes()
        plan, stamp = (run_dir / "plan.json").read_bytes(), record.stat().st_mtime_ns
        for more in ("rerun=none", "rerun=all"):
            capsys.readouterr()
            assert main(["run", *free, more]) == 2
            told = capsys.readouterr().err
            assert told == (f"error: {path}: written by a newer version, which this one would overwrite; update "
                            "adaptbench, or use run.name= for another folder\n")  # fmt: skip
        assert path.read_bytes() == changed and (run_dir / "plan.json").read_bytes() == plan
        assert record.stat().st_mtime_ns == stamp
        path.write_bytes(before)


def test_a_record_of_another_cell_is_set_aside_and_redone(
    stopped: tuple[Path, list[str], dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    """As the report says of it: it is nobody's, so its cell runs again. So does one nested too deeply to be read."""
    folder, given, _ = stopped
    paths = records(folder)
    paths["zero_shot"].write_bytes(paths["lora"].read_bytes())
    paths["lora"].write_text("[" * 100_000)
    free = [token for token in given if token != AT_ONCE and not token.startswith("probes")]
    assert main(["run", *free]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("damaged record set aside as result.damaged-") == 2
    assert "the record is of another cell" in out and "nested too deeply" in out
    redone = read_result(paths["zero_shot"])
    assert (
        redone.cell.strategy == "zero_shot" and len(list(paths["zero_shot"].parent.glob("result.damaged-*.json"))) == 1
    )
