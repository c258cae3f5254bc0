"""What the engine costs: its training of a cell beside a bare loop written by hand, on the same model and batches.

Both train a copy of the same plan's module from the same weights, in the same order, over the same padded batches, with
the same loss over the label words (or the head), AdamW, clipping and schedule. The bare loop pads, runs the model's
inner parts, steps, and nothing else: no meter, no records, no plan. Their losses must agree, else it is not the same
work.

Blocks of steps alternate, engine, bare, bare, engine, in one process on one thread, so that a machine that slowly gets
busier hurts both alike. Beside other processes the wall says little and CPU seconds count; both are told. Also told:
aten operators called in a step of either. With `adamw` the bare loop with torch's fused AdamW runs beside itself with
the default one.

    python -m benchmarks.training [cells=minilm-lora,...] [rounds=8] [steps=10] [adamw]

ends with one JSON line; exit code 1 where losses differ or the engine surely (95% interval) falls below the bound.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench import registry
from bench.budget import Meter
from bench.config import DataSettings, load
from bench.config.schema import Budget
from bench.data.draws import draw_labels
from bench.data.rows import read
from bench.data.sources import locate
from bench.models.base import Base, load_base
from bench.models.cache import ensure
from bench.models.catalog import parse
from bench.models.parts import backbone, output_head
from bench.strategy import Plan, TaskContext
from bench.train.loop import Training
from bench.train.order import batches
from bench.worker import seed_everything
from benchmarks.paired import ratio

BOUND = 0.97
"""Least ratio of the engine's real tokens a second to the bare loop's."""
SAME = 1e-4
"""Largest difference between losses of the same step."""
BATCH, LABELS, SEQUENCE, WARM_UP = 8, 128, 256, 5
CELLS: dict[str, tuple[str, str, Literal["head", "verbalizer"]]] = {
    "minilm-full": ("minilm", "full", "head"),
    "minilm-lora": ("minilm", "lora", "head"),
    "smollm2-full": ("smollm2-135m-instruct", "full", "verbalizer"),
    "smollm2-lora": ("smollm2-135m-instruct", "lora", "verbalizer"),
}


@dataclass
class Cell:
    """A prepared cell: its base, what it sees, and its plan."""

    base: Base
    context: TaskContext
    plan: Plan

    @staticmethod
    def of(model: str, strategy: str, readout: Literal["head", "verbalizer"]) -> Cell:
        """SST-2 of glue-small; the same weights every time."""
        task = load(["suite=glue-small"]).suite.tasks["sst2"]
        mirror = os.environ.get("BENCH_MIRROR")
        settings = DataSettings(source="mirror", mirror=mirror) if mirror else DataSettings(source="sample")
        rows = read("sst2", task, locate("sst2", task, settings.source, settings))
        train = draw_labels(rows.train, LABELS, 0, len(task.labels))
        context = TaskContext("sst2", task, train, 0, readout, BATCH, SEQUENCE)
        ref, chosen = parse(model), registry.load()[strategy]
        base = load_base(ref, ensure(ref), torch.float32)
        seed_everything(0)
        return Cell(base, context, chosen.prepare(base, context, chosen.Options()))


@dataclass
class Side:
    """One of two loops: how it takes steps, and what they took."""

    take: Callable[[int], None]
    losses: Callable[[], list[float]]
    random: torch.Tensor = field(default_factory=torch.get_rng_state)
    """Its own random state: dropout draws the same masks on both sides."""

    def run(self, steps: int) -> tuple[float, float]:
        """Wall and CPU seconds of so many steps."""
        torch.set_rng_state(self.random)
        wall, cpu = time.perf_counter(), time.process_time()
        self.take(steps)
        found = time.perf_counter() - wall, time.process_time() - cpu
        self.random = torch.get_rng_state()
        return found


def engine(cell: Cell, total: int) -> Side:
    """The engine's own training of `total` steps, halted wherever it is asked to; the meter counts as in any cell."""
    meter = Meter(Budget(labels=LABELS, train_examples=BATCH * total), tick=lambda share: None)
    meter.watch(cell.plan.seen)
    training = Training(cell.plan, cell.context, meter)

    def take(steps: int) -> None:
        training.until((meter.examples / BATCH + steps - 0.5) / total)

    return Side(take, lambda: training.done.losses)


