"""Runs that survive signals, kills, damaged records and full disks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from cli_runs import (
    AS_ZERO_SHOT,
    ROOT,
    environment,
    eventually,
    gone,
    records,
    result,
    run_here,
    times,
    tokens,
    watched,
    write_strategies,
)

from bench.cli import main
from bench.records import Status
from bench.store import read_result

WAITS = f"""
    import os, pathlib, time
    place = pathlib.Path("PLACE")
    (place / "pid.part").write_text(str(os.getpid()))
    (place / "pid.part").rename(place / "pid")
    while not (place / "go").exists():
        time.sleep(0.02)
{AS_ZERO_SHOT}"""


def test_cells_and_warm_process_killed_from_outside(tmp_path: Path) -> None:
    """Each costs one cell: the outcome is `error` with the reason, and the run goes on to its end."""
    place = {name: tmp_path / name for name in ("child", "host")}
    for folder in place.values():
        folder.mkdir()
    bodies = {name: WAITS.replace("PLACE", str(folder)) for name, folder in place.items()} | {"after": AS_ZERO_SHOT}
    adapters = write_strategies(tmp_path / "adapters", bodies)

    def assassin() -> None:
        child = int(eventually(lambda: (place["child"] / "pid").exists() and (place["child"] / "pid").read_text()))
        os.kill(child, signal.SIGKILL)
        cell = int(eventually(lambda: (place["host"] / "pid").exists() and (place["host"] / "pid").read_text()))
        os.kill(psutil.Process(cell).ppid(), signal.SIGKILL)

    threading.Thread(target=assassin, daemon=True).start()
    results = run_here(tmp_path, f"adapters_path={adapters}", "strategies=child,host,after")
    assert [r.outcome.status for r in results] == [Status.error, Status.error, Status.ok]
    assert "killed from outside (SIGKILL)" in (results[0].outcome.reason or "")
    assert "warm process died" in (results[1].outcome.reason or "")
    eventually(lambda: gone(int((place["host"] / "pid").read_text())), 10)


def hears_interrupts() -> None:
    """A shell starts what it runs in the background, these tests it may be, deaf to Ctrl-C; children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Life:
    """One run that is interrupted, killed, finished, repeated and repaired; what was seen at each step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        adapters = write_strategies(
            folder / "adapters", {"waits": WAITS.replace("PLACE", str(folder)), "after": AS_ZERO_SHOT}
        )
        self.tokens = ["run", *tokens(folder, f"adapters_path={adapters}", "strategies=zero_shot,waits,after")]
        self.seen: dict[str, Any] = {}

    def begin(self) -> tuple[subprocess.Popen[str], int]:
        """Start the command and wait until its second cell is at work; the cell's process id."""
        (self.folder / "pid").unlink(missing_ok=True)
        process = subprocess.Popen([sys.executable, "-m", "bench", *self.tokens], stdout=subprocess.PIPE, text=True,
                                   stderr=subprocess.PIPE, env=environment(), cwd=ROOT, start_new_session=True,
                                   preexec_fn=hears_interrupts)  # fmt: skip
        eventually(lambda: (self.folder / "pid").exists() or process.poll() is not None)
        return process, int((self.folder / "pid").read_text())


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """The steps in order; tests below look at one each."""
    life = Life(tmp_path_factory.mktemp("life"))
    process, pid = life.begin()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, errors = process.communicate(timeout=60)
    life.seen["interrupt"] = (process.returncode, errors, [pid], times(life.folder), result(life.folder, "waits"))
    process, pid = life.begin()
    family = [p.pid for p in psutil.Process(process.pid).children(recursive=True)]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    life.seen["kill"] = ([pid, *family], times(life.folder))
    (life.folder / "go").write_text("")
    life.seen["finish"] = (*watched(*life.tokens), times(life.folder))
    life.seen["repeat"] = (*watched(*life.tokens), times(life.folder))
    life.seen["page"] = page_seconds()
    broken = records(life.folder)["after"]
    broken.write_text(broken.read_text()[:200])
    life.seen["repair"] = (*watched(*life.tokens), times(life.folder), broken)
    return life


