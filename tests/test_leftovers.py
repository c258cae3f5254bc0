"""What cells leave behind: processes, output without end, files half written. All of it is bounded or gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from cli_runs import AS_ZERO_SHOT, ROOT, environment, eventually, gone, run_here, tokens, write_strategies

from bench.records import Result, Status
from bench.room import LOG_BYTES, LOG_KEPT, make_room, shorten, why_unwritable
from bench.warm import MARK, kill_bereft

pytestmark = pytest.mark.timeout(600)
HANGS = """
    import os, signal, subprocess, time
    def note(name, pid):
        with open("PLACE/part." + name, "w") as file:
            file.write(str(pid))
        os.rename("PLACE/part." + name, "PLACE/" + name)
    note("session", subprocess.Popen(["sleep", "600"], start_new_session=True).pid)
    if (middle := os.fork()) == 0:  # a daemon: deaf, forked twice, with every descriptor of its parents
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            note("daemon", os.getpid())
            time.sleep(600)
        os._exit(0)
    os.waitpid(middle, 0)
    while not os.path.exists("PLACE/daemon"):
        time.sleep(0.01)
"""
STAYS = HANGS + '    note("cell", os.getpid())\n    time.sleep(600)\n'
PRINTS = """
    import os
    for _ in range(60):
        os.write(1, b"x" * 2**20)
    print("the last words", flush=True)
"""


def body(text: str, place: Path, end: str = AS_ZERO_SHOT) -> str:
    """A strategy's body that keeps its notes in `place`."""
    place.mkdir(parents=True, exist_ok=True)
    return text.replace("PLACE", str(place)) + end


def noted(place: Path, *names: str) -> list[int]:
    """Process ids noted there, once all are."""
    eventually(lambda: all((place / name).exists() for name in names), 240)  # a warm process imports first
    return [int((place / name).read_text()) for name in names]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("leftovers")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Result]:
    """One run: a cell that leaves processes behind, one that loses its warm process amid them, one that prints."""
    bodies = {
        "hangs": body(HANGS, folder / "hangs"),
        "orphaned": body(STAYS, folder / "orphaned"),
        "prints": body(PRINTS, folder / "prints"),
    }

    def assassin() -> None:
        cell, _ = noted(folder / "orphaned", "cell", "daemon")
        os.kill(psutil.Process(cell).ppid(), signal.SIGKILL)

    threading.Thread(target=assassin, daemon=True).start()
    adapters = write_strategies(folder / "adapters", bodies)
    return {r.cell.strategy: r for r in run_here(folder, f"adapters_path={adapters}", f"strategies={','.join(bodies)}")}


def test_processes_left_behind_end_with_their_cell(results: dict[str, Result], folder: Path) -> None:
    """In a session of their own, deaf to signals, nobody's children: gone, and the cell's outcome is its own."""
    assert results["hangs"].outcome.status is Status.ok
    assert all(gone(pid) for pid in noted(folder / "hangs", "session", "daemon"))


def test_a_warm_process_whose_end_nobody_can_hear(results: dict[str, Result], folder: Path) -> None:
    """A daemon holds its events open: its end is noticed all the same, long before the cell's time is over."""
    assert results["orphaned"].outcome.status is Status.error
    assert "the warm process died" in (results["orphaned"].outcome.reason or "")
    eventually(lambda: all(gone(pid) for pid in noted(folder / "orphaned", "daemon", "session")), 10)


def test_a_log_does_not_fill_the_disk(results: dict[str, Result], folder: Path) -> None:
    """60 MiB were printed: beginning and end are kept, and the cell is as good as any."""
    assert results["prints"].outcome.status is Status.ok
    log = next(folder.glob("results/smoke/sst2-prints-*/log.txt"))
    assert log.stat().st_size <= 2 * LOG_BYTES
    text = log.read_bytes()
    assert b"bytes were taken out here: the log was too long" in text and text.rstrip().endswith(b"the last words")


