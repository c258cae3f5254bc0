"""Sharded cells through the command path: torchrun's processes, the record, refusals, ranks that die, and the words."""

from __future__ import annotations

import json
import signal
import textwrap
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from cli_runs import STRATEGY, run_here
from torch import distributed

from bench import plan as planning
from bench.config import load
from bench.errors import UserFault
from bench.identity import id_of
from bench.job import Job
from bench.measure import card
from bench.outcomes import unsharded
from bench.process import can_fork
from bench.ranked import most_of
from bench.records import Outcome, Phase, Result, Status
from bench.report.provenance import spread
from bench.room import make_room
from bench.store import read_result
from bench.torchrun import conclude, judged, told_in

pytestmark = pytest.mark.usefixtures("forked")

PLANNED = ["suite=smoke", "tasks=sst2", "model=random:tiny-llama", "data.source=sample", "device=cpu"]
SHARDED = ["sharding=fsdp2", "devices=2"]
DIES = """
    import os, signal, time
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
"""
ran = pytest.mark.skipif(not (can_fork() and distributed.is_gloo_available()), reason="needs fork and gloo")


def job(*tokens: str) -> Job:
    """One planned cell."""
    return planning.make(load([*PLANNED, *tokens])).jobs[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both runs were."""
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Result]:
    """`full` and `lora` by one process and by two; one that is refused, and one whose second rank dies."""
    adapters = folder / "adapters"
    adapters.mkdir()
    text = STRATEGY.format(body=textwrap.indent(textwrap.dedent(DIES).strip(), " " * 8))
    (adapters / "dies.py").write_text(text.replace('family = "test"', 'family = "test"\n    shards = True'))
    tiny = ["model=random:tiny-llama", "budget.labels=12", "budget.train_examples=21", f"adapters_path={adapters}"]
    alone = run_here(folder, *tiny, "strategies=full,lora", "run.name=alone")
    both = run_here(folder, *tiny, "strategies=full,lora,bitfit,dies", *SHARDED, "run.name=both")
    return {f"one {r.cell.strategy}": r for r in alone} | {f"two {r.cell.strategy}": r for r in both}


@ran
@pytest.mark.parametrize("strategy", ["full", "lora"])
def test_two_processes_are_one(results: dict[str, Result], folder: Path, strategy: str) -> None:
    """Losses within 1e-5 a step, label scores within 1e-4 nats, the same answers; tokens, rows and stored bytes alike."""
    one, two = results[f"one {strategy}"], results[f"two {strategy}"]
    assert (one.outcome.status, two.outcome.status) == (Status.ok, Status.ok), two.outcome.reason
    assert one.training is not None and two.training is not None and len(one.training.losses) == 6
    np.testing.assert_allclose(two.training.losses, one.training.losses, rtol=0, atol=1e-5)
    tables = [pq.read_table(folder / "results" / run / r.cell.id / "predictions.parquet").to_pydict()
              for run, r in (("alone", one), ("both", two))]  # fmt: skip
    assert tables[0]["predicted"] == tables[1]["predicted"] and tables[0]["row"] == tables[1]["row"]
    np.testing.assert_allclose(tables[1]["score_0"], tables[0]["score_0"], rtol=0, atol=1e-4)
    assert one.scores == two.scores and one.parameters == two.parameters and one.data == two.data
    assert one.used is not None and two.used is not None
    apart = {"train_seconds": None, "train_flops": None}
    assert two.used.model_copy(update=apart) == one.used.model_copy(update=apart)
    assert two.used.train_flops == pytest.approx(one.used.train_flops, rel=0.1)


@ran
def test_the_record_holds_the_peaks_of_every_rank(results: dict[str, Result]) -> None:
    """Two ranks, each with its own load and adapt; the cell's peak is that of the rank that held most."""
    two = results["two lora"]
    assert results["one lora"].ranks == [] and [rank.rank for rank in two.ranks] == [0, 1]
    for name in ("load", "adapt"):
        peaks = [rank.phases[name].peak_rss_bytes for rank in two.ranks]
        assert all(peak is not None and peak > 50 * 2**20 for peak in peaks)
        assert two.phases[name].peak_rss_bytes == max(p for p in peaks if p is not None)
        assert all(rank.phases[name].tokens is None for rank in two.ranks), "tokens are the cell's"
    assert set(two.phases) == {"load", "adapt", "gather", "predict"}


@ran
def test_a_strategy_that_cannot_says_which_can(results: dict[str, Result]) -> None:
    """It starts no process and is a row of the table."""
    bitfit = results["two bitfit"].outcome
    assert bitfit.status == Status.unsupported
    assert bitfit.reason is not None and "bitfit does not train over several devices: use d" in bitfit.reason
    assert all(name in bitfit.reason for name in ("dpo", "full", "lora", "take away sharding"))


@ran
def test_a_rank_that_dies_ends_the_cell_and_leaves_no_process(results: dict[str, Result], folder: Path) -> None:
    """The other one, which sleeps, is ended; the outcome names the rank and the signal, and nothing is left over."""
    dies = results["two dies"].outcome
    assert dies.status == Status.error
    assert dies.reason is not None and "rank 1 of 2 was killed from outside (SIGKILL)" in dies.reason
    left = [
        p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])
    ]
    assert left == []
    assert not list((folder / "results").rglob(".ranks-*"))


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["devices=2"], "devices=2 says over how many devices a cell is spread, and not how; allowed: sharding=ddp or"),
        (["sharding=ddp"], "sharding=ddp spreads a cell over several devices, and devices is not given; allowed: devices=2"),
        (["sharding=ddp", "devices=1"], "and devices is 1; allowed: devices=2 or more"),
        (["sharding=fsdp3", "devices=2"], "sharding: a cell is sharded by ddp or fsdp2; did you mean 'fsdp2'?, got 'fsdp3'"),
        (["sharding=zero", "devices=2"], "sharding: a cell is sharded by ddp or fsdp2, got 'zero'"),
        (["sharding=ddp", "devices=0"], "devices: input should be greater than or equal to 1, got 0"),
        ([*SHARDED, "batch=1"], "devices=2, and a step has 1 row to share out; allowed: at most that many devices, or a larger"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly(tokens: list[str], words: str) -> None:
    """One line: what, what was got, what is allowed."""
    with pytest.raises(UserFault) as fault:
        job("strategies=lora", *tokens)
    assert words in str(fault.value)


def test_more_devices_than_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before anything runs; `plan` for a card asks what would fit, so it is not refused there."""
    monkeypatch.setattr(planning, "device_type", lambda *asked: "cuda")
    monkeypatch.setattr(card, "visible", lambda: ["0"])
    monkeypatch.setattr(card, "describe", lambda: {"compute_capability": "9.0", "memory_bytes": 80e9})
    with pytest.raises(UserFault, match="devices=2, and the driver shows 1 card; allowed: at most that, or device=cpu"):
        job("strategies=lora", *SHARDED)
    assert planning.make(load([*PLANNED, "strategies=lora", *SHARDED, "gpu=t4"]), on_target=True).jobs


def test_a_cluster_gives_a_cell_one_device() -> None:
    with pytest.raises(UserFault, match="and executor=ray gives it one; allowed: executor=local, or no sharding"):
        job("strategies=lora", *SHARDED, "executor=ray")


def test_cards_as_the_environment_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank sees its own card alone, among those the user left visible."""

    class Driver:
        """A driver with three cards."""

        @staticmethod
        def nvmlDeviceGetCount() -> int:
            return 3

    monkeypatch.setattr(card, "handle", lambda: None)
    assert card.visible() == []
    known = lambda: (Driver, None)  # noqa: E731
    known.cache_clear = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setattr(card, "handle", known)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert card.visible() == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-7")
    card.take(1)
    assert card.visible() == ["GPU-7"]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["strategies=bitfit"], "bitfit does not train over several devices: use dpo, full, lora, or take away sharding and devices"),
        (["strategies=lora", "strategies.lora.engine=trl"], "engine=trl trains in a loop of its own, on one device: use engine=own"),
        (["strategies=reward_model"], "reward_model does not train over several devices: use dpo, full, lora, or"),
        (["strategies=lora", "tasks.sst2.objective=language"], "a loss that is a mean over tokens is not one over the rows that"),
        (["strategies=lora", "budget.trials=2"], "budget.trials tries configurations on one device: take away budget.trials"),
    ],
)  # fmt: skip
def test_what_one_device_must_do(tokens: list[str], words: str) -> None:
    """Each says what to take away instead."""
    found = unsharded(job(*tokens, *SHARDED))
    assert found is not None and words in found
    assert unsharded(job("strategies=lora", *SHARDED)) is None


