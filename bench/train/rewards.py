"""What a response is worth: a learned reward (from pairs), or one that can be verified (the right label or reply)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from bench.budget import Meter
from bench.config.task import TARGET
from bench.data.rows import Rows
from bench.data.spans import counts, f1, parse
from bench.score.adapted import length_sorted
from bench.score.answers import Answered, LabelRewardReader, RewardReader
from bench.score.batch import Encoded
from bench.score.marks import marks
from bench.score.replies import Told, cut, read, right
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
class LearnedOfLabels:
    """A reward model's numbers for the label words that were said."""

    reader: LabelRewardReader
    versions: Versions
    data: Rows

    def __call__(self, rows: Sequence[int], responses: Sequence[Encoded], meter: Meter) -> torch.Tensor:
        said = [one.action for one in responses if isinstance(one, Said)]
        encoded = self.reader.encode([self.data.fields[row] for row in rows])
        found = torch.zeros(len(said), device=self.reader.device)
        parts = list(length_sorted(encoded))
        self.reader.target().eval()
        with self.versions.held(REWARD), torch.no_grad():
            for part in meter.chosen(parts, [len(p) * encoded[p[-1]].length for p in parts]):
                batch = self.reader.collate([encoded[i] for i in part])
                with meter.step(("reward", *batch.shape), 0, aside=True):
                    rewards = self.reader.scores(self.reader.target(), batch)
                actions = torch.tensor([said[i] for i in part], device=rewards.device)
                found[torch.tensor(part)] = rewards.gather(1, actions.unsqueeze(1)).squeeze(1)
        return found


@dataclass
class RightLabel:
    """1 where the label that was said is the row's own, else 0."""

    data: Rows

    def __call__(self, rows: Sequence[int], responses: Sequence[Encoded], meter: Meter) -> torch.Tensor:
        said = [one.action for one in responses if isinstance(one, Said)]
        return torch.tensor([float(action == self.data.labels[row]) for row, action in zip(rows, said, strict=True)])


@dataclass
class RightReply:
    """1 where the reply, read as the task reads replies, is the row's target, else 0; of texts and entities the share
    that the task's metric gives this one reply."""

    told: Told
    data: Rows

    def __call__(self, rows: Sequence[int], responses: Sequence[Encoded], meter: Meter) -> torch.Tensor:
        if meter.rehearses:
            return torch.zeros(len(rows))
        tokenizer = self.told.reader.base.tokenizer
        said = [one.answers[0] for one in responses if isinstance(one, Answered)]
        texts = [cut(tokenizer.decode(list(ids), skip_special_tokens=True), self.told.end) for ids in said]
        targets = [self.data.fields[row][TARGET] for row in rows]
        return torch.tensor([self.share(text, target) for text, target in zip(texts, targets, strict=True)])

    def share(self, text: str, target: str) -> float:
        """What one reply is worth, 0 to 1."""
        task = self.told.reader.task
        if task.kind == "tag":
            return f1([counts(parse(text, task.labels), parse(target, task.labels))])
        if task.kept:
            return dict(zip(task.kept, marks(text, target, task), strict=True))[task.metric]
        return float(right(read(text, self.told.reader.reply), target, self.told.reader.reply))
