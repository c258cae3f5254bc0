"""Features of untouched models: read once for all cells of a run, the same in every bit, charged as if read alone."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections import Counter
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from cli_runs import run_here

from bench import plan
from bench.budget import Meter
from bench.compare.sides import read_side
from bench.compare.whole import compare
from bench.config import load
from bench.config.schema import Budget
from bench.measure import lent
from bench.measure.lent import Cost
from bench.measure.phases import Ledger
from bench.models.parts import backbone, freeze
from bench.predict.rehearse import HeavyMeter
from bench.records import Result, Status
from bench.score.features import Kept, OnFeatures, Shelf, folder_of, read, write
from bench.score.heads import HeadReader
from bench.store import read_result
from bench.worker import run_cell

COUNTS = ("steps", "examples", "forwards", "tokens", "padded_tokens", "flops", "recomputed_flops", "halved")
"""What a phase must say alike whether a batch was read or lent."""
FAMILIES = ("tiny-gpt2", "tiny-bert", "tiny-t5")


class Witness:
    """Counts rows at the model itself: how often each was forwarded."""

    def __init__(self) -> None:
        self.rows: Counter[tuple[int, ...]] = Counter()

    def base(self, family: str) -> Any:
        held = tiny.base(family)
        backbone(held).register_forward_pre_hook(self.see, with_kwargs=True)
        return held

    def see(self, _: Any, args: Any, kwargs: dict[str, torch.Tensor]) -> None:
        for ids, mask in zip(kwargs["input_ids"].tolist(), kwargs["attention_mask"].tolist(), strict=True):
            self.rows[tuple(i for i, real in zip(ids, mask, strict=True) if real)] += 1


def orders(family: str, *more: str) -> list[Any]:
    """The cells of `frozen` in a run of the smoke suite."""
    asked = [
        "suite=smoke",
        f"model=random:{family}",
        "strategies=frozen",
        "data.source=sample",
        "threads=1",
        "device=cpu",
    ]
    return plan.make(load([*asked, *more])).jobs


def ran(order: Any, witness: Witness, features: Path | None) -> tuple[Result, Path]:
    """One cell in this process: its record and folder."""
    folder = Path(mkdtemp())
    update = {"folder": str(folder), "features": None if features is None else str(features)}
    family = order.model.removeprefix("random:")
    assert run_cell(order.model_copy(update=update), partial(witness.base, family), lambda phase, share: None) == 0
    result = read_result(folder / "result.json")
    assert result.outcome.status is Status.ok, result.outcome.reason
    return result, folder


def assert_same(one: tuple[Result, Path], other: tuple[Result, Path]) -> None:
    """Scores, predictions, the head and every count, in every bit."""
    (first, here), (second, there) = one, other
    assert pq.read_table(here / "predictions.parquet").equals(pq.read_table(there / "predictions.parquet"))
    assert first.scores == second.scores and first.notes == second.notes and first.parameters == second.parameters
    [head] = [f.relative_to(here) for f in here.glob("adapted/*")]
    assert (here / head).read_bytes() == (there / head).read_bytes()
    assert first.phases.keys() == second.phases.keys()
    for name, phase in first.phases.items():
        assert [getattr(phase, c) for c in COUNTS] == [getattr(second.phases[name], c) for c in COUNTS], name
    assert first.used is not None and second.used is not None
    assert first.used.model_copy(update={"train_seconds": 0.0}) == second.used.model_copy(update={"train_seconds": 0.0})


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several batches of a few rows each."""
    monkeypatch.setattr("bench.score.adapted.TOKENS_A_BATCH", 100)


def limit(family: str, axis: str) -> str:
    """A budget that ends amid what there is to read."""
    whole = ran(orders(family, "budget.epochs=1", "sequence=24")[0], Witness(), None)[0].phases["adapt"]
    assert whole.steps is not None and whole.steps > 2
    return f"budget.train_{axis}={round(0.7 * getattr(whole, axis))}"


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("axis", ["examples", "tokens", "flops", "epochs"])
def test_nothing_but_time_tells_whether_a_batch_was_lent(family: str, axis: str, tmp_path: Path) -> None:
    """Without the shelf, filling it, and all from it; also where the budget cuts or ends what is read."""
    budget = "budget.epochs=1" if axis == "epochs" else limit(family, axis)
    [order] = orders(family, budget, "sequence=24", "tasks.sst2.limit=60")
    without, alone, shelf = ran(order, Witness(), None), Witness(), tmp_path / "shelf"
    filling = ran(order, alone, shelf)
    assert alone.rows and all(p.cached_steps is None for p in filling[0].phases.values())
    again = Witness()
    lent_all = ran(order, again, shelf)
    assert not again.rows, "not a row was forwarded"
    assert_same(without, filling)
    assert_same(without, lent_all)
    used = without[0].used
    assert used is not None and used.ended_by == ("converged" if axis == "epochs" else f"train_{axis}")
    for name in ("adapt", "predict"):
        was, phase = filling[0].phases[name], lent_all[0].phases[name]
        assert phase.cached_steps == phase.steps and phase.cached_forwards == phase.forwards == was.forwards
        assert phase.cached_seconds is not None and phase.step_seconds is not None and was.step_seconds is not None
        assert phase.cached_seconds < was.step_seconds, "the head and the solver were run in both"
        assert phase.seconds > phase.cached_seconds and phase.step_seconds > phase.cached_seconds


