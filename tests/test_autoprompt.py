"""AutoPrompt's search: its first-order gains, its exchanges, and the rows it makes."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from tiny import STRATEGIES

from bench.budget import Meter
from bench.config.schema import Budget
from bench.strategy import Plan, Unsupported
from bench.worker import seed_everything

LETTERS = {"negative": "a", "positive": "z"}


def prepared(family: str, **options: Any) -> tuple[Plan, Any]:
    """A plan and its search, on a template whose words are single tokens of the byte tokenizer."""
    torch.set_num_threads(1)
    seed_everything(0)
    template = tiny.task().templates[0].model_copy(update={"verbalizer": LETTERS})
    task = tiny.task().model_copy(update={"templates": [template]})
    plan = STRATEGIES["autoprompt"].prepare(
        tiny.base(family),
        tiny.context("verbalizer", task=task),
        STRATEGIES["autoprompt"].Options.model_validate(options),
    )
    return plan, plan.search


@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama", "tiny-bert"])
def test_gains_are_first_order_falls_of_the_loss(family: str) -> None:
    """Against finite differences: a small step from the trigger's embedding towards a token's changes the loss by that
    much (Shin et al. 2020, equation 2)."""
    _, search = prepared(family, label_words="verbalizer")
    encoded = search.reader.encode(search.context.train.fields)
    rows, position, eps = [0, 1, 2, 3], 1, 1e-2
    meter = Meter(Budget(train_examples=10**6))
    gain = search.gains(encoded, rows, position, meter)
    table = search.base.module.get_input_embeddings().weight.detach()
    present = search.reader.triggers[position]
    batch = search.reader.collate([encoded[i] for i in rows])
    labels = torch.tensor([search.context.train.labels[i] for i in rows])

    def loss_at(shift: torch.Tensor) -> float:
        def move(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
            moved = output.clone()
            moved[torch.arange(len(rows)), batch.extra["first"] + position] += shift
            return moved

        handle = search.base.module.get_input_embeddings().register_forward_hook(move)
        with torch.no_grad():
            value = torch.nn.functional.cross_entropy(search.reader.scores(search.base.module, batch), labels)
        handle.remove()
        return float(value)

    for token in (5, 40, 90):
        step = eps * (table[token] - table[present])
        measured = (loss_at(-step) - loss_at(step)) / (2 * eps)
        # the gradient is averaged over the rows' mean loss, so four rows each carry a quarter: the mean divides once more
        assert float(gain[token] - gain[present]) * len(rows) == pytest.approx(measured, abs=2e-3, rel=0.05)


@pytest.mark.parametrize("family", ["tiny-llama", "tiny-bert"])
def test_a_long_search_exchanges_triggers_and_never_takes_a_worse_one(family: str) -> None:
    """Some trigger is exchanged, the kept one always has the lowest loss of those compared, specials are never taken."""
    plan, search = prepared(family, label_words="verbalizer", candidates=6)
    start = list(search.reader.triggers)
    seen: list[list[float]] = []
    plain = search.loss

    def watched(*arguments: Any) -> float:
        value = plain(*arguments)
        seen.append([value])
        return value

    search.loss = watched
    meter = Meter(Budget(labels=tiny.LABELS, train_examples=1500))
    assert search(meter) == "train_examples"
    assert search.reader.triggers != start and meter.examples <= 1500
    assert not set(search.reader.triggers) & set(search.base.tokenizer.all_special_ids)
    assert len(seen) % 7 == 0 and "searched triggers were exchanged" in plan.notes[-1]


def test_masked_rows_have_one_blank_and_fit_the_context() -> None:
    """Whatever the template's own words: one blank after prompt and triggers, and never more tokens than positions."""
    torch.set_num_threads(1)
    base = tiny.base("tiny-bert")
    context = tiny.context("verbalizer", sequence=base.max_length)
    plan = STRATEGIES["autoprompt"].prepare(base, context, STRATEGIES["autoprompt"].Options())
    search: Any = plan.search
    [encoded] = search.reader.encode([{"text": "word " * 500}])
    batch = search.reader.collate([encoded])
    ids = batch.inputs["input_ids"][0].tolist()
    assert ids.count(base.tokenizer.mask_token_id) == 1 and len(ids) <= base.max_length
    assert ids[batch.extra["positions"][0, 0]] == base.tokenizer.mask_token_id


def test_words_that_begin_alike_are_refused() -> None:
    """The first tokens stand for the labels, so they must differ."""
    with pytest.raises(Unsupported, match="begin with the same token"):
        STRATEGIES["autoprompt"].prepare(
            tiny.base("tiny-gpt2"),
            tiny.context("verbalizer"),
            STRATEGIES["autoprompt"].Options(label_words="verbalizer"),
        )
