"""Chain of thought: the model reasons in words before it answers, as demonstrations show it or as it is asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.config.schema import Task
from bench.space import Choice, Space
from bench.strategy import Needs, Options, Plan, Strategy, TaskContext, Unsupported

if TYPE_CHECKING:
    from bench.models.base import Base


class CoTOptions(Options):
    """Options of `cot`."""

    k: int = Field(4, ge=0)
    """Demonstrations with their rationales, the first rows of the labels (Wei et al. 2022: 8). 0: none; "Let's think
    step by step." asks for reasoning instead (Kojima et al. 2022)."""
    samples: int = Field(1, ge=1)
    """Replies a question; the commonest answer counts (self-consistency, Wang et al. 2022: 40)."""
    temperature: float = Field(0.7, gt=0)
    """Of sampling where there are several replies (Wang et al. 2022, section 3.1: 0.5, 0.7); one is the likeliest."""
    template: int = Field(0, ge=0)
    """Which of the task's templates asks, from 0."""


class CoT(Strategy):
    """Rationales in front of answers, in the demonstrations and in the reply (Wei et al. 2022)."""

    family = "prompting"
    trains = "nothing"
    parameters = "0"
    memory = "the weights and the keys and values of prompt and reply; no gradients"
    paper = "Wei et al. 2022, Chain-of-Thought Prompting Elicits Reasoning in Large Language Models"
    needs = Needs(kinds=frozenset(("causal",)), train_labels=0, replies=True)
    readouts = ("verbalizer",)
    Options = CoTOptions

    def spends(self, options: Any) -> bool:
        return False  # nothing trains

    def seeded(self, options: CoTOptions) -> bool:
        return options.k > 0 or options.samples > 1

    def space(self, options: CoTOptions, task: Task) -> Space:
        """Template and demonstrations: reasoning asked for, or shown up to eight times (Wei et al. 2022)."""
        return {"template": Choice(tuple(range(len(task.templates)))), "k": Choice((0, 1, 2, 4, 8))}

    def prepare(self, base: Base, context: TaskContext, options: CoTOptions) -> Plan:
        from bench.score.replies import ReplyReader, Told

        from .few_shot import SaveRows

        context = context.with_template(options.template)
        if options.k > len(context.train):
            raise Unsupported(
                f"k={options.k} demonstrations, but {len(context.train)} labels: raise budget.labels or lower k"
            )
        rows = context.train.take(range(options.k)) if options.k else None
        told = Told(
            base.module,
            ReplyReader(base, context),
            rows,
            reasons=True,
            samples=options.samples,
            temperature=options.temperature if options.samples > 1 else 0.0,
            seed=context.seed,
        )
        told.prefix()  # a task without rationales is told now, not at the first question
        save = SaveRows(rows)
        return Plan(answer=told, save=save, load=save.drawn_again, seen=[base.module], labels_used=options.k)


strategy = CoT()
