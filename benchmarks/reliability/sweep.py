"""The sweep that faults are made on: twenty cells that end at once, and what must be true of their records then."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.shelf.asked import Asked
from bench.shelf.found import runs
from bench.shelf.fsck import Checked, check
from bench.warm import host_environment

ROOT = Path(__file__).resolve().parents[2]
STRATEGIES, SEEDS = ("ash", "birch", "cedar", "dogwood"), 5
MARK = "ADAPTBENCH_FAULTS"
SHOWN = 80
"""Characters of a process's command line in the report; they are told apart by all of it."""
"""Environment variable that every process of a session has, whatever became of its parents."""
STRATEGY = '''"""Answers by lot, the same for the same seed, and writes down that it did."""

from bench.strategy import Needs, Options, Plan, Strategy


class Lot(Strategy):
    """Ends at once."""

    family = "test"
    trains = "nothing"
    paper = "none, 2026"
    needs = Needs(train_labels=0)

    def prepare(self, base, context, options):
        import os
        import numpy as np

        line = os.open(__file__ + ".ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(line, f"{{context.seed}}\\n".encode())
        os.close(line)

        class Answers:
            truncated = 0

            def predict(self, fields, meter):
                return np.random.default_rng([context.seed, {number}]).normal(size=(len(fields), 2))

        {body}
        return Plan(answer=Answers(), save=lambda folder: None, labels_used=0)


strategy = Lot()
'''


@dataclass(frozen=True)
class Sweep:
    """One place with strategies, records, pages and output."""

    folder: Path

    @property
    def run_dir(self) -> Path:
        """Where its records are."""
        return self.folder / "results" / "smoke"

    @property
    def output(self) -> Path:
        """What its commands printed."""
        return self.folder / "output.txt"

    def words(self, *more: str, command: str = "run") -> list[str]:
        """The command."""
        given = [
            "suite=smoke", "model=random:tiny-gpt2", f"strategies={','.join(STRATEGIES)}", f"seeds={SEEDS}",
            "tasks.sst2.limit=8", "budget.labels=8", "budget.train_examples=8", "batch=4", "sequence=48",
            "threads=1", "device=cpu", "data.source=sample", "predict=false",
            f"adapters_path={self.folder / 'adapters'}", f"results_dir={self.folder / 'results'}",
            f"reports_dir={self.folder / 'reports'}",
        ]  # fmt: skip
        over = {token.partition("=")[0] for token in more}
        return [command, *(token for token in given if token.partition("=")[0] not in over), *more]

    def ran(self) -> Counter[tuple[str, int]]:
        """How often each (strategy, seed) was begun."""
        found: Counter[tuple[str, int]] = Counter()
        for path in (self.folder / "adapters").glob("*.py.ran"):
            found.update((path.name.partition(".")[0], int(line)) for line in path.read_text().split())
        return found

    def records(self) -> dict[str, bytes]:
        """The bytes of each record that says it is ok, by cell."""
        found = {}
        for path in sorted(self.run_dir.glob("*/result.json")):
            data = path.read_bytes()
            if b'"status": "ok"' in data:
                found[path.parent.name] = data
        return found


def made(folder: Path, bodies: dict[str, str] | None = None) -> Sweep:
    """A place for a sweep; `bodies`: what further strategies do before they answer."""
    (folder / "adapters").mkdir(parents=True)
    for number, (name, body) in enumerate({**dict.fromkeys(STRATEGIES, "pass"), **(bodies or {})}.items()):
        indented = textwrap.indent(textwrap.dedent(body).strip(), " " * 8).lstrip()
        (folder / "adapters" / f"{name}.py").write_text(STRATEGY.format(number=number, body=indented))
    return Sweep(folder)


