"""A tuned cell as a user sees it: its record, its scores beside an untuned cell's, and the tables of the page."""

from __future__ import annotations

import weakref
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from bench import plan
from bench.config import load
from bench.errors import UserFault
from bench.models.base import load_base
from bench.models.catalog import parse
from bench.records import Halt, Result, Status, Trial, Tuning
from bench.report.collect import CellView
from bench.report.tuning import best_of_k, compared, regret, tunings, work_share
from bench.store import SCORED, read_result
from bench.strategy import Options, Plan, TaskContext
from bench.tune.choose import Tuner
from bench.worker import Cell, run_cell

SMOKE = ["suite=smoke", "model=random:tiny-llama", "data.source=sample", "tasks.sst2.limit=8", "threads=1"]


@cache
def ran(strategy: str, *tokens: str) -> tuple[Result, list[float]]:
    """The record of one cell and its predicted scores of the second label."""
    order = plan.make(load([*SMOKE, f"strategies={strategy}", *tokens])).jobs[0]
    folder = Path(mkdtemp())
    order = order.model_copy(update={"folder": str(folder)})
    run_cell(order, lambda: load_base(parse(order.model), None, torch.float32), lambda phase, share: None)
    result = Result.model_validate_json((folder / "result.json").read_bytes())
    assert result.outcome.status == Status.ok, result.outcome.reason
    assert not list(folder.glob("tmp*")), "halted trainings are gone"
    return result, pq.read_table(folder / "predictions.parquet")["score_1"].to_pylist()


def tuning_of(result: Result) -> Tuning:
    """How it was tuned."""
    assert result.tuning is not None
    return result.tuning


@pytest.mark.parametrize("strategy", ["lora", "few_shot", "zero_shot", "frozen"])
def test_a_tuned_cell_is_the_untuned_one_with_the_chosen_options(strategy: str) -> None:
    """Bit for bit: trials leave nothing behind; and its defaults score what an untuned cell scores."""
    tuned, scores = ran(strategy, "budget.trials=3")
    found = tuning_of(tuned)
    options = found.trials[found.chosen].values
    plain, same = ran(strategy, *(f"strategies.{strategy}.{name}={value}" for name, value in options.items()))
    assert scores == same and tuned.scores == plain.scores
    defaults, _ = ran(strategy)
    assert (tuned.scores if found.chosen == 0 else found.default_scores) == defaults.scores
    assert ("default" in tuned.phases) == (found.chosen != 0)
    assert tuned.used is not None and tuned.used.labels == 16 == found.items
    assert tuned.cell.seeded and tuned.cell.budget["search"] == "halving" and tuned.cell.budget["folds"] == 2


def past_its_defaults(monkeypatch: pytest.MonkeyPatch, fails: Exception | None = None) -> tuple[Result, list[bool]]:
    """A tuned cell for which trials did not choose the defaults, whose fit raises `fails`; and whether the cell's own
    model was still alive where that fit began."""
    own: list[weakref.ref[Any]] = []
    alive: list[bool] = []
    kept: list[Result] = []
    choose, prepare_base, fresh = Tuner.choose, Cell.prepare_base, Cell.fresh

    def other(tuner: Tuner, *arguments: Any) -> Tuning:
        return choose(tuner, *arguments).model_copy(update={"chosen": 1})

    def noted(cell: Cell) -> Any:
        base = prepare_base(cell)
        own.append(weakref.ref(base.module))
        return base

    def watched(cell: Cell, context: TaskContext, options: Options) -> Plan:
        alive.extend(one() is not None for one in own)  # none while trials run
        kept.extend(read_result(Path(cell.job.folder) / SCORED) for _ in own)
        if own and fails is not None:
            raise fails
        return fresh(cell, context, options)

    with monkeypatch.context() as patch:
        patch.setattr(Tuner, "choose", other)
        patch.setattr(Cell, "prepare_base", noted)
        patch.setattr(Cell, "fresh", watched)
        result, _ = ran.__wrapped__("lora", "budget.trials=2")
    [scored] = kept  # what stands should the process end there
    assert scored.outcome == result.outcome and scored.scores == result.scores
    return result, alive


def test_the_defaults_are_fitted_in_the_room_of_the_cell_s_own_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrapped models hold themselves in cycles: both at once would take memory that no prediction knows of."""
    result, alive = past_its_defaults(monkeypatch)
    assert alive == [False] and tuning_of(result).default_scores is not None


def test_a_score_outlives_the_comparison_with_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that runs out after the cell has answered is told in a note."""
    short = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2147483648 bytes")
    result, _ = past_its_defaults(monkeypatch, short)
    assert result.scores is not None and result.predictions_sha256 is not None
    assert tuning_of(result).default_scores is None and result.outcome.reason is None
    assert result.notes[-1] == f"the defaults have no score: memory ran out: asked for 2.00 GiB more; {short}"


