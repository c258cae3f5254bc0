"""Policies trained on preferences: first supervised on the preferred answers, then by a preference loss.

The reference of the second stage is the policy as the first one left it. What it says of the training pairs is asked
once, where the stage begins, so no second model is held while it trains; for answers afterwards its trained
parameters are kept beside the policy's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.budget import Meter
from bench.config.schema import Template
from bench.models.base import Base
from bench.score.adapted import Adapted, length_sorted
from bench.score.answers import AnswerReader
from bench.score.batch import Batch
from bench.strategy import Answerer, Examples, Plan, TaskContext, Unsupported
from bench.train.plans import as_tensors, save_tensors

SUPERVISED, PREFERENCE = 0, 1
"""The groups of examples, one a stage."""
REFERENCE = "reference.safetensors"
MOST_WATCHED = 400
"""Steps of which the watched numbers are kept; of more, evenly spaced ones."""

PairLoss = Callable[["Pairs"], torch.Tensor]


@dataclass(frozen=True)
class Pairs:
    """What a preference loss sees of a batch: summed log-probabilities in nats, (rows,) each."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    reference_chosen: torch.Tensor
    reference_rejected: torch.Tensor
    lengths: tuple[torch.Tensor, torch.Tensor]
    """Tokens of the chosen and of the rejected answers."""


