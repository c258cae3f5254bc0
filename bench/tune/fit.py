"""One configuration on one fold: adapted bit by bit, asked each time about the labels it never saw."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.budget import Meter
from bench.data.rows import Rows
from bench.score.adapted import normalised
from bench.score.replies import Told
from bench.score.tags import Tagged
from bench.strategy import Options, Plan, TaskContext, Unsupported
from bench.train.loop import Trained, Training
from bench.train.paused import put_down, take_up

Prepare = Callable[[TaskContext, Options], Plan]
"""A plan on a base of its own, every generator seeded: the same arguments give the same plan."""


class Fit:
    """Between two calls of `reach` nothing of it is in memory: a halted training waits in `folder`."""

    def __init__(
        self, prepare: Prepare, context: TaskContext, held: Rows, options: Options, spends: Meter, folder: Path
    ) -> None:
        self.prepare, self.context, self.held, self.options = prepare, context, held, options
        self.meter, self.folder = spends, folder
        self.asked = Meter(None, spends.device)
        """What asking cost."""
        self.trained: Trained | None = None
        self.scores: list[np.ndarray] = []
        self.ended = False

    def reach(self, share: float) -> list[float]:
        """Log-likelihoods, nats, of held-out labels (or of the texts and entities to be written) once `share` of the
        budget is spent.

        A plan that trains is asked about all of them. One that does not is asked about this share of them: asking is
        what it spends. A search has no halts and is carried out whole. Raises what the strategy raises.
        """
        if not self.ended or not self.scores:
            plan = self.prepare(self.context, self.options)
            rows = self.held
            if plan.groups:
                self.train(plan, share)
                self.scores = []
            elif plan.search is not None:
                self.meter.watch(plan.seen)
                plan.search(self.meter)
                self.meter.unwatch()
                self.ended = True
            else:
                upto = math.ceil(share * len(self.held))
                rows = self.held.take(range(sum(map(len, self.scores)), upto))
                self.ended = upto == len(self.held)
            if len(rows):
                self.asked.watch(plan.seen)
                self.scores.append(self.judged(plan, rows))
                self.asked.unwatch()
        scores = np.concatenate(self.scores)
        if self.context.task.kept:
            return [float(one) for one in scores[:, 0]]
        return likelihoods(scores, self.held.labels)

    def judged(self, plan: Plan, rows: Rows) -> np.ndarray:
        """Scores of labels, (rows, labels); log-likelihoods of what should be written, (rows, 1). Raises `Unsupported`
        for an answer that has none."""
        if not self.context.task.kept:
            return plan.answer.predict(rows.fields, self.asked)
        if not isinstance(plan.answer, Told | Tagged):
            raise Unsupported("its answers have no likelihood, by which trials are judged: use lora or full")
        return plan.answer.likelihoods(rows.fields, self.asked)

    def train(self, plan: Plan, share: float) -> None:
        """From where it was halted to `share`, and halted there again."""
        training = Training(plan, self.context, self.meter)
        if self.trained is not None:
            take_up(training, self.trained, self.folder)
        self.meter.watch(plan.seen)
        self.ended = training.until(share)
        self.meter.unwatch()
        self.trained = training.done
        if self.ended:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        put_down(training, self.folder)
        if plan.pause is not None:
            plan.pause()


def likelihoods(scores: np.ndarray, labels: list[int]) -> list[float]:
    """Log-probability over the labels of the right one, for as many rows as have scores, (rows, labels)."""
    return [float(row[label]) for row, label in zip(normalised(scores), labels, strict=False)]
