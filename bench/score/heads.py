"""The readout with a head: a fresh linear layer on the pooled hidden state."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Sequence
from typing import Self

import torch
from torch import nn

from bench.config.schema import Template
from bench.data.prompts import fill
from bench.data.rows import Rows
from bench.models.base import Base
from bench.models.parts import backbone, pool, pooling
from bench.score.batch import Batch, Encoded, stack
from bench.score.chat import around
from bench.strategy import TaskContext, Unsupported

READ_PROMPTS = ("causal", "seq2seq")
"""Kinds of model whose head reads the prompt; the others' reads the bare text."""


class HeadReader(nn.Module):
    """A fresh linear layer on the pooled hidden state; decoders read the prompt, encoders the bare text or pair."""

    def __init__(self, base: Base, context: TaskContext) -> None:
        super().__init__()
        self.base, self.template, self.sequence = base, context.task.templates[0], context.sequence
        if context.task.objective == "language":
            raise Unsupported("objective=language trains through the LM head: use readout=verbalizer")
        self.fields = context.task.fields
        self.truncated = 0
        self.device = next(base.module.parameters()).device
        self.how = pooling(base)
        self.around = around(base) if self.template.chat else None
        self.head = fresh_head(base.width, context, self.outputs(context)).to(self.device)

    def outputs(self, context: TaskContext) -> int:
        """Numbers the head gives of one input."""
        return context.classes

    def through(self, template: Template) -> Self:
        """The same model and head, reading another prompt. Raises `Unsupported` where the head reads bare texts."""
        if self.base.kind not in READ_PROMPTS:
            raise Unsupported(
                "under a head this model reads the bare text, which no prompt can change: use readout=verbalizer"
            )
        other = copy.copy(self)  # the head is shared: a module's parameters are copied by reference
        other.template, other.truncated = template, 0
        other.around = around(self.base) if template.chat else None
        return other

    def target(self) -> nn.Module:
        """What a strategy wraps and trains under this readout."""
        return backbone(self.base)

    def encode(self, fields: Sequence[dict[str, str]]) -> list[Encoded]:
        """Decoders and T5: the prompt, cut from the front; encoders: one text or a sentence pair, longest first cut."""
        limit = min(self.sequence, self.base.max_length or self.sequence)
        return [self.encode_one(f, limit) for f in fields]

    def encode_training(self, rows: Rows) -> list[Encoded]:
        """What is trained on, as it is read afterwards."""
        return self.encode(rows.fields)

    def encode_one(self, fields: dict[str, str], limit: int) -> Encoded:
        tokenizer = self.base.tokenizer
        if self.base.kind in READ_PROMPTS:
            before, after = self.around or ([], [])
            ids = tokenizer(fill(self.template, fields), add_special_tokens=self.around is None)["input_ids"]
            room = limit - len(before) - len(after)
            if room < 1:
                raise Unsupported(f"the chat template leaves no token of {limit} for the prompt: raise sequence")
            self.truncated += len(ids) > room
            return Encoded([*before, *ids[max(0, len(ids) - room) :], *after])
        texts = [fields[name] for name in self.fields]
        parts = texts if len(texts) <= 2 else ["\n".join(texts)]
        full = tokenizer(*parts)
        if len(full["input_ids"]) > limit:
            self.truncated += 1
            full = tokenizer(*parts, truncation="longest_first" if len(parts) > 1 else True, max_length=limit)
        return Encoded(full["input_ids"], full.get("token_type_ids"))

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        return stack(encoded, self.base.tokenizer.pad_token_id, self.base.max_length, self.device)

    def features(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        """Pooled hidden states, (items, width)."""
        return pool(self.how, module(**batch.inputs).last_hidden_state, batch.lengths, batch.padded)

    def loss(self, module: nn.Module, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy over the labels."""
        return nn.functional.cross_entropy(self.scores(module, batch), labels)

    def weight(self, module: nn.Module, encoded: Encoded) -> int:
        """What a row weighs in the mean that the loss is."""
        return 1

    def scores(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        """Float32 logits (items, labels)."""
        return self.answers(self.features(module, batch))

    def answers(self, features: torch.Tensor) -> torch.Tensor:
        """Float32 logits (items, labels) of pooled hidden states (items, width)."""
        out: torch.Tensor = self.head(features.to(self.head.weight.dtype)).float()
        return out


def fresh_head(width: int, context: TaskContext, outputs: int) -> nn.Linear:
    """A linear layer whose start depends on seed and task only, so that the heads of several tasks are the same in
    whatever order they are made, and the method's own random numbers do not depend on them."""
    head = nn.utils.skip_init(nn.Linear, width, outputs)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{context.seed} {context.name}".encode()))
    nn.init.normal_(head.weight, std=0.02, generator=generator)
    nn.init.zeros_(head.bias)
    assert isinstance(head, nn.Linear)
    return head
