"""What a response is worth: a learned reward (from pairs), or one that can be verified (the right label or reply)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from bench.budget import Meter
from bench.config.task import TARGET
from bench.data.rows import Rows
from bench.score.adapted import length_sorted
from bench.score.answers import Answered, RewardReader
from bench.score.batch import Encoded
from bench.score.replies import ReplyReader, cut, read, right
from bench.train.acting import Said
from bench.train.versions import Versions

REWARD = "reward"
"""The version of the trained parameters that is the reward model."""


class Reward(Protocol):
    """A number a response."""

    def __call__(self, rows: Sequence[int], responses: Sequence[Encoded], meter: Meter) -> torch.Tensor:
        """Float32 (responses,), of responses to the prompts of these training rows."""
        ...


@dataclass
class Learned:
    """A reward model's numbers. It is a version of the policy's own trained parameters, with a head beside."""

    reader: RewardReader
    versions: Versions
    end: int | None
    """The token that ends a response; a reward model was trained on texts without it."""

    def __call__(self, rows: Sequence[int], responses: Sequence[Encoded], meter: Meter) -> torch.Tensor:
        texts = [self.text(one) for one in responses if isinstance(one, Answered)]
        found = torch.zeros(len(texts), device=self.reader.device)
        parts = list(length_sorted(texts))
        self.reader.target().eval()
        with self.versions.held(REWARD), torch.no_grad():
            for part in meter.chosen(parts, [len(p) * texts[p[-1]].length for p in parts]):
                batch = self.reader.collate([texts[i] for i in part])
                with meter.step(("reward", *batch.shape), 0, aside=True):
                    found[torch.tensor(part)] = self.reader.scores(self.reader.target(), batch)[:, 0]
        return found

    def text(self, response: Answered) -> Answered:
        """Prompt and response as one text, as the reward reader has them."""
        ids = response.answers[0]
        ended = bool(ids) and ids[-1] == self.end
        return Answered([], answers=((*response.ids, *(ids[:-1] if ended else ids)),))


@dataclass
class RightLabel:
    """1 where the label that was said is the row's own, else 0."""

    data: Rows

    def __call__(self, rows: Sequence[int], responses: Sequence[Encoded], meter: Meter) -> torch.Tensor:
        said = [one.action for one in responses if isinstance(one, Said)]
        return torch.tensor([float(action == self.data.labels[row]) for row, action in zip(rows, said, strict=True)])


@dataclass
class RightReply:
    """1 where the reply, read as the task reads replies, is the row's target, else 0."""

    reader: ReplyReader
    data: Rows

    def __call__(self, rows: Sequence[int], responses: Sequence[Encoded], meter: Meter) -> torch.Tensor:
        if meter.rehearses:
            return torch.zeros(len(rows))
        reply, tokenizer = self.reader.reply, self.reader.base.tokenizer
        told = [one.answers[0] for one in responses if isinstance(one, Answered)]
        texts = [tokenizer.decode(list(ids), skip_special_tokens=True) for ids in told]
        targets = [self.data.fields[row][TARGET] for row in rows]
        hits = [right(read(cut(t, False), reply), target, reply) for t, target in zip(texts, targets, strict=True)]
        return torch.tensor([float(hit) for hit in hits])
