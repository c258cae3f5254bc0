"""Prompts in a chain: each writes a text that the ones after it may hold, and the last one is answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import nn

from bench.budget import Meter
from bench.config.chain import TASK_PROMPT, Step
from bench.config.schema import Template
from bench.data.prompts import fill
from bench.score.decode import Writer
from bench.score.readers import VerbalizerReader
from bench.score.replies import answering

LOOK_BACK = 16
"""Tokens of an output in which its end is looked for after every one."""


@dataclass
class Chained:
    """Writes the output of every step for a row and then answers the prompt `answer`, as its reader reads it.

    Outputs are the likeliest texts, token by token. `reader` reads the task's own prompt.
    """

    module: nn.Module
    reader: VerbalizerReader
    steps: tuple[Step, ...]
    answer: str
    """The last prompt's pattern."""
    cut: int = 0
    """Prompts of steps that lost their front so far."""

    def __post_init__(self) -> None:
        asked = self.reader.template.model_copy(update={"pattern": self.answer})
        self.last = answering(self.module, self.reader.through(asked))

    @property
    def truncated(self) -> int:
        return self.cut + self.last.truncated

    def through(self, template: Template) -> Chained:
        """The same chain around another prompt of the task."""
        return replace(self, reader=self.reader.through(template), cut=0)

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Float64 scores (rows, labels) of the last prompt, in the order given."""
        own = self.reader.template
        known = [row | {TASK_PROMPT: fill(own, row)} for row in fields]
        for step in self.steps:
            outputs = self.written(step, known, meter)
            known = [row | {step.name: output} for row, output in zip(known, outputs, strict=True)]
        return self.last.predict(known, meter)

    def written(self, step: Step, known: Sequence[dict[str, str]], meter: Meter) -> list[str]:
        """The step's output for every row."""
        asked = self.reader.template.model_copy(update={"pattern": step.pattern})
        prompts = [self.prompt(fill(asked, row), step.tokens) for row in known]
        return texts_after(self.module, self.reader, prompts, step.tokens, meter, step.ends)

    def prompt(self, text: str, most: int) -> list[int]:
        """Ids of a step's prompt; one that leaves no room for `most` new tokens loses its front."""
        ids, room = self.reader.tokens(text), room_for(self.reader, most)
        self.cut += len(ids) > room
        return self.reader.surround(ids[max(0, len(ids) - room) :])


def room_for(reader: VerbalizerReader, most: int) -> int:
    """Tokens of a prompt after which `most` new ones are written."""
    limit = reader.base.max_length
    room = reader.sequence if limit is None else min(reader.sequence, limit - most)
    return max(1, room - len(reader.bos) - len(reader.eos))


def texts_after(
    module: nn.Module,
    reader: VerbalizerReader,
    prompts: Sequence[Sequence[int]],
    most: int,
    meter: Meter,
    ends: str,
    write: Callable[..., list[list[int]]] | None = None,
) -> list[str]:
    """What the model writes after each prompt, up to `ends` or `most` tokens, without white space around it.

    `write`: how, by default the likeliest tokens of `writer_of`. A rehearsal writes nothing and gets texts of full
    length.
    """
    tokenizer = reader.base.tokenizer
    write = write or partial(writer_of(module, reader).write, finished=partial(over, reader, ends))
    written = write(prompts, most, meter)
    if meter.rehearses:
        written = [reader.tokens(" a" * most)[:most] for _ in prompts]
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in written]
    return [text.strip().split(ends)[0].strip() for text in texts]


def writer_of(module: nn.Module, reader: VerbalizerReader) -> Writer:
    """What writes on from prompts of this reader."""
    tokenizer = reader.base.tokenizer
    return Writer(module, tokenizer.pad_token_id or 0, frozenset({tokenizer.eos_token_id} - {None}))


def over(reader: VerbalizerReader, ends: str, ids: list[int]) -> bool:
    """Whether an output is over: something is said, and its end stands after it."""
    text = reader.base.tokenizer.decode(ids[-LOOK_BACK:], skip_special_tokens=True)
    return ends in text.lstrip() and bool(text.strip())