class Cradle:
    """Starts commands, and knows all that is below them."""

    def __init__(self) -> None:
        self.mark = uuid.uuid4().hex
        own = {**host_environment(), MARK: self.mark, "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.reliability.cradle"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **own},
            cwd=ROOT,
            text=True,
            bufsize=1,
        )
        self.codes: dict[int, int] = {}
        self.reply("ready")

    def reply(self, key: str) -> Any:
        """The next reply that has the key; codes on the way are kept."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            told = json.loads(line)
            if "code" in told:
                self.codes[told["pid"]] = told["code"]
                if key == "code":
                    return told["pid"]
            elif key in told:
                return told[key]
        raise SystemExit(f"the cradle ended with code {self.process.wait()}")

    def begin(self, sweep: Sweep, words: list[str], clock: int | None = None) -> int:
        """Start a command; its process id."""
        assert self.process.stdin is not None
        order = {"words": words, "out": str(sweep.output), "clock": clock}
        self.process.stdin.write(json.dumps(order) + "\n")
        return int(self.reply("pid"))

    def end(self, pid: int) -> int:
        """Its exit code, once it has ended."""
        while pid not in self.codes:
            self.reply("code")
        return self.codes.pop(pid)

    def run(self, sweep: Sweep, *more: str, command: str = "run", clock: int | None = None) -> int:
        """A command to its end; the exit code."""
        return self.end(self.begin(sweep, sweep.words(*more, command=command), clock))

    def left(self, seconds: float = 20) -> list[str]:
        """Processes that are still there after a while, whoever their parent is now."""
        end = time.monotonic() + seconds
        while (found := self.alive()) and time.monotonic() < end:
            time.sleep(0.05)
        for pid in found:
            with suppress(psutil.Error):  # its parent's end may have ended it
                psutil.Process(pid).kill()
        return [f"{pid}: {what[:SHOWN]}" for pid, what in found.items()]

    def alive(self) -> dict[int, str]:
        """Processes with our mark besides the cradle itself: id and command."""
        found = {}
        for process in psutil.process_iter():
            try:
                ours = process.pid != self.process.pid and process.environ().get(MARK) == self.mark
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = " ".join(process.cmdline())
            except (psutil.Error, OSError):
                continue
        return found

    def stop(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def cradled() -> Iterator[Cradle]:
    """A cradle for the block."""
    one = Cradle()
    try:
        yield one
    finally:
        one.stop()


@dataclass
class Reference:
    """A sweep that nothing happened to."""

    sweep: Sweep
    seconds: float
    answers: dict[str, tuple[str, Any]]
    """Cell -> hash of its predictions and its scores."""


def reference(cradle: Cradle, folder: Path) -> Reference:
    """Run the sweep in peace."""
    sweep, begun = made(folder / "reference"), time.monotonic()
    if cradle.run(sweep) != 0:
        raise SystemExit(f"the sweep fails without any fault: {sweep.output.read_text()[-2000:]}")
    return Reference(sweep, time.monotonic() - begun, answers(sweep.run_dir))


def answers(run_dir: Path) -> dict[str, tuple[str, Any]]:
    """What each recorded cell answered, read without the store's own readers."""
    found = {}
    for path in sorted(run_dir.glob("*/result.json")):
        try:
            scores = json.loads(path.read_text())["scores"]
        except (ValueError, KeyError) as error:
            scores = f"none that can be read: {error}"
        predictions = path.with_name("predictions.parquet")
        data = predictions.read_bytes() if predictions.is_file() else b""
        found[path.parent.name] = (hashlib.sha256(data).hexdigest(), scores)
    return found


@dataclass
class Seen:
    """What was found wrong; all of it is to be nothing."""

    lost: int = 0
    """Planned cells without a record."""
    twice: int = 0
    """Cells that have two records, and finished ones that ran again."""
    damaged: int = 0
    """Records and predictions that are not what an undisturbed sweep gives, or that the check calls damaged."""
    left: list[str] = field(default_factory=list)
    """Processes that were still there."""
    other: list[str] = field(default_factory=list)
    """Anything else, in words."""

    def add(self, other: Seen) -> None:
        """Take in what another found."""
        self.lost, self.twice, self.damaged = (
            self.lost + other.lost,
            self.twice + other.twice,
            self.damaged + other.damaged,
        )
        self.left += other.left
        self.other += other.other


def looked(sweep: Sweep, known: Reference) -> Seen:
    """Compare a sweep that is to be complete with the undisturbed one: its own eyes first, then the store's check."""
    found = Seen()
    plan = [cell["id"] for cell in json.loads((sweep.run_dir / "plan.json").read_text())["cells"]]
    told = answers(sweep.run_dir)
    found.lost = len(set(plan) - set(told)) + (len(known.answers) - len(plan))
    named: Counter[tuple[str, ...]] = Counter()
    for path in sweep.run_dir.glob("*/result.json"):
        cell = json.loads(path.read_text())["cell"]
        named[cell["task"], cell["strategy"], str(cell["seed"])] += 1
        found.damaged += cell["id"] != path.parent.name
    found.twice = sum(number - 1 for number in named.values()) + len(plan) - len(set(plan))
    found.damaged += sum(known.answers.get(cell) != answer for cell, answer in told.items())
    checked = fsck(sweep)
    found.other += [f"{one.kind}: {one.path}: {one.says}" for one in checked.findings if one.kind not in ("leftover",)]
    return found


def fsck(sweep: Sweep) -> Checked:
    """The store's own check."""
    return check(runs(Asked(results_dir=sweep.folder / "results")))


def again(before: dict[str, bytes], sweep: Sweep) -> int:
    """Cells that were finished and are not the very same bytes any more."""
    after = sweep.records()
    return sum(after.get(cell) != data for cell, data in before.items())
