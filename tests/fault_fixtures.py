"""Fixtures for tests of faults: an empty current folder, and the one line a user's fault must be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.cli import main
from bench.run import SAMPLE_WARNING

Fault = Callable[..., str]


def tree(folder: Path) -> list[tuple[str, int]]:
    """Everything below a folder, with sizes."""
    return sorted((str(p), p.stat().st_size) for p in folder.rglob("*") if p.name != ".lock")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and no mirror named by the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BENCH_MIRROR", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture
def fault(here: Path, capsys: pytest.CaptureFixture[str]) -> Fault:
    """Run the command line; the text of its one fault. Fails where it is anything else, or where something was written."""

    def run(*arguments: str) -> str:
        before = tree(here)
        capsys.readouterr()
        code = main(list(arguments))
        printed = capsys.readouterr()
        assert code == 2, (code, printed)
        assert printed.err.startswith("error: ") and printed.err.endswith("\n") and printed.err.count("\n") == 1
        assert "Traceback" not in printed.err and printed.out in ("", f"{SAMPLE_WARNING}\n")
        assert tree(here) == before
        return printed.err.removeprefix("error: ").rstrip("\n")

    return run