def test_three_seeds_read_a_task_once(tmp_path: Path) -> None:
    """Rows forwarded over all cells, by a witness at the model, over the distinct ones: at most 1.1. Records agree."""
    for model in ("tiny-bert", "tiny-gpt2"):
        for task in ("sst2", "cola"):
            given = [
                "suite=glue-small",
                f"model=random:{model}",
                "strategies=frozen",
                "data.source=sample",
                "threads=1",
            ]
            jobs = plan.make(load([*given, f"tasks={task}", "seeds=3", "device=cpu", "budget.labels=12"])).jobs
            assert len(jobs) == 3
            once, every = Witness(), Witness()
            shared = [ran(job, once, tmp_path / model)[0] for job in jobs]
            apart = [ran(job, every, None)[0] for job in jobs]
            assert once.rows.keys() == every.rows.keys()
            assert once.rows.total() / len(once.rows) <= 1.1 < 2 < every.rows.total() / len(every.rows)
            told = sum((p.forwards or 0) - (p.cached_forwards or 0) for r in shared for p in r.phases.values())
            assert told == once.rows.total() and [r.scores for r in shared] == [r.scores for r in apart]


def test_trials_read_their_folds_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is trained on in one of two folds is asked about in the other: three trials read each labelled row once,
    the fit on all of them once more, and the defaults nothing."""
    tuned = ["budget.trials=3", "budget.folds=2", "budget.epochs=1"]
    [order] = orders("tiny-gpt2", *tuned)
    apart, once = Witness(), Witness()
    monkeypatch.setattr("bench.worker.build", lambda model, precision: apart.base("tiny-gpt2"))  # a model a trial
    without = ran(order, apart, None)
    monkeypatch.setattr("bench.worker.build", lambda model, precision: once.base("tiny-gpt2"))
    kept = ran(order, once, tmp_path)
    assert_same(without, kept)
    assert apart.rows.total() >= 3 * 2 * 16 + 16 + 16
    tune = kept[0].phases["tune"]
    assert tune.forwards == 3 * 2 * 16 and tune.forwards - (tune.cached_forwards or 0) == 16
    assert once.rows.total() == 16 + 16 + 16, "labels in folds, labels together, test items"
    assert kept[0].tuning is not None and without[0].tuning is not None
    for a, b in zip(kept[0].tuning.trials, without[0].tuning.trials, strict=True):
        assert a.halts == b.halts and a.flops == b.flops


@cache
def probe() -> tuple[HeadReader, torch.nn.Module, Any]:
    """A reader, an untouched module and a batch."""
    base = tiny.base("tiny-gpt2")
    freeze(base.module)
    reader = HeadReader(base, tiny.context("head"))
    return reader, reader.target().eval(), reader.collate(reader.encode(tiny.rows().test.fields[:3]))


def asked(shelf: Shelf, meter: Meter) -> torch.Tensor:
    """Features of the batch, in a step."""
    reader, module, batch = probe()
    with torch.inference_mode(), meter.step(batch.shape, batch.items):
        return shelf.features(reader, module, batch, meter)


@pytest.mark.parametrize("damage", ["cut", "empty", "turned", "cost", "nothing like it"])
def test_a_damaged_file_is_read_as_absent(damage: str, tmp_path: Path) -> None:
    """And replaced by what the model gives."""
    right = asked(Shelf(tmp_path), Meter())
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    turned = bytearray(whole)
    turned[-3] ^= 1  # one bit of a number
    wrong = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "turned": bytes(turned),
        "cost": whole.replace(b'"rows": 3', b'"rows": 1'),
        "nothing like it": b"features",
    }[damage]
    assert wrong != whole
    file.write_bytes(wrong)
    assert read(file) is None
    meter = Meter()
    assert torch.equal(asked(Shelf(tmp_path), meter), right) and file.read_bytes() != wrong
    kept = read(file)
    assert kept is not None and torch.equal(kept.features, right)


def test_a_whole_file_of_another_layout_is_read_as_absent(tmp_path: Path) -> None:
    """Its checksum is right, and it does not say what a forward cost."""
    asked(Shelf(tmp_path), Meter())
    [file] = tmp_path.iterdir()
    body = file.read_bytes()[32:].replace(b'"padded_tokens"', b'"tokens_padded"')
    file.write_bytes(hashlib.sha256(body).digest() + body)
    assert read(file) is None


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    """The cell goes on."""
    (tmp_path / "file").write_text("")
    here = asked(Shelf(tmp_path / "file" / "below"), Meter())
    assert torch.equal(here, asked(Shelf(None), Meter())) and [f.name for f in tmp_path.iterdir()] == ["file"]


def hammer(path: Path, number: int, wrong: Any) -> None:
    """Write and read one file again and again."""
    for _ in range(200):
        write(path, kept_of(number))
        found = read(path)
        if found is None or not torch.equal(found.features, torch.full((64, 32), found.cost.rows)):
            wrong.value += 1


def kept_of(number: int) -> Kept:
    return Kept(torch.full((64, 32), float(number)), Cost(0.0, 0, 0, number, 0, False), {})


def test_two_processes_never_see_half_a_file(tmp_path: Path) -> None:
    """Each finds what one of them wrote whole."""
    here = multiprocessing.get_context("fork")
    torch.set_num_threads(1)  # a process with threads of its own must not fork
    wrong = here.Value("i", 0)
    both = [here.Process(target=hammer, args=(tmp_path / "one", n, wrong)) for n in (1, 2)]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert [one.exitcode for one in both] == [0, 0] and wrong.value == 0
    assert [f.name for f in tmp_path.iterdir()] == ["one"]


def test_a_rehearsal_neither_reads_nor_writes(tmp_path: Path) -> None:
    """Its fakes have no values, and what it foretells is the whole work."""
    asked(Shelf(tmp_path), HeavyMeter())
    assert not list(tmp_path.iterdir())
    asked(Shelf(tmp_path), Meter())
    meter = HeavyMeter()
    meter.watch([probe()[1]])
    asked(Shelf(tmp_path), meter)
    meter.unwatch()
    assert meter.rows == 3


def test_a_step_is_charged_what_the_forward_took_when_it_ran(tmp_path: Path) -> None:
    """Seconds of the forward for seconds of looking it up; a budget of seconds ends where it would have ended."""
    first = Meter()
    first.watch([probe()[1]])
    asked(Shelf(tmp_path), first)
    [file] = tmp_path.iterdir()
    kept = read(file)
    assert kept is not None and 0 < kept.cost.seconds < first.seconds and kept.cost.counted
    write(file, replace(kept, cost=replace(kept.cost, seconds=40.0)))
    meter = Meter(Budget(labels=8, train_seconds=100))
    meter.watch([probe()[1]])
    shelf = Shelf(tmp_path)
    for charged in (40, 80):
        assert meter.affords(meter.cost(3, 1, probe()[2].shape))
        asked(shelf, meter)
        assert charged < meter.seconds < charged + 1
    assert not meter.affords(meter.cost(3, 1, probe()[2].shape)), "two steps of 40 seconds were seen, 20 are left"
    probe_batch = probe()[2]
    assert meter.rows == 6 and meter.tokens == 2 * probe_batch.tokens and meter.padded_tokens == 6 * probe_batch.padded
    assert meter.flops == 2 * first.flops
    assert not any(step.timed for step in meter.steps), "these seconds held the counting of FLOPs"


def test_of_a_step_that_fails_nothing_is_charged(tmp_path: Path) -> None:
    """Nor does the next one pay for it."""
    asked(Shelf(tmp_path), Meter())
    meter, (reader, module, batch) = Meter(), probe()
    meter.watch([module])
    with pytest.raises(MemoryError), meter.step(batch.shape, 3):
        Shelf(tmp_path).features(reader, module, batch, meter)
        raise MemoryError
    assert (meter.rows, meter.tokens, meter.padded_tokens, meter.seconds, meter.flops) == (0, 0, 0, 0.0, 0.0)
    asked(Shelf(tmp_path), meter)
    assert meter.rows == 3 and len(meter.steps) == 1
    meter.unwatch()


def test_a_phase_that_was_lent_to_never_shows_a_small_peak(tmp_path: Path) -> None:
    """It shows the peak of the phase that read, and how much of its time it did not take."""
    ledger = Ledger("cpu")
    with ledger.phase("predict"):
        asked(Shelf(tmp_path), Meter())
    [file] = tmp_path.iterdir()
    kept = read(file)
    assert kept is not None and kept.peaks.keys() == {"peak_rss_bytes"}
    high = kept.peaks["peak_rss_bytes"]
    assert 0 < high <= (ledger.phases["predict"].peak_rss_bytes or 0)
    write(file, replace(kept, cost=replace(kept.cost, seconds=7.0), peaks={"peak_rss_bytes": 2**50}))
    with ledger.phase("probe"):
        asked(Shelf(tmp_path), Meter())
    phase = ledger.phases["probe"]
    assert phase.peak_rss_bytes == 2**50 and 7 < phase.seconds < 8
    assert (phase.cached_steps, phase.cached_forwards, phase.cached_seconds) == (1, 3, 7.0)
    assert lent.now() is None


def test_what_was_read_without_measuring_memory_is_read_again_where_it_is_measured(tmp_path: Path) -> None:
    """Else a phase would have no peak to show."""
    asked(Shelf(tmp_path), Meter())
    ledger = Ledger("cpu")
    for name in ("adapt", "predict"):
        with ledger.phase(name):
            asked(Shelf(tmp_path), Meter())
    assert ledger.phases["adapt"].cached_steps is None and ledger.phases["predict"].cached_steps == 1


def test_another_model_type_of_number_or_prompt_is_another_shelf(tmp_path: Path) -> None:
    """What a batch holds is the file's name; what reads it, the folder's."""
    known = ("sha256:1", "fp32", "cpu")
    others = [("sha256:2", "fp32", "cpu"), ("sha256:1", "bf16", "cpu"), ("sha256:1", "fp32", "cuda")]
    assert len({folder_of(str(tmp_path), *one) for one in (known, *others)}) == 4
    torch.set_num_threads(2)
    threads = folder_of(str(tmp_path), *known)
    torch.set_num_threads(1)
    assert threads != folder_of(str(tmp_path), *known), "threads decide in which order sums are made"
    base = tiny.base("tiny-gpt2")
    freeze(base.module)
    reader = HeadReader(base, tiny.context("head"))
    answer = OnFeatures(reader.target(), reader, Shelf(tmp_path))
    fields = tiny.rows().test.fields
    plain = answer.predict(fields, Meter())
    before = len(list(tmp_path.iterdir()))
    other = answer.through(tiny.task().templates[0].model_copy(update={"pattern": "{text}!"}))
    assert isinstance(other, OnFeatures) and not np.array_equal(other.predict(fields, Meter()), plain)
    assert len(list(tmp_path.iterdir())) > before
    assert np.array_equal(answer.predict(fields, Meter()), plain)


def test_layers_that_train_are_never_lent(tmp_path: Path) -> None:
    """Only the model that nothing has touched gives the same features in every cell."""
    [order] = orders("tiny-gpt2", "strategies.frozen.top_layers=1")
    ran(order, Witness(), tmp_path / "shelf")
    assert not (tmp_path / "shelf").exists()


def test_a_run_says_what_was_lent_and_leaves_nothing(tmp_path: Path) -> None:
    """Cells keep their ids whether they share or not, the gate sees no difference, and the page says it."""
    more = ["strategies=frozen", "seeds=2", "tasks.sst2.limit=16"]
    (tmp_path / "results" / "shared" / ".features").mkdir(parents=True)
    (tmp_path / "results" / "shared" / ".features" / "of a run that was killed").write_text("")
    shared = run_here(tmp_path, *more, "run.name=shared")
    apart = run_here(tmp_path, *more, "run.name=apart", "features=false")
    assert [r.cell for r in shared] == [r.cell for r in apart]
    assert [r.phases["predict"].cached_forwards for r in shared] == [None, 16]
    assert all(p.cached_steps is None for r in apart for p in r.phases.values())
    assert not list(tmp_path.glob("results/*/.features"))
    for base, new in (("shared", "apart"), ("apart", "shared")):
        found = compare(*(read_side(str(tmp_path / "results" / name)) for name in (base, new)))
        assert found.code == 0 and not found.findings, found.findings
    page = (tmp_path / "reports" / "shared.md").read_text()
    assert "(16 rows) of frozen models had been read before in the run" in page
    assert "Features read once" not in (tmp_path / "reports" / "apart.md").read_text()
