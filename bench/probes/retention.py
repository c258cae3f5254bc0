"""What tuning on one task did to others: the same test items asked of the base and of the tuned model.

Instruction and preference tuning pay an "alignment tax" on tasks they were not tuned for (Ouyang et al. 2022, section
4.2); any tuning may forget. Both models answer in the other task's own prompt, item by item, so the change is paired.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bench.data.rows import Rows
from bench.probed import Retained
from bench.score.adapted import Adapted, Calibrated
from bench.score.demonstrations import Demonstrations
from bench.score.readers import VerbalizerReader, make_reader
from bench.score.replies import Told
from bench.stats.metrics import chance
from bench.stats.pairs import paired_change
from bench.strategy import Answerer, TaskContext, Unsupported
from bench.train.policies import ImplicitReward
from bench.train.stages import BestOf, Rewarded

if TYPE_CHECKING:
    from bench.budget import Meter


def elsewhere(answer: Answerer, context: TaskContext) -> Adapted:
    """The adapted model of a cell, whether it scores or writes, reading another task. Raises `Unsupported` where it
    answers by more than a model."""
    inner = answer
    while isinstance(inner, Calibrated | ImplicitReward | Rewarded | BestOf):
        inner = inner.inner
    # a model that learned to read demonstrations is asked without: those of its own task say nothing of another
    if isinstance(inner, Told) or (isinstance(inner, Demonstrations) and inner.trained):
        return Adapted(inner.module, make_reader(inner.reader.base, context))
    if not isinstance(inner, Adapted) or not isinstance(inner.reader, VerbalizerReader):
        raise Unsupported("what it adapts is its own prompt, which says nothing about another task: use lora or full")
    return Adapted(inner.module, make_reader(inner.reader.base, context))


def retained(tuned: Answerer, base: Answerer, context: TaskContext, test: Rows, meter: Meter) -> Retained:
    """Both models' answers to the test items of a task the cell was not tuned for."""
    labels = np.asarray(test.labels)
    before, after = (one.predict(test.fields, meter).argmax(-1) == labels for one in (base, tuned))
    ends = paired_change(before, after)
    return Retained(
        task=context.name,
        items=test.index,
        before=before.tolist(),
        after=after.tolist(),
        chance=chance("accuracy", test.labels),
        low=ends.low,
        high=ends.high,
    )
