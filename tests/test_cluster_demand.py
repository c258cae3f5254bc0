"""What a run on Ray asks for, piece by piece and without a cluster: settings and faults, demands, order, and the table."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_runs import tokens
from cluster_fakes import GIB, jobs_of, machine
from fault_fixtures import Fault
from rich.console import Console

from bench import live
from bench.cluster import connect
from bench.cluster.demand import LOSSES, demand, longest_first, memory_of
from bench.config import Settings
from bench.errors import UserFault
from bench.paired.agent import served
from bench.plan import device_type, precision_of
from bench.records import DataInfo, Outcome, Predicted, Result, Status, Used

pytest_plugins = ("fault_fixtures",)
SMOKE = ["run", "suite=smoke", "model=random:tiny-gpt2", "data.source=sample"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "ray_address=auto",
            "ray_address=auto is for executor=ray, got executor=local; allowed: executor=ray, or no ray_a",
        ),
        ("ray_gpu=A100", "ray_gpu=A100 is for executor=ray, got executor=local; allowed: executor=ray, or no ray_gpu"),
        (
            "executor=ray ray_gpu=A100 device=cpu",
            "ray_gpu=A100 names a card, got device=cpu; allowed: device=cuda, or no",
        ),
        (
            "executor=ray ray_address=ray://head:10001",
            "ray_address: the command itself must run on a machine of the clus",
        ),
        (
            "executor=ray ray_address=head",
            "ray_address: allowed: auto, or host:port of the cluster's head (6379 unless",
        ),
        ("executor=ray ray_adress=auto", "unknown key 'ray_adress'; did you mean 'ray_address'?"),
    ],
)
def test_settings_that_cannot_be(fault: Fault, words: str, says: str) -> None:
    assert fault(*SMOKE, *words.split()).startswith(says)


def test_without_ray_there_is_a_line(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install; nothing is written."""
    monkeypatch.setattr(connect, "find_spec", lambda name: None)
    assert fault(*SMOKE, "executor=ray") == (
        "executor=ray needs the package ray, which is not installed; allowed: python -m pip install 'ray>=2.50', or "
        "executor=local"
    )


def test_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens; Ray finds none; none can be started: one line each, with what is allowed."""
    with pytest.raises(
        UserFault, match=r"^ray_address=localhost:1: no Ray cluster to be reached \(.+\); allowed: host:port"
    ):
        connect.connected("localhost:1")

    def refuses(**options: Any) -> None:
        raise ConnectionError("could not find\n any running Ray instance")

    monkeypatch.setattr(connect, "library", lambda: SimpleNamespace(init=refuses))
    with pytest.raises(
        UserFault, match=r"^ray_address=auto: no Ray cluster to be reached \(could not find any running"
    ):
        connect.connected("auto")
    with pytest.raises(
        UserFault, match=r"^a local Ray cluster cannot be started: could not .+; allowed: executor=local$"
    ):
        connect.connected(None)


def test_a_local_cluster_is_of_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address none is looked for, whatever the environment names."""
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(connect, "library", lambda: SimpleNamespace(init=lambda **options: seen.append(options)))
    connect.connected(None)
    connect.connected("auto")
    assert seen[0]["address"] == "local" and seen[0]["num_cpus"] >= 1 and seen[1]["address"] == "auto"
    assert "num_cpus" not in seen[1] and not any(options["log_to_driver"] for options in seen)


def test_a_card_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a card can ask for cells on one, and then says which precision."""
    monkeypatch.setattr("bench.plan.card.describe", lambda: None)
    assert device_type("cuda", elsewhere=True) == "cuda" and precision_of("bf16", "cuda") == "bf16"
    with pytest.raises(
        UserFault, match="precision=auto follows the card, and this machine shows none; allowed: gpu=NAME"
    ):
        precision_of("auto", "cuda")


def test_speed_is_not_compared_on_a_cluster(tmp_path: Path) -> None:
    with pytest.raises(
        UserFault, match="speed is compared on one machine, cell by cell in turn; allowed: no executor=ray"
    ):
        next(served(tokens(tmp_path, "executor=ray")))


def test_what_cells_ask_for() -> None:
    """Worked by hand: the smallest node's CPUs, or its share of them for each card; as many slots as that leaves."""
    cpus = [machine(8), machine(4), machine(0), machine(16, alive=False)]
    asked = demand(cpus, Settings(executor="ray"), "cpu")
    assert (asked.cpus, asked.cards, asked.nodes, asked.slots, asked.memory) == (4, 0, 2, 3, 8 * GIB)
    assert str(asked) == "Ray: 2 nodes, 3 cells at a time, each with 4 CPUs"
    asked = demand(cpus, Settings(executor="ray", threads=6), "cpu")
    assert (asked.cpus, asked.nodes, asked.slots) == (6, 1, 1)
    cards = [machine(64, 8, "A100"), machine(16, 1, "A100"), machine(128)]
    asked = demand(cards, Settings(executor="ray"), "cuda")
    assert (asked.cpus, asked.cards, asked.kind, asked.slots) == (8, 1, "A100", 9)
    assert str(asked) == "Ray: 2 nodes, 9 cells at a time, each with 8 CPUs and a card of type A100"
    mixed = [machine(8, 1, "T4"), machine(8, 2, "L4"), machine(8, 1)]
    assert demand(mixed, Settings(executor="ray", ray_gpu="L4"), "cuda").slots == 2
    assert demand([machine(8, 1)], Settings(executor="ray"), "cuda").kind is None


