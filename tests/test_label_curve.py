"""Budgets of several label counts, and the few-shot options a label curve asks for."""

from __future__ import annotations

import pytest
import tiny
from tiny import STRATEGIES

from bench import plan as planning
from bench.config import load
from bench.config.schema import Budget


def test_a_curve_is_one_budget_a_count_with_epochs_as_examples() -> None:
    """Two passes over each count, smallest first; a count of nothing still has an axis, because none may be zero."""
    found = Budget(curve=[32, 0, 8], epochs=2, memory_gib=4).expanded()
    assert [(b.labels, b.train_examples, b.axis) for b in found] == [
        (0, 1, "train_examples"),
        (8, 16, "train_examples"),
        (32, 64, "train_examples"),
    ]
    assert all(b.memory_gib == 4 and b.curve is None and b.epochs is None for b in found)
    assert Budget(labels=5, train_tokens=7).expanded() == [Budget(labels=5, train_tokens=7)]


def test_what_reads_no_label_runs_once() -> None:
    """`suite=label-curve`: every strategy at every count, zero_shot at the first alone; ids differ."""
    jobs = planning.make(load(["suite=label-curve", "data.source=sample", "model=random:tiny-gpt2"])).jobs
    counts = {
        name: [j.cell.budget["labels"] for j in jobs if j.cell.strategy == name] for name in ("zero_shot", "lora")
    }
    assert counts == {"zero_shot": [0], "lora": [0, 8, 32, 128, 512, 2048]}
    assert len({job.cell.id for job in jobs}) == len(jobs)


def shown(**options: object) -> tuple[list[int], list[int], int | None]:
    """Row numbers, labels shown and labels read of a few-shot cell."""
    context = tiny.context("verbalizer")
    strategy = STRATEGIES["few_shot"]
    plan = strategy.prepare(tiny.base("tiny-gpt2"), context, strategy.Options.model_validate(options))
    rows = plan.answer.rows  # type: ignore[attr-defined]
    return rows.index, rows.labels, plan.labels_used


def test_all_labels_may_be_shown() -> None:
    """`k: all` follows the label budget."""
    index, labels, used = shown(k="all")
    train = tiny.context("verbalizer").train
    assert sorted(index) == sorted(train.index) and used == len(train) == tiny.LABELS
    assert labels == [train.labels[train.index.index(i)] for i in index]


def test_random_labels_change_the_labels_and_not_the_texts() -> None:
    """The control shows the same rows in the same order, and at least one other label."""
    gold, control = shown(k="all"), shown(k="all", demonstration_labels="random")
    assert gold[0] == control[0] and gold[1] != control[1] and set(control[1]) <= {0, 1}
    assert shown(k="all", demonstration_labels="random") == control, "the seed decides"


@pytest.mark.parametrize("k", [0, -1, True, 2.5])
def test_k_is_a_count_or_all(k: object) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="k"):
        STRATEGIES["few_shot"].Options.model_validate({"k": k})


def test_an_override_replaces_the_curve_and_the_other_way() -> None:
    """One count where the suite has a curve, and a curve where the suite has one count."""
    assert load(["suite=label-curve", "budget.labels=16"]).suite.budget.expanded() == [
        Budget(labels=16, train_examples=32)
    ]
    curve = load(["suite=smoke", "budget.curve=[8,16]"]).suite.budget
    assert [b.labels for b in curve.expanded()] == [8, 16] and curve.axis == "train_examples"
