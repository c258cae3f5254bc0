"""Instruction tuning: rows of other tasks as instructions with their responses, and the loss of the responses alone.

Every row is put through one of its task's prompt formats, drawn for it by the cell's seed (Wei et al. 2022, FLAN,
section 2.1: ten templates a data set, one of them at random for every example). With demonstrations in front it is
in-context tuning (Chen et al. 2022; Min et al. 2022, MetaICL, section 3). Batches mix all tasks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from bench.config.schema import Template
from bench.config.task import ANSWERS, INPUT, RATIONALE, TARGET
from bench.data.curation import Select, curate
from bench.data.prompts import fill
from bench.data.rows import Rows
from bench.models.base import Base
from bench.score.answers import Answered, AnswerReader
from bench.score.demonstrations import BETWEEN
from bench.score.replies import STEP_BY_STEP, reasoned, spaced
from bench.strategy import Examples, Plan, TaskContext, Unsupported
from bench.train.plans import Reader, Taught, peft_plan


def template_of(source: TaskContext, place: int) -> Template:
    """The prompt format of one row, the same in every pass: drawn by seed among the formats of its task.

    An instruction with an input takes one that names it, one without takes another.
    """
    formats = source.formats or tuple(source.task.templates)
    if source.task.instructs:
        given = bool(source.train.fields[place].get(INPUT))
        # one that fits is always there: the task's own templates name the input and do not
        fitting = [t for t in formats if (INPUT in t.places) == given]
        formats = tuple(fitting or [t for t in source.task.templates if (INPUT in t.places) == given])
    row = source.train.index[place]
    return random.Random(f"instruction {source.seed} {source.name} {row}").choice(formats)


def exchange(source: TaskContext, template: Template, place: int, rationales: bool) -> tuple[str, str]:
    """Instruction and response of one row: a label's word, the preferred answer, or the reply, with its rationale first
    where these are asked for and the row has one."""
    task, fields, label = source.task, source.train.fields[place], source.train.labels[place]
    asked = fill(template, fields)
    if task.kind == "prefer":
        return asked, fields[ANSWERS[label]]
    if task.kind != "generate":
        return asked, template.verbalizer[task.labels[label]]
    if rationales and fields.get(RATIONALE):
        return asked + STEP_BY_STEP, f"{'' if template.chat else ' '}{reasoned(fields)}"
    return asked, spaced(template, fields[TARGET])


@dataclass(frozen=True)
class Instructed(Taught):
    """The rows of all sources, one group: `contexts` are the sources, and one reader encodes every row.

    The loss is `AnswerReader`'s: mean over rows of the mean cross-entropy of a response's tokens, its end included; the
    instruction predicts nothing.
    """

    shown: int = 0
    """Demonstrations in front of every instruction, of the same task."""
    rationales: bool = False
    speaking: dict[tuple[str, bool], AnswerReader] = field(default_factory=dict)
    """The reader of every prompt format met so far."""
    asked: list[Reader] = field(default_factory=list)
    """What reads the cell's own task: it counts what was cut, of training rows too."""

    def examples(self) -> Examples:
        """Every row of every source once."""
        encoded, beside, items = [], [], []
        for source in self.contexts:
            for place in range(len(source.train)):
                others = self.others(source, place)
                encoded.append(self.encoded(source, place, source, others))
                items.append((source.name, source.train.index[place]))
                beside.append([(source.name, source.train.index[other]) for other in others])
        for reader in self.asked[:1]:
            reader.truncated += sum(spoken.truncated for spoken in self.speaking.values())
        return Examples(encoded, [0] * len(encoded), items, beside if self.shown else [])

    def reread(self, context: TaskContext, rows: Rows) -> Examples:
        """Rows of the cell's own task as instructions, behind demonstrations of its labels: for a planted leak."""
        source, pool = replace(context, train=rows), range(min(self.shown, len(context.train)))
        encoded = [self.encoded(source, place, context, pool) for place in range(len(rows))]
        return Examples(encoded, [0] * len(rows), [(context.name, row) for row in rows.index])

    @property
    def reader(self) -> AnswerReader:
        """The one that collates and gives the loss."""
        [only] = self.readers
        assert isinstance(only, AnswerReader)
        return only

    def others(self, source: TaskContext, place: int) -> list[int]:
        """Which rows of its task are shown before one: drawn by seed, never itself."""
        if not self.shown:
            return []
        rest = [other for other in range(len(source.train)) if other != place]
        row = source.train.index[place]
        return random.Random(f"demonstrations {source.seed} {source.name} {row}").sample(rest, self.shown)

    def demonstrated(self, pool: TaskContext, template: Template, other: int) -> str:
        """A row as it stands in front of another, in the same format (an instruction in one that fits its input).

        In a chat both are one turn, so the response needs a space of its own.
        """
        template = template_of(pool, other) if pool.task.instructs else template
        asked, told = exchange(pool, template, other, self.rationales)
        gap = " " if template.chat and not template.pattern[-1:].isspace() else ""
        return asked + gap + told + BETWEEN

    def encoded(self, source: TaskContext, place: int, pool: TaskContext, others: Sequence[int]) -> Answered:
        """One instruction with its response, behind `others` of `pool`, tokenised apart as few-shot prompts are.

        Raises `Unsupported` where it does not fit the model's context.
        """
        template = template_of(source, place)
        key = (template.pattern, template.chat)
        if key not in self.speaking:
            self.speaking[key] = self.reader.through(template)
        reader = self.speaking[key]
        asked, told = exchange(source, template, place, self.rationales)
        one = reader.answered(asked, [told])
        before = [self.demonstrated(pool, template, other) for other in others]
        if before:
            ids = [*reader.bos, *reader.tokens("".join(before)), *one.ids[len(reader.bos) :]]
            one = replace(one, ids=ids)
            limit = reader.base.max_length
            if limit is not None and one.length > limit:
                raise Unsupported(
                    f"{len(before)} demonstrations, an instruction and its response are {one.length} tokens, and the "
                    f"model's context is {limit}: use fewer demonstrations (strategies.<name>.k)"
                )
        return one