@pytest.mark.parametrize(
    ("nodes", "settings", "device", "says"),
    [
        (
            [machine(8)],
            {},
            "cuda",
            "device=cuda, but no node of the Ray cluster offers a card; allowed: device=cpu, or nod",
        ),
        (
            [machine(0)],
            {},
            "cpu",
            "no node of the Ray cluster has a CPU to offer; allowed: nodes started with --num-cpus=1",
        ),
        (
            [machine(4)],
            {"threads": 5},
            "cpu",
            "threads=5, but no node of the Ray cluster has more than 4 CPUs for a cell",
        ),
        (
            [machine(4)],
            {"ray_gpu": "T4"},
            "cpu",
            "ray_gpu=T4, but the cells of this run are for a CPU; allowed: device=cud",
        ),
        ([machine(4, 1, "T4")], {"ray_gpu": "T5"}, "cuda", "unknown type of card in the Ray cluster 'T5'; "),
        (
            [machine(4, 1, "T4"), machine(4, 1, "A100")],
            {},
            "cuda",
            "the Ray cluster has cards of several types (A100, T4), whose times cannot be compared; allowed: ray_gpu=A100|T4",
        ),
    ],
)
def test_clusters_that_cannot_serve(nodes: list[Any], settings: dict[str, Any], device: str, says: str) -> None:
    with pytest.raises(UserFault) as told:
        demand(nodes, Settings(executor="ray", **settings), device)
    assert str(told.value).startswith(says)


def test_the_options_of_a_task(tmp_path: Path) -> None:
    """A card and its type, a second try for what was lost and none for what failed, memory where it is known."""
    [job] = jobs_of(tmp_path, "strategies=lora")
    options = demand([machine(8, 2, "T4")], Settings(executor="ray"), "cuda").options(job)
    assert (options["num_cpus"], options["num_gpus"], options["accelerator_type"]) == (4, 1, "T4")
    assert options["max_retries"] == LOSSES and options["retry_exceptions"] is False and "memory" not in options
    plain = demand([machine(2)], Settings(executor="ray"), "cpu")
    assert "memory" not in plain.options(job) and "accelerator_type" not in plain.options(job)
    capped = job.model_copy(update={"memory_gib": 1.5})
    assert plain.options(capped)["memory"] == 1.5 * GIB
    foretold = job.model_copy(update={"predicted": Predicted(peak_bytes=GIB)})
    assert memory_of(foretold) == GIB + 440 * 2**20
    huge = job.model_copy(update={"memory_gib": 100.0})
    assert plain.options(huge)["memory"] == 2 * GIB  # more than any node has would never be served


def test_the_longest_comes_first(tmp_path: Path) -> None:
    """Seconds, then FLOPs at the speed of those that have both (here 10 a second); unknown ones before all."""
    given = {"a": (1.0, 10), "b": (None, 500), "c": (30.0, 300), "d": (None, None), "e": (None, 20), "f": (None, None)}
    [job] = jobs_of(tmp_path, "strategies=zero_shot")
    named = [
        job.model_copy(update={"notes": [name], "predicted": Predicted(seconds=seconds, flops=flops)})
        for name, (seconds, flops) in given.items()
    ]
    assert [one.notes[0] for one in longest_first(named)] == ["d", "f", "b", "c", "e", "a"]
    assert [one.notes[0] for one in longest_first([one for one in named if one.notes[0] in "be"])] == ["b", "e"]


def test_several_at_a_time_in_one_table(tmp_path: Path) -> None:
    """Worked by hand: 19 orders of 10 s, two at a time. Every running order is shown, the first one too while the table
    moves on; what is left is shared by two, at the end by one."""
    jobs = jobs_of(tmp_path, "strategies=lora", "seeds=19")
    table = live.make(Console(width=200, force_terminal=True), jobs, {live.like(jobs[0].cell): 10.0}, 2)
    assert isinstance(table, live.Table_) and table.clock.left() == 95.0
    lost = Result(
        cell=jobs[0].cell,
        outcome=Outcome(status=Status.error, reason="lost"),
        used=Used(labels=None, train_examples=None, train_tokens=None, train_seconds=None),
        data=DataInfo(source="sample", fingerprint="x", labels=["a", "b"]),
    )
    table.begin(jobs[0])
    for job in jobs[1:15]:
        table.begin(job)
        table.end(job, lost.model_copy(update={"cell": job.cell}))
    table.begin(jobs[15])
    table.progress(jobs[15], "adapt", 0.25)
    assert table.shown()[0] is jobs[0] and jobs[15] in table.shown() and jobs[1] in table.shown()
    shown = Console(width=200, record=True, file=StringIO())
    shown.print(table.table())
    text = shown.export_text()
    assert "14 of 19 cells" in text and "adapt 25%" in text and text.count("load") == 1
    for job in [*jobs[15:], jobs[0]]:
        table.end(job, lost)
    assert table.clock.left() == 0
