"""Every strategy learns: on a tiny task that can be learned its loss falls, on every family of model."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from tiny import FAMILIES, STRATEGIES

from bench.budget import Meter
from bench.config.schema import Budget
from bench.data.rows import Rows
from bench.models.base import Base
from bench.outcomes import refuse_what_is_missing
from bench.strategy import Plan, Unsupported
from bench.train.loop import adapt
from bench.worker import seed_everything

LR = {"full": 3e-3, "selective": 3e-3, "lora": 5e-3, "reward_model": 5e-3, "kto": 5e-3}
"""Tiny random models need larger steps than pretrained ones: 2e-2, and less where most weights move."""
LONGER = {"reward_model": 640}
"""Examples where 160 are too few: no word is better whatever the text is, so a reward gains nothing to first order."""
CELLS = [
    (n, f, r)
    for n in sorted(STRATEGIES)
    for f in FAMILIES
    for r in STRATEGIES[n].readouts
    if "lr" in STRATEGIES[n].Options.model_fields
]


def learnable() -> Rows:
    """Two labels told apart by every letter of the text."""
    texts = [(letter * n, label) for n in (3, 5, 7, 9) for letter, label in (("a", 0), ("z", 1))]
    return Rows([{"text": text} for text, _ in texts], [label for _, label in texts], list(range(len(texts))))


def talkative(family: str) -> Base:
    """A tiny random model with weights four times as large: at 0.02 and a width of 32 a text hardly reaches the answer."""
    base = tiny.base(family)
    with torch.no_grad():
        for parameter in base.module.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return base


def mean_loss(plan: Plan) -> float:
    """Over all rows of the task itself, in evaluation mode; of stages, the first one's: what a later one compares with
    is not there before it begins."""
    assert plan.examples and plan.collate and plan.loss and plan.module is not None
    plan.module.eval()
    examples = plan.examples()
    asked = examples.groups[-1 if plan.enter is None else 0]
    rows = [i for i, group in enumerate(examples.groups) if group == asked]
    with torch.no_grad():
        batch = plan.collate([examples.encoded[i] for i in rows])
        return float(plan.loss(batch, torch.tensor([examples.labels[i] for i in rows])))


@pytest.mark.parametrize(("name", "family", "readout"), CELLS, ids=["-".join(c) for c in CELLS])
def test_the_loss_falls(name: str, family: str, readout: str) -> None:
    """The mean loss over all rows after training lies below the one before; at the end below that of a coin too, where
    the readout starts near one."""
    torch.set_num_threads(1)
    seed_everything(0)
    strategy, base = STRATEGIES[name], talkative(family)
    context = tiny.with_source(name, tiny.context(readout, train=learnable()))
    chosen = tiny.options(name, **({"top_layers": 1} if name == "frozen" else {}))
    rate = LR.get(name, 2e-2)
    update = {key: rate for key in ("lr", "fusion_lr") if key in type(chosen).model_fields}
    try:
        refuse_what_is_missing(strategy, base, context)
        plan = strategy.prepare(base, context, chosen.model_copy(update=update))
    except Unsupported as error:
        pytest.skip(f"unsupported, as it says: {error}")
    before = mean_loss(plan)
    meter = Meter(Budget(labels=8, train_examples=LONGER.get(name, 160)))
    meter.watch(plan.seen)
    losses = adapt(plan, context, meter).losses
    meter.unwatch()
    after = mean_loss(plan)
    assert len(losses) >= 40
    assert after < before - 0.002, (before, after)
    if readout == "head":
        assert after < math.log(2) - 0.01, (before, after)
