"""Micro-batches found from predictions, cells that cannot fit, and the words of running out of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import plan, shortage
from bench.cards import CPU_SLACK_BYTES, GIB, PROCESS_BYTES
from bench.config import load
from bench.errors import UserFault
from bench.job import Job
from bench.launch import Launcher
from bench.outlook import with_prediction
from bench.records import Outcome, Phase, Predicted, PredictedPhase, Result, Status
from bench.sizing import NO_LIMIT, sized
from bench.store import read_result

PLANNED = ["suite=smoke", "tasks=sst2", "model=random:tiny-gpt2", "strategies=lora", "data.source=sample", "device=cpu"]


def job(*tokens: str) -> Job:
    """One planned cell of batch 8."""
    return plan.make(load([*PLANNED, *tokens])).jobs[0]


def on_card(one: Job) -> Job:
    """The same on a card, whose limit is that of the allocator."""
    return one.model_copy(update={"cell": one.cell.model_copy(update={"device": "cuda"})})


class Oracle:
    """Predicts `fixed` GiB and `each` more a row of a pass; remembers what it was asked."""

    def __init__(self, fixed: float, each: float) -> None:
        self.fixed, self.each = fixed, each
        self.asked: list[int | None] = []

    def __call__(self, jobs: list[Job]) -> dict[str, Predicted]:
        self.asked += [one.micro_batch for one in jobs]
        return {
            one.cell.id: Predicted(
                peak_bytes=round((self.fixed + self.each * (one.micro_batch or one.cell.batch)) * GIB)
            )
            for one in jobs
        }


def found(one: Job, oracle: Oracle, limit: float | None) -> Predicted:
    """What is decided for a cell under a limit in GiB."""
    bytes_ = None if limit is None else round(limit * GIB)
    return sized([one], {one.cell.id: bytes_}, oracle)[one.cell.id]


@pytest.mark.parametrize(
    ("limit", "rows", "asked", "fits"),
    [
        (20.0, 8, [None], True),  # 10 of 20 fit as they are
        (7.0, 4, [None, 4], True),
        (6.2, 2, [None, 4, 2], True),  # 6 of 6.2 at 4 rows is close: not taken
        (3.1, 1, [None, 4, 2, 1], None),  # close at 1: it is tried
        (2.0, 1, [None, 4, 2, 1], False),
        (None, 8, [None], None),
    ],
)
def test_the_largest_micro_batch_that_fits(
    limit: float | None, rows: int, asked: list[int | None], fits: bool | None
) -> None:
    """2 GiB and one more a row: 10, 6, 4 and 3 GiB. The effective batch is not touched."""
    one, oracle = on_card(job("micro_batch=auto")), Oracle(2, 1)
    known = found(one, oracle, limit)
    assert (known.micro_batch, known.fits, oracle.asked) == (rows, fits, asked)
    assert known.least_bytes == (3 * GIB if fits is not True and limit is not None else None)
    ready = with_prediction(one, known)
    assert ready.micro_batch == rows and ready.cell.batch == 8 and ready.cell.micro_batch == "auto"
    assert (ready.notes == []) == (rows == 8)


def test_where_passes_do_not_matter_they_stay_large() -> None:
    """What is held while answering is the same at every micro-batch."""
    known = found(on_card(job("micro_batch=auto")), Oracle(5, 0.001), 5.1)
    assert known.micro_batch == 8 and known.fits is None and known.reason is not None
    assert known.reason.startswith("close: ")


def test_a_batch_that_is_given_is_kept_and_the_least_is_told() -> None:
    one, oracle = on_card(job()), Oracle(2, 1)
    known = found(one, oracle, 5)
    assert (known.fits, known.least_bytes, known.micro_batch, oracle.asked) == (False, 3 * GIB, None, [None, 1])
    assert shortage.hopeless(one.model_copy(update={"predicted": known})) is None, "at 1 it would fit: it is tried"
    assert found(one, Oracle(2, 1), None).reason == NO_LIMIT


@pytest.mark.parametrize(("limit", "fits"), [(2.9, False), (0.5, False), (3.2, None), (9.0, True)])
def test_weights_that_pass_the_limit_are_named(limit: float, fits: bool | None) -> None:
    """However close the peak: they are counted, and no smaller micro-batch makes them fewer."""

    def oracle(jobs: list[Job]) -> dict[str, Predicted]:
        phase = PredictedPhase(peak_bytes=3 * GIB, parts={"parameters": 2 * GIB, "quantisation": GIB})
        return {one.cell.id: Predicted(peak_bytes=3 * GIB, phases={"adapt": phase}) for one in jobs}

    one = on_card(job())
    known = sized([one], {one.cell.id: round(limit * GIB)}, oracle)[one.cell.id]
    told = f"needs 3.00 of {limit:.2f} GiB, {3 - limit:.2f} GiB too much, and the weights alone do not fit: "
    assert known.fits is fits and known.reason is not None
    assert known.reason.startswith(told) is (fits is False)


def test_the_cap_on_a_cpu_holds_the_process_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """`memory_gib` caps resident memory, so the libraries' share is no room for tensors; said in the reason."""
    from bench.outlook import limit_of

    one = job("budget.memory_gib=2")
    limit = limit_of(one, None)
    assert limit == 2 * GIB - PROCESS_BYTES
    known = sized([one], {one.cell.id: limit}, Oracle(0.5, 0))[one.cell.id]
    assert known.fits is True and "the cap of 2 GiB less 0.43 GiB for the process itself" in (known.reason or "")
    near = limit + CPU_SLACK_BYTES // 2
    assert sized([one], {one.cell.id: limit}, Oracle(near / GIB, 0))[one.cell.id].fits is None