def test_a_fault_in_the_comparison_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a note can tell is told in one."""
    with pytest.raises(AssertionError, match="RuntimeError: shapes"):
        past_its_defaults(monkeypatch, RuntimeError("shapes"))


def test_trials_are_counted_apart_from_the_fit() -> None:
    """The phase `tune` holds what all trials spent; the fit's own budget is what it was."""
    tuned, _ = ran("lora", "budget.trials=3")
    found, tune = tuning_of(tuned), tuned.phases["tune"]
    assert tune.flops == pytest.approx(sum(t.flops for t in found.trials)) and tune.flops > 0
    # three to a quarter and two on to a half of 16 examples, rounded up to batches, and 16 asked at each of five halts
    assert tune.examples == 2 * (3 * 8 + 0) + 16 * 5
    assert tuned.used is not None and tuned.used.train_examples == 16


def test_a_grid_tells_what_halving_would_have_lost() -> None:
    """All go to the end; the halts on the way are those of halving, with the same likelihoods."""
    halved, whole = (tuning_of(ran("lora", "budget.trials=3", f"budget.search={s}")[0]) for s in ("halving", "grid"))
    assert [t.values for t in halved.trials] == [t.values for t in whole.trials]
    for short, long in zip(halved.trials, whole.trials, strict=True):
        assert [h.share for h in long.halts] == [0.25, 0.5, 1.0]
        assert short.halts == long.halts[: len(short.halts)]
    lost = regret(whole)
    assert lost is not None and lost >= 0
    assert work_share(3) == pytest.approx(1.25 / 3)


def test_too_few_labels_leave_the_defaults() -> None:
    """And the record says so."""
    result, _ = ran("few_shot", "budget.trials=2", "budget.labels=3")
    assert result.tuning is None
    assert "not tuned: 3 labels are too few for 2 folds; the defaults were taken" in result.notes


def test_the_best_of_k_is_exact() -> None:
    """By hand: of 1, 2, 4 one is 7/3 on average, the better of two (2 + 4 + 4) / 3, the best of three 4."""
    assert best_of_k([4.0, 1.0, 2.0]) == pytest.approx([7 / 3, 10 / 3, 4.0])
    assert best_of_k([]) is None


def made(halts: list[list[float | None]], chosen: int) -> Tuning:
    """A grid's tuning from likelihoods at 0.25, 0.5 and 1."""
    shares = [0.25, 0.5, 1.0]
    trials = [
        Trial(
            values={"lr": i + 1.0},
            halts=[Halt(share=s, log_likelihood=v) for s, v in zip(shares, row, strict=False)],
            seconds=1.0,
            flops=1e9,
        )
        for i, row in enumerate(halts)
    ]
    return Tuning(
        search="grid", folds=2, items=8, space={"lr": [1, 3]}, trials=trials, chosen=chosen, edges=["lr: highest"]
    )


def test_regret_is_what_the_replay_lost() -> None:
    """Halving would have dropped the later winner at the first halt; failed ones have no regret."""
    assert regret(made([[-3.0, -2.0, -0.5], [-1.0, -1.0, -1.0], [-2.0, -1.5, -1.2]], 0)) == pytest.approx(0.5)
    assert regret(made([[None] * 3, [None] * 3], 0)) is None
    assert compared(made([[-3.0], [-1.0, -0.5], [None]], 1)) == [-3.0, -1.0]


def test_the_page_shows_default_tuned_edge_cost_and_regret() -> None:
    """One table of gains, one of the best of k, for the cells of one task."""
    result, _ = ran("lora", "budget.trials=3", "budget.search=grid")
    view = CellView(result.cell, Path(), "ok", None, result)
    gains, best = tunings([view])
    assert gains.caption == "Tuned within the labels: sst2, random:tiny-llama"
    assert [c.name for c in gains.columns][-1] == "halving's regret"
    row = {c.name: entry for c, entry in zip(gains.columns, gains.rows[0], strict=True)}
    assert row["strategy"].text == "lora" and row["chosen"].text.startswith("s0: lr ")
    assert "of the work" in row["halving's regret"].sub and row["trials"].text == "3"
    assert [c.name for c in best.columns] == ["strategy", "k = 1", "k = 2", "k = 3"]
    assert tunings([CellView(result.cell.model_copy(update={"strategy": "x"}), Path(), "error")]) == []


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ("budget.search=grid", "search says how trials are searched, and there are none: give budget.trials too"),
        ("budget.folds=3", "folds says how trials are searched"),
        ("budget.trials=1", "budget.trials: input should be greater than or equal to 2"),
        ("budget.trials=3 budget.search=halfing", "input should be 'grid' or 'halving', got 'halfing'"),
        ("budget.trials=3 budget.folds=1", "budget.folds: input should be greater than or equal to 2"),
        ("budget.trails=3", "did you mean 'trials'?"),
    ],
)
def test_a_bad_search_is_one_worded_line(tokens: str, words: str) -> None:
    """Refused before anything runs."""
    with pytest.raises(UserFault) as fault:
        load([*SMOKE, *tokens.split()])
    assert words in str(fault.value)


def test_untuned_identities_hold_no_word_of_tuning() -> None:
    """Cells without trials are the cells they were."""
    budget: dict[str, Any] = plan.make(load([*SMOKE, "strategies=lora"])).jobs[0].cell.budget
    assert set(budget) == {"labels", "train_examples"}
