"""Fair tuning: halted trainings go on as if never halted, halving is the beginning of the grid, and the record tells all."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tiny import STRATEGIES

from bench.budget import Meter
from bench.config.schema import Budget
from bench.records import Halt, Trial
from bench.space import Choice, Log, around, draws
from bench.stats.halving import better_half, grid, halts, halving, replayed
from bench.strategy import Options, Plan, TaskContext, Unsupported
from bench.train import paused
from bench.train.loop import Training
from bench.train.paused import put_down, take_up
from bench.tune.folds import folds
from bench.worker import seed_everything

TRAINED = [(n, f) for n in sorted(STRATEGIES) for f in ("tiny-llama", "tiny-bert")]


def prepared(name: str, family: str, context: TaskContext, options: Options) -> Plan:
    """A plan as a cell prepares it."""
    seed_everything(0)
    return STRATEGIES[name].prepare(tiny.base(family), context, options)


def start(name: str, family: str) -> tuple[Training, Any]:
    """A training about to begin; skipped where this pair does not train by gradient."""
    readout = "head" if family == "tiny-bert" else STRATEGIES[name].readouts[0]
    known = STRATEGIES[name].readouts
    context = tiny.context(readout if readout in known else known[0], task=tiny.task_of(name))
    try:
        plan = prepared(name, family, context, tiny.options(name))
    except Unsupported as error:
        pytest.skip(f"unsupported, as it says: {error}")
    if not plan.groups:
        pytest.skip("it does not train by gradient: there is nothing to halt")
    meter = Meter(Budget(train_examples=40))
    meter.watch(plan.seen)
    return Training(plan, context, meter), context


@pytest.mark.parametrize(("name", "family"), TRAINED, ids=["-".join(c) for c in TRAINED])
def test_a_halted_training_goes_on_as_if_never_halted(name: str, family: str, tmp_path: Path) -> None:
    """Same losses and same answers, bit for bit, whether halted, asked and taken up in a fresh plan, or not."""
    torch.set_num_threads(1)
    whole, _ = start(name, family)
    assert whole.until(1.0)
    halted, _ = start(name, family)
    for share in (0.25, 0.5):
        assert not halted.until(share) and halted.meter.progress >= share
        put_down(halted, tmp_path / "state")
        if halted.plan.pause is not None:
            halted.plan.pause()
        halted.plan.answer.predict(tiny.rows_of(name).test.fields, Meter())
        torch.manual_seed(99)
        halted.meter.unwatch()
        again, _ = start(name, family)
        again.meter = halted.meter
        again.meter.watch(again.plan.seen)
        take_up(again, halted.done, tmp_path / "state")
        halted = again
    assert halted.until(1.0)
    assert halted.done.losses == whole.done.losses and halted.meter.examples == whole.meter.examples == 40
    answers = [t.plan.answer.predict(tiny.rows_of(name).test.fields, Meter()) for t in (whole, halted)]
    assert (answers[0] == answers[1]).all()


def test_a_halt_never_holds_the_whole_state_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written in parts: no file is larger than one part and one tensor, and nothing of an older halt is left."""
    monkeypatch.setattr(paused, "PART", 20_000)
    halted, _ = start("full", "tiny-llama")
    halted.until(0.25)
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "99.safetensors").write_bytes(b"left over")
    put_down(halted, folder)
    sizes = [file.stat().st_size for file in folder.glob("*.safetensors")]
    largest = max(p.nbytes for p in halted.optimizer.params)
    kept = 3 * sum(p.nbytes for p in halted.optimizer.params)
    assert len(sizes) > 3 and max(sizes) < max(20_000, largest) + 20_000
    assert kept <= sum(sizes) < 1.2 * kept, "weights and two moments, each once"


def test_folds_hold_every_label_out_once() -> None:
    """Parts are disjoint, cover everything, and hold the classes evenly."""
    train = tiny.context("head", labels=13).train
    parts = folds(train, 3)
    held = [i for _, rows in parts for i in rows.index]
    assert sorted(held) == sorted(train.index)
    for trained_on, rows in parts:
        assert not set(trained_on.index) & set(rows.index) and len(trained_on) + len(rows) == 13
        assert 4 <= len(rows) <= 5
        for label in (0, 1):
            assert abs(rows.labels.count(label) - train.labels.count(label) / 3) < 1


