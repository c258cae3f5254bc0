"""Steps of several passes: the gradients are those of one pass over all rows, whatever the padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from tiny import FAMILIES, STRATEGIES

from bench.budget import Meter
from bench.config.schema import Budget, Task, Template
from bench.data.rows import Rows
from bench.score.adapted import scored
from bench.strategy import Examples, Plan, TaskContext
from bench.train.loop import Pass, accumulate, adapt, cut, weight_of
from bench.worker import seed_everything


def prepared(name: str, family: str, readout: str, context: TaskContext) -> Plan:
    """A plan with the same random state every time."""
    torch.set_num_threads(1)
    seed_everything(0)
    return STRATEGIES[name].prepare(tiny.base(family), context, tiny.options(name))


def stepped(plan: Plan, examples: Examples, rows: list[int], micro: int | None) -> tuple[float, list[Pass]]:
    """The loss of one step, whose gradients the plan then holds, and its passes."""
    assert plan.module is not None
    plan.module.eval()  # no dropout: passes of other sizes would draw other masks
    passes, whole = [Pass.of(plan, examples, part) for part in cut(rows, micro)], weight_of(plan, examples, rows)
    parts = accumulate(plan, passes, whole, lambda shape: torch.enable_grad())
    return sum(float(part) for part in parts), passes


def unlike(examples: Examples, number: int = tiny.LABELS) -> list[int]:
    """Rows of very unlike lengths: four of the shortest of so many, and three of the longest."""
    order = sorted(range(number), key=lambda i: examples.lengths[i])
    return [*order[:4], *order[-3:]]


def gradients(name: str, family: str, readout: str, micro: int | None) -> tuple[list[torch.Tensor], float, list[int]]:
    """Gradients of one step over rows of very unlike lengths, its loss, and the padded lengths of its passes."""
    plan = prepared(name, family, readout, tiny.context(readout, sequence=300))
    assert plan.examples is not None
    examples = plan.examples()
    loss, passes = stepped(plan, examples, unlike(examples), micro)
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


def letters() -> Task:
    """The language objective with label words of one token; of longer ones a row is read with each."""
    template = Template(pattern="{text} It was:", verbalizer={"negative": "k", "positive": "q"})
    return tiny.language_task().model_copy(update={"templates": [template]})


OVER_TOKENS = [
    ("full", "tiny-bert", "head", tiny.tag_task),
    ("lora", "tiny-bert", "head", tiny.tag_task),
    ("full", "tiny-gpt2", "verbalizer", tiny.language_task),
    ("lora", "tiny-llama", "verbalizer", tiny.language_task),
    ("full", "tiny-llama", "verbalizer", letters),
    ("prompt_tuning", "tiny-llama", "verbalizer", tiny.language_task),  # predicts a row's first token too
    ("prefix_tuning", "tiny-gpt2", "verbalizer", tiny.language_task),  # and this does not
    ("adalora", "tiny-llama", "verbalizer", tiny.language_task),  # its regulariser is of the whole step
]


@pytest.mark.parametrize(("name", "family", "readout", "task"), OVER_TOKENS)
def test_a_mean_over_words_or_tokens_is_that_of_the_whole_batch(
    name: str, family: str, readout: str, task: Callable[[], Task]
) -> None:
    """Passes of 1 and of 2 rows, weighted by what the loss is a mean over: gradients to 1e-6, the loss to 1e-5."""
    found: list[tuple[float, list[torch.Tensor]]] = []
    for micro in (None, 1, 2):
        plan = prepared(name, family, readout, tiny.context(readout, task=task(), sequence=300))
        assert plan.examples is not None
        examples = plan.examples()
        loss, passes = stepped(plan, examples, unlike(examples), micro)
        grads = [p.grad for g in plan.groups for p in g.params if p.grad is not None]
        found.append((loss, grads))
        assert len({one.weight for one in passes}) > (micro is not None), "rows hold unequally many"
    whole, wanted = found[0]
    largest = max(float(g.abs().max()) for g in wanted)
    for loss, grads in found[1:]:
        assert loss == pytest.approx(whole, abs=1e-5)
        for one, other in zip(grads, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * max(1.0, largest))


def test_a_row_without_words_adds_nothing() -> None:
    """Nor is the mean over its no words, which is no number, told as a loss."""
    fields = [{"text": text, "target": "none"} for text in ("So Ann left.", "", "On and on it went, far on.")]
    given = tiny.context("head", task=tiny.tag_task(), train=Rows(fields, [0] * 3, [0, 1, 2]))
    found = []
    for micro in (None, 1):
        plan = prepared("full", "tiny-bert", "head", given)
        assert plan.examples is not None
        loss, passes = stepped(plan, plan.examples(), [0, 1, 2], micro)
        grads = torch.cat([p.grad.flatten() for g in plan.groups for p in g.params if p.grad is not None])
        found.append(([one.weight for one in passes], loss, grads))
    (_, whole, wanted), (weights, parts, summed) = found
    assert weights == [4, 0, 9] and parts == pytest.approx(whole, abs=1e-5)
    torch.testing.assert_close(summed, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("loss", "weighs"), [("sigmoid", [1, 1, 1, 1]), ("sft", None)])
def test_a_preference_stage_is_over_rows_and_its_control_over_tokens(loss: str, weighs: list[int] | None) -> None:
    """Whatever the first stage is over; the control goes on with the loss it began with."""
    given = tiny.context("verbalizer", task=letters(), sequence=300)
    torch.set_num_threads(1)
    plan = STRATEGIES["dpo"].prepare(tiny.base("tiny-llama"), given, tiny.options("dpo", loss=loss))
    assert plan.examples is not None
    examples = plan.examples()
    first, second = (
        [weight_of(plan, examples, [i]) for i, g in enumerate(examples.groups) if g == n][:4] for n in (0, 1)
    )
    assert first == [length - 1 for length in examples.lengths[:4]]
    assert second == (weighs or first)


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
