"""Whatever a damaged disk or another hand made of records is a row of every page and listing: nothing else comes out.

`BENCH_FUZZ=50` tries 50 times as many examples, new ones on every run (see `fuzzing`).
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import changed, tries
from hypothesis import given
from hypothesis import strategies as st
from records_factory import Fake, write_run
from rich.console import Console

from bench.cli import main
from bench.earlier import earlier_seconds
from bench.errors import UserFault
from bench.records import Status
from bench.report import render
from bench.shelf import asked, command
from bench.store import is_newer, read_plan, read_record, read_result


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fake = Fake(
        tasks=("sst2", "cola"), strategies=("zero_shot", "frozen", "lora"), statuses={("cola", "lora", 0): Status.error}
    )
    return write_run(tmp_path_factory.mktemp("whole"), fake)


@st.composite
def damaged(draw: st.DrawFn, raw: dict[str, Any]) -> bytes:
    """A record with something else at some places, or cut, or with other bytes inside."""
    text = json.dumps(changed(draw, raw)).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 4)):
        return text
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.binary(max_size=5)) + (text[at + 1 :] if draw(st.booleans()) else b"")


@tries(150)
@given(data=st.data())
def test_records_are_read_or_refused(run: Path, data: st.DataObject) -> None:
    for source in (next(run.glob("sst2-lora*/result.json")), run / "plan.json"):
        content = data.draw(damaged(json.loads(source.read_text())))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / source.name
            path.write_bytes(content)
            is_newer(path)
            for read in (read_record, read_plan if source.name == "plan.json" else read_result):
                try:
                    read(path)
                except (ValueError, UserFault) as error:
                    assert str(error)


def shown(run: Path, folder: str, edit: Callable[[Path], None]) -> str:
    """A copy of a run, changed, then reported, listed, checked, exported and compared; its page."""
    copied = Path(shutil.copytree(run, Path(folder) / run.name))
    edit(copied)
    for words, flags in (([], {}), (["export=x.csv"], {}), ([], {"fsck": True}), ([], {"migrate": True})):
        words = [word.replace("x.csv", f"{folder}/x.csv") for word in words]
        try:
            command.answer(asked.read([str(copied), *words], **flags), False, Console(file=io.StringIO()))
        except UserFault as fault:
            assert "\n" not in str(fault)
    assert main(["compare", str(run), str(copied)]) in (0, 1, 2)
    earlier_seconds(Path(folder), "ab12cd34ef56")
    try:
        return render(copied, Path(folder) / "reports").html.read_text(encoding="utf-8")
    except UserFault as fault:
        assert "\n" not in str(fault)
        return ""


@tries(4)
@given(data=st.data())
def test_a_run_of_damaged_records_is_shown(run: Path, data: st.DataObject) -> None:
    """Whatever became of every one of its records, and now and then of its plan."""

    def edit(copied: Path) -> None:
        plan = [copied / "plan.json"] if data.draw(st.integers(0, 3)) == 0 else []
        for path in (*sorted(copied.glob("*/result.json")), *plan):
            path.write_bytes(data.draw(damaged(json.loads(path.read_text()))))

    with tempfile.TemporaryDirectory() as folder:
        shown(run, folder, edit)


ODD: list[tuple[str, Any]] = [
    ("environment.machine", 3), ("environment.machine", None), ("environment.machine.gpu", "x"), ("environment.versions", ["x"]),
    ("environment.dirty", []), ("environment.time", {"a": 1}), ("environment.code_digest", ["x"]), ("environment", {}),
    ("cell.budget.labels", "many"), ("cell.budget.labels", []), ("cell.budget.train_examples", float("inf")),
    ("cell.budget", {}), ("cell.options", {"demonstration_labels": ["random"]}), ("scores.accuracy.value", 1e308),
    ("scores.accuracy.n", -(10**30)), ("scores", {}), ("phases.adapt.seconds", -1e300), ("phases.adapt.peak_rss_bytes", 10**40),
    ("cell.metric", "nope"), ("cell.readout", ""), ("cell.family", ""), ("cell.seed", -(10**30)), ("cell.model", ""),
    ("training.losses", [float("nan"), 1e308]), ("used.progress", -5), ("parameters.trainable", -(10**30)), ("data.labels", []),
    ("phases", {"": {"seconds": 0}}),
]  # fmt: skip


def test_values_that_no_run_writes_are_shown_or_refused(tmp_path: Path) -> None:
    """One in each cell of a run: each is a row, and none takes the page with it."""
    names = ("zero_shot", "few_shot", "frozen", "bitfit", "lora", "dora", "full")
    whole = write_run(tmp_path / "whole", Fake(tasks=("sst2", "cola", "mrpc", "rte"), strategies=names))

    def edit(copied: Path) -> None:
        paths = sorted(copied.glob("*/result.json"))
        for path, (place, value) in zip(paths, ODD, strict=True):
            raw = json.loads(path.read_text())
            *way, last = place.split(".")
            inner = raw
            for key in way:
                if inner.get(key) is None:
                    inner[key] = {}
                inner = inner[key]
            inner[last] = value
            path.write_text(json.dumps(raw))

    page = shown(whole, str(tmp_path), edit)
    assert page.count("record damaged") > 8 and "budget: Value error, labels is no number" in page
