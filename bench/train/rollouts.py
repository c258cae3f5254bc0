"""Policies trained by rewards: rounds of responses from the policy as it is, then a few epochs of updates on them.

A round asks the policy, its reference and the reward once for every response; what they say is kept and read by the
updates that follow. All of it is counted by the meter as work beside optimizer steps. InstructGPT (Ouyang et al. 2022)
with the details of Huang et al. 2024; GRPO of Shao et al. 2024.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from bench.budget import Meter
from bench.score.adapted import length_sorted
from bench.score.batch import Batch, Encoded
from bench.train.acting import Acts
from bench.train.policy import AdaptiveKL
from bench.train.rewards import Reward
from bench.train.versions import REFERENCE, Versions

TENSORS = ("logp", "reference", "advantages", "returns", "values", "mask")


@dataclass
class Round:
    """Responses and what was said of them, (responses, steps) each; zero where a response has no action."""

    rows: list[int]
    """Training row of each response's prompt."""
    responses: list[Encoded]
    logp: torch.Tensor
    reference: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor
    advantages: torch.Tensor
    """(responses, steps), or (responses,) where every action of a response has the same."""
    returns: torch.Tensor
    length: float
    """Mean actions of a response."""

    def part(self, name: str, places: torch.Tensor, steps: int) -> torch.Tensor:
        """One of the tensors for some responses."""
        found: torch.Tensor = getattr(self, name)[places]
        return found[:, :steps] if found.dim() == 2 else found


