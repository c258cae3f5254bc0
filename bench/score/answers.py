"""Readers of rows that hold two answers to one prompt (kind prefer), of which one is preferred, or labels whose words
are the answers.

`AnswerReader` scores an answer by its summed log-probability after the prompt, its end included, and trains on the
preferred one as plain supervised fine-tuning does. `RewardReader` puts a fresh linear layer of one output on the
pooled state of prompt and answer: cross-entropy over two such rewards is the Bradley-Terry loss (Ouyang et al. 2022,
equation 1), so whatever strategy trains under a head trains a reward model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from bench.config.schema import Template
from bench.config.task import ANSWERS
from bench.data.prompts import fill, words
from bench.data.rows import Rows
from bench.models.base import Base
from bench.models.parts import output_head
from bench.score.batch import Batch, Encoded, mask_of, pad, stack
from bench.score.heads import READ_PROMPTS, HeadReader
from bench.score.readers import VerbalizerReader, only_positions
from bench.strategy import TaskContext, Unsupported


@dataclass(frozen=True)
class Answered(Encoded):
    """A prompt and the answers that are read after it."""

    answers: tuple[tuple[int, ...], ...] = ()

    @property
    def length(self) -> int:
        """Real tokens of the longest of its rows."""
        return len(self.ids) + max(map(len, self.answers))

    @property
    def head_reads(self) -> int:
        """Tokens that the LM head reads for it: each predicts one of an answer's."""
        return sum(map(len, self.answers))


def shortened(
    prompt: list[int], answers: list[list[int]], room: int, least: int
) -> tuple[list[int], list[list[int]], bool]:
    """A prompt without its front and answers without their ends, so that both fit `room` together; whether any was cut.

    Of a prompt the last `least` tokens stay, where it has as many.
    """
    kept = max(least, room - max(map(len, answers)))
    short = prompt[max(0, len(prompt) - kept) :]
    cut = [answer[: room - len(short)] for answer in answers]
    return short, cut, len(short) < len(prompt) or cut != answers


