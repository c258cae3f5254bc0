"""The verbalizer readout of masked models: the label's word fills the blanks after the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch

from bench.models.base import Base
from bench.score.batch import Batch, Encoded, stack
from bench.score.chat import around
from bench.score.readers import VerbalizerReader
from bench.strategy import TaskContext, Unsupported


class ClozeReader(VerbalizerReader):
    """As many blanks after the prompt as the label's word has tokens, each token read at its own blank.

    The score is the sum of their log-probabilities: pattern-verbalizer pairs of Schick & Schuetze 2021 ("Exploiting
    Cloze Questions", section 3.1), for words of several tokens as they train them ("It's Not Just Size That Matters",
    section 3.1), all blanks at once.
    """

    kinds: ClassVar[tuple[str, ...]] = ("masked",)

    def __init__(self, base: Base, context: TaskContext) -> None:
        super().__init__(base, context)
        if base.tokenizer.mask_token_id is None:
            raise Unsupported("this model's tokenizer has no mask token to fill: use readout=head")
        self.blank = int(base.tokenizer.mask_token_id)

    def edges(self) -> tuple[list[int], list[int]]:
        """The tokenizer's opening and closing special tokens. Raises `Unsupported` for a turn of a chat."""
        if self.template.chat:
            around(self.base)  # which says why not
        bare, full = self.tokens("a"), self.base.tokenizer("a")["input_ids"]
        start = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)
        return full[:start], full[start + len(bare) :]

    def surround(self, ids: list[int]) -> list[int]:
        """The prompt after the opening special tokens; the closing ones come after the blanks."""
        return [*self.bos, *ids]

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        """One row an item where every label is one token, else one row a label, with as many blanks as its word."""
        words = self.words[:1] if self.single else self.words
        rows = [Encoded([*e.ids, *[self.blank] * len(word), *self.eos]) for e in encoded for word in words]
        starts = torch.tensor([e.length for e in encoded for _ in words])
        batch = stack(rows, self.base.tokenizer.pad_token_id, self.base.max_length, self.device)
        batch.items = len(encoded)
        if self.single:
            batch.extra["positions"] = starts.unsqueeze(1)
            return self.to_device(batch)
        return self.to_device(self.add_targets(batch, starts))