class Method(Protocol):
    """What PPO and GRPO have of their own."""

    def estimate(self, scores: torch.Tensor, round_: Round, kl: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Advantages and returns of a round, from a score a response."""
        ...

    def loss(self, logp: torch.Tensor, values: torch.Tensor, round_: Round, places: torch.Tensor, kl: float) -> Any:
        """The loss of some responses, mean over them, and the share of actions at which clipping decides."""
        ...


@dataclass(frozen=True)
class Pace:
    """How a policy is trained by rewards."""

    responses: int
    """Responses of a round."""
    group: int
    """Responses that follow each other to one prompt."""
    epochs: int
    """Times each response is read."""
    batch: int
    """Responses of an update."""
    unfinished: float
    """Added to the score, in SDs of the reward, of a response without an end."""

    def updates(self, responses: int) -> int:
        """Batches of a round of so many."""
        return self.epochs * -(-responses // self.batch)


@dataclass
class Rolling:
    """The stage of a policy that is trained by rewards."""

    acts: Acts
    module: nn.Module
    versions: Versions
    reward: Reward
    method: Method
    pace: Pace
    value: nn.Linear | None
    """Foretells the reward from the state before an action; None where the method has no such function."""
    kl: AdaptiveKL | float
    """How dear it is to leave the reference."""
    seed: int
    prompts: int
    """Training rows to draw prompts of."""
    number: int = 0
    """Rounds so far."""
    left: int = 0
    """Updates until the next round."""
    unit: tuple[float, float] | None = None
    """Mean and SD of the first round's rewards, which are the reference's: the unit of the scores."""
    dearest: float = 0.0
    """What a response of the dearest round so far has used of the binding axis."""
    round: Round | None = None
    told: dict[str, list[float]] = field(default_factory=dict)

    def ready(self, meter: Meter) -> bool:
        """A new round where the last one is used up; False where the budget holds none."""
        if self.left == 0:
            number = self.held(meter)
            if number == 0:
                return False
            before = meter.spent()
            self.renew(meter, number)
            self.dearest = max(self.dearest, (meter.spent() - before) / number)
            self.left = self.pace.updates(number)
        self.left -= 1
        return True

    def held(self, meter: Meter) -> int:
        """How many responses the budget holds: a round, less where it ends before, 0 where not a batch of them.

        A response costs at most four passes over every token (write, policy, reference, reward).
        """
        pace, length = self.pace, self.acts.tokens
        least = -(-pace.batch // pace.group) * pace.group
        for number in range(pace.responses, 0, -least):
            if number % pace.group == 0 and meter.affords(self.cost(number, length, meter)):
                return number
        return 0

    def cost(self, number: int, length: int, meter: Meter) -> float:
        """What so many responses take of the binding axis at most, the update that reads the first ones included."""
        if meter.budget is None:
            return 0.0
        tokens, update = 4 * number * length, self.pace.batch * length
        if meter.budget.axis == "train_seconds":  # of the first round, what half as many updates took so far
            one = meter.cost(0, update, ("round", 1, 0, length))
            return one + (self.dearest or 2 * one / self.pace.batch) * number
        if meter.budget.axis == "train_flops":
            tokens //= 2  # what a token took at most is that of an update, of which a forward pass is half or less
        return meter.cost(0, tokens + update, ("round", number, 0, length))

    def renew(self, meter: Meter, number: int) -> None:
        """Draw so many responses and note what policy, reference and reward say of them."""
        self.module.eval()
        rows = self.questions(number)
        device = self.versions.params[0].device
        generator = torch.Generator(device=device).manual_seed(int(self.drawn(1).integers(2**62)))
        responses = self.acts.act(rows, meter, generator)
        logp, values = self.say(responses, meter)
        with self.versions.held(REFERENCE):
            reference, _ = self.say(responses, meter)
        scores = self.reward(rows, responses, meter).to(device)
        lengths = self.acts.packed(responses)[:, 0]
        mask = (torch.arange(self.acts.steps)[None, :] < lengths[:, None]).to(device)
        nothing = torch.zeros_like(logp)
        now = Round(rows, responses, logp, reference, values, mask, nothing, nothing, float(lengths.float().mean()))
        self.number += 1
        self.watch(scores, now, meter)
        score = self.scored(scores, lengths.to(device), meter)
        now.advantages, now.returns = self.method.estimate(score, now, self.weight)
        self.round = now

    def drawn(self, stream: int) -> np.random.Generator:
        """Random numbers of this round: the same whether training was halted before it or not."""
        return np.random.default_rng([self.seed % 2**63, self.number, stream])

    def questions(self, number: int) -> list[int]:
        """Training rows whose prompts get so many responses: each drawn once before any is drawn again."""
        wanted = number // self.pace.group
        turns = -(-wanted // self.prompts)
        order = np.concatenate([self.drawn(2 + turn).permutation(self.prompts) for turn in range(turns)])
        return [int(row) for row in order[:wanted] for _ in range(self.pace.group)]

    def say(self, responses: Sequence[Encoded], meter: Meter) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability and value of every action, (responses, steps)."""
        device = self.versions.params[0].device
        logp = torch.zeros(len(responses), self.acts.steps, device=device)
        values = torch.zeros_like(logp)
        parts = list(length_sorted(responses))
        with torch.no_grad():
            for part in meter.chosen(parts, [len(p) * responses[p[-1]].length for p in parts]):
                batch = self.acts.collate([responses[i] for i in part])
                with meter.step(("say", *batch.shape), 0, aside=True):
                    said, hidden = self.acts.read(self.module, batch)
                    place = torch.tensor(part, device=device)
                    logp[place, : said.shape[1]] = said
                    if self.value is not None:
                        values[place, : said.shape[1]] = self.worth(hidden)
        return logp, values

    def worth(self, hidden: torch.Tensor) -> torch.Tensor:
        """Values (rows, steps) of states (rows, steps, width)."""
        assert self.value is not None
        out: torch.Tensor = self.value(hidden.to(self.value.weight.dtype)).squeeze(-1)
        return out

    def scored(self, scores: torch.Tensor, lengths: torch.Tensor, meter: Meter) -> torch.Tensor:
        """Scores in units of the reference's, with what a missing end costs."""
        if meter.rehearses:
            return scores
        assert self.unit is not None
        mean, deviation = self.unit
        cut = lengths >= self.acts.steps if self.acts.steps > 1 else torch.zeros_like(lengths, dtype=torch.bool)
        return (scores - mean) / (deviation or 1.0) + self.pace.unfinished * cut

    @property
    def weight(self) -> float:
        """The KL coefficient now."""
        return self.kl.coefficient if isinstance(self.kl, AdaptiveKL) else self.kl

    def watch(self, scores: torch.Tensor, now: Round, meter: Meter) -> None:
        """Note a round's reward, KL and length; the KL coefficient follows."""
        if meter.rehearses:
            return
        if self.unit is None:
            self.unit = float(scores.mean()), float(scores.std()) if len(scores) > 1 else 0.0
        kl = float(((now.logp - now.reference) * now.mask).sum(1).mean())
        mean, deviation = self.unit
        for name, value in (
            ("reward, SDs of the reference's", (float(scores.mean()) - mean) / (deviation or 1.0)),
            ("KL to the reference, nats a response", kl),
            ("actions a response", now.length),
        ):
            self.told.setdefault(name, []).append(value)
        if isinstance(self.kl, AdaptiveKL):
            self.kl = self.kl.after(kl)

    def loss(self, batch: Batch) -> torch.Tensor:
        """The method's loss of a batch of the round's responses."""
        assert self.round is not None
        logp, hidden = self.acts.read(self.module, batch)
        values = self.worth(hidden) if self.value is not None else torch.zeros_like(logp)
        found: torch.Tensor = self.method.loss(logp, values, self.round, batch.extra["place"], self.weight)
        return found

    def collate(self, slots: Sequence[Encoded]) -> Batch:
        """The responses that stand in these places now."""
        assert self.round is not None
        places = [slot.place % len(self.round.responses) for slot in slots]  # a last round may be a short one
        batch = self.acts.collate([self.round.responses[place] for place in places])
        batch.extra["place"] = torch.tensor(places).to(self.versions.params[0].device)
        return batch

    def state(self) -> dict[str, torch.Tensor]:
        """What a halted training must keep, under names that begin with `round `."""
        kl = self.weight
        mean, deviation = self.unit or (math.nan, math.nan)
        numbers = [self.number, self.left, mean, deviation, self.dearest, kl]
        kept = {"round numbers": torch.tensor(numbers, dtype=torch.float64)}
        kept |= {f"round told {name}": torch.tensor(values, dtype=torch.float64) for name, values in self.told.items()}
        if (now := self.round) is not None:
            kept["round rows"] = torch.tensor(now.rows)
            kept["round responses"] = self.acts.packed(now.responses)
            kept |= {f"round {name}": getattr(now, name) for name in TENSORS}
        return kept

    def restore(self, kept: Mapping[str, torch.Tensor]) -> None:
        """Take it back."""
        number, left, mean, deviation, self.dearest, kl = kept["round numbers"].tolist()
        self.number, self.left = int(number), int(left)
        self.unit = None if math.isnan(mean) else (mean, deviation)
        self.kl = replace(self.kl, coefficient=kl) if isinstance(self.kl, AdaptiveKL) else kl
        told = "round told "
        self.told = {name.removeprefix(told): t.tolist() for name, t in kept.items() if name.startswith(told)}
        if "round rows" in kept:
            rows, packed = kept["round rows"].tolist(), kept["round responses"]
            device = self.versions.params[0].device
            tensors = {name: kept[f"round {name}"].to(device) for name in TENSORS}
            mean_length = float(packed[:, 0].float().mean())
            self.round = Round(rows, self.acts.unpacked(rows, packed), length=mean_length, **tensors)
