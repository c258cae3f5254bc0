"""Steps of several passes: the gradients are those of one pass over all rows, whatever the padding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from tiny import FAMILIES, STRATEGIES

from bench.budget import Meter
from bench.config.schema import Budget
from bench.score.adapted import scored
from bench.strategy import Plan, TaskContext
from bench.train.loop import Pass, accumulate, adapt, cut
from bench.worker import seed_everything


def prepared(name: str, family: str, readout: str, context: TaskContext) -> Plan:
    """A plan with the same random state every time."""
    torch.set_num_threads(1)
    seed_everything(0)
    return STRATEGIES[name].prepare(tiny.base(family), context, tiny.options(name))


def gradients(name: str, family: str, readout: str, micro: int | None) -> tuple[list[torch.Tensor], float, list[int]]:
    """Gradients of one step over rows of very unlike lengths, its loss, and the padded lengths of its passes."""
    plan = prepared(name, family, readout, tiny.context(readout, sequence=300))
    assert plan.examples is not None and plan.module is not None
    plan.module.eval()  # no dropout: passes of other sizes would draw other masks
    examples = plan.examples()
    order = sorted(range(tiny.LABELS), key=lambda i: examples.lengths[i])
    rows = [*order[:4], *order[-3:]]
    passes = [Pass.of(plan, examples, part) for part in cut(rows, micro)]
    loss = sum(float(part) for part in accumulate(plan, passes, len(rows), lambda shape: torch.enable_grad()))
    found = [p.grad for g in plan.groups for p in g.params]
    assert all(g is not None for g in found)
    return [g for g in found if g is not None], loss, [p.batch.padded for p in passes]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("name", "readout"),
    [("full", "verbalizer"), ("full", "head"), ("lora", "verbalizer"), ("adapter", "head"), ("adalora", "verbalizer")],
)
def test_accumulated_gradients_are_those_of_the_whole_batch(name: str, readout: str, family: str) -> None:
    """Seven rows at once, and in passes of 3, 3 and 1: equal to 1e-6 of the largest gradient, and so is the loss."""
    if family == "tiny-bert" and name == "full" and readout == "head":
        readout = "verbalizer"  # its pooler gets no gradient from this head
    whole, loss, [padded] = gradients(name, family, readout, None)
    parts, again, lengths = gradients(name, family, readout, 3)
    assert len(set(lengths)) > 1 and max(lengths) == padded, "the passes are padded unequally"
    assert again == pytest.approx(loss, abs=1e-6)
    largest = max(float(g.abs().max()) for g in whole)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-6 * max(1.0, largest))


def test_the_loop_spends_the_same_budget_in_passes() -> None:
    """Micro-batches change neither steps, examples, real tokens nor losses (to 1e-5), and cost as many FLOPs a token."""
    done = []
    for micro in (None, 1, 3):
        context = replace(tiny.context("verbalizer", sequence=300), micro_batch=micro)
        plan, meter = prepared("full", "tiny-llama", "verbalizer", context), Meter(Budget(train_examples=tiny.EXAMPLES))
        meter.watch(plan.seen)
        trained = adapt(plan, context, meter)
        meter.unwatch()
        done.append((meter.examples, meter.tokens, len(meter.steps), trained.losses, meter.padded_tokens))
    for one in done[1:]:
        assert one[:3] == done[0][:3]
        np.testing.assert_allclose(one[3], done[0][3], atol=1e-5)
    assert done[1][4] < done[2][4] < done[0][4], "smaller passes hold less padding"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("readout", ["verbalizer", "head"])
def test_scores_hardly_depend_on_the_batch(readout: str, family: str) -> None:
    """Log-probabilities move by at most 1e-5 between one row a batch and all in one (fp32)."""
    plan = prepared("full", family, readout, tiny.context(readout, sequence=300))
    answer = plan.answer
    encoded = answer.reader.encode(tiny.rows().test.fields)  # type: ignore[attr-defined]

    def all_at_once(size: int) -> np.ndarray:
        rows = []
        for start in range(0, len(encoded), size):
            batch = answer.reader.collate(encoded[start : start + size])  # type: ignore[attr-defined]
            with torch.inference_mode():
                rows.append(answer.reader.scores(plan.module, batch).numpy())  # type: ignore[attr-defined]
        return np.concatenate(rows)

    alone = all_at_once(1)
    for size in (2, 3, 8):
        np.testing.assert_allclose(all_at_once(size), alone, atol=1e-5)
    together = scored(
        encoded,
        Meter(),
        lambda part: (b := answer.reader.collate(part), b.shape),
        lambda b: answer.reader.scores(plan.module, b),
    )  # type: ignore[attr-defined]
    np.testing.assert_allclose(together, alone, atol=1e-5)