@dataclass
class Preferring:
    """The second stage of a policy, and what it keeps."""

    reader: AnswerReader
    module: nn.Module
    params: list[nn.Parameter]
    """What trains."""
    examples: Examples
    """The pairs, in the order of the task's training rows."""
    loss: PairLoss
    reference: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    """(pairs, 2): what the reference says of both answers of every pair."""
    before: list[torch.Tensor] = field(default_factory=list)
    """The trained parameters as the reference has them; empty until the stage begins."""
    watched: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    """Mean log-ratios of the chosen and the rejected answers to the reference, a step each."""

    def enter(self, group: int, meter: Meter) -> bool:
        """Where the preference stage begins: note what the policy says now, as far as the budget holds it."""
        if group != PREFERENCE:
            return True
        self.before = [p.detach().clone() for p in self.params]
        device = self.params[0].device
        self.reference = torch.zeros(len(self.examples.encoded), 2, device=device)
        encoded = self.examples.encoded
        plan = list(length_sorted(encoded))
        weights = [len(rows) * max(encoded[i].length for i in rows) for rows in plan]
        self.module.eval()
        without_dropout(self.module)
        for rows in meter.chosen(plan, weights):
            batch = self.reader.collate([encoded[i] for i in rows])
            shape = ("reference", *batch.shape)
            if meter.budget is not None and not meter.affords(meter.cost(0, batch.tokens, shape)):
                return False
            with meter.step(shape, 0, aside=True), torch.no_grad():
                self.reference[batch.extra["place"]] = self.reader.scores(self.module, batch)
        return True

    def preference(self, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
        """The loss of a batch of pairs whose preferred answers stand at `labels`."""
        scores, reference = self.reader.scores(self.module, batch), self.reference[batch.extra["place"]]
        rows = torch.arange(len(labels), device=labels.device)
        lengths = batch.extra["real"].sum(-1).view(-1, 2)
        found = Pairs(
            scores[rows, labels],
            scores[rows, 1 - labels],
            reference[rows, labels],
            reference[rows, 1 - labels],
            (lengths[rows, labels], lengths[rows, 1 - labels]),
        )
        ratios = (found.chosen - found.reference_chosen, found.rejected - found.reference_rejected)
        self.watched.append((ratios[0].detach().mean(), ratios[1].detach().mean()))
        return self.loss(found)

    def told(self) -> dict[str, list[float]]:
        """Log-ratios to the reference by step, nats an answer: a policy may learn which is preferred while both become
        less likely."""
        every = max(1, -(-len(self.watched) // MOST_WATCHED))
        kept = self.watched[::every]
        return {
            "log-ratio of the preferred answers": [float(chosen) for chosen, _ in kept],
            "log-ratio of the other answers": [float(rejected) for _, rejected in kept],
        }

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        """The model with its trained parameters as the reference has them."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange the values of policy and reference, in place: storages stay where they are."""
        with torch.no_grad():
            for parameter, other in zip(self.params, self.before, strict=True):
                now = parameter.detach().clone()
                parameter.copy_(other)
                other.copy_(now)

    def state(self) -> dict[str, torch.Tensor]:
        """What a halted training must keep."""
        return {"reference": self.reference} | {f"before.{i}": tensor for i, tensor in enumerate(self.before)}

    def restore(self, kept: dict[str, torch.Tensor]) -> None:
        """Take it back."""
        device = self.params[0].device
        self.reference = kept["reference"].to(device)
        self.before = [kept[f"before.{i}"].to(device) for i in range(len(kept) - 1)]


def without_dropout(module: nn.Module) -> None:
    """Turn dropout off for good: a ratio to the reference would hold its noise."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0


@dataclass
class ImplicitReward:
    """Answers by the reward a policy implies: beta times its log-ratio to the reference (Rafailov et al. 2023, eq. 5).

    Without a reference (its stage never began) it answers by log-probability alone.
    """

    inner: Adapted
    stage: Preferring
    beta: float

    @property
    def truncated(self) -> int:
        return self.inner.truncated

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Float64 rewards (rows, 2), up to what both answers of a prompt share."""
        policy = self.inner.predict(fields, meter)
        if not self.stage.before:
            return policy
        with self.stage.as_reference():
            reference = self.inner.predict(fields, meter)
        rewards: np.ndarray = self.beta * (policy - reference)
        return rewards

    def through(self, template: Template) -> Answerer:
        """Asked through another prompt, policy and reference alike."""
        return replace(self, inner=self.inner.through(template))


def preferring_plan(
    base: Base, context: TaskContext, plan: Plan, loss: PairLoss, beta: float, share: float, lr: float
) -> Plan:
    """Turn a plan that fine-tunes on preferred answers into one of two stages.

    The first stage keeps the plan's own rate and takes `share` of the budget, the second trains the same parameters at
    `lr`. Raises `Unsupported` for a task that holds no pairs.
    """
    assert plan.module is not None and plan.examples is not None and isinstance(plan.answer, Adapted)
    reader = plan.answer.reader
    if not isinstance(reader, AnswerReader):
        raise Unsupported(
            "a preference loss needs pairs of answers and a policy that says them: use readout=verbalizer"
        )
    rows = context.train
    encoded = [replace(e, group=PREFERENCE) for e in reader.encode(rows.fields)]
    pairs = Examples(encoded, rows.labels, [(context.name, row) for row in rows.index])
    stage = Preferring(reader, plan.module, list(plan.groups[0].params), pairs, loss)
    supervised = plan.examples
    plan.groups[0].ends = share
    plan.groups[0].later = ((lr, share, 1.0),)

    def both() -> Examples:
        first = supervised()
        return Examples([*first.encoded, *pairs.encoded], [*first.labels, *pairs.labels], [*first.items, *pairs.items])

    fit, collate = plan.loss, reader.collate

    def staged(batch: Any, labels: torch.Tensor) -> torch.Tensor:
        assert fit is not None
        if batch.group == PREFERENCE:
            return stage.preference(batch, labels)
        return fit(batch, labels)

    def batched(encoded: Sequence[Any]) -> Batch:
        batch = collate(encoded)
        batch.group = encoded[0].group
        return batch

    plan.examples, plan.loss, plan.collate = both, staged, batched
    plan.wants = lambda group, progress: (group == PREFERENCE) == (progress >= share)
    plan.enter, plan.told = stage.enter, stage.told
    plan.own_state, plan.restore = stage.state, stage.restore
    plan.reread = None  # a planted leak is one of labels
    plan.answer = ImplicitReward(plan.answer, stage, beta)
    keep(plan, stage)
    return plan


def keep(plan: Plan, stage: Preferring) -> None:
    """Store the reference's parameters beside the policy's, and take both back."""
    save_policy, load_policy, answer = plan.save, plan.load, plan.answer
    assert load_policy is not None and isinstance(answer, ImplicitReward)
    trained = {id(p) for p in stage.params}
    names = [name for name, p in stage.module.named_parameters() if id(p) in trained]

    def reference() -> dict[str, torch.Tensor]:
        return dict(zip(names, stage.before, strict=True))

    def save(folder: Path) -> None:
        save_policy(folder)
        if stage.before:
            save_tensors(folder / REFERENCE, reference())

    def load(folder: Path) -> None:
        load_policy(folder)
        policy = plan.answer if isinstance(plan.answer, Adapted) else answer.inner
        loaded = dict(policy.module.named_parameters())
        stage.params = [loaded[name] for name in names]
        stage.before = []
        if (folder / REFERENCE).is_file():
            stage.before = [torch.empty_like(p) for p in stage.params]
            as_tensors(REFERENCE, reference()).load(folder)
        plan.answer = replace(answer, inner=policy)

    plan.save, plan.load = save, load
