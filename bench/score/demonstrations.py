"""Few-shot prompts: demonstrations in front of the question, their keys and values computed once for a cell."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from bench.budget import Meter
from bench.config.schema import Template
from bench.data.prompts import fill, words
from bench.data.rows import Rows
from bench.score.adapted import Asking
from bench.score.batch import Encoded
from bench.score.fronts import shared_front
from bench.score.readers import VerbalizerReader
from bench.strategy import TaskContext, Unsupported

BETWEEN = "\n\n"
"""What stands between demonstrations, and between the last one and the question."""


class Demonstrations:
    """Answers with demonstrations in front. `rows` are fixed for the cell, or chosen for each item by `choose`.

    Where the template is a turn of a chat, demonstrations and question are one turn: the user's.
    """

    def __init__(self, reader: VerbalizerReader, module: nn.Module, context: TaskContext) -> None:
        self.reader, self.module, self.names = reader, module, context.task.labels
        self.rows: Rows | None = None
        self.choose: Any = None
        self.trained = False
        """Whether the model itself was changed, so that it can be asked about another task too."""

    def through(self, template: Template) -> Demonstrations:
        """The same demonstrations, they and the question written as another template says."""
        other = copy.copy(self)
        other.reader = self.reader.through(template)
        return other

    @property
    def template(self) -> Template:
        """What demonstrations and question are written in."""
        return self.reader.template

    @property
    def labels(self) -> list[str]:
        """Word of each label after a demonstration's prompt. A chat's word opens a turn and has no space of its own;
        here it follows the prompt."""
        gap = " " if self.template.chat and not self.template.pattern[-1:].isspace() else ""
        return [gap + word for word in words(self.template, self.names)]

    @property
    def truncated(self) -> int:
        """Inputs that lost their front so far."""
        return self.reader.truncated

    def prefix(self, rows: Rows) -> list[int]:
        """Ids of the demonstrations, tokenised apart from the question: joining the texts would move the token
        boundary between them and change scores (up to 0.65 nats)."""
        spoken, pairs = self.labels, zip(rows.fields, rows.labels, strict=True)
        return self.reader.tokens("".join(fill(self.template, f) + spoken[y] + BETWEEN for f, y in pairs))

    def check(self, prefix: Sequence[int], questions: Sequence[Encoded]) -> int:
        """Tokens of prefix, longest question and word. Raises `Unsupported` where the model's context has fewer."""
        longest = max(q.length for q in questions) + max(map(len, self.reader.words))
        limit = self.reader.base.max_length
        if limit is not None and len(prefix) + longest > limit:
            raise Unsupported(
                f"demonstrations of {len(prefix)} tokens and a question of {longest} do not fit the model's context of "
                f"{limit}: use fewer demonstrations (strategies.<name>.k)"
            )
        return len(prefix) + longest

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Float64 scores (rows, labels) in the order given."""
        self.module.eval()
        questions = self.reader.encode(fields)
        if self.rows is not None and self.reader.base.kind == "causal":
            return self.shared(questions, meter)
        full = []
        for question, field in zip(questions, fields, strict=True):
            prefix = self.prefix(self.rows if self.rows is not None else self.choose(field))
            self.check(prefix, [question])
            full.append(self.joined(prefix, question))
        return Asking(self.module, self.reader).ask(full, meter)

    def joined(self, prefix: list[int], question: Encoded) -> Encoded:
        """Prefix and question in one row, the beginning-of-sequence token in front once."""
        bos = self.reader.bos
        return Encoded([*bos, *prefix, *question.ids[len(bos) :]])

    def shared(self, questions: Sequence[Encoded], meter: Meter) -> np.ndarray:
        """The demonstrations' keys and values once, expanded to every batch where the model can go on from them."""
        assert self.rows is not None
        bos, shown = self.reader.bos, self.prefix(self.rows)
        prefix = [*bos, *shown]
        bare = [Encoded(q.ids[len(bos) :]) for q in questions]
        front = shared_front(self.module, prefix, self.check(prefix, bare), meter)
        if front is None:
            return Asking(self.module, self.reader).ask([self.joined(shown, q) for q in questions], meter)
        return Asking(self.module, self.reader, front).ask(bare, meter)
