"""Policies trained on preferences: first supervised on the preferred answers, then by a preference loss.

The reference of the second stage is the policy as the first one left it. What it says of the training pairs is asked
once, where the stage begins, so no second model is held while it trains; for answers afterwards its trained
parameters are kept beside the policy's.

Where rows have labels their words are the answers: the gold label's word is preferred to every other label's. Such a
policy answers by its label scores, as whatever else the verbalizer reads, so its score stands beside theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import nn

from bench.budget import Meter
from bench.config.schema import Template
from bench.models.base import Base
from bench.score.adapted import Adapted, length_sorted
from bench.score.answers import AnswerReader
from bench.score.batch import Batch, Encoded, sent
from bench.score.readers import VerbalizerReader
from bench.strategy import Answerer, Examples, Plan, TaskContext, Unsupported
from bench.train.versions import REFERENCE, Versions, answered, stored_beside

SUPERVISED, PREFERENCE = 0, 1
"""The groups of examples, one a stage."""
MOST_WATCHED = 400
"""Steps of which the watched numbers are kept; of more, evenly spaced ones."""

PairLoss = Callable[["Pairs"], torch.Tensor]


@dataclass(frozen=True)
class Pairs:
    """What a preference loss sees of a batch: summed log-probabilities in nats, (pairs,) each.

    A row is one pair; one of L labels is L - 1, with the preferred answer in each.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    reference_chosen: torch.Tensor
    reference_rejected: torch.Tensor
    lengths: tuple[torch.Tensor, torch.Tensor]
    """Tokens of the chosen and of the rejected answers."""


