"""Prompt chaining: one prompt's output feeds the next, and the last one is answered."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.config.chain import TASK_PROMPT, Step
from bench.config.schema import Task
from bench.errors import UserFault, unknown
from bench.space import Choice, Space
from bench.strategy import Needs, Options, Plan, Strategy, TaskContext

from .zero_shot import nothing

if TYPE_CHECKING:
    from bench.models.base import Base

EXPLAIN = Step(
    name="notes",
    pattern="Explain in one sentence what matters for the answer.\n\n{task_prompt}\n\nExplanation:",
)


class PromptChainOptions(Options):
    """Options of `prompt_chain`."""

    chain: tuple[Step, ...] = Field((EXPLAIN,), min_length=1)
    """Prompts in their order; what each writes is a field of those after it. Places are the task's fields, earlier
    outputs, and `task_prompt`, the task's own prompt of the row."""
    answer: str | None = None
    """Pattern of the last prompt, which is answered as the task's own is; None: the last output and the task's own
    prompt below it."""
    template: int = Field(0, ge=0)
    """Which of the task's templates is its own prompt, from 0."""


class PromptChain(Strategy):
    """Nothing is trained and no label is read; intermediate outputs are written greedily (Wu et al. 2022)."""

    family = "prompting"
    trains = "nothing"
    parameters = "0"
    memory = "the weights and the keys and values of prompt and output; no gradients"
    paper = "Wu et al. 2022, AI Chains: Transparent and Controllable Human-AI Interaction by Chaining LLM Prompts"
    needs = Needs(kinds=frozenset(("causal",)), train_labels=0, labels=True, writes=True)
    readouts = ("verbalizer",)
    Options = PromptChainOptions

    def seeded(self, options: Any) -> bool:
        return False

    def spends(self, options: Any) -> bool:
        return False  # nothing trains

    def space(self, options: PromptChainOptions, task: Task) -> Space:
        """The template."""
        return {"template": Choice(tuple(range(len(task.templates))))}

    def check(self, name: str, task: str, of: Task, options: PromptChainOptions) -> None:
        """Every place must be known where it stands, every output new and read by a later prompt."""
        where, known, last = f"strategies.{name}.chain", {*of.prompt_fields, TASK_PROMPT}, answer_of(options)
        for number, step in enumerate(options.chain):
            place = f"{where}.{number} on task '{task}'"
            if step.name in known or step.name in of.fields:
                raise UserFault(
                    f"{place}: the output is called '{step.name}', which is a field already; allowed: a new name"
                )
            stray(f"{place}: field in the pattern:", step.pattern, known)
            later = [one.pattern for one in options.chain[number + 1 :]] + [last]
            if not any(f"{{{step.name}}}" in pattern for pattern in later):
                raise UserFault(f"{place}: no later prompt holds {{{step.name}}}, so nothing would come of that output")
            known.add(step.name)
        stray(f"strategies.{name}.answer on task '{task}': field in the pattern:", last, known)

    def prepare(self, base: Base, context: TaskContext, options: PromptChainOptions) -> Plan:
        from dataclasses import replace

        from bench.score.chains import Chained
        from bench.score.readers import VerbalizerReader, make_reader

        context = context.with_template(options.template)
        # what the chain adds comes on top of a row's own text, as demonstrations do
        patterns = [*(step.pattern for step in options.chain), answer_of(options)]
        added = sum(step.tokens for step in options.chain)
        added += max(len(base.tokenizer(pattern)["input_ids"]) for pattern in patterns)
        reader = make_reader(base, replace(context, sequence=context.sequence + added))
        assert isinstance(reader, VerbalizerReader)
        answer = Chained(base.module, reader, tuple(options.chain), answer_of(options))
        return Plan(answer=answer, save=nothing, load=nothing, seen=[base.module], labels_used=0)


def answer_of(options: PromptChainOptions) -> str:
    """The last prompt's pattern."""
    return options.answer or f"{{{options.chain[-1].name}}}\n\n{{{TASK_PROMPT}}}"


def stray(kind: str, pattern: str, known: set[str]) -> None:
    """Raise `UserFault` for a place that holds nothing there."""
    for place in re.findall(r"\{(\w+)\}", pattern):
        if place not in known:
            raise unknown(kind, place, known)


strategy = PromptChain()
