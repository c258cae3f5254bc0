"""`executor=ray` on a two-node cluster made by Ray itself: the same answers as one machine gives, from both nodes; a node
that is killed in the middle; Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runs import ROOT, environment, eventually, gone, records, result, run_here, times, tokens, write_strategies

from bench.records import Result, Status
from bench.store import read_probe
from benchmarks.reliability.nodes import two_nodes

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
PATIENCE = 1500
"""Seconds for what takes ten on a quiet machine."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes on this machine, a head and another one, with room for one cell each."""
    with two_nodes({}) as made:
        yield made


def on(cluster: Any, *more: str) -> list[str]:
    """Tokens of a run on the cluster."""
    return ["executor=ray", f"ray_address={cluster.address}", *more]


WAITS = f"""
    import os, pathlib, time
    place = pathlib.Path("PLACE")
    (place / f"NAME.{{os.getpid()}}").write_text("")
    end = time.monotonic() + {PATIENCE}
    while not (place / "go").exists() and time.monotonic() < end:
        time.sleep(0.05)
    from ._shared import answering
    return answering(base, context)
"""
"""A cell that tells its process id and waits; it answers with the help of a file beside the strategy's."""
SHARED = """
def answering(base, context):
    from bench.score.adapted import Adapted
    from bench.score.readers import VerbalizerReader
    from bench.strategy import Plan
    return Plan(answer=Adapted(base.module, VerbalizerReader(base, context)), save=lambda folder: None, labels_used=0)
"""


def waiting(folder: Path, *names: str) -> tuple[str, Path]:
    """Strategies of these names that wait for a file `go`: their token, and the place where it is waited for."""
    place = folder / "place"
    place.mkdir()
    bodies = {name: WAITS.replace("PLACE", str(place)).replace("NAME", name) for name in names}
    adapters = write_strategies(folder / "own", bodies)
    (adapters / "_shared.py").write_text(SHARED)
    return f"adapters_path={adapters}", place


def at_work(place: Path, *names: str) -> list[int]:
    """The process ids of these cells, once all are at work."""
    eventually(lambda: all(list(place.glob(f"{name}.*")) for name in names), PATIENCE)
    return [int(path.suffix[1:]) for name in names for path in place.glob(f"{name}.*")]


def in_the_middle(act: Any) -> threading.Thread:
    """`act` beside the run that follows."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


def of_nodes(results: list[Result]) -> dict[str, str]:
    """Strategy -> the node its record names."""
    return {one.cell.strategy: one.environment["node"] for one in results}


def test_the_same_answers_from_both_nodes(cluster: Any, tmp_path: Path) -> None:
    """A strategy that trains, two plug-ins with a helper file, and a probe of each: cell, scores, predictions, losses and
    sizes are those of one machine. The plug-ins end when both are at work, so both nodes were."""
    token, place = waiting(tmp_path, "one", "two")
    asked = [token, "strategies=one,two,lora", "strategies.lora.r=2", "probes=formats", "probes.formats.number=2"]
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    thread = in_the_middle(lambda: at_work(place, "one", "two") and (place / "go").write_text(""))
    found = run_here(there, *on(cluster), *asked)
    thread.join(PATIENCE)
    assert [one.outcome.status for one in found] == [Status.ok] * 3, [one.outcome for one in found]
    assert of_nodes(found)["one"] != of_nodes(found)["two"]
    assert "Ray: 2 nodes, 2 cells at a time, each with 1 CPU" in (there / "output.txt").read_text()
    for theirs, ours in zip(found, run_here(here, *asked), strict=True):
        assert "node" not in ours.environment and theirs.environment["executor"] == "ray"
        for field in (
            "cell",
            "outcome",
            "scores",
            "predictions_sha256",
            "training",
            "parameters",
            "data",
            "used",
            "notes",
        ):
            assert without_seconds(getattr(theirs, field)) == without_seconds(getattr(ours, field)), field
        probes = [
            read_probe(records(folder)[ours.cell.strategy].parent / "probes" / "formats.json")
            for folder in (there, here)
        ]
        assert probes[0].formats == probes[1].formats and probes[0].outcome == probes[1].outcome
        assert probes[0].environment["node"] in of_nodes(found).values()
        stored = [sorted(p.name for p in records(f)[ours.cell.strategy].parent.rglob("*")) for f in (there, here)]
        assert stored[0] == stored[1]


def without_seconds(value: Any) -> Any:
    """What no two runs share left out: `train_seconds` of what was used."""
    return value.model_copy(update={"train_seconds": None}) if hasattr(value, "train_seconds") else value


def test_ctrl_c_leaves_a_run_that_goes_on(cluster: Any, tmp_path: Path) -> None:
    """130 and one line; the cells at work are `interrupted`, their processes gone and the cluster is not. Then the hours
    are over at once: one cell a command, and the rest by the same command without the rule."""
    token, place = waiting(tmp_path, "one", "two")
    asked = ["run", *tokens(tmp_path, *on(cluster), token, "strategies=one,two,zero_shot")]
    process = subprocess.Popen([sys.executable, "-m", "bench", *asked], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=environment(), cwd=ROOT, start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # fmt: skip
    pids = at_work(place, "one", "two")
    time.sleep(3)  # that they have begun is told by letter
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and errors.strip().count("\n") == 0 and "interrupted" in errors, errors
    eventually(lambda: all(gone(pid) for pid in pids), PATIENCE)
    assert set(times(tmp_path)) == {"one", "two"}
    assert {result(tmp_path, name).outcome.status for name in ("one", "two")} == {Status.interrupted}
    (place / "go").write_text("")
    first = run_here(tmp_path, *on(cluster), token, "strategies=one,two,zero_shot", "run.max_hours=1e-9")
    assert [one.outcome.status for one in first].count(Status.ok) == 1
    assert "2 of 3 cells are left" in (tmp_path / "output.txt").read_text()
    rest = run_here(tmp_path, *on(cluster), token, "strategies=one,two,zero_shot")
    assert [one.outcome.status for one in rest] == [Status.ok] * 3


def test_a_node_is_killed_in_the_middle(cluster: Any, tmp_path: Path) -> None:
    """Its cell begins anew on the other node, nothing of the first attempt lives on, and the sweep ends complete."""
    token, place = waiting(tmp_path, "one", "two")
    seen: dict[str, Any] = {}

    def kill() -> None:
        seen["pids"] = at_work(place, "one", "two")
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        (place / "go").write_text("")

    thread = in_the_middle(kill)
    found = run_here(tmp_path, *on(cluster), token, "strategies=one,two,zero_shot")
    thread.join(PATIENCE)
    assert [one.outcome.status for one in found] == [Status.ok] * 3, [one.outcome for one in found]
    begun = {name: list(place.glob(f"{name}.*")) for name in ("one", "two")}
    assert sorted(map(len, begun.values())) == [1, 2]
    eventually(lambda: all(gone(pid) for pid in seen["pids"]), PATIENCE)
    assert len(set(of_nodes(found).values())) == 1
