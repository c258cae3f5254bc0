"""Zero-shot prompting: the base model answers the prompt as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.config.schema import Task
from bench.space import Choice, Space
from bench.strategy import Answerer, Needs, Options, Plan, Strategy, TaskContext, Unsupported

if TYPE_CHECKING:
    from bench.models.base import Base


class ZeroShotOptions(Options):
    """Options of `zero_shot`."""

    calibrate: bool = False
    """Contextual calibration (Zhao et al. 2021)."""
    template: int = Field(0, ge=0)
    """Which of the task's templates asks, from 0."""


class ZeroShot(Strategy):
    """Nothing is trained and no label is read."""

    family = "prompting"
    trains = "nothing"
    parameters = "0"
    memory = "the weights and one batch's activations; no gradients"
    paper = "Brown et al. 2020, Language Models are Few-Shot Learners"
    needs = Needs(kinds=frozenset(("causal", "masked", "seq2seq")), train_labels=0)
    readouts = ("verbalizer",)
    Options = ZeroShotOptions

    def seeded(self, options: ZeroShotOptions) -> bool:
        return False

    def spends(self, options: Any) -> bool:
        return False  # nothing trains

    def space(self, options: ZeroShotOptions, task: Task) -> Space:
        """Template and calibration (Zhao et al. 2021)."""
        ways = (False,) if task.spoken else (False, True)
        return {"template": Choice(tuple(range(len(task.templates)))), "calibrate": Choice(ways)}

    def prepare(self, base: Base, context: TaskContext, options: ZeroShotOptions) -> Plan:
        from bench.score.adapted import Calibrated
        from bench.score.readers import make_reader
        from bench.score.replies import answering

        context = context.with_template(options.template)
        if options.calibrate and context.task.spoken:
            raise Unsupported(
                "calibrate divides by what an empty prompt gives each label, and here rows hold the answers"
            )
        answer: Answerer = answering(base.module, make_reader(base, context))
        if options.calibrate:
            answer = Calibrated(answer, context.task.fields)
        return Plan(answer=answer, save=nothing, load=nothing, seen=[base.module], labels_used=0)


def nothing(folder: Path) -> None:
    """The base model is all there is."""


strategy = ZeroShot()
