"""Entities by tagging (kind tag under a head): an encoder reads the text, and a fresh linear layer says of every word
whether an entity begins there, goes on, or neither (BIO; Ramshaw & Marcus 1995).

A word is judged by the state of its first token (Devlin et al. 2019, section 5.3). What is counted are the texts of
the entities, as for those that write them, so both ways have one metric.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
from torch import nn

from bench.budget import Meter
from bench.config.schema import Template
from bench.config.task import TARGET
from bench.data.spans import Span, counts, parse, spans_of_bio
from bench.models.base import Base
from bench.score.adapted import scored
from bench.score.batch import Batch, Encoded, sent
from bench.score.heads import HeadReader
from bench.strategy import TaskContext, Unsupported

WORD = re.compile(r"\w+|[^\w\s]")
UNJUDGED = -100
"""Tag of a token that begins no word: the loss leaves it out."""


@dataclass(frozen=True)
class Words(Encoded):
    """A text as tokens, and which of them begin its words."""

    places: tuple[int, ...] = ()
    """Position of each word's first token; words that were cut off have none."""
    tags: tuple[int, ...] = ()
    """The right tag of each of these words."""


class TagReader(HeadReader):
    """A linear layer over the states of the words' first tokens, for models that read a text from both sides."""

    def __init__(self, base: Base, context: TaskContext) -> None:
        if base.kind not in ("encoder", "masked"):
            raise Unsupported(
                f"a word is tagged by what stands on both sides of it, and this model is {base.kind}: use "
                "readout=verbalizer, which writes the entities, or an encoder"
            )
        if len(context.task.prompt_fields) != 1:
            raise Unsupported(
                f"tags are of one text, and this task has {context.task.prompt_fields}: use readout=verbalizer and a "
                "causal model"
            )
        [self.field], self.types = context.task.prompt_fields, context.task.labels
        self.names = ["O", *(f"{letter}-{kind}" for kind in self.types for letter in "BI")]
        super().__init__(base, context)

    def outputs(self, context: TaskContext) -> int:
        """Outside, and beginning and inside of every type."""
        return 1 + 2 * len(context.task.labels)

    def encode_one(self, fields: dict[str, str], limit: int) -> Encoded:
        """The text; what is too long loses its end."""
        text = fields[self.field]
        whole = self.base.tokenizer(text, return_offsets_mapping=True)
        self.truncated += len(whole["input_ids"]) > limit
        cut = self.base.tokenizer(text, return_offsets_mapping=True, truncation=True, max_length=limit)
        places = first_tokens(text, cut["offset_mapping"])
        tags = self.right(text, parse(fields[TARGET], self.types))[: len(places)]
        return Words(cut["input_ids"], cut.get("token_type_ids"), places=tuple(places), tags=tuple(tags))

    def right(self, text: str, spans: Sequence[Span]) -> list[int]:
        """The tag of every word of a text that holds these spans, each where it first stands free."""
        words = [(m.start(), m.end()) for m in WORD.finditer(text)]
        tags = [0] * len(words)
        for kind, surface in spans:
            for found in re.finditer(re.escape(surface), text):
                inside = [i for i, (a, b) in enumerate(words) if a < found.end() and b > found.start()]
                if inside and not any(tags[i] for i in inside):
                    for i in inside:
                        tags[i] = self.names.index(f"{'B' if i == inside[0] else 'I'}-{kind}")
                    break
        return tags

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        """One row a text, with the tag of every token that begins a word."""
        batch = super().collate(encoded)
        tags = torch.full((len(encoded), batch.padded), UNJUDGED)
        for row, one in enumerate(encoded):
            assert isinstance(one, Words)
            tags[row, list(one.places)] = torch.tensor(one.tags, dtype=torch.int64)
        batch.extra["tags"] = sent(tags, self.device)
        return batch

    def logits(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        """Float32 (rows, tokens, tags); virtual tokens in front have none."""
        states = module(**batch.inputs).last_hidden_state[:, -batch.padded :]
        found: torch.Tensor = self.head(states.to(self.head.weight.dtype)).float()
        return found

    def loss(self, module: nn.Module, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the words' tags, mean over words; `labels` say nothing more."""
        return nn.functional.cross_entropy(
            self.logits(module, batch).flatten(0, 1), batch.extra["tags"].flatten(), ignore_index=UNJUDGED
        )

    def weight(self, module: nn.Module, encoded: Encoded) -> int:
        """The row's words that the loss is a mean over: words that share their first token are one."""
        assert isinstance(encoded, Words)
        return len(set(encoded.places))

    def scores(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        """Float32 (rows, sequence): the likeliest tag's number for every token, then zeros."""
        tags = self.logits(module, batch).argmax(-1).float()
        return nn.functional.pad(tags, (0, max(self.sequence, batch.padded) - batch.padded))

    def log_likelihoods(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        """Float32 (rows, 1): log-probability of the right tags of all words together, nats."""
        tags = batch.extra["tags"]
        logp = self.logits(module, batch).log_softmax(-1)
        found = logp.gather(-1, tags.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return (found * (tags != UNJUDGED)).sum(-1, keepdim=True)

    def through(self, template: Template) -> NoReturn:
        """Raises `Unsupported`: it reads no prompt."""
        raise Unsupported("tags are of the bare text, which no prompt can change: use readout=verbalizer")


def first_tokens(text: str, offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Position of the first token of each word, as far as the tokens reach (offsets: places in the text)."""
    places: list[int] = []
    at = 0
    for word in WORD.finditer(text):
        while at < len(offsets) and not (offsets[at][1] > word.start() and offsets[at][0] < word.end()):
            at += 1
        if at == len(offsets):
            return places
        places.append(at)
    return places


@dataclass
class Tagged:
    """An encoder that tags."""

    module: nn.Module
    reader: TagReader

    @property
    def truncated(self) -> int:
        return self.reader.truncated

    def through(self, template: Template) -> NoReturn:
        """Raises `Unsupported`: it reads no prompt."""
        self.reader.through(template)

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Float64 (rows, 3): spans found and right, found, and there to be found."""
        reader, encoded = self.reader, self.reader.encode(fields)
        self.module.eval()
        tags = scored(encoded, meter, lambda part: (b := reader.collate(part), b.shape), self.likeliest)
        out = []
        for one, row, f in zip(encoded, tags, fields, strict=True):
            assert isinstance(one, Words)
            found = self.entities(f[reader.field], [reader.names[int(row[place])] for place in one.places])
            out.append(counts(found, parse(f[TARGET], reader.types)))
        return np.array(out, dtype=float).reshape(-1, 3)

    def likelihoods(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Float64 (rows, 1): log-probability of each row's right tags, nats."""
        reader = self.reader
        self.module.eval()

        def told(batch: Batch) -> torch.Tensor:
            return reader.log_likelihoods(self.module, batch)

        return scored(reader.encode(fields), meter, lambda part: (b := reader.collate(part), b.shape), told)

    def likeliest(self, batch: Batch) -> torch.Tensor:
        """Float32 (rows, sequence)."""
        return self.reader.scores(self.module, batch)

    def entities(self, text: str, tags: Sequence[str]) -> list[Span]:
        """The entities that the tags of a text's first words name, as they stand in the text."""
        words = [(m.start(), m.end()) for m in WORD.finditer(text)]
        return [(kind, text[words[first][0] : words[after - 1][1]]) for kind, first, after in spans_of_bio(tags)]