def test_the_card_of_this_machine_is_judged_as_the_same_one_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's context takes room of either."""
    from bench.cards import card_named
    from bench.outlook import limit_of

    t4 = card_named("t4")
    monkeypatch.setattr("bench.measure.card.describe", lambda: {"memory_bytes": t4.memory_bytes})
    one = job()
    one = one.model_copy(update={"cell": one.cell.model_copy(update={"device": "cuda"}), "memory_gib": None})
    assert limit_of(one, None) == limit_of(one, t4) == t4.usable_bytes
    assert limit_of(one, None, here=False) is None


@pytest.mark.parametrize(("asked", "least"), [(24.0, None), (8.0, 8.0)])
def test_a_cap_above_the_target_card_makes_it_no_larger(asked: float, least: float | None) -> None:
    from bench.cards import card_named
    from bench.outlook import limit_of
    from bench.plan import capped

    t4, suite = card_named("t4"), load(["suite=smoke", f"budget.memory_gib={asked}"]).suite
    one = job("gpu=t4")
    one = one.model_copy(update={"cell": one.cell.model_copy(update={"device": "cuda"}), "memory_gib": asked})
    bytes_of_it = t4.usable_bytes if least is None else round(least * GIB)
    assert limit_of(one, t4) == bytes_of_it
    assert capped(suite, t4, "cuda").budget.memory_gib == pytest.approx(bytes_of_it / GIB, abs=1e-3)
    assert capped(suite, t4, "cpu").budget.memory_gib == asked
    here = job("gpu=t4").model_copy(update={"memory_gib": asked})
    words = sized(
        [here],
        {here.cell.id: limit_of(here, t4)},
        lambda jobs: {one.cell.id: Predicted(peak_bytes=GIB) for one in jobs},
    )
    assert ("the cap of" in (words[here.cell.id].reason or "")) == (least is not None)


