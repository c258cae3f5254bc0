"""Stand-ins for tests of runs on Ray: nodes as Ray tells of them, planned orders, and Ray itself as far as the command's
side uses it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_runs import tokens

from bench import plan as planning
from bench.cluster import connect, crew, entry
from bench.cluster.parcel import Packer, Parcel
from bench.config import load
from bench.identity import code_digest
from bench.job import Job
from bench.launch import Quiet
from bench.stopping import Stop

exceptions = pytest.importorskip("ray.exceptions")
GIB = 2**30
TWO = "strategies=zero_shot,lora"


def machine(
    cpus: float, cards: int = 0, kind: str | None = None, alive: bool = True, name: str = "n1"
) -> dict[str, Any]:
    """A node as `ray.nodes()` tells of it."""
    resources = {"CPU": cpus, "memory": cpus * GIB} | ({"GPU": float(cards)} if cards else {})
    resources |= {f"accelerator_type:{kind}": 1.0} if kind else {}
    return {"NodeID": name, "Alive": alive, "Resources": resources if alive else {}}


def jobs_of(folder: Path, *more: str) -> list[Job]:
    """Planned orders of tiny cells."""
    return planning.make(load(tokens(folder, "executor=ray", *more))).jobs


def packed(job: Job, number: int = 0) -> tuple[dict[str, str], list[Any]]:
    """An order as Ray gets it, contents instead of references."""
    parcel, contents = Packer(lambda content: content, 60.0).pack(number, job)
    return {"code": code_digest(), "parcel": parcel.model_dump_json()}, contents


class Letters:
    """A mailbox that is asked and told in this process."""

    def __init__(self) -> None:
        self.box = entry.Mailbox()
        self.put, self.take = (SimpleNamespace(remote=act) for act in (self.box.put, self.box.take))


class Fake:
    """Ray as far as the command's side uses it. A task is carried out when it is waited for."""

    exceptions = exceptions

    def __init__(self, serve: Callable[[int], Any], at_once: int = 1) -> None:
        self.serve, self.at_once = serve, at_once
        self.waiting: dict[int, Any] = {}
        self.cancelled: list[int] = []
        self.asked: list[dict[str, Any]] = []

    def nodes(self) -> list[dict[str, Any]]:
        return [machine(1), machine(1, name="n2")]

    def put(self, content: Any) -> Any:
        return content

    def remote(self, **base: Any) -> Any:
        def options(**more: Any) -> Any:
            self.asked.append(base | more)
            return SimpleNamespace(remote=self.submit)

        return lambda function: SimpleNamespace(options=options)

    def submit(self, order: dict[str, str], mailbox: Letters, *contents: Any) -> int:
        number = Parcel.model_validate_json(order["parcel"]).number
        self.waiting[number] = mailbox
        return number

    def wait(self, references: list[Any], timeout: float = 0, num_returns: int = 1) -> tuple[list[Any], list[Any]]:
        if not isinstance(references[0], int):  # letters
            return references, []
        done = min(self.at_once, num_returns)
        return references[:done], references[done:]

    def get(self, reference: Any) -> Any:
        return self.serve(reference) if isinstance(reference, int) else reference

    def cancel(self, reference: int) -> None:
        self.cancelled.append(reference)

    def shutdown(self) -> None:
        self.waiting.clear()


def raises(error: BaseException) -> Any:
    raise error


def crew_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, fake: Fake, say: Callable[[str], None] = lambda line: None
) -> crew.Crew:
    """The command's side, connected to a stand-in."""
    monkeypatch.setattr(connect, "connected", lambda address: fake)
    hands, letters = crew.Crew(folder / "results", load(tokens(folder, "executor=ray")).settings, say), Letters()
    monkeypatch.setattr(hands, "mailbox_here", lambda: letters)
    return hands


def carried_out(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    fake: Fake,
    *more: str,
    stop: Stop | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[list[Job], int, crew.Crew]:
    """Orders of a run handed to a stand-in: in the order they were handed over, how many were left, and by whom."""
    jobs, hands = jobs_of(folder, *more), crew_of(folder, monkeypatch, fake, say)
    left = hands.carry_out(jobs, lambda shown, slots: nullcontext(Quiet()), stop or Stop(None))
    return jobs, left, hands