def test_what_is_cut_from_a_log(tmp_path: Path) -> None:
    """Worked by hand: nothing up to the limit; one byte more and the middle is gone, whose size is told."""
    log = tmp_path / "log.txt"
    log.write_bytes(b"a" * LOG_BYTES)
    shorten(log)
    assert log.stat().st_size == LOG_BYTES
    log.write_bytes(b"a" * LOG_KEPT + b"b" * (LOG_BYTES - 2 * LOG_KEPT + 1) + b"c" * LOG_KEPT)
    shorten(log)
    told = f"\n[... {LOG_BYTES - 2 * LOG_KEPT + 1} bytes were taken out here: the log was too long ...]\n".encode()
    assert log.read_bytes() == b"a" * LOG_KEPT + told + b"c" * LOG_KEPT
    shorten(tmp_path / "none.txt")


def test_a_killed_command_leaves_no_process_of_its_cells(tmp_path: Path) -> None:
    """SIGKILL of the command: the cell, and what it started in other sessions, end too."""
    adapters = write_strategies(tmp_path / "adapters", {"stays": body(STAYS, tmp_path / "stays", "    return None\n")})
    command = [sys.executable, "-m", "bench", "run", *tokens(tmp_path, f"adapters_path={adapters}", "strategies=stays")]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(), cwd=ROOT
    )
    pids = noted(tmp_path / "stays", "cell", "daemon", "session")
    process.kill()
    process.wait()
    eventually(lambda: all(gone(pid) for pid in pids), 15)


def test_half_written_files_of_a_killed_writer_go(tmp_path: Path) -> None:
    """They are the cell's own: the next attempt takes them away, and keeps what was set aside."""
    for name in (".result.json.ab12_xyz", ".predictions.parquet.ab12_xyz", "result.json", "result.damaged-1.json"):
        (tmp_path / name).write_text("{")
    (tmp_path / "tmpabcd1234").mkdir()
    make_room(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["result.damaged-1.json"]


def test_a_full_disk_that_had_no_room_for_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system is asked again; where it has room by now, that is said, and nothing is left of the asking."""
    assert why_unwritable(tmp_path) == "a moment ago a record could not be written"

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.store.os.fsync", full)
    assert why_unwritable(tmp_path) == "No space left on device" and list(tmp_path.iterdir()) == []


def test_what_a_dead_warm_process_cannot_end(tmp_path: Path) -> None:
    """Its group, and by the mark what has left it; nothing without the mark, or with another."""
    marks = {"ours": {MARK: "a"}, "other": {MARK: "b"}, "none": {}}
    sleeps = {name: subprocess.Popen(["sleep", "600"], start_new_session=True, env={**os.environ, **own})
              for name, own in marks.items()}  # fmt: skip
    group = subprocess.Popen(["sleep", "600"], process_group=0)
    try:
        eventually(lambda: psutil.Process(sleeps["ours"].pid).name() == "sleep")
        kill_bereft(group.pid, "a")
        assert group.wait(10) == sleeps["ours"].wait(10) == -signal.SIGKILL
        assert sleeps["other"].poll() is None and sleeps["none"].poll() is None
        kill_bereft(group.pid, "nobody")
    finally:
        for process in (*sleeps.values(), group):
            process.kill()
            process.wait()


def test_sweeping_ends_children_and_their_orphans() -> None:
    """In a process of its own that adopts orphans: a deaf daemon and a session are ended, and nothing takes no time."""
    script = """
import os, signal, subprocess, time
from bench.process import adopt_orphans
from bench.warm import children, sweep
begun = time.monotonic(); sweep(); assert time.monotonic() - begun < 1
adopt_orphans()
subprocess.Popen(["sleep", "600"], start_new_session=True)
read, write = os.pipe()
if (middle := os.fork()) == 0:
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN); os.setsid(); os.write(write, b"x"); time.sleep(600)
    os._exit(0)
os.read(read, 1)
os.waitpid(middle, 0)
assert len(children(os.getpid())) == 2
sweep()
assert children(os.getpid()) == []
print("swept")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, env=environment()
    )
    assert done.stdout == "swept\n", done.stderr
