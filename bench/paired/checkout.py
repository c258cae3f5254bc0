"""A checkout that runs its cells on demand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.errors import UserFault

AGENT = Path(__file__).resolve().parent / "agent.py"


class Checkout:
    """One side's process. Its runs lie below `work`: the first is `first/<run>`, later ones `<repeat>/`."""

    def __init__(self, key: str, folder: str, work: Path, tokens: list[str]) -> None:
        self.key, self.root, self.work = key, Path(folder).expanduser().resolve(), work
        if not (self.root / "bench" / "__init__.py").is_file():
            raise UserFault(f"{key}={folder} is no checkout of this project: it has no bench/__init__.py")
        self.tokens = [
            *tokens,
            f"results_dir={work / 'first'}",
            f"reports_dir={work / 'reports'}",
            "keep_adapters=false",
        ]
        self.process: subprocess.Popen[str] | None = None
        self.cells: list[str] = []
        """Ids of its cells, in the plan's order."""

    def __enter__(self) -> Checkout:
        return self

    def begin(self) -> None:
        """Start it and wait for its plan: one after the other, for predicting takes all cores. Raises `UserFault`."""
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / "agent.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(AGENT), *self.tokens],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.environment(),
            )
        answer = self.answer()
        if Path(answer["bench"]) != self.root:
            raise UserFault(f"{self.key}={self.root} was not used: Python took bench from {answer['bench']}")
        self.cells = answer["cells"]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is None:
            return
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.close()  # the end of its orders: it stops its warm process and goes
            self.process.wait(timeout=10)
        except (subprocess.TimeoutExpired, OSError):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def environment(self) -> dict[str, str]:
        """With the checkout's `bench` before any other: without the current folder, which may hold one too."""
        return {**os.environ, "PYTHONPATH": str(self.root), "PYTHONSAFEPATH": "1"}

    def run(self, cell: int, repeat: int) -> Path:
        """Run a cell; the folder of its record. Repeat 0 lies beside plan.json. Raises `UserFault`."""
        assert self.process is not None and self.process.stdin is not None
        folder = self.first if repeat == 0 else self.work / str(repeat)
        try:
            self.process.stdin.write(json.dumps({"cell": cell, "folder": str(folder)}) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise self.ended() from None
        return Path(self.answer()["folder"])

    @property
    def first(self) -> Path:
        """The run folder of the first run of every cell."""
        return next((self.work / "first").glob("*/plan.json")).parent

    def answer(self) -> dict[str, Any]:
        """Its next line. Raises `UserFault` where it is a fault, or there is none."""
        assert self.process is not None and self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise self.ended()
        found: dict[str, Any] = json.loads(line)
        if "fault" in found:
            raise UserFault(f"{self.key}: {found['fault']}")
        return found

    def ended(self) -> UserFault:
        """The fault of a process that ended before its time, with the last line it wrote."""
        said = (self.work / "agent.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return UserFault(
            f"{self.key}={self.root} cannot run these cells: {said[-1] if said else 'it ended without a word'}"
        )