def test_draws_start_with_the_default_and_fill_the_range() -> None:
    """One draw in every equal part of the range, in three digits, the same for the same seed, no two alike."""
    space = {"lr": Log(1e-4, 1e-2)}
    found = draws(space, {"lr": 5e-4}, 5, 3)
    assert found == draws(space, {"lr": 5e-4}, 5, 3) != draws(space, {"lr": 5e-4}, 5, 4)
    assert found[0] == {"lr": 5e-4} and len(found) == 5
    parts = sorted(int(4 * math.log(one["lr"] / 1e-4) / math.log(100)) for one in found[1:])
    assert parts == [0, 1, 2, 3]
    choices = {"template": Choice((0,)), "calibrate": Choice((False, True))}
    assert draws(choices, {"template": 0, "calibrate": False}, 9, 0) == [
        {"template": 0, "calibrate": False},
        {"template": 0, "calibrate": True},
    ]
    assert draws({}, {}, 4, 0) == [{}]


def test_an_edge_is_told() -> None:
    """A value at an end of its range, and one inside it."""
    assert Log(1e-4, 1e-2).edge(1e-2) == "highest" and Log(1e-4, 1e-2).edge(1e-4) == "lowest"
    assert Log(1e-4, 1e-2).edge(1e-3) is None and Choice((1, 2)).edge(2) is None
    assert around(3e-3).low < 1e-3 < 9e-3 < around(3e-3).high


@pytest.mark.parametrize(("name", "options"), [(n, {}) for n in sorted(STRATEGIES)] + [("frozen", {"top_layers": 1})])
def test_every_strategy_has_a_space_its_options_accept(name: str, options: dict[str, Any]) -> None:
    """What is drawn is valid, and the default lies within its range."""
    strategy = STRATEGIES[name]
    given = strategy.Options.model_validate(options)
    space = strategy.space(given, tiny.task_of(name))
    if strategy.other_types:
        assert not space, "trials would be judged by labels that are held out"
        return
    assert space, "every strategy of ours has something of its own kind to tune"
    for one in draws(space, {n: getattr(given, n) for n in space}, 6, 0):
        assert strategy.Options.model_validate({**given.model_dump(), **one})
    for key, range_ in space.items():
        if isinstance(range_, Log):
            assert range_.low <= getattr(given, key) <= range_.high
        else:
            assert getattr(given, key) in range_.values


CURVES = {0: [1.0, 2.0, 3.0], 1: [3.0, 1.0, 1.0], 2: [2.0, 2.5, 2.0]}
"""Three configurations whose order changes at every halt."""


def test_halving_drops_the_worse_half_at_every_halt() -> None:
    """Three start, two go on, one is taken; nothing that was dropped is asked again."""
    shares, asked = halts(3), []

    def ask(i: int, share: float) -> float:
        asked.append((i, share))
        return CURVES[i][[*shares, 1.0].index(share)]

    assert shares == [0.25, 0.5] and halts(1) == [] and halts(2) == [0.5] and halts(8) == [0.125, 0.25, 0.5]
    taken, seen = halving(3, ask)
    assert taken == 2
    assert asked == [(0, 0.25), (1, 0.25), (2, 0.25), (1, 0.5), (2, 0.5)]
    assert [len(seen[i]) for i in range(3)] == [1, 2, 2]
    taken, every = grid(3, ask)
    assert taken == 0 and [h.log_likelihood for h in every[1]] == CURVES[1]
    trials = [Trial(values={}, halts=every[i], seconds=0.0, flops=0.0) for i in range(3)]
    assert replayed(trials) == 2


def test_failures_come_last_and_ties_go_to_the_default() -> None:
    """-inf never wins over a likelihood; where all are equal, number 0 stays."""
    assert better_half({0: -math.inf, 1: -1.0, 2: -2.0}) == [1, 2]
    assert better_half({0: -1.0, 1: -1.0}) == [0]
    taken, seen = halving(2, lambda i, share: -math.inf)
    assert taken == 0 and seen[0] == [Halt(share=0.5, log_likelihood=None)]


def test_a_template_the_task_lacks_is_refused() -> None:
    """In one line that says how many there are."""
    with pytest.raises(Unsupported, match=r"template=3, but sst2 has 1: use 0 to 0"):
        tiny.context("verbalizer").with_template(3)
    two = tiny.task().model_copy(update={"templates": tiny.task().templates * 2})
    assert len(replace(tiny.context("verbalizer"), task=two).with_template(1).task.templates) == 1