def test_a_cpu_needs_what_stays_resident() -> None:
    """Tensors, or the weights and what the allocator is expected to hold on top, whichever is more."""
    parts = {"parameters": 100, "activations": 50}
    phase = PredictedPhase(peak_bytes=150, parts=parts, resident_bytes=90)
    assert shortage.need(Predicted(peak_bytes=150, phases={"adapt": phase})) == 190
    quantised = phase.model_copy(update={"held_bytes": 400})  # whole when they were loaded
    assert shortage.need(Predicted(peak_bytes=150, phases={"adapt": quantised})) == 490
    assert shortage.need(Predicted(peak_bytes=150, phases={})) == 150
    assert shortage.need(Predicted()) is None


class Silent:
    """Nobody watches."""

    def begin(self, *_: Any) -> None: ...

    def progress(self, *_: Any) -> None: ...

    def end(self, *_: Any) -> None: ...


def test_a_cell_that_cannot_fit_is_not_tried(tmp_path: Path) -> None:
    """Its outcome has the smallest bytes it needs, what is left under the cap, and the prediction; no process ran."""
    known = Predicted(peak_bytes=9 * GIB, least_bytes=3 * GIB, limit_bytes=round(1.57 * GIB), fits=False)
    one = job("budget.memory_gib=2", "micro_batch=auto")
    one = one.model_copy(update={"folder": str(tmp_path / "cell"), "predicted": known})
    launcher = Launcher(tmp_path, 60, Silent())
    result = launcher.run(one)
    assert launcher.host.process is None and result.notes == []
    assert result.outcome.status is Status.out_of_memory and result.predicted == known
    words = result.outcome.reason or ""
    assert words.startswith("not tried: needs at least 3.00 GiB at micro-batch 1") and "cap of 2 GiB" in words
    assert "1.57 GiB are left" in words and "budget.memory_gib" in words


@pytest.mark.parametrize(
    ("least", "cap"),
    [(1.6, "budget.memory_gib=2"), (None, "budget.memory_gib=2"), (30.0, "gpu=t4")],
)
def test_what_may_fit_is_tried(least: float | None, cap: str) -> None:
    """Close to the limit, not predicted, or a card that caps nothing on a CPU: no verdict before it has run."""
    known = Predicted(
        peak_bytes=9 * GIB, least_bytes=None if least is None else round(least * GIB), limit_bytes=round(1.57 * GIB)
    )
    assert shortage.hopeless(job(cap).model_copy(update={"predicted": known})) is None


TOLD = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 14.56 GiB of which 1.00 GiB is free."
)


