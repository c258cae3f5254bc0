"""An independent scorer: a reward model of its own, trained on pairs that no cell sees, judges what policies write.

A policy learns to please the reward it is trained by, right or wrong (Gao et al. 2023, reward overoptimisation): what
it gained is told by a scorer that learned from other pairs. It is trained once for a model and a task and kept.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.budget import Meter
from bench.config.schema import Budget
from bench.config.task import ANSWERS
from bench.data.rows import Rows
from bench.models.base import Base
from bench.strategy import Plan, Strategy, TaskContext
from bench.train.loop import adapt

SEED = 1_000_003
"""Of the scorer: no cell's."""
STRATEGY = "reward_model"
FEWEST_TEXTS = 3
"""Texts a word must stand in to be one of the topic's."""
BALANCE = 0.25
"""A word that stands in preferred texts less or more often than in this share and the rest judges; it is no topic."""


@dataclass
class Scorer:
    """A reward model of its own, and what its pairs are about."""

    plan: Plan
    accuracy: float
    """On the task's test pairs, which it has not seen either."""
    topic: frozenset[str]
    """Words of the task's texts that judge nothing."""
    pairs: int
    """Pairs it learned from."""

    def rewards(self, rows: Sequence[dict[str, str]], texts: Sequence[Sequence[str]], meter: Meter) -> np.ndarray:
        """Float64 (rows, 2): of two texts to the prompt of each row, both as numbers of one scale."""
        pairs = [{**row, **dict(zip(ANSWERS, both, strict=True))} for row, both in zip(rows, texts, strict=True)]
        return self.plan.answer.predict(pairs, meter)

    def on_topic(self, text: str) -> bool:
        """Whether a text names anything the task's texts are about."""
        return bool(self.topic & set(words(text)))


def scorer_of(
    strategy: Strategy, base: Base, context: TaskContext, test: Rows, folder: Path, examples: int, meter: Meter
) -> Scorer:
    """The scorer that learns from the pairs of `context`, kept in `folder`: trained where it is not there."""
    plan = strategy.prepare(base, context, strategy.Options())
    assert plan.load is not None
    if not folder.is_dir():
        learning = Meter(Budget(labels=len(context.train), train_examples=examples), context.device, tick=meter.tick)
        learning.watch(plan.seen)
        adapt(plan, context, learning)
        learning.unwatch()
        keep(plan, folder)
    plan.load(folder)
    meter.watch(plan.seen)
    scores = plan.answer.predict(test.fields, meter)
    right = float((scores.argmax(-1) == np.asarray(test.labels)).mean())
    return Scorer(plan, right, topic_words(context.train), len(context.train))


def keep(plan: Plan, folder: Path) -> None:
    """Store it whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        plan.save(made)
        made.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def topic_words(rows: Rows) -> frozenset[str]:
    """Words that stand in at least three texts, and about as often in preferred ones as in the others: what is talked
    of, not what is thought of it."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for fields, label in zip(rows.fields, rows.labels, strict=True):
        counts[0].update(set(words(fields[ANSWERS[label]])))
        counts[1].update(set(words(fields[ANSWERS[1 - label]])))
    found = set()
    for word in counts[0].keys() | counts[1].keys():
        both = counts[0][word] + counts[1][word]
        if both >= FEWEST_TEXTS and BALANCE <= counts[0][word] / both <= 1 - BALANCE:
            found.add(word)
    return frozenset(word for word in found if len(word) > 2 and word not in ENGLISH_STOP_WORDS)


def words(text: str) -> list[str]:
    """Lower-case words of letters."""
    return re.findall(r"[a-z]+", text.casefold())
