"""How often the loop waits for the device: losses, tokens and seconds stay there for `READ_EVERY` steps."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.budget import READ_EVERY, Meter
from bench.config.schema import Budget
from bench.strategy import Diverged, Plan, TaskContext
from bench.train.loop import Training, adapt
from bench.worker import seed_everything

HOST = "batch.py"
"""Lengths of rows lie on the host: whoever reads them waits for nobody."""


class Reads(TorchDispatchMode):
    """Where numbers are read from tensors, by the file of ours that does so; what torch and the model do is theirs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        whole = torch.Tensor.tolist

        def tolist(tensor: torch.Tensor) -> Any:
            self.note(sys._getframe(1).f_code.co_filename)
            return whole(tensor)

        monkeypatch.setattr(torch.Tensor, "tolist", tolist)

    def note(self, file: str) -> None:
        if Path(file).parts[-3:-1] != ("torch", "optim") and "/bench/" in file:
            self.found[Path(file).name] += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.note(sys._getframe(1).f_code.co_filename)
        return func(*args, **(kwargs or {}))


def prepared(name: str, family: str, readout: str) -> tuple[Plan, TaskContext]:
    """A plan with the same random state every time."""
    torch.set_num_threads(1)
    seed_everything(0)
    context = tiny.context(readout)
    return tiny.STRATEGIES[name].prepare(tiny.base(family), context, tiny.options(name)), context


def driven(steps: int, monkeypatch: pytest.MonkeyPatch, *cell: str) -> Counter[str]:
    """Reads of a training of so many steps."""
    plan, context = prepared(*cell)
    meter = Meter(Budget(train_examples=tiny.BATCH * steps))
    meter.watch(plan.seen)
    with monkeypatch.context() as patch, Reads(patch) as reads:
        done = adapt(plan, context, meter)
    meter.unwatch()
    assert len(done.losses) == len(meter.steps) == steps and all(step.tokens > 0 for step in meter.steps)
    return reads.found


@pytest.mark.parametrize(
    "cell",
    [("full", "tiny-llama", "verbalizer"), ("lora", "tiny-bert", "head"), ("full", "tiny-t5", "verbalizer")],
    ids="-".join,
)
def test_nothing_is_read_between_two_intervals(cell: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty more steps are two more readings of losses and two of tokens, and nothing else is read."""
    few, many = (driven(n * READ_EVERY, monkeypatch, *cell) for n in (1, 3))
    for found in (few, many):
        found.pop(HOST, None)
    assert many - few == Counter({"loop.py": 2, "budget.py": 2})
    assert few["budget.py"] == 1 and set(few) == {"loop.py", "budget.py"}
    assert few["loop.py"] <= 1 + len(cell[0]), "the losses, and until the first gradient that is not zero"


class Card:
    """Stands in for a card that is half a second behind with every step it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given = self.waited = self.held = 0
        card = self

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                assert enable_timing

            def record(self) -> None:
                card.given += 1
                self.at = card.given * 0.5

            def synchronize(self) -> None:
                card.waited += 1

            def elapsed_time(self, other: Event) -> float:
                return (other.at - self.at) * 1000

        def synchronize() -> None:
            self.held += 1

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "synchronize", synchronize)


def on_card(steps: int, **axis: float) -> Meter:
    """A meter of a card after steps that a model on the CPU took."""
    meter, model = Meter(Budget(**(axis or {"train_examples": 99})), device="cuda"), tiny.base("tiny-gpt2").module
    meter.watch([model])
    ids, mask = torch.full((2, 6), 9), torch.tensor([[1] * 6, [1] * 2 + [0] * 4])
    for _ in range(steps):
        meter.affords(meter.cost(2, 8, (2, 0, 6)))
        with meter.step((2, 0, 6), 2):
            model(input_ids=ids, attention_mask=mask)
    meter.unwatch()
    return meter


def test_a_cards_seconds_are_read_once_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events stand around every step; nobody waits for them before ten steps were given, and all are right then."""
    card = Card(monkeypatch)
    meter = on_card(READ_EVERY - 1)
    assert (card.given, card.waited, card.held) == (2 * (READ_EVERY - 1), 0, 0)
    assert [step.seconds for step in meter.steps] == [0.5] * (READ_EVERY - 1) and card.waited == READ_EVERY - 1
    assert meter.seconds == 0.5 * (READ_EVERY - 1) and meter.tokens == 8 * (READ_EVERY - 1)
    assert meter.throughput() == 16 and [step.tokens for step in meter.steps] == [8] * (READ_EVERY - 1)
    card.waited = 0
    meter = on_card(READ_EVERY)
    assert card.waited == READ_EVERY, "the interval is over"
    both = Meter()
    both.absorb(meter)
    assert both.seconds == meter.seconds == 0.5 * READ_EVERY and both.tokens == 8 * READ_EVERY


def test_where_seconds_bind_each_step_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the next step costs must be known before it is taken: the host's clock on both sides of a wait."""
    card = Card(monkeypatch)
    meter = on_card(3, train_seconds=1e9)
    assert (card.given, card.held) == (0, 6) and all(step.seconds > 0 for step in meter.steps)


def spoilt(plan: Plan, at: int, fails: int | None = None) -> list[int]:
    """The loss is not a number at this step, and at another the model fails; steps begun, filled as it trains."""
    inner, begun = plan.loss, [0]
    assert inner is not None

    def loss(batch: Any, labels: torch.Tensor) -> torch.Tensor:
        begun[0] += 1
        if begun[0] == fails:
            raise ValueError("probabilities are not finite")
        return inner(batch, labels) * (float("nan") if begun[0] == at else 1.0)

    plan.loss = loss
    return begun


def test_the_first_loss_that_is_not_finite_is_named() -> None:
    """Weights are not numbers after it, so later losses are not either; it is noticed when the interval ends."""
    plan, context = prepared("full", "tiny-llama", "verbalizer")
    begun, meter = spoilt(plan, 4), Meter(Budget(train_examples=tiny.BATCH * 30))
    training = Training(plan, context, meter)
    with pytest.raises(Diverged, match="the loss was nan at step 4: lower the learning rate"):
        training.until(1.0)
    assert begun == [READ_EVERY] and len(training.done.losses) == 3


def test_it_is_noticed_at_a_halt_too() -> None:
    """A halted training is asked and stored, so nothing stays unread."""
    plan, context = prepared("full", "tiny-llama", "verbalizer")
    spoilt(plan, 2)
    with pytest.raises(Diverged, match="at step 2"):
        Training(plan, context, Meter(Budget(train_examples=tiny.BATCH * 30))).until(0.1)


@pytest.mark.parametrize(("at", "raises", "words"), [(2, Diverged, "at step 2"), (99, ValueError, "are not finite")])
def test_what_fails_after_it_failed_because_of_it(at: int, raises: type[Exception], words: str) -> None:
    """Drawing from probabilities that are not numbers raises; the outcome is still that it diverged."""
    plan, context = prepared("full", "tiny-llama", "verbalizer")
    spoilt(plan, at, fails=5)
    with pytest.raises(raises, match=words):
        Training(plan, context, Meter(Budget(train_examples=tiny.BATCH * 30))).until(1.0)