class Bare:
    """The same training by hand."""

    def __init__(self, cell: Cell, total: int, **adamw: Any) -> None:
        plan, self.reader, self.base = cell.plan, cell.plan.answer.reader, cell.base  # type: ignore[attr-defined]
        assert plan.examples is not None and plan.module is not None
        examples = plan.examples()
        self.module, self.ids, self.labels = plan.module, [e.ids for e in examples.encoded], examples.labels
        self.order = list(islice(batches([len(ids) for ids in self.ids], BATCH, 0), total))
        self.pad = self.base.tokenizer.pad_token_id
        self.head = cell.context.readout == "head"
        self.words = None if self.head else torch.tensor([word[0] for word in self.reader.words])
        self.params = [p for g in plan.groups for p in g.params]
        groups = [{"params": g.params, "lr": g.lr, "weight_decay": g.weight_decay} for g in plan.groups]
        self.peaks = [g.lr for g in plan.groups]
        self.optimizer = torch.optim.AdamW(groups, **adamw)
        self.done, self.total, self.losses = 0, total, list[torch.Tensor]()
        self.module.train()

    def take(self, steps: int) -> None:
        """So many steps."""
        for _ in range(steps):
            self.step(self.order[self.done])
            self.done += 1

    def step(self, rows: list[int]) -> None:
        """Pad, forward, backward, clip, update."""
        width = max(len(self.ids[i]) for i in rows)
        ids = torch.tensor([self.ids[i] + [self.pad] * (width - len(self.ids[i])) for i in rows])
        lengths = torch.tensor([len(self.ids[i]) for i in rows])
        mask = (torch.arange(width) < lengths[:, None]).long()
        labels = torch.tensor([self.labels[i] for i in rows])
        loss = nn.functional.cross_entropy(self.scores(ids, mask, lengths), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(self.params, 1.0)
        at = (self.done + 0.5) / self.total
        factor = at / 0.06 if at < 0.06 else (1 - at) / 0.94
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(loss.detach())

    def scores(self, ids: torch.Tensor, mask: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the label words behind the prompt, or a head's logits of the mean state."""
        if self.head:
            zeros = torch.zeros_like(ids)
            hidden = self.module(input_ids=ids, attention_mask=mask, token_type_ids=zeros).last_hidden_state
            real = mask.unsqueeze(-1).to(hidden.dtype)
            scores: torch.Tensor = self.reader.head((hidden * real).sum(1) / real.sum(1))
            return scores
        hidden = backbone(self.base)(input_ids=ids, attention_mask=mask).last_hidden_state
        last = hidden[torch.arange(len(ids)), lengths - 1]
        return torch.log_softmax(output_head(self.base)(last), -1)[:, self.words]

    def side(self) -> Side:
        """As a side; losses are read when they are asked for."""
        return Side(self.take, lambda: [float(loss) for loss in self.losses])


class Calls(TorchDispatchMode):
    """Counts aten operators."""

    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[Calls]:
    """Operators called in the block."""
    with Calls() as calls:
        yield calls


def paired(one: Side, two: Side, rounds: int, steps: int) -> dict[str, Any]:
    """`one` against `two` after warm-up: the ratio of their speeds by both clocks, seconds a step, operators a step."""
    calls = []
    for side in (one, two):
        side.run(WARM_UP)
        with counted() as found:
            side.run(1)
        calls.append(found.number)
    took: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for number in range(rounds):
        first, second = (one, two) if number % 4 in (0, 3) else (two, one)
        pair = first.run(steps), second.run(steps)
        took.append(pair if first is one else pair[::-1])
    apart = max(abs(a - b) for a, b in zip(one.losses(), two.losses(), strict=True))
    told: dict[str, Any] = {
        "operators_a_step": calls,
        "largest_difference_of_losses": apart,
        "steps": len(one.losses()),
    }
    for clock, name in enumerate(("wall", "cpu")):
        told[name] = ratio([b[clock] / a[clock] for a, b in took])
        told[name]["seconds_a_step"] = [statistics.median(pair[i][clock] for pair in took) / steps for i in (0, 1)]
    return told


def against_bare(name: str, rounds: int, steps: int) -> dict[str, Any]:
    """A cell's figures: the engine's speed over the bare loop's."""
    total = WARM_UP + 1 + rounds * steps
    ours = engine(Cell.of(*CELLS[name]), total)
    return paired(ours, Bare(Cell.of(*CELLS[name]), total, fused=True).side(), rounds, steps)


def against_default(name: str, rounds: int, steps: int) -> dict[str, Any]:
    """The bare loop's step with torch's fused AdamW over the same with its default one."""
    total = WARM_UP + 1 + rounds * steps
    fused, plain = (Bare(Cell.of(*CELLS[name]), total, fused=fused).side() for fused in (True, None))
    return paired(fused, plain, rounds, steps)


def main(arguments: list[str]) -> int:
    """Exit code 0 where losses agree and no interval lies below the bound."""
    given = dict(one.split("=", 1) for one in arguments if "=" in one)
    names = given.get("cells", ",".join(CELLS)).split(",")
    if unknown := sorted(set(names) - set(CELLS)):
        raise SystemExit(f"benchmarks.training: got cells {unknown}; allowed: {', '.join(CELLS)}")
    rounds, steps = int(given.get("rounds", 8)), int(given.get("steps", 10))
    torch.set_num_threads(1)
    measure = against_default if "adamw" in arguments else against_bare
    found: dict[str, Any] = {"load": os.getloadavg()[0], "rounds": rounds, "steps_a_block": steps, "cells": {}}
    for name in names:
        found["cells"][name] = measure(name, rounds, steps)
        print(name, json.dumps(found["cells"][name]), flush=True)
    same = all(cell["largest_difference_of_losses"] <= SAME for cell in found["cells"].values())
    slow = any(cell["cpu"]["high"] < BOUND for cell in found["cells"].values())
    found["ok"] = same and not slow
    print(json.dumps(found))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
