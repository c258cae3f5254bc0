"""A readout with trigger tokens between the prompt and the label's word, and a set of words for each label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bench.config.schema import Template
from bench.models.parts import output_head
from bench.score.batch import Batch, Encoded
from bench.score.readers import VerbalizerReader, only_positions


class TriggerReader:
    """p(y | x) = sum over w in V_y of p(w | prompt, triggers) (Shin et al. 2020, equation 1), causal or masked."""

    def __init__(self, inner: VerbalizerReader, triggers: list[int], label_tokens: list[list[int]]) -> None:
        self.inner, self.triggers, self.label_tokens = inner, triggers, label_tokens
        inner.single = True  # one position is read, whatever the template's own words are
        inner.words = [word[:1] for word in inner.words]
        inner.reserved = len(triggers)

    def through(self, template: Template) -> TriggerReader:
        """Triggers and label words as they were found, after another prompt: they stand between it and any word, so
        its own words are not read."""
        return TriggerReader(self.inner.through(template), self.triggers, self.label_tokens)

    @property
    def truncated(self) -> int:
        """Inputs that lost their front so far."""
        return self.inner.truncated

    def encode(self, fields: Sequence[dict[str, str]]) -> list[Encoded]:
        """Prompts without triggers, cut so that these still fit."""
        return self.inner.encode(fields)

    def collate(self, encoded: Sequence[Encoded], triggers: Sequence[int] | None = None) -> Batch:
        """A batch with `triggers` (by default the current ones) after each prompt; `extra["first"]` says where."""
        chosen = self.triggers if triggers is None else triggers
        batch = self.inner.collate([Encoded([*e.ids, *chosen]) for e in encoded])
        batch.extra["first"] = torch.tensor([e.length for e in encoded])
        return batch

    def log_probabilities(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        """Float32 (rows, vocabulary) where the label's word is read."""
        with only_positions(output_head(self.inner.base), batch.extra["positions"], batch.padded):
            logits = module(**batch.inputs).logits
        return torch.log_softmax(logits[:, 0].float(), dim=-1)

    def scores(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        """Float32 (items, labels)."""
        logp = self.log_probabilities(module, batch)
        return torch.stack([logp[:, tokens].logsumexp(-1) for tokens in self.label_tokens], dim=-1)

    def loss(self, module: nn.Module, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy over the labels."""
        return nn.functional.cross_entropy(self.scores(module, batch), labels)

    def hidden(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        """What the LM head reads there, float32 (rows, width)."""
        seen: list[torch.Tensor] = []

        def keep(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            seen.append(arguments[0][:, 0].detach().float())

        head = output_head(self.inner.base)
        with only_positions(head, batch.extra["positions"], batch.padded):
            handle = head.register_forward_pre_hook(keep)  # after the one that picks the positions
            try:
                module(**batch.inputs)
            finally:
                handle.remove()
        return seen[0]
