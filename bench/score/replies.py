"""Free replies (kinds generate and tag): written by the model, read for a number, yes or no, or a short text, right or
wrong; or measured by what they share with a text, or by the entities they name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from bench.budget import Meter
from bench.config.reply import Reply
from bench.config.schema import Template
from bench.config.task import RATIONALE, TARGET
from bench.data.prompts import fill
from bench.data.rows import Rows
from bench.models.base import Base
from bench.score.adapted import Adapted, scored
from bench.score.answers import AnswerReader
from bench.score.batch import Batch, Encoded
from bench.score.decode import GREEDY, Sampling, Writer
from bench.score.demonstrations import BETWEEN
from bench.score.extract import number, same, yes_no
from bench.score.marks import marks
from bench.score.readers import Reader
from bench.score.tags import Tagged, TagReader
from bench.strategy import TaskContext, Unsupported

MARK = "The answer is"
"""What announces the answer in a demonstration that reasons."""
STEP_BY_STEP = " Let's think step by step."
"""What asks for reasoning where no demonstration shows it (Kojima et al. 2022)."""


def read(text: str, reply: Reply) -> str | None:
    """What counts of a reply, as a text two equal answers share; None where it holds none."""
    if reply.reads == "number":
        found = number(text)
        return None if found is None else str(found)
    if reply.reads == "yes_no":
        said = yes_no(text)
        return None if said is None else "yes" if said else "no"
    place = text.casefold().rfind(MARK.casefold())
    marked = text[place + len(MARK) :] if place >= 0 else text
    first = next((line for line in marked.splitlines() if line.strip()), "")
    plain = " ".join(first.casefold().split()).strip(" .,:;!?\"'*()")
    return plain or None


def right(answer: str | None, target: str, reply: Reply) -> bool:
    """Whether what was read of a reply is the target."""
    if answer is None:
        return False
    if reply.reads == "number":
        return same(number(answer), number(target))
    return answer == read(target, reply)


def spaced(template: Template, text: str) -> str:
    """An answer as it follows a pattern: with a space of its own, unless one or a turn of a chat stands before it."""
    return text if template.chat or template.pattern[-1:].isspace() else f" {text}"


def reasoned(fields: dict[str, str]) -> str:
    """The rationale of a row and then its answer."""
    return f"{fields[RATIONALE]} {MARK} {fields[TARGET]}."


class ReplyReader(AnswerReader):
    """Asks a question and reads what the model writes; training is on the target, as plain fine-tuning does."""

    def __init__(self, base: Base, context: TaskContext) -> None:
        assert context.task.reply is not None
        self.task, self.reply = context.task, context.task.reply
        super().__init__(base, context)

    def encode(self, fields: Sequence[dict[str, str]]) -> list[Encoded]:
        """The target after every question."""
        return [self.answered(fill(self.template, f), [self.spaced(f[TARGET])]) for f in fields]

    def encode_training(self, rows: Rows) -> list[Encoded]:
        """The same: what is trained on is what would be right."""
        return self.encode(rows.fields)

    def spaced(self, text: str) -> str:
        """An answer as it follows its pattern."""
        return spaced(self.template, text)

    def question(self, fields: dict[str, str], more: str, behind: bool) -> list[int]:
        """Ids of a question that a reply follows; `behind` a shared beginning the first special tokens are there."""
        ids = self.tokens(fill(self.template, fields) + more)
        room = self.sequence - len(self.bos) - len(self.eos)
        self.truncated += len(ids) > room
        ids = ids[max(0, len(ids) - room) :]
        return [*([] if behind else self.bos), *ids, *self.eos]

    def writer(self, module: nn.Module, prefix: Sequence[int] = ()) -> Writer:
        """What writes the replies."""
        tokenizer = self.base.tokenizer
        ends = {tokenizer.eos_token_id} - {None}
        return Writer(module, tokenizer.pad_token_id or 0, frozenset(ends), tuple(prefix))


@dataclass
class Told:
    """Replies of a model, with demonstrations in front or without, at once or after reasoning, once or by majority."""

    module: nn.Module
    reader: ReplyReader
    shown: Rows | None = None
    """Demonstrations; with reasoning their rationales are shown."""
    reasons: bool = False
    samples: int = 1
    """Replies a question of which the commonest answer counts (Wang et al. 2022, self-consistency)."""
    temperature: float = 0.0
    seed: int = 0

    @property
    def truncated(self) -> int:
        return self.reader.truncated

    def through(self, template: Template) -> Told:
        """Asked through another prompt, demonstrations and question alike."""
        return replace(self, reader=self.reader.through(template))

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Float64 (rows, 2): 1 for what the reply was, wrong or right; or (rows, numbers kept of an item)."""
        task, reply = self.reader.task, self.reader.reply
        votes = self.replies(fields, meter)
        if task.kept:
            return np.array([marks(vote[0], f[TARGET], task) for vote, f in zip(votes, fields, strict=True)]).reshape(
                -1, len(task.kept)
            )
        won = [majority([read(text, reply) for text in vote]) for vote in votes]
        hits = [right(answer, f[TARGET], reply) for answer, f in zip(won, fields, strict=True)]
        return np.array([[1.0 - hit, float(hit)] for hit in hits]).reshape(-1, 2)

    def replies(self, fields: Sequence[dict[str, str]], meter: Meter) -> list[list[str]]:
        """What the model writes to each row, `samples` times, without what follows a reply's end."""
        reader, reply = self.reader, self.reader.reply
        more = STEP_BY_STEP if self.reasons and self.shown is None else ""
        prefix = self.prefix()
        prompts = [reader.question(f, more, bool(prefix)) for f in fields]
        most = reply.rationale_tokens if self.reasons else reply.tokens
        self.check(prefix, prompts, most)
        writer = reader.writer(self.module, prefix)
        told: list[list[str]] = [[] for _ in fields]
        for sample in range(self.samples):
            written = writer.write(prompts, most, meter, self.sampling(sample), self.finished)
            texts = [reader.base.tokenizer.decode(ids, skip_special_tokens=True) for ids in written]
            for one, text in zip(told, texts, strict=True):
                one.append(cut(text, self.end))
        return told

    def likelihoods(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Float64 (rows, 1): log-probability of each row's target after its prompt, demonstrations in front, nats."""
        prefix, reader = self.prefix(), self.reader
        encoded = reader.encode(fields)
        self.check(prefix, [one.ids for one in encoded], max((one.length - len(one.ids) for one in encoded), default=0))
        if prefix:  # it begins with the model's first special tokens
            encoded = [replace(one, ids=[*prefix, *one.ids[len(reader.bos) :]]) for one in encoded]
        self.module.eval()
        return scored(encoded, meter, lambda part: (b := reader.collate(part), b.shape), self.target_scores)

    def target_scores(self, batch: Batch) -> torch.Tensor:
        """Float32 (rows, 1)."""
        return self.reader.scores(self.module, batch)

    @property
    def end(self) -> str:
        """What ends a reply: what follows would be another question."""
        return BETWEEN if self.reasons or self.reader.reply.long else "\n"

    def sampling(self, sample: int) -> Sampling:
        """How tokens are taken: likeliest first where one reply counts."""
        if self.temperature <= 0:
            return GREEDY
        device = next(self.module.parameters()).device
        return Sampling(self.temperature, torch.Generator(device=device).manual_seed(self.seed * 1000 + sample))

    def prefix(self) -> list[int]:
        """Ids of the demonstrations, tokenised apart from the question as few-shot's are."""
        if self.shown is None:
            return []
        reader = self.reader
        texts = [fill(reader.template, f) + self.answer(f) + BETWEEN for f in self.shown.fields]
        return [*reader.bos, *reader.tokens("".join(texts))]

    def answer(self, fields: dict[str, str]) -> str:
        """How a demonstration answers."""
        if not self.reasons:
            return self.reader.spaced(fields[TARGET])
        if not fields.get(RATIONALE):
            raise Unsupported("the task's rows hold no rationale to show: name its column 'rationale', or use k=0")
        return self.reader.spaced(reasoned(fields))

    def check(self, prefix: Sequence[int], prompts: Sequence[Sequence[int]], most: int) -> None:
        """Raise `Unsupported` where beginning, longest question and reply do not fit the model's context."""
        longest, limit = max(map(len, prompts), default=0), self.reader.base.max_length
        if limit is not None and len(prefix) + longest + most > limit:
            raise Unsupported(
                f"demonstrations of {len(prefix)} tokens, a question of {longest} and a reply of {most} do not fit the "
                f"model's context of {limit}: use fewer demonstrations (strategies.<name>.k)"
            )

    def finished(self, ids: list[int]) -> bool:
        """Whether a reply is over: what follows would be another question."""
        text = self.reader.base.tokenizer.decode(ids[-LOOK_BACK:], skip_special_tokens=True)
        return self.end in text.lstrip() and bool(text.strip())


def answering(module: nn.Module, reader: Reader) -> Adapted | Told | Tagged:
    """How a module answers that is read so: by writing, by tags, or by scores."""
    if isinstance(reader, TagReader):
        return Tagged(module, reader)
    return Told(module, reader) if isinstance(reader, ReplyReader) else Adapted(module, reader)


LOOK_BACK = 16
"""Tokens of a reply in which its end is looked for after every one."""


def cut(text: str, end: str) -> str:
    """A reply without what the model wrote after its end: the next question."""
    return text.strip().split(end)[0]


def majority(votes: Sequence[str | None]) -> str | None:
    """The commonest answer, the earliest among equals; replies without one do not vote."""
    counted = Counter(vote for vote in votes if vote is not None)
    return max(counted, key=lambda answer: counted[answer]) if counted else None
