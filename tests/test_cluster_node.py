"""What a node of a run on Ray is given and does with it, piece by piece and without a cluster: parcels, what it lacks, its
letters and its warm process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runs import write_strategies
from cluster_fakes import Letters, jobs_of, packed

from bench.cluster import entry, node
from bench.cluster.parcel import Packer, Parcel, gathered, sha256_of
from bench.errors import UserFault
from bench.launch import Launcher
from bench.models.catalog import parse
from bench.records import Status
from bench.store import read_result


def test_an_order_needs_no_folder_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data and plug-ins arrive by content in the node's cache; a file changed there is written again; the plug-in's
    folder keeps its name, its helpers and nothing else."""
    adapters = write_strategies(tmp_path / "own", {"mine": "return None"})
    (adapters / "_helper.py").write_text("x = 1\n")
    (adapters / "notes.txt").write_text("private")
    [job] = jobs_of(tmp_path, "strategies=mine", f"adapters_path={adapters}")
    order, contents = packed(job)
    parcel = Parcel.model_validate_json(order["parcel"])
    cache, scratch = tmp_path / "cache", tmp_path / "scratch"
    monkeypatch.setenv("BENCH_CACHE", str(cache))
    unpack = lambda: node.settled(parcel, dict(zip(parcel.needed, contents, strict=True)), scratch)  # noqa: E731
    there = unpack()
    assert there.folder == str(scratch) and there.cell == job.cell and there.features is None
    assert there.adapters_path is not None and Path(there.adapters_path).name == "own"
    assert sorted(p.name for p in Path(there.adapters_path).iterdir()) == ["_helper.py", "mine.py"]
    [data] = {path for paths in there.located["files"].values() for path in paths}
    [ours] = {path for paths in job.located["files"].values() for path in paths}
    assert Path(data).is_relative_to(cache) and Path(data).read_bytes() == Path(ours).read_bytes()
    for path in (Path(data), Path(there.adapters_path) / "mine.py"):
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        assert unpack() == there and path.read_bytes() == before


def test_contents_travel_once(tmp_path: Path) -> None:
    """Two cells of one task need one file; what a finished cell stored goes with its probe only."""
    given: list[Any] = []
    packer = Packer(lambda content: given.append(content) or len(given), 60.0)  # type: ignore[func-returns-value]
    jobs = jobs_of(tmp_path, "strategies=zero_shot,lora")
    assert [packer.pack(i, job)[1] for i, job in enumerate(jobs)] == [[1], [1]] and len(given) == 1
    stored = Path(jobs[0].folder)
    (stored / "adapted").mkdir(parents=True)
    (stored / "result.json").write_text("{}")
    (stored / "adapted" / "weights").write_bytes(b"abc")
    parcel, references = packer.pack(2, jobs[0].model_copy(update={"probe": "formats"}))
    assert sorted(parcel.cell) == ["adapted/weights", "result.json"] and len(references) == len(given) == 3
    assert sha256_of(np.frombuffer(b"abc", np.uint8)) == parcel.cell["adapted/weights"]


def test_a_models_folder_is_named_from_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node works in another folder. One that holds other weights under that path is refused."""
    [job] = jobs_of(tmp_path, "strategies=zero_shot")
    (tmp_path / "weights").mkdir()
    monkeypatch.chdir(tmp_path)
    parcel, _ = Packer(lambda content: content, 60.0).pack(0, job.model_copy(update={"model": "path:weights"}))
    assert parcel.job.model == f"path:{tmp_path / 'weights'}"
    monkeypatch.setattr(node, "ensure", lambda ref: None)
    monkeypatch.setattr("bench.models.catalog.ModelRef.fingerprint", lambda ref: "sha256:other")
    with pytest.raises(UserFault, match="holds other weights here than where the command runs"):
        node.model(parse(parcel.job.model), "sha256:ours")


def test_a_node_with_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before anything is read, for the order itself may look otherwise there; so is a node without adaptbench."""
    monkeypatch.setattr(node, "node_id", lambda: "abc")
    back = entry.serve({"code": "other", "parcel": "?"}, None)
    assert back["fault"] == (
        "node abc has other code of adaptbench than the machine the command runs on; allowed: the same on every node"
    )
    monkeypatch.setitem(sys.modules, "bench.cluster.node", None)
    monkeypatch.delattr("bench.cluster.node")
    assert entry.serve({}, None)["fault"].startswith("a node of the Ray cluster cannot import adaptbench (")


def test_what_a_node_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that cannot be had there, and a cache that cannot be written: the node is named."""
    monkeypatch.setattr(node, "node_id", lambda: "abc")
    [job] = jobs_of(tmp_path, "strategies=zero_shot")
    order, contents = packed(job)

    def refuses(ref: Any) -> None:
        raise UserFault("cannot be fetched")

    node.model.cache_clear()
    monkeypatch.setattr(node, "ensure", refuses)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    assert node.carry_out(order, Letters(), tuple(contents)) == {"node": "abc", "fault": "node abc: cannot be fetched"}
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file"))
    told = node.carry_out(order, Letters(), tuple(contents))["fault"]
    assert told.startswith("node abc: Not a directory: ") and str(tmp_path / "file") in told


def test_letters_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A phase's first word at once, then at most two a second."""
    now = [0.0]
    monkeypatch.setattr("bench.cluster.node.time.monotonic", lambda: now[0])
    letters = Letters()
    telling = node.Telling(7, "n1", letters)
    for step in range(21):
        now[0] = 10 + step / 10
        telling.progress(None, "adapt", step / 20)  # type: ignore[arg-type]
    telling.progress(None, "predict", 0.0)  # type: ignore[arg-type]
    assert letters.box.take() == [(7, "n1", "adapt", share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)] + [
        (7, "n1", "predict", 0.0)
    ]
    assert letters.box.take() == []


def test_the_warm_process_says_why(tmp_path: Path) -> None:
    """Where a cell ends in an error, the end of the warm process's own words comes back in the cell's log."""
    [job] = jobs_of(tmp_path, "strategies=zero_shot")
    Path(job.folder).mkdir(parents=True)
    launcher = Launcher(tmp_path, 60.0)
    launcher.write(job, Status.error, "the warm process died")
    launcher.host.log.write_text("ModuleNotFoundError: No module named 'torch'\n")
    node.explained(job, read_result(Path(job.folder) / "result.json"), launcher)
    assert "No module named 'torch'" in gathered(job)["log.txt"].tobytes().decode()


def test_another_card_starts_another_warm_process() -> None:
    """Ray lends a process one card after the other; a warm process keeps the environment it was started in."""
    node.end_all()
    first = node.warm("0")
    assert node.warm("0") is first and node.warm("1") is not first and list(node._warm) == ["1"]
    node.end_all()
