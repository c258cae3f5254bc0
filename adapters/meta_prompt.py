"""Automatic prompt engineering: the model writes the instruction, and the best on validation labels is kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.config.schema import Task
from bench.space import Choice, Space
from bench.strategy import Needs, Options, Plan, Strategy, TaskContext, Unsupported

if TYPE_CHECKING:
    from bench.budget import Meter
    from bench.data.rows import Rows
    from bench.models.base import Base
    from bench.score.instructed import Instructed
    from bench.score.readers import VerbalizerReader


class MetaPromptOptions(Options):
    """Options of `meta_prompt`."""

    candidates: int = Field(8, ge=1)
    """Instructions the model writes (Zhou et al. 2023, section 4: 50); the task's prompt without one competes too."""
    demonstrations: int = Field(5, ge=1)
    """Labelled rows it is shown (Zhou et al. 2023, section 4.1: five)."""
    tokens: int = Field(32, ge=1, le=256)
    """Most tokens of an instruction."""
    temperature: float = Field(0.9, gt=0)
    """Of sampling them."""
    template: int = Field(0, ge=0)
    """Which of the task's templates the instructions stand above, from 0."""


@dataclass
class Candidate:
    """One instruction and how it did on the validation rows."""

    instruction: str
    """Empty: the task's own prompt."""
    right: int = 0
    of: int = 0
    """Validation rows it was asked about."""
    log_probability: float = 0.0
    """Of the right labels, nats, summed over those rows."""

    @property
    def rank(self) -> tuple[float, float]:
        """What the largest of is kept: the share of right answers, then how sure they were."""
        return (self.right / self.of, self.log_probability / self.of) if self.of else (-1.0, 0.0)

    @property
    def score(self) -> str:
        """In words."""
        return f"{self.right} of {self.of} right" if self.of else "not asked"


class MetaPrompt(Strategy):
    """Samples instructions from a few demonstrations and keeps the one of the highest execution accuracy on held-out
    labels (Zhou et al. 2023, sections 3.1 and 3.2), without their resampling around the best."""

    family = "prompting"
    trains = "nothing; the instruction is written by the model and chosen on labels"
    parameters = "0"
    memory = "the weights and the keys and values of prompt and instruction; no gradients"
    paper = "Zhou et al. 2023, Large Language Models Are Human-Level Prompt Engineers"
    needs = Needs(kinds=frozenset(("causal",)), train_labels=2, labels=True, writes=True)
    readouts = ("verbalizer",)
    Options = MetaPromptOptions

    def space(self, options: MetaPromptOptions, task: Task) -> Space:
        """The template."""
        return {"template": Choice(tuple(range(len(task.templates))))}

    def prepare(self, base: Base, context: TaskContext, options: MetaPromptOptions) -> Plan:
        from bench.models.parts import freeze
        from bench.score.adapted import Adapted
        from bench.score.instructed import Instructed
        from bench.score.readers import make_reader
        from bench.score.replies import Told, answering

        context, k = context.with_template(options.template), options.demonstrations
        if k >= len(context.train):
            raise Unsupported(
                f"demonstrations={k} leave none of {len(context.train)} labels to choose an instruction on: raise "
                "budget.labels or lower demonstrations"
            )
        if context.task.kept:
            raise Unsupported(
                f"an instruction is chosen by right answers, and {context.name} has {context.task.metric}: use "
                "few_shot, which shows what is wanted"
            )
        freeze(base.module)
        plain = answering(base.module, make_reader(base, context))
        assert isinstance(plain, Adapted | Told)
        answer = Instructed(plain, context.task.templates[0])
        plan = Plan(answer=answer, save=nothing_yet, seen=[base.module], labels_used=0)
        search = Search(context, options, answer, plan)
        plan.search, plan.save, plan.load = search, search.save, search.load
        return plan


def nothing_yet(folder: Path) -> None:
    """Replaced by the search's own."""