@dataclass
class Preferring:
    """The second stage of a policy, and what it keeps."""

    reader: VerbalizerReader
    module: nn.Module
    versions: Versions
    """What trains, and once the stage has begun its values as the reference has them, where an answer needs those."""
    examples: Examples
    """The rows, in the order of the task's training rows."""
    loss: PairLoss
    reference: torch.Tensor = field(default_factory=lambda: torch.zeros(0))
    """(rows, answers): what the reference says of every answer of every row."""
    watched: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    """Mean log-ratios of the chosen and the rejected answers to the reference, a step each."""

    def enter(self, group: int, meter: Meter) -> bool:
        """Where the preference stage begins: note what the policy says now, as far as the budget holds it."""
        if group != PREFERENCE:
            return True
        if isinstance(self.reader, AnswerReader):
            self.versions.keep(REFERENCE)
        device = self.versions.params[0].device
        self.reference = torch.zeros(len(self.examples.encoded), len(self.reader.labels), device=device)
        encoded = self.examples.encoded
        plan = list(length_sorted(encoded))
        weights = [len(rows) * max(encoded[i].length for i in rows) for rows in plan]
        self.module.eval()
        without_dropout(self.module)
        for rows in meter.chosen(plan, weights):
            batch = self.collate([encoded[i] for i in rows])
            shape = ("reference", *batch.shape)
            if meter.budget is not None and not meter.affords(meter.cost(0, batch.tokens, shape)):
                return False
            with meter.step(shape, 0, aside=True), torch.no_grad():
                self.reference[batch.extra["place"]] = self.reader.scores(self.module, batch)
        return True

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        """A batch of one group that knows which rows it is of."""
        batch = self.reader.collate(encoded)
        batch.group = encoded[0].group
        batch.extra["place"] = sent(torch.tensor([e.place for e in encoded]), self.reader.device)
        return batch

    def preference(self, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
        """The loss of a batch of rows whose preferred answers stand at `labels`: of each against all others."""
        scores, reference = self.reader.scores(self.module, batch), self.reference[batch.extra["place"]]
        answers = scores.shape[-1]
        # every other label, by its place after the preferred one: a mask's shape would depend on its values
        steps = torch.arange(1, answers, device=labels.device)
        others = (labels.unsqueeze(1) + steps) % answers
        preferred = labels.unsqueeze(1).expand_as(others)

        def both(of: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return of.gather(1, preferred).flatten(), of.gather(1, others).flatten()

        found = Pairs(*both(scores), *both(reference), both(self.reader.word_lengths(batch)))
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

    def state(self) -> dict[str, torch.Tensor]:
        """What a halted training must keep."""
        return {"said": self.reference} | self.versions.state()

    def restore(self, kept: dict[str, torch.Tensor]) -> None:
        """Take it back. A stage that had begun is not entered again, so dropout is turned off here."""
        self.reference = kept["said"].to(self.versions.params[0].device)
        if len(self.reference):
            without_dropout(self.module)
        self.versions.restore(kept)


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
        if REFERENCE not in self.stage.versions.kept:
            return policy
        with self.stage.versions.held(REFERENCE):
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
    `lr`. Where rows hold their answers it answers by implicit reward, where they have labels by the labels' scores.
    Raises `Unsupported` for a readout that says no answer.
    """
    assert plan.module is not None and isinstance(plan.answer, Adapted)
    reader = plan.answer.reader
    if not isinstance(reader, VerbalizerReader):
        raise Unsupported("a preference loss needs a policy that says its answers: use readout=verbalizer")
    rows = context.train
    encoded = [replace(e, group=PREFERENCE, place=place) for place, e in enumerate(reader.encode(rows.fields))]
    pairs = Examples(encoded, rows.labels, [(context.name, row) for row in rows.index])
    stage = Preferring(reader, plan.module, Versions(plan.groups[0].params), pairs, loss)
    two_stages(plan, pairs, stage.preference, share, lr)
    plan.collate, plan.enter, plan.told = stage.collate, stage.enter, stage.told
    plan.own_state, plan.restore = stage.state, stage.restore
    if isinstance(reader, AnswerReader):
        plan.reread = None  # a planted leak is one of labels
        stored_beside(plan, stage.versions, [REFERENCE])
        answered(plan, partial(ImplicitReward, stage=stage, beta=beta))
    return plan


def continued(plan: Plan, share: float, lr: float) -> Plan:
    """The control of a preference stage: the plan goes on as it began, at that stage's rates, with the optimizer's
    moments forgotten as there, and where rows have labels with the same batches. Only the loss is not another one."""
    assert plan.examples is not None and plan.loss is not None and isinstance(plan.answer, Adapted)
    first, fit, weigh, reader = plan.examples(), plan.loss, plan.weigh, plan.answer.reader
    again = Examples([replace(e, group=PREFERENCE) for e in first.encoded], first.labels, first.items)

    def collate(encoded: Sequence[Encoded]) -> Batch:
        batch = reader.collate(encoded)
        batch.group = encoded[0].group
        return batch

    two_stages(plan, again, lambda batch, labels: fit(replace(batch, group=SUPERVISED), labels), share, lr)
    plan.collate, plan.enter = collate, lambda group, meter: True
    plan.weigh = None if weigh is None else lambda one: weigh(replace(one, group=SUPERVISED))
    return plan


def weighed_by_rows_later(plan: Plan) -> None:
    """The losses of later stages are means over rows, whatever the first one's is a mean over."""
    weigh = plan.weigh
    plan.weigh = None if weigh is None else lambda one: weigh(one) if one.group == SUPERVISED else 1


def two_stages(
    plan: Plan, second: Examples, loss: Callable[[Batch, torch.Tensor], torch.Tensor], share: float, lr: float
) -> None:
    """Train on the plan's own examples for `share` of the budget, then on those of group `PREFERENCE` with `loss` at
    `lr`. One task in one prompt format: the groups stand for the stages."""
    supervised, fit = plan.examples, plan.loss
    assert supervised is not None and fit is not None

    def both() -> Examples:
        first = supervised()
        return Examples(
            [*first.encoded, *second.encoded], [*first.labels, *second.labels], [*first.items, *second.items]
        )

    plan.groups[0].ends = share
    plan.groups[0].later = ((lr, share, 1.0),)
    plan.examples = both
    plan.loss = lambda batch, labels: (loss if batch.group == PREFERENCE else fit)(batch, labels)
    weighed_by_rows_later(plan)
    plan.wants = lambda group, progress: (group == PREFERENCE) == (progress >= share)
    plan.mixed, plan.formats = 0, 1
