"""Prompt-format variance: a finished cell asked about the same items in many prompt formats.

Formats vary as in Sclar et al. 2024 (section 3), demonstrations and their order as in Zhao et al. 2021 (section 3) and
Lu et al. 2022; every format is read with and without contextual calibration (Zhao et al. 2021, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bench.budget import Meter
from bench.config.probes import FormatProbe
from bench.config.schema import Template
from bench.data.formats import Format, sample
from bench.data.rows import Rows, limited
from bench.probed import FormatAnswer, FormatFindings
from bench.score.adapted import Calibrated, blank, unbiased
from bench.stats.metrics import chance, value
from bench.strategy import Answerer, Plan, TaskContext, Unsupported


def ask(plan: Plan, context: TaskContext, test: Rows, asked: FormatProbe, meter: Meter) -> FormatFindings:
    """Ask a finished plan about the first `asked.items` of the test rows in `asked.number` formats.

    Format 0 is the task's own first template, with the cell's own demonstrations where it has some. `meter` watches
    `plan.seen`; forwards are rows it saw (None where it watches nothing). One pass over items and content-free rows
    gives both the plain and the calibrated answers; calibration is of label words, so a head has none.

    Raises:
        Unsupported: the cell reads no prompt (an encoder's head).
        UserFault: the task's material makes fewer formats.
        Diverged: scores are not finite.
    """
    rows, own = limited(test, asked.items), context.task.templates[0]
    chat = speaks(plan.answer.through(own), own)
    notes = [] if chat else ["the model has no chat template: formats that are turns of a chat were left out"]
    formats = sample(context.task, asked.number, asked.seed, chat)
    asking = Asking(plan, context, rows, meter, notes)
    draws = asked.demonstrations if plan.redrawn is not None else 1
    answers = [asking.answer(written, draw) for draw in range(draws) for written in formats]
    found = sorted((a for a in answers if a is not None), key=lambda a: (a.number, a.demonstrations or 0))
    return FormatFindings(
        metric=context.task.metric,
        items=rows.index,
        chance=chance(context.task.metric, rows.labels, positive(context)),
        answers=found,
        calibrates=isinstance(plan.answer, Calibrated),
        plain_forwards=asking.plain or None,
        forwards=asking.forwards or None,
        notes=list(dict.fromkeys(notes)),
    )


def speaks(answer: Answerer, own: Template) -> bool:
    """Whether the model can be asked in turns of a chat."""
    try:
        answer.through(own.model_copy(update={"chat": True}))
    except Unsupported:
        return False
    return True


def positive(context: TaskContext) -> int:
    """Position of the label F1 is computed for."""
    task = context.task
    return task.labels.index(task.positive) if task.positive else len(task.labels) - 1


@dataclass
class Asking:
    """One cell being asked, and what that took."""

    plan: Plan
    context: TaskContext
    rows: Rows
    meter: Meter
    notes: list[str]
    forwards: int = 0
    """Rows forwarded so far."""
    plain: int = 0
    """Of them those of the task's own format with the cell's own demonstrations, content-free rows apart."""
    drawn: dict[int, Answerer] = field(default_factory=dict)

    def answerer(self, draw: int) -> Answerer:
        """With this draw of demonstrations, uncalibrated: the probe does that itself."""
        if draw not in self.drawn:
            answer = self.plan.answer if self.plan.redrawn is None else self.plan.redrawn(draw)
            self.drawn[draw] = answer.inner if isinstance(answer, Calibrated) else answer
        return self.drawn[draw]

    def answer(self, written: Format, draw: int) -> FormatAnswer | None:
        """What is scored in one format; None, with a note, where the model cannot be asked so."""
        try:
            scores, free = self.scores(written, draw)
        except Unsupported as error:
            if written.number == 0 and draw == 0:
                raise
            self.notes.append(f"format {written.number} was not asked: {error}")
            return None
        calibrated = None if free is None else self.scored(unbiased(scores, free))
        plain = self.scored(scores)
        return FormatAnswer(
            number=written.number,
            described=written.described,
            trained_on=self.trained_on(written),
            demonstrations=None if self.plan.redrawn is None else draw,
            scores=plain[0],
            calibrated=calibrated and calibrated[0],
            answers=plain[1],
            calibrated_answers=calibrated and calibrated[1],
        )

    def scores(self, written: Format, draw: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Label scores (items, labels) and those of the content-free rows, from one pass over both."""
        answer = self.answerer(draw).through(written.template)
        free = blank(self.context.task.fields) if self.context.readout == "verbalizer" else []
        before, items = self.meter.rows, len(self.rows)
        scores = answer.predict([*self.rows.fields, *free], self.meter)
        taken = self.meter.rows - before
        self.forwards += taken
        if written.number == 0 and draw == 0:
            self.plain = taken - len(free) * (taken // (items + len(free)))
        if answer.truncated:
            self.notes.append(f"format {written.number}: {answer.truncated} inputs lost their front")
        return scores[:items], scores[items:] if free else None

    def scored(self, scores: np.ndarray) -> tuple[dict[str, float], list[int]]:
        """The task's metric and accuracy of the likeliest labels, and how often each is one."""
        task, predicted = self.context.task, scores.argmax(-1)
        metrics: list[str] = list(dict.fromkeys((task.metric, "accuracy")))
        found: dict[str, float] = {m: value(m, self.rows.labels, predicted, positive(self.context)) for m in metrics}
        counts: list[int] = np.bincount(predicted, minlength=self.context.classes).tolist()
        return found, counts

    def trained_on(self, written: Format) -> bool:
        """Whether the cell learned through this format; one that trains nothing did through none."""
        learns = bool(self.plan.groups) or self.plan.search is not None
        return learns and written.template in (self.context.formats or self.context.task.templates[:1])