@dataclass
class Search:
    """Write instructions, then score all of them on the validation rows, batch by batch, until the budget is spent."""

    context: TaskContext
    options: MetaPromptOptions
    answer: Instructed
    plan: Plan
    candidates: list[Candidate] = field(default_factory=lambda: [Candidate("")])
    wrote: bool = False
    """Whether the demonstrations have been read."""

    def __post_init__(self) -> None:
        from bench.score.chat import around, speaks
        from bench.score.instructed import asking

        context, reader = self.context, self.reader
        self.shown, self.held_out = split(context, self.options.demonstrations)
        # a model tuned to follow requests is asked as one: in a turn of its chat, whatever the task's own prompt is
        before, after = around(reader.base) if speaks(reader.base) else (reader.bos, reader.eos)
        asked = reader.tokens(asking(context.task, self.answer.template, self.shown))
        self.prompt = [*before, *asked, *after]
        limit, most = reader.base.max_length, self.options.tokens
        if limit is not None and len(self.prompt) + most > limit:
            raise Unsupported(
                f"{len(self.shown)} demonstrations take {len(self.prompt)} tokens, which with an instruction of {most} "
                f"do not fit the model's context of {limit}: lower demonstrations"
            )

    @property
    def reader(self) -> VerbalizerReader:
        """What reads the task's own prompt."""
        reader: Any = self.answer.plain.reader
        return reader

    def __call__(self, meter: Meter) -> str:
        assert meter.budget is not None
        self.answer.plain.module.eval()
        ended = "converged"
        for number, rows in enumerate(self.batches()):
            # the first batch is asked without an instruction before any is written: then it is known what a step costs
            if not (self.begun(rows, meter) if number == 0 else self.round(rows, meter)):
                ended = meter.budget.axis
                break
        asked = [one for one in self.candidates if one.of == self.candidates[0].of and one.of]
        best = max(asked, key=lambda one: one.rank, default=self.candidates[0])
        if meter.rehearses:
            best = self.candidates[-1]  # scores mean nothing there; the longest prompt takes the most
        self.answer.follow(best.instruction)
        self.plan.labels_used = self.candidates[0].of + (len(self.shown) if self.wrote else 0)
        self.plan.notes += self.told(best)
        return ended

    def batches(self) -> Iterator[Rows]:
        """Validation rows, a step's number at a time."""
        for start in range(0, len(self.held_out), self.context.batch):
            yield self.held_out.take(range(start, min(start + self.context.batch, len(self.held_out))))

    def begun(self, rows: Rows, meter: Meter) -> bool:
        """The first batch: the task's own prompt, then the writing, then what was written; whether the budget held all.

        An instruction the budget leaves no room to ask is out of the race.
        """
        own = self.candidates[0]
        if not meter.affords(self.cost(own, rows, meter)):
            return False
        self.ask(own, rows, meter)
        if not meter.affords(self.writing(meter)):
            return False
        self.wrote = True
        self.candidates += [Candidate(text) for text in self.write(meter)]
        for one in self.candidates[1:]:
            if not meter.affords(self.cost(one, rows, meter)):
                return False
            self.ask(one, rows, meter)
        return True

    def round(self, rows: Rows, meter: Meter) -> bool:
        """A further batch for all, or for none: they are compared on the same rows."""
        if not meter.affords(sum(self.cost(one, rows, meter) for one in self.candidates)):
            return False
        for one in self.candidates:
            self.ask(one, rows, meter)
        return True

    def write(self, meter: Meter) -> list[str]:
        """Instructions that are none of the others, in the order they were written."""
        from functools import partial

        import torch

        from bench.score.chains import over, texts_after, writer_of
        from bench.score.decode import Sampling
        from bench.score.instructed import cleaned

        module, reader, options = self.answer.plain.module, self.reader, self.options
        generator = torch.Generator(device=reader.device).manual_seed(self.context.seed % 2**63)

        def finished(ids: list[int]) -> bool:
            return meter.progress >= 1 or over(reader, "\n", ids)

        write = partial(
            writer_of(module, reader).write, sampling=Sampling(options.temperature, generator), finished=finished
        )
        prompts = [self.prompt] * options.candidates
        texts = [cleaned(text) for text in texts_after(module, reader, prompts, options.tokens, meter, "\n", write)]
        if meter.rehearses:
            return texts
        different: dict[str, str] = {}
        for text in filter(None, texts):
            different.setdefault(text.casefold(), text)
        return [*different.values()]

    def ask(self, one: Candidate, rows: Rows, meter: Meter) -> None:
        """Score a candidate on some rows."""
        import numpy as np

        from bench.score.adapted import normalised

        scores = self.answer.under(one.instruction).predict(rows.fields, meter)
        labels = np.array(rows.labels)
        one.right += int((scores.argmax(-1) == labels).sum())
        one.log_probability += float(normalised(scores)[np.arange(len(labels)), labels].sum())
        one.of += len(rows)

    def cost(self, one: Candidate, rows: Rows, meter: Meter) -> float:
        """What asking a candidate about some rows takes of the budget; of written replies at most."""
        from bench.score.adapted import Asking
        from bench.score.replies import Told

        asked = self.answer.under(one.instruction)
        if isinstance(asked, Told):
            prompts = [len(asked.reader.question(fields, "", False)) for fields in rows.fields]
            return self.written(len(rows), sum(prompts), max(prompts), asked.reader.reply.tokens, meter)
        asking = Asking(asked.module, asked.reader)
        batch = asking.batch(asking.rows(asked.reader.encode(rows.fields)))
        return meter.cost(len(rows), batch.tokens, batch.shape)

    def writing(self, meter: Meter) -> float:
        """What writing all candidates takes at most."""
        number, width = self.options.candidates, len(self.prompt)
        return self.written(number, number * width, width, self.options.tokens, meter)

    def written(self, rows: int, tokens: int, width: int, most: int, meter: Meter) -> float:
        """What writing `most` tokens after each of `rows` prompts of `tokens` tokens together takes."""
        assert meter.budget is not None
        steps = most if meter.budget.axis == "train_seconds" else 1
        return steps * meter.cost(rows, tokens + rows * most, ("prompt", 0, rows, 0, width))

    def told(self, best: Candidate) -> list[str]:
        """What was kept and how every candidate did, best first."""
        named = [
            (one, f"“{one.instruction}”" if one.instruction else "the task's own prompt") for one in self.candidates
        ]
        if len(named) == 1:
            why = "nothing but white space was written" if self.wrote else "the budget ended before any was written"
            return [f"no instruction could be tried ({why}): the task's own prompt was kept"]
        kept = next(name for one, name in named if one is best)
        others = sorted(named, key=lambda entry: entry[0].rank, reverse=True)
        return [
            f"instruction kept on validation labels: {kept} ({best.score}); all {len(named)}: "
            + "; ".join(f"{name} {one.score}" for one, name in others)
        ]

    def save(self, folder: Path) -> None:
        """The instruction kept, and every candidate with its validation score."""
        found = {"kept": self.answer.instruction, "candidates": [asdict(one) for one in self.candidates]}
        (folder / "instruction.json").write_text(json.dumps(found))

    def load(self, folder: Path) -> None:
        """Take the stored ones."""
        found = json.loads((folder / "instruction.json").read_text())
        self.candidates = [Candidate(**one) for one in found["candidates"]]
        self.answer.follow(found["kept"])


def split(context: TaskContext, k: int) -> tuple[Rows, Rows]:
    """`k` rows to show, as evenly over the labels as they allow, and the others in the order they were drawn."""
    from bench.data.draws import class_balanced

    train = context.train
    shown = class_balanced(train, k, context.seed, context.classes)
    taken = set(shown.index)
    return shown, train.take([i for i, row in enumerate(train.index) if row not in taken])


strategy = MetaPrompt()