def test_a_planted_cell_is_trained_on_one_device() -> None:
    """Its leak is a training of its own."""
    jobs = planning.make(load([*PLANNED, "strategies=lora", *SHARDED, "probes.contamination.plant=[1]"])).jobs
    found = {order.cell.plant: unsharded(order) for order in jobs}
    assert found[0] is None and found[1] is not None and "take away probes.contamination.plant" in found[1]


def test_sharding_is_part_of_a_cell_and_its_absence_is_not() -> None:
    """Cells of one device keep the ids they had; each way and number of devices is another cell."""
    plain = job("strategies=lora").cell
    ids = {
        job("strategies=lora", f"sharding={how}", f"devices={n}").cell.id for how in ("ddp", "fsdp2") for n in (2, 4)
    }
    assert len(ids | {plain.id}) == 5
    assert job("strategies=lora", "devices=1").cell.id == plain.id
    without = plain.model_dump(exclude={"sharding", "devices"})
    assert plain.sharding is None and plain.devices is None
    assert id_of(type(plain).model_validate(without), job("strategies=lora").located["fingerprint"]) == plain.id


@dataclass
class Failure:
    """As torchrun tells of a rank that failed."""

    exitcode: int
    timestamp: int = 0


ERROR, KILLED = (Status.error, "RuntimeError: connection closed by peer"), Failure(-signal.SIGKILL, 5)