def instruction_plan(
    base: Base,
    context: TaskContext,
    options: Any,
    answers: Callable[[nn.Module, Reader], Any],
    *,
    shown: int = 0,
    rationales: bool = False,
    sifted: bool = False,
    select: Select = "drawn",
    n: int | None = None,
) -> Plan:
    """Train low-rank factors on the sources of `context`, on no label of its own task, and answer that by `answers`.

    Raises `Unsupported` where the sources hold too few rows, or not what the options ask for.
    """
    from peft import LoraConfig

    sources, curated = taken(context, sifted, select, n)
    check(sources, shown, rationales)
    reader = AnswerReader(base, context)
    taught = Instructed(sources, [reader], shown, rationales)

    def answered(module: nn.Module, asked: Reader) -> Any:
        taught.asked.append(asked)
        return answers(module, asked)

    config = LoraConfig(r=options.r, lora_alpha=options.lora_alpha, target_modules=options.target_modules)
    plan = peft_plan(base, context, config, options.lr, taught=taught, answers=answered)
    plan.labels_used, plan.curated = 0, curated
    types = ", ".join(f"{s.name} ({s.task.type or 'a type of its own'}, {len(s.train)} rows)" for s in sources)
    plan.notes += [f"Trained on no task of type {context.task.type or context.name}, but on {types}."]
    plan.notes += [f"{one.how}." for one in curated]
    return plan


def taken(context: TaskContext, sifted: bool, select: Select, n: int | None) -> tuple[list[TaskContext], list[Any]]:
    """The sources with the rows that are trained on, and how these came about. Raises `Unsupported` where nothing can
    be filtered or chosen."""
    if (sifted or select == "chosen") and not any(source.task.instructs for source in context.sources):
        raise Unsupported(
            "sift and select=chosen judge instructions, and no source holds any (kind generate with a column "
            "'instruction', or 'messages'): choose such a source, or use sift=false and select=drawn"
        )
    sources, curated = [], []
    for source in context.sources:
        try:
            rows, how = curate(source.name, source.task, source.train, context.seed, sifted=sifted, select=select, n=n)
        except ValueError as error:
            raise Unsupported(f"{source.name}: {error}: lower strategies.<name>.n or raise budget.labels") from None
        sources.append(replace(source, train=rows))
        curated += [how] if how is not None else []
    return sources, curated


def check(sources: Sequence[TaskContext], shown: int, rationales: bool) -> None:
    """Raise `Unsupported` where there is nothing to train on, to show or to reason by."""
    if not any(len(source.train) for source in sources):
        raise Unsupported("its sources have no labelled row to train on: raise budget.labels")
    for source in sources:
        if 0 < len(source.train) <= shown:
            raise Unsupported(
                f"{source.name} has {len(source.train)} rows, too few to show {shown} before each: raise budget.labels "
                "or lower k"
            )
    if rationales and not any(fields.get(RATIONALE) for source in sources for fields in source.train.fields):
        raise Unsupported(
            "rationales=true trains on reasoning, and no source holds any: choose one of kind generate with a column "
            "'rationale', or use rationales=false"
        )
