"""Stages of a policy trained by rewards: supervised, then the reward where it is learned, then its own responses.

All of them train the same low-rank factors of one model. The reference is the policy as the supervised stage left it,
the reward model begins there too (Ouyang et al. 2022, section 3.4), and both are kept as versions of those factors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bench.budget import Meter
from bench.config.schema import Template
from bench.score.adapted import Adapted, normalised
from bench.score.answers import RewardReader
from bench.score.replies import Told
from bench.strategy import Examples, Plan, TaskContext
from bench.train.rewards import REWARD
from bench.train.rollouts import Rolling
from bench.train.versions import REFERENCE, Versions

SUPERVISED, REWARDING, ROLLING = 0, 1, 2
"""The groups of examples, one a stage."""


@dataclass(frozen=True)
class Shares:
    """How the budget is shared out among the stages, and their rates."""

    supervised: float
    """Where the supervised stage ends, and that of the reward model begins where one is learned."""
    rolls: float
    """Where the policy's stage begins; 1: it has none."""
    reward_lr: float
    lr: float

    def wants(self, group: int, progress: float) -> bool:
        """Whether this stage trains now."""
        return group == (SUPERVISED if progress < self.supervised else REWARDING if progress < self.rolls else ROLLING)


@dataclass
class Stages:
    """A plan whose stages train versions of the same factors."""

    plan: Plan
    context: TaskContext
    shares: Shares
    versions: Versions
    judge: RewardReader | None
    """Reads pairs for the learned reward."""
    rolling: Rolling | None = None
    """None: no policy is trained after it (best of n)."""
    judging: bool = False
    """Whether the model holds the reward model now, amid that one's stage."""

    def enter(self, group: int, meter: Meter) -> bool:
        """Where a stage begins: note what the one before has left."""
        if self.judging:
            self.judged()
        elif group != SUPERVISED:
            self.versions.keep(REFERENCE)
        self.judging = group == REWARDING
        return True

    def judged(self) -> None:
        """Put the reward model aside; the policy goes on from its reference."""
        self.versions.keep(REWARD)
        self.versions.take(REFERENCE)
        self.judging = False

    def finish(self) -> None:
        """Leave the model with the policy, wherever training ended."""
        if self.judging:
            self.judged()

    def ready(self, group: int, meter: Meter) -> bool:
        """Responses for the last stage."""
        return group != ROLLING or self.rolling is None or self.rolling.ready(meter)

    @contextmanager
    def policy(self) -> Iterator[None]:
        """The model as the policy: amid the reward's stage it holds another version."""
        with self.versions.held(REFERENCE) if self.judging else nullcontext():
            yield

    def state(self) -> dict[str, torch.Tensor]:
        """What a halted training must keep."""
        kept = self.versions.state() | {"judging": torch.tensor(self.judging)}
        return kept if self.rolling is None else kept | self.rolling.state()

    def restore(self, kept: dict[str, torch.Tensor]) -> None:
        """Take it back."""
        rolling = {name: tensor for name, tensor in kept.items() if name.startswith("round ")}
        self.versions.restore({name: tensor for name, tensor in kept.items() if name not in rolling})
        self.judging = bool(kept["judging"])
        if self.rolling is not None and rolling:
            self.rolling.restore(rolling)

    def examples(self, supervised: Callable[[], Examples]) -> Examples:
        """The rows of every stage."""
        rows, found = self.context.train, supervised()
        items = [(self.context.name, row) for row in rows.index]
        encoded, labels, of = list(found.encoded), list(found.labels), list(found.items)
        if self.judge is not None:
            encoded += [replace(one, group=REWARDING) for one in self.judge.encode(rows.fields)]
            labels, of = labels + list(rows.labels), of + items
        if self.rolling is not None:
            slots = self.rolling.acts.slots(self.rolling.pace.responses)
            encoded += [replace(slot, group=ROLLING) for slot in slots]
            labels, of = labels + [0] * len(slots), of + [items[i % len(items)] for i in range(len(slots))]
        return Examples(encoded, labels, of)

    def collate(self, first: Callable[[Sequence[Any]], Any], encoded: Sequence[Any]) -> Any:
        """One batch of one stage."""
        group = encoded[0].group
        if group == SUPERVISED:
            batch = first(encoded)
        elif group == REWARDING:
            assert self.judge is not None
            batch = self.judge.collate(encoded)
        else:
            assert self.rolling is not None
            batch = self.rolling.collate(encoded)
        batch.group = group
        return batch

    def loss(self, first: Callable[[Any, torch.Tensor], torch.Tensor], batch: Any, labels: torch.Tensor) -> Any:
        """The stage's own."""
        if batch.group == SUPERVISED:
            return first(batch, labels)
        if batch.group == REWARDING:
            assert self.judge is not None
            return self.judge.loss(self.judge.target(), batch, labels)
        assert self.rolling is not None
        return self.rolling.loss(batch)


@dataclass
class Rewarded:
    """Answers of a policy trained by rewards: as any model does, and of pairs by its log-ratio to the reference, which
    is the reward it has made its own (Rafailov et al. 2023, equation 5)."""

    inner: Adapted | Told
    stages: Stages

    @property
    def truncated(self) -> int:
        return self.inner.truncated

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Float64 scores (rows, labels)."""
        with self.stages.policy():
            scores = self.inner.predict(fields, meter)
        versions = self.stages.versions
        if self.stages.context.task.kind != "prefer" or REFERENCE not in versions.kept:
            return scores
        with versions.held(REFERENCE):
            return scores - self.inner.predict(fields, meter)

    def through(self, template: Template) -> Rewarded:
        """Asked through another prompt."""
        return replace(self, inner=self.inner.through(template))


@dataclass
class BestOf:
    """A policy that answers the best of several responses, by its reward model; of pairs that model's choice; of labels
    the best of those that several draws from the policy gave."""

    inner: Adapted
    stages: Stages
    number: int

    @property
    def truncated(self) -> int:
        return self.inner.truncated

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Float64 rewards (rows, labels); of a label that was never drawn the lowest there is, less one."""
        judge, versions = self.stages.judge, self.stages.versions
        assert judge is not None
        with versions.held(REWARD) if REWARD in versions.kept else nullcontext():
            rewards = Adapted(judge.target(), judge).predict(fields, meter)
        if self.stages.context.task.kind == "prefer":
            return rewards
        chances = np.exp(normalised(self.inner.predict(fields, meter)))
        drawn = np.random.default_rng([self.stages.context.seed % 2**63, 0xBE57]).multinomial(self.number, chances)
        out: np.ndarray = np.where(drawn > 0, rewards, rewards.min() - 1)
        return out

    def through(self, template: Template) -> BestOf:
        """Asked through another prompt. Raises `Unsupported` where the reward model reads none."""
        assert self.stages.judge is not None
        stages = replace(self.stages, judge=self.stages.judge.through(template))
        return replace(self, inner=self.inner.through(template), stages=stages)
