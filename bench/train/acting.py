"""What a policy does while it is trained by rewards: it writes a response, or it says one of a task's labels.

Both give one log-probability an action taken: a token of a response, or a whole label among the labels. Tensors have
shape (rows, steps), a row a response, as `bench.train.policy` wants them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import nn

from bench.budget import Meter
from bench.data.prompts import fill
from bench.data.rows import Rows
from bench.models.parts import output_head
from bench.score.adapted import length_sorted
from bench.score.answers import Answered, AnswerReader
from bench.score.batch import Batch, Encoded
from bench.score.decode import Sampling, Writer
from bench.score.readers import VerbalizerReader
from bench.score.replies import ReplyReader, Told
from bench.strategy import Unsupported

ROWS_AT_ONCE = 32
"""Responses written together: a step of decoding reads all weights, however many rows there are."""


class Acts(Protocol):
    """How a policy acts on the training rows."""

    steps: int
    """Most actions of a response."""

    def slots(self, number: int) -> list[Encoded]:
        """Rows to draw batches of, as long as the longest that could come."""
        ...

    @property
    def tokens(self) -> int:
        """Most tokens that one pass over a response takes."""
        ...

    def act(self, rows: Sequence[int], meter: Meter, generator: torch.Generator) -> list[Encoded]:
        """A response to the prompt of each of these training rows, drawn from the model as it is."""
        ...

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        """Responses to a batch."""
        ...

    def read(self, module: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of each action (rows, steps) and the hidden state before it (rows, steps, width)."""
        ...

    def packed(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        """Responses as int64 (rows, 1 + steps): how many actions, and which."""
        ...

    def unpacked(self, rows: Sequence[int], packed: torch.Tensor) -> list[Encoded]:
        """Back from what `packed` gave of these training rows."""
        ...


@dataclass
class Speech:
    """Responses in words, until the policy ends them or `steps` tokens stand."""

    reader: AnswerReader
    module: nn.Module
    rows: Rows
    steps: int
    temperature: float = 1.0

    def __post_init__(self) -> None:
        reader, around = self.reader, len(self.reader.bos) + len(self.reader.eos)
        room = min(reader.sequence, reader.base.max_length or reader.sequence) - around - self.steps
        if room < 1:
            raise Unsupported(
                f"responses of {self.steps} tokens leave no room for a prompt in {reader.sequence}: raise sequence or "
                "lower tokens"
            )
        ids = [reader.tokens(fill(reader.template, fields)) for fields in self.rows.fields]
        self.prompts = [reader.surround(one[max(0, len(one) - room) :]) for one in ids]
        if not all(self.prompts):
            raise Unsupported("the prompt is empty and the model has no token to begin with: write a pattern")

    def slots(self, number: int) -> list[Encoded]:
        longest = max(self.prompts, key=len)
        return [Answered(list(longest), answers=((0,) * self.steps,), place=place) for place in range(number)]

    @property
    def tokens(self) -> int:
        return max(map(len, self.prompts)) + self.steps

    def act(self, rows: Sequence[int], meter: Meter, generator: torch.Generator) -> list[Encoded]:
        tokenizer = self.reader.base.tokenizer
        ends = frozenset({tokenizer.eos_token_id} - {None})
        writer = Writer(self.module, tokenizer.pad_token_id or 0, ends, rows=ROWS_AT_ONCE, aside=True)
        prompts = [self.prompts[row] for row in rows]
        sampling = Sampling(self.temperature, generator)
        over = Told(self.module, self.reader).finished if isinstance(self.reader, ReplyReader) else lambda ids: False
        written = writer.write(prompts, self.steps, meter, sampling, over)
        if meter.rehearses:
            written = [[0] * self.steps for _ in rows]
        ended = [ids if len(ids) == self.steps or over(ids) else [*ids, *self.reader.stop] for ids in written]
        return [Answered(prompt, answers=(tuple(ids),)) for prompt, ids in zip(prompts, ended, strict=True)]

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        return self.reader.collate(encoded)

    def read(self, module: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        with listening(output_head(self.reader.base)) as heard:
            logp = self.reader.token_scores(module, batch)
        return logp, at(heard[0], batch.extra["positions"], batch.padded)

    def packed(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        out = torch.zeros(len(encoded), 1 + self.steps, dtype=torch.int64)
        for row, one in enumerate(encoded):
            ids = one.answers[0] if isinstance(one, Answered) else ()
            out[row, : 1 + len(ids)] = torch.tensor([len(ids), *ids])
        return out

    def unpacked(self, rows: Sequence[int], packed: torch.Tensor) -> list[Encoded]:
        return [
            Answered(self.prompts[row], answers=(tuple(line[1 : 1 + line[0]]),))
            for row, line in zip(rows, packed.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Said(Encoded):
    """A prompt and the label that was said after it."""

    action: int = 0


@dataclass
class Words:
    """Label words alone: one action a prompt, drawn from the model's scores of the labels."""

    reader: VerbalizerReader
    module: nn.Module
    rows: Rows
    temperature: float = 1.0
    steps: int = 1

    def __post_init__(self) -> None:
        self.prompts = self.reader.encode(self.rows.fields)

    def slots(self, number: int) -> list[Encoded]:
        longest = max(self.prompts, key=lambda one: one.length)
        return [Said(longest.ids, place=place) for place in range(number)]

    @property
    def tokens(self) -> int:
        longest = max(one.length for one in self.prompts)
        # a word of several tokens makes a row of its own of every label
        return longest if self.reader.single else len(self.reader.words) * (longest + max(map(len, self.reader.words)))

    def act(self, rows: Sequence[int], meter: Meter, generator: torch.Generator) -> list[Encoded]:
        plain = [Said(self.prompts[row].ids) for row in rows]
        actions = [0] * len(plain)
        parts = list(length_sorted(plain))
        with torch.no_grad():
            for part in meter.chosen(parts, [len(p) * plain[p[-1]].length for p in parts]):
                batch = self.reader.collate([plain[i] for i in part])
                with meter.step(("act", *batch.shape), 0, aside=True):
                    chances = torch.softmax(self.reader.scores(self.module, batch) / self.temperature, dim=-1)
                drawn = torch.multinomial(chances, 1, generator=generator).squeeze(1)
                if not meter.rehearses:
                    for i, action in zip(part, drawn.tolist(), strict=True):
                        actions[i] = action
        return [replace(one, action=action) for one, action in zip(plain, actions, strict=True)]

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        batch = self.reader.collate(encoded)
        said = [one for one in encoded if isinstance(one, Said)]
        batch.extra["action"] = torch.tensor([one.action for one in said]).to(self.reader.device)
        return batch

    def read(self, module: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        with listening(output_head(self.reader.base)) as heard:
            scores = self.reader.scores(module, batch)
        logp = torch.log_softmax(scores, dim=-1).gather(-1, batch.extra["action"].unsqueeze(-1))
        hidden = at(heard[0], batch.extra["positions"][:, :1], batch.padded)
        return logp, hidden.view(len(logp), -1, 1, hidden.shape[-1])[:, 0]

    def packed(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        return torch.tensor([[1, one.action] for one in encoded if isinstance(one, Said)])

    def unpacked(self, rows: Sequence[int], packed: torch.Tensor) -> list[Encoded]:
        return [
            Said(self.prompts[row].ids, action=action) for row, action in zip(rows, packed[:, 1].tolist(), strict=True)
        ]


@contextmanager
def listening(head: nn.Module) -> Iterator[list[torch.Tensor]]:
    """The hidden states that reach the LM head, before any hook registered later picks some of them."""
    heard: list[torch.Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, arguments: heard.append(arguments[0]))
    try:
        yield heard
    finally:
        handle.remove()


def at(hidden: torch.Tensor, positions: torch.Tensor, padded: int) -> torch.Tensor:
    """Hidden states (rows, p, width) at `positions` (rows, p) of (rows, virtual + padded, width)."""
    rows = torch.arange(len(positions), device=hidden.device).unsqueeze(1)
    return hidden[rows, positions.to(hidden.device) + hidden.shape[1] - padded]