@pytest.mark.parametrize(
    ("message", "asked"),
    [
        (TOLD, round(2.5 * GIB)),
        ("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate "
         "1048576 bytes. Error code 12", 2**20),
        ("Unable to allocate 9.00 TiB for an array with shape (1,)", 9 * 2**40),
        ("std::bad_alloc", None),
    ],
)  # fmt: skip
def test_the_bytes_asked_for_are_read_from_the_allocator(message: str, asked: int | None) -> None:
    assert shortage.bytes_asked(message) == asked
    one = job("budget.memory_gib=2").model_copy(update={"predicted": Predicted(peak_bytes=GIB, least_bytes=GIB // 2)})
    words = shortage.ran_out(message, one)
    assert ("asked for" in words) == (asked is not None)
    assert "the cap is 2 GiB" in words and "at micro-batch 1 it is predicted to need 0.50 GiB" in words


def ended(one: Job, status: Status, *phases: str) -> Result:
    """A record of how a cell ended."""
    return Result(
        cell=one.cell,
        outcome=Outcome(status=status, reason=None if status is Status.ok else f"memory ran out: {TOLD}"),
        phases={name: Phase(seconds=1) for name in phases},
        data={"source": "sample", "fingerprint": "x"},  # type: ignore[arg-type]
    )


class Attempts(Launcher):
    """A launcher whose cells run out of memory above `enough` rows a pass."""

    def __init__(self, folder: Path, enough: int, phases: tuple[str, ...] = ("load", "adapt")) -> None:
        super().__init__(folder, 60, Silent())
        self.enough, self.phases, self.tried = enough, phases, []  # type: ignore[var-annotated]

    def attempt(self, job: Job) -> Result:
        self.tried.append(job)
        fits = (job.micro_batch or job.cell.batch) <= self.enough
        return ended(job, Status.ok if fits else Status.out_of_memory, *self.phases)


@pytest.mark.parametrize(
    ("tokens", "enough", "phases", "rows", "status"),
    [
        (["micro_batch=auto"], 2, ("load", "adapt"), [None, 4, 2], Status.ok),
        (["micro_batch=auto"], 0, ("load", "adapt"), [None, 4, 2, 1], Status.out_of_memory),
        (["micro_batch=auto"], 2, ("load", "adapt", "predict"), [None], Status.out_of_memory),  # answering ran out
        (["micro_batch=4"], 2, ("load", "adapt"), [4], Status.out_of_memory),  # the user's figure stands
        ([], 2, ("load", "adapt"), [None], Status.out_of_memory),
    ],
)
def test_a_micro_batch_that_runs_out_is_halved(
    tokens: list[str], enough: int, phases: tuple[str, ...], rows: list[int | None], status: Status, tmp_path: Path
) -> None:
    """The cell starts anew in a fresh process, and its record says so."""
    launcher = Attempts(tmp_path, enough, phases)
    result = launcher.run(job(*tokens))
    assert [one.micro_batch for one in launcher.tried] == rows and result.outcome.status is status
    notes = launcher.tried[-1].notes
    assert len(notes) == len(rows) - 1
    assert all("started anew with micro-batch" in note and "Tried to allocate 2.50 GiB" in note for note in notes)


def test_auto_is_one_identity(tmp_path: Path) -> None:
    """What was found is not part of it: the same cell on another machine keeps its name. A number is another cell."""
    auto, none, four = job("micro_batch=auto"), job(), job("micro_batch=4")
    assert len({auto.cell.id, none.cell.id, four.cell.id}) == 3
    assert auto.cell.micro_batch == "auto" and auto.micro_batch is None and four.micro_batch == 4
    assert with_prediction(auto, Predicted(peak_bytes=1, micro_batch=2)).cell.id == auto.cell.id


def test_auto_needs_predictions() -> None:
    with pytest.raises(UserFault, match="micro_batch=auto is found from predictions; allowed with predict=false"):
        job("micro_batch=auto", "predict=false")


def test_the_device_is_held_to_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A target card's memory less its context, as a share of the card that is there."""
    import torch

    from bench import worker
    from bench.cards import card_named

    shares: list[float] = []
    total = type("", (), {"total_memory": 80 * GIB})()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: total)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    [one] = plan.make(load([*PLANNED[:-1], "gpu=t4"]), on_target=True).jobs
    worker.limit_device_memory("cuda", one.memory_gib)
    assert shares == [pytest.approx(card_named("t4").usable_bytes / (80 * GIB), rel=1e-3)]


def test_running_out_on_a_card_is_told_in_bytes() -> None:
    import torch

    from bench.outcomes import outcome_of

    status, words = outcome_of(torch.OutOfMemoryError(TOLD), on_card(job("budget.memory_gib=2")))
    assert status is Status.out_of_memory
    assert "asked for 2.50 GiB more" in words and "the cap is 2 GiB" in words and "micro_batch=auto" in words


def test_records_of_dead_cells_hold_the_prediction(tmp_path: Path) -> None:
    """The parent writes them."""
    one = job().model_copy(
        update={"folder": str(tmp_path / "cell"), "predicted": Predicted(peak_bytes=7), "notes": ["a remark"]}
    )
    (tmp_path / "cell").mkdir()
    Launcher(tmp_path, 60, Silent()).write(one, Status.error, "killed")
    result = read_result(tmp_path / "cell" / "result.json")
    assert result.predicted.peak_bytes == 7 and result.notes == ["a remark"]
