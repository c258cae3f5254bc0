"""What a policy writes now and wrote before its preferences were trained: judged by an independent scorer.

Both draw responses to the same prompts. Reported are the scorer's rewards, how often the later response wins, what the
policy has moved (KL), how long responses are, and whether they still speak of what the task's texts speak of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.budget import Meter
from bench.config.probes import WritingProbe
from bench.config.task import ANSWERS
from bench.data.rows import Rows
from bench.probed import Text, WritingFindings
from bench.probes.overlap import overlap
from bench.probes.scorer import Scorer, words
from bench.score.adapted import Adapted, length_sorted
from bench.score.answers import Answered, AnswerReader
from bench.score.batch import Encoded
from bench.strategy import Answerer, Unsupported
from bench.train.acting import Speech
from bench.train.policies import ImplicitReward
from bench.train.rewards import Learned, Reward
from bench.train.stages import BestOf, Rewarded
from bench.train.versions import REFERENCE

COPIED = 6
"""Words in a row from a text of the data from which a written text is not shown: records hold no text of the data."""


@dataclass
class Policies:
    """A policy that writes, and how to have it as it was."""

    module: nn.Module
    reader: AnswerReader
    before: Callable[[], AbstractContextManager[Any]]
    """While this is entered, `module` is the policy as it was."""
    choose: Reward | None = None
    """Rewards by which the best of several responses is taken."""
    number: int = 1
    against: str = "where its preference stage began"


def policies(answer: Answerer) -> Policies:
    """The two of a cell. Raises `Unsupported` where nothing writes, or nothing was trained."""
    inner = answer.inner if isinstance(answer, ImplicitReward | Rewarded | BestOf) else answer
    if not isinstance(inner, Adapted) or not isinstance(inner.reader, AnswerReader):
        raise Unsupported("it writes nothing: a policy does, such as dpo or ppo")
    module, reader = inner.module, inner.reader
    if isinstance(answer, ImplicitReward | Rewarded | BestOf):
        stages = answer.stage if isinstance(answer, ImplicitReward) else answer.stages
        versions = stages.versions
        if REFERENCE not in versions.kept:
            raise Unsupported("its last stage never began: raise the budget")
        found = Policies(module, reader, lambda: versions.held(REFERENCE))
        if isinstance(answer, BestOf):
            judge = answer.stages.judge
            assert judge is not None
            found.choose = Learned(judge, versions, reader.base.tokenizer.eos_token_id)
            found.number = answer.number
        return found
    disabled = getattr(module, "disable_adapter", None)
    if disabled is None or getattr(getattr(module, "active_peft_config", None), "is_prompt_learning", False):
        raise Unsupported("its base cannot be had beside it: ask zero-shot's like of lora, or a preference strategy")
    return Policies(module, reader, disabled, against="the base")


@dataclass
class Writing:
    """One cell asked to write."""

    found: Policies
    scorer: Scorer
    rows: Rows
    """Test rows: their prompts are answered, one after the other and again from the first."""
    asked: WritingProbe
    meter: Meter

    def __post_init__(self) -> None:
        self.order = [i % len(self.rows) for i in range(self.asked.responses)]
        self.speech = Speech(self.found.reader, self.found.module, self.rows, self.asked.tokens)

    def ask(self, data: Sequence[str]) -> WritingFindings:
        """Draw responses from both and hold them against each other; no text that stands in `data` is shown."""
        found = self.found
        with found.before():
            before = self.draw(0)
        after = self.draw(1)
        kl = self.moved(after) if found.number == 1 else None
        if found.choose is not None:
            after = self.best(after)
        earlier, later = self.texts(before), self.texts(after)
        prompts = [self.rows.fields[i] for i in self.order]
        rewards = self.scorer.rewards(prompts, list(zip(earlier, later, strict=True)), self.meter)
        real = [fields[name] for fields in self.rows.fields for name in ANSWERS]
        return WritingFindings(
            against=found.against,
            scorer_accuracy=self.scorer.accuracy,
            scorer_pairs=self.scorer.pairs,
            before=rewards[:, 0].tolist(),
            after=rewards[:, 1].tolist(),
            kl=kl,
            kl_bound=math.log(found.number) - (found.number - 1) / found.number if found.number > 1 else None,
            tokens_before=lengths(before),
            tokens_after=lengths(after),
            topic_before=[self.scorer.on_topic(text) for text in earlier],
            topic_after=[self.scorer.on_topic(text) for text in later],
            topic_data=float(np.mean([self.scorer.on_topic(text) for text in real])),
            distinct_before=distinct(earlier),
            distinct_after=distinct(later),
            texts=shown(earlier, later, self.asked.shown, data),
        )

    def draw(self, turn: int) -> list[Encoded]:
        """A response to every prompt, by the model as it is."""
        generator = torch.Generator(device=self.found.reader.device).manual_seed(self.asked.seed * 1000 + turn)
        return self.speech.act(self.order, self.meter, generator)

    def best(self, first: list[Encoded]) -> list[Encoded]:
        """Of `number` responses to every prompt the one with the highest reward."""
        choose = self.found.choose
        assert choose is not None
        kept, highest = list(first), choose(self.order, first, self.meter)
        for turn in range(1, self.found.number):
            drawn = self.draw(1 + turn)
            rewards = choose(self.order, drawn, self.meter)
            for i in torch.nonzero(rewards > highest).flatten().tolist():
                kept[i] = drawn[i]
            highest = torch.maximum(highest, rewards)
        return kept

    def moved(self, responses: list[Encoded]) -> list[float]:
        """Log-probability of every response less that of the policy before, nats: its mean is the KL."""
        after = self.said(responses)
        with self.found.before():
            before = self.said(responses)
        return (after - before).tolist()

    def said(self, responses: list[Encoded]) -> np.ndarray:
        """Float64 (responses,): log-probability of each."""
        out = np.zeros(len(responses))
        with torch.inference_mode():
            for part in length_sorted(responses):
                batch = self.speech.collate([responses[i] for i in part])
                with self.meter.step(("say", *batch.shape), len(part)):
                    logp, _ = self.speech.read(self.found.module, batch)
                out[part] = (logp * batch.extra["real"]).sum(-1).double().cpu().numpy()
        return out

    def texts(self, responses: Sequence[Encoded]) -> list[str]:
        """As words, without what ends them."""
        tokenizer = self.found.reader.base.tokenizer
        ids = [list(one.answers[0]) for one in responses if isinstance(one, Answered)]
        return [tokenizer.decode(one, skip_special_tokens=True).strip() for one in ids]


def lengths(responses: Sequence[Encoded]) -> list[int]:
    """Tokens of each, its end included."""
    return [len(one.answers[0]) for one in responses if isinstance(one, Answered)]


def distinct(texts: Sequence[str]) -> float | None:
    """Different pairs of words in a row over all of them (Li et al. 2016, distinct-2); None without any."""
    pairs = [pair for text in texts for pair in zip(words(text), words(text)[1:], strict=False)]
    return len(set(pairs)) / len(pairs) if pairs else None


def shown(before: Sequence[str], after: Sequence[str], number: int, data: Sequence[str]) -> list[Text]:
    """The first texts of both, a pair each; one that shares words in a row with the data is withheld."""
    number = min(number, len(before))
    copied = [run >= COPIED for run in overlap(data, [*before[:number], *after[:number]]).longest]
    kept = [None if hidden else text for hidden, text in zip(copied, [*before[:number], *after[:number]], strict=True)]
    return [Text(before=one, after=other) for one, other in zip(kept[:number], kept[number:], strict=True)]