class AnswerReader(VerbalizerReader):
    """Summed log-probability of each answer's tokens after the prompt, for causal models."""

    kinds = ("causal",)

    def speak(self, template: Template) -> None:
        """Ask through this template from now on."""
        self.template, self.words, self.single = template, [], False
        self.bos, self.eos = self.edges()

    def encode(self, fields: Sequence[dict[str, str]]) -> list[Encoded]:
        """Both answers of every row."""
        return [self.answered(fill(self.template, f), [f[name] for name in ANSWERS]) for f in fields]

    def encode_training(self, rows: Rows) -> list[Encoded]:
        """The preferred answer of every row, which is all that supervised fine-tuning sees."""
        preferred = [f[ANSWERS[label]] for f, label in zip(rows.fields, rows.labels, strict=True)]
        return [self.answered(fill(self.template, f), [a]) for f, a in zip(rows.fields, preferred, strict=True)]

    def answered(self, prompt: str, texts: Sequence[str]) -> Answered:
        """Prompt and answers as ids. An answer too long for `sequence` loses its end, a prompt its front."""
        answers = [[*self.tokens(text), *self.stop] for text in texts]
        around = len(self.bos) + len(self.eos)
        room = min(self.sequence, self.base.max_length or self.sequence) - around
        if room < 2:
            raise Unsupported(f"what stands around every prompt leaves no token of {self.sequence}: raise sequence")
        # one token of the prompt at least: the first token of an answer is predicted from what stands before it
        ids, answers, cut = shortened(self.tokens(prompt), answers, room, 0 if around else 1)
        self.truncated += cut
        if not ids and not around:
            raise Unsupported("the prompt is empty and the model has no token to begin with: write a pattern")
        return Answered(self.surround(ids), answers=tuple(map(tuple, answers)))

    @property
    def stop(self) -> list[int]:
        """What ends an answer: with it a model learns to stop, and a text is likelier than its continuation."""
        end = self.base.tokenizer.eos_token_id
        return [] if end is None else [end]

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        """A row an answer."""
        pairs = [(e.ids, answer) for e in encoded if isinstance(e, Answered) for answer in e.answers]
        rows = [Encoded([*ids, *answer[:-1]]) for ids, answer in pairs]
        batch = stack(rows, self.base.tokenizer.pad_token_id, self.base.max_length, self.device)
        batch.items = len(encoded)
        lengths = torch.tensor([len(answer) for _, answer in pairs])
        width = int(lengths.max())
        real = mask_of(lengths, width)
        starts = torch.tensor([len(ids) - 1 for ids, _ in pairs])
        batch.extra["positions"] = (starts.unsqueeze(1) + torch.arange(width)) * real
        batch.extra["targets"] = pad([list(answer) for _, answer in pairs], 0, width)
        batch.extra["real"] = real
        return self.to_device(batch)

    def loss(self, module: nn.Module, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the preferred answer's tokens, mean over rows of the mean over a row's tokens.

        `batch` is of `encode_training`: one answer a row, so `labels` say nothing more.
        """
        real = batch.extra["real"]
        return -((self.token_scores(module, batch) * real).sum(-1) / real.sum(-1)).mean()

    def scores(self, module: nn.Module, batch: Batch, **past: object) -> torch.Tensor:
        """Float32 (items, answers): summed log-probability of each answer's tokens."""
        logp = self.token_scores(module, batch) * batch.extra["real"]
        return logp.sum(-1).view(batch.items, -1)

    def choices(self, encoded: Encoded) -> Sequence[Sequence[int]]:
        """Ids of one row's answers."""
        assert isinstance(encoded, Answered)
        return encoded.answers

    def word_lengths(self, batch: Batch) -> torch.Tensor:
        """Int64 (items, answers): tokens of each answer."""
        return batch.extra["real"].sum(-1).view(batch.items, -1)

    def token_scores(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        """Float32 (rows, longest answer): log-probability of each answer token; padding holds any number."""
        with only_positions(output_head(self.base), batch.extra["positions"], batch.padded):
            logits = module(**batch.inputs).logits.float()
        # without a second tensor as large as the logits: an answer has dozens of tokens, a vocabulary tens of thousands
        picked: torch.Tensor = logits.gather(-1, batch.extra["targets"].unsqueeze(-1)).squeeze(-1)
        return picked - logits.logsumexp(-1)


class RewardReader(HeadReader):
    """One number for prompt and answer together; the scores of a row are those of its two answers."""

    def outputs(self, context: TaskContext) -> int:
        """One reward."""
        return 1

    def encode(self, fields: Sequence[dict[str, str]]) -> list[Encoded]:
        """All answers of every row, each behind the prompt; an encoder reads them as a pair of texts."""
        limit = min(self.sequence, self.base.max_length or self.sequence)
        return [Answered([], answers=tuple(self.one(f, one, limit) for one in self.answers_of(f))) for f in fields]

    def answers_of(self, fields: dict[str, str]) -> list[str]:
        """What is rewarded."""
        return [fields[name] for name in ANSWERS]

    def one(self, fields: dict[str, str], answer: str, limit: int) -> tuple[int, ...]:
        """Prompt and one answer as ids. To fit `limit` a prompt loses its front and an answer its end."""
        tokenizer, prompt = self.base.tokenizer, fill(self.template, fields)
        if self.base.kind not in READ_PROMPTS:
            text = f"{prompt}\n{answer}" if fields.keys() - set(ANSWERS) else answer
            ids = tokenizer(text)["input_ids"]
            self.truncated += len(ids) > limit
            return tuple(ids if len(ids) <= limit else tokenizer(text, truncation=True, max_length=limit)["input_ids"])
        # prompt and answer apart, as a policy reads them: joining the texts may move the token boundary
        parts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer)]
        before, between, after = self.edges()
        room = limit - len(before) - len(between) - len(after)
        asked, told, cut = shortened(parts[0], [parts[1]], room, 1)
        self.truncated += cut
        return (*before, *asked, *between, *told[0], *after)

    def edges(self) -> tuple[list[int], list[int], list[int]]:
        """Special tokens before the prompt, between it and the answer, and after both."""
        if self.around is not None:
            return *self.around, []
        special: list[int] = self.base.tokenizer("")["input_ids"]
        return ([], [], special) if self.base.kind == "seq2seq" else (special, [], [])

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        """A row an answer."""
        rows = [Encoded(list(answer)) for e in encoded if isinstance(e, Answered) for answer in e.answers]
        batch = super().collate(rows)
        batch.items = len(encoded)
        return batch

    def scores(self, module: nn.Module, batch: Batch) -> torch.Tensor:
        """Float32 rewards (items, answers)."""
        return super().scores(module, batch).view(batch.items, -1)


class LabelRewardReader(RewardReader):
    """Rewards of the labels' words after the prompt, for rows that have labels and no answers of their own."""

    def __init__(self, base: Base, context: TaskContext) -> None:
        super().__init__(base, context)
        self.labels = context.task.labels

    def answers_of(self, fields: dict[str, str]) -> list[str]:
        """Every label's word."""
        return words(self.template, self.labels)

    def loss(self, module: nn.Module, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
        """Bradley and Terry's loss of the gold label's word against each other one, the mean of all: the comparisons of
        one prompt stand in one batch (Ouyang et al. 2022, equation 1)."""
        rewards = self.scores(module, batch)
        others = (labels.unsqueeze(1) + torch.arange(1, rewards.shape[-1], device=labels.device)) % rewards.shape[-1]
        gains = rewards.gather(1, labels.unsqueeze(1)) - rewards.gather(1, others)
        return -nn.functional.logsigmoid(gains).mean()
