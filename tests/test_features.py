"""Features of untouched models: read once for all cells of a run, the same in every bit, charged as if read alone."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny
import torch
from cli_runs import run_here

from bench import plan
from bench.compare.sides import read_side
from bench.compare.whole import compare
from bench.config import load
from bench.models.parts import backbone
from bench.records import Result, Status
from bench.store import read_result
from bench.worker import run_cell

pytestmark = pytest.mark.usefixtures("forked")

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