def test_an_interrupted_run_can_go_on(life: Life) -> None:
    """Ctrl-C: 130, one line, no process left, the running cell recorded as interrupted, finished ones kept."""
    code, errors, pids, stamps, waiting = life.seen["interrupt"]
    assert code == 130 and errors.strip().count("\n") == 0 and "interrupted" in errors
    assert all(gone(pid) for pid in pids)
    assert set(stamps) == {"zero_shot", "waits"} and waiting.outcome.status is Status.interrupted


def test_a_killed_run_leaves_no_process(life: Life) -> None:
    """SIGKILL of the command: warm process and cell end too, and what was finished stays."""
    pids, stamps = life.seen["kill"]
    assert len(set(pids)) >= 2
    eventually(lambda: all(gone(pid) for pid in pids), 10)
    assert stamps["zero_shot"] == life.seen["interrupt"][3]["zero_shot"]


def test_running_again_finishes_without_repeating(life: Life) -> None:
    """Third time: the rest runs, no finished cell does; the process that ran them never imported torch."""
    code, _, heavy, text, stamps = life.seen["finish"]
    assert code == 0 and heavy == [], text
    assert stamps["zero_shot"] == life.seen["interrupt"][3]["zero_shot"] and set(stamps) == {
        "zero_shot",
        "waits",
        "after",
    }
    assert {result(life.folder, name).outcome.status for name in stamps if name != "after"} == {Status.ok}


def page_seconds() -> float:
    """Seconds in which a fresh process imports what a page is made with and draws one figure."""
    begun = time.monotonic()
    script = (
        "import altair, omegaconf, pyarrow.parquet, pydantic, rich.table, scipy.stats, typer, vl_convert\n"
        "vl_convert.vegalite_to_svg({'data': {'values': []}, 'mark': 'point'})"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    return time.monotonic() - begun


def test_a_run_with_nothing_to_do_is_fast(life: Life) -> None:
    """A re-run touches no record, imports no torch, and takes no more than a page of figures needs (measured 2.2 times
    the libraries and one figure, in pairs: the machine is shared)."""
    code, seconds, heavy, text, stamps = life.seen["repeat"]
    assert code == 0 and heavy == [] and seconds < 3 * life.seen["page"], (seconds, life.seen["page"], text)
    assert stamps == life.seen["finish"][4]


def test_a_damaged_record_is_named_set_aside_and_redone(life: Life) -> None:
    """Half a record: its file is named and kept under another name, its cell runs again, the others do not."""
    code, _, _, text, stamps, broken = life.seen["repair"]
    assert code == 0 and "damaged record set aside" in text and str(broken) in text
    assert len(list(broken.parent.glob("result.damaged-*.json"))) == 1
    assert read_result(broken).outcome.status is Status.ok
    before = life.seen["finish"][4]
    assert {name for name in stamps if stamps[name] != before[name]} == {"after"}


def full(*_: Any) -> None:
    """What a full disk answers."""
    raise OSError(28, "No space left on device")


def test_a_full_disk_before_the_first_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """plan.json cannot be written: one line, exit 2, no temporary file left."""
    monkeypatch.setattr("bench.store.os.fsync", full)
    assert main(["run", *tokens(tmp_path, "strategies=zero_shot")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: results_dir: cannot write into") and "No space left on device" in errors
    assert errors.count("\n") == 1
    assert [p.name for p in (tmp_path / "results" / "smoke").iterdir() if p.name != ".lock"] == []


def test_a_disk_that_fills_up_in_the_middle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A cell that cannot write its record ends the run: one line, exit 2, finished cells intact, the rest not begun."""
    fills = """
        import os
        def full(*_):
            raise OSError(28, "No space left on device")
        os.fsync = full
    """
    adapters = write_strategies(
        tmp_path / "adapters", {"fills": fills + AS_ZERO_SHOT.replace("\n    ", "\n        "), "after": AS_ZERO_SHOT}
    )
    code = main(["run", *tokens(tmp_path, f"adapters_path={adapters}", "strategies=zero_shot,fills,after")])
    errors = capsys.readouterr().err
    assert code == 2 and errors.startswith("error: cannot write into") and errors.count("\n") == 1, errors
    assert "No space left" in errors and "finished cells are intact" in errors
    assert result(tmp_path, "zero_shot").outcome.status is Status.ok
    assert set(times(tmp_path)) == {"zero_shot"}
    leftovers = [p for p in records(tmp_path)["fills"].parent.iterdir() if p.name.startswith(".")]
    assert leftovers == []