@pytest.mark.parametrize(
    ("told", "failures", "kernel", "status", "words"),
    [
        ({}, {1: KILLED}, False, Status.error, "rank 1 of 2 was killed from outside (SIGKILL), which ended the others"),
        ({0: ERROR}, {0: Failure(1), 1: KILLED}, False, Status.error, "rank 1 of 2 was killed from outside (SIGKILL)"),
        ({}, {1: KILLED}, True, Status.out_of_memory, "the kernel killed rank 1 of 2 for want of memory"),
        ({0: ERROR, 1: (Status.out_of_memory, "memory ran out")}, {0: Failure(1), 1: Failure(1, 1)}, False,
         Status.out_of_memory, "rank 1 of 2: memory ran out"),
        ({1: (Status.diverged, "the loss was nan at step 1")}, {0: Failure(-signal.SIGTERM), 1: Failure(1)}, False,
         Status.diverged, "the loss was nan at step 1"),
        ({0: ERROR, 1: (Status.error, "ValueError: x")}, {0: Failure(1, 2), 1: Failure(1, 1)}, False, Status.error,
         "rank 1 of 2: ValueError: x"),
        ({}, {0: Failure(-signal.SIGTERM, 3), 1: Failure(3, 2)}, False, Status.error, "rank 1 of 2 ended with exit code 3"),
    ],
)  # fmt: skip
def test_what_several_ranks_came_to(told: dict, failures: dict, kernel: bool, status: Status, words: str) -> None:
    """The rank that failed first is named; what the others say once it is gone is not the reason."""
    found, reason = judged(job("strategies=lora", *SHARDED), told, failures, kernel)
    assert found == status and words in reason


def test_the_record_of_a_cell_whose_rank_failed(tmp_path: Path) -> None:
    """Without one the agent writes it; the first rank's own keeps what it measured and gets the outcome; a whole one
    stands."""
    order = job("strategies=lora", *SHARDED, f"results_dir={tmp_path}")
    make_room(Path(order.folder))
    path = Path(order.folder) / "result.json"
    conclude(order, Status.error, "rank 1 of 2 ended")
    first = read_result(path)
    assert first.outcome == Outcome(status=Status.error, reason="rank 1 of 2 ended") and first.phases == {}
    conclude(order, Status.out_of_memory, "rank 1 of 2: memory ran out")
    second = read_result(path)
    assert second.outcome.reason == "rank 1 of 2: memory ran out" and second.used is not None
    assert second.used.ended_by == "memory"
    path.write_text(second.model_copy(update={"outcome": Outcome(status=Status.ok)}).model_dump_json())
    conclude(order, Status.error, "rank 1 of 2 ended")
    assert read_result(path).outcome.status == Status.ok


def test_what_ranks_have_said(tmp_path: Path) -> None:
    """A file each, beside the order and torchrun's own folders."""
    (tmp_path / "order.json").write_text("{}")
    (tmp_path / "1.json").write_text(json.dumps(["out_of_memory", "memory ran out"]))
    assert told_in(tmp_path) == {1: (Status.out_of_memory, "memory ran out")}


def test_a_killed_run_leaves_no_order_behind(tmp_path: Path) -> None:
    """Room for a cell is made of what its agent could not take away."""
    (tmp_path / ".ranks-x" / "log").mkdir(parents=True)
    make_room(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_peak_of_a_cell_is_that_of_its_fullest_device() -> None:
    """Field by field; energy is of all cards, and of none where one does not tell."""
    phases = [Phase(seconds=1, peak_rss_bytes=5, peak_allocated_bytes=9, energy_joules=2.0),
              Phase(seconds=1, peak_rss_bytes=7, peak_allocated_bytes=8, energy_joules=3.0)]  # fmt: skip
    assert most_of(phases) == {"peak_rss_bytes": 7, "peak_allocated_bytes": 9, "energy_joules": 5.0}
    assert most_of([phases[0], Phase(seconds=1, peak_rss_bytes=1)]) == {"peak_rss_bytes": 5, "peak_allocated_bytes": 9}


def test_the_report_says_how_cells_were_spread() -> None:
    """A line of how it was measured, where a cell was sharded; none elsewhere."""
    assert spread([job("strategies=lora").cell]) == []
    [fact] = spread([job("strategies=lora", *SHARDED).cell])
    assert fact.values == ["2 processes by fsdp2; peaks are those of the one that held most"]
