"""What measuring costs: step times of the engine's own loop with the meter at work and switched off, in turn.

Measuring a step is: hooks that count tokens at every forward, asking what the next step will cost, looking its FLOPs up
by shape, two clock readings, and telling the progress. All of it is Python beside tensor work, so on a quiet machine it
should be microseconds in a step of tenths of a second. Two ways to see it:

1. Paired: one process, one thread, one model, one batch; steps in the order on, off, off, on, so that a machine that
   slowly gets busier or warmer hurts both alike. The median ratio of neighbours' processor seconds, with a bootstrap
   interval over pairs; on the wall it stands beside.
2. Alone: the meter's own code around a model that does nothing, thousands of times, as a share of the median step.
   This does not drown in other processes' noise, and is what counts where the first interval is wide.

Not part of a step: opening a phase (once a phase), and counting FLOPs of a shape that is new (a few a
batch size; those steps are left out of the throughput). The price of such a step is given beside.

    python -m benchmarks.overhead [pairs=60]

writes reports/benchmarks/overhead.md and .json and ends with the same JSON on one line.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import registry
from bench.budget import Meter
from bench.config import DataSettings, load
from bench.config.schema import Budget
from bench.data.draws import draw_labels
from bench.data.rows import Rows, read
from bench.data.sources import locate
from bench.measure.environment import environment
from bench.models.base import load_base
from bench.models.cache import ensure
from bench.models.catalog import parse
from bench.strategy import Plan, TaskContext
from bench.train.loop import adapt
from benchmarks.paired import ratio

BATCH, SEQUENCE, WARM_UP, ALONE = 8, 32, 4, 5000
"""Short rows make short steps, in which measuring weighs most."""
CELLS = [("minilm", "full", "head"), ("smollm2-135m-instruct", "lora", "verbalizer")]
BOUND, FEWEST_PAIRS = 0.005, 60
REPORT = Path("reports/benchmarks")


@dataclass
class Switched(Meter):
    """A meter that measures only some steps; off, it counts examples (the loop must end) and does nothing else."""

    on: bool = True
    asked: list[tuple[float, float]] = field(default_factory=list)
    """When the loop asked for each step's cost, by processor and wall: between two of these lies one whole turn."""
    watched: list[nn.Module] = field(default_factory=list)

    def cost(self, examples: int, tokens: int, *shapes: tuple[Any, ...]) -> float:
        step = len(self.asked)
        self.on = measured(step)
        self.unwatch()
        if self.on:
            self.watch(self.watched)
        self.asked.append((time.process_time(), time.perf_counter()))
        return super().cost(examples, tokens, *shapes) if self.on else 0.0

    def affords(self, cost: float) -> bool:
        return super().affords(cost) if self.on else True

    def share(self, spent: float) -> float:
        return super().share(spent) if self.on else 0.5

    def spent(self) -> float:
        return super().spent() if self.on else 0.0

    @contextmanager
    def accumulating(
        self, examples: int, aside: bool = False
    ) -> Iterator[Callable[[tuple[Any, ...]], AbstractContextManager[None]]]:
        if self.on:
            with super().accumulating(examples, aside) as passed:
                yield passed
            return
        yield lambda shape: nullcontext()
        self.examples += examples


def measured(step: int) -> bool:
    """Warm-up with the meter on (it counts the shape's FLOPs then), after that on, off, off, on."""
    return step < WARM_UP or (step - WARM_UP) % 4 in (0, 3)


def prepared(model: str, strategy: str, readout: Any) -> Plan:
    """A cell's plan on eight rows of the bundled sample: every step is the same batch."""
    task = load(["suite=smoke"]).suite.tasks["sst2"]
    rows = read("sst2", task, locate("sst2", task, "sample", DataSettings(source="sample")))
    train: Rows = draw_labels(rows.train, BATCH, 0, len(task.labels))
    chosen = registry.load()[strategy]
    ref = parse(model)
    base = load_base(ref, ensure(ref), torch.float32)
    context = TaskContext("sst2", task, train, 0, readout, BATCH, SEQUENCE)
    plan = chosen.prepare(base, context, chosen.Options())
    plan.answer = context  # type: ignore[assignment]  # nothing is scored; the loop wants the context back
    return plan


def turns(plan: Plan, pairs: int) -> tuple[list[tuple[float, float]], float]:
    """Processor and wall seconds of every turn of the loop after warm-up, and the seconds of a step that counts FLOPs
    over the median measured one."""
    steps = WARM_UP + 2 * pairs + 1
    meter = Switched(Budget(train_examples=BATCH * steps), tick=telling())
    meter.watched = plan.seen
    context: Any = plan.answer
    adapt(plan, context, meter)
    took = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(meter.asked)][WARM_UP:]
    timed = [s.seconds for s in meter.steps if s.timed]
    again = Meter(Budget(train_examples=BATCH * 5))
    again.watch(plan.seen)
    adapt(plan, context, forgetful(again))
    counted = statistics.median(s.seconds for s in again.steps[1:])
    again.unwatch()
    return took, counted / statistics.median(timed)


def forgetful(meter: Meter) -> Meter:
    """A meter that counts the FLOPs of every step anew."""
    meter.book.get = lambda shape: None  # type: ignore[method-assign]
    return meter


def telling() -> Callable[[float], None]:
    """Progress as the cell's process tells it: one line of JSON for every fiftieth of the budget."""
    out, last = os.open(os.devnull, os.O_WRONLY), [-1.0]

    def tick(share: float) -> None:
        if share - last[0] >= 0.02 or share >= 1:
            last[0] = share
            os.write(
                out, (json.dumps({"event": "progress", "phase": "adapt", "share": round(share, 3)}) + "\n").encode()
            )

    return tick


class Nothing(nn.Module):
    """A model that takes ids and a mask and does no work."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return input_ids


def alone(batch: Any, rounds: int = ALONE) -> float:
    """Median seconds of everything the loop asks of a meter in a step, around a model that does nothing."""
    model, shape, tokens = Nothing(), batch.shape, batch.tokens
    inputs = {name: batch.inputs[name] for name in ("input_ids", "attention_mask")}
    bare: list[float] = []
    full: list[float] = []
    meter = Meter(Budget(train_examples=BATCH * (rounds + 1)), tick=telling())
    for times, metered in ((bare, False), (full, True)):
        if metered:
            meter.watch([model])
        for _ in range(rounds):
            start = time.perf_counter()
            if metered:
                meter.room(BATCH)
                cost = meter.cost(BATCH, tokens, shape)
                meter.affords(cost)
                meter.share(meter.spent() + cost / 2)
                with meter.accumulating(BATCH) as passed, passed(shape):
                    model(**inputs)
            else:
                model(**inputs)
            times.append(time.perf_counter() - start)
    return statistics.median(full) - statistics.median(bare)


def paired(took: list[tuple[float, float]], pairs: int) -> dict[str, float]:
    """Median ratio minus one over neighbouring turns, on over off, with a 95% bootstrap interval over pairs."""
    ratios: list[tuple[float, float]] = []
    for first in range(0, 2 * pairs, 2):
        one, two = took[first], took[first + 1]
        on, off = (one, two) if measured(WARM_UP + first) else (two, one)
        ratios.append((on[0] / off[0], on[1] / off[1]))
    cpu, wall = (ratio([pair[clock] for pair in ratios]) for clock in (0, 1))
    return {"overhead": cpu["ratio"] - 1, "low": cpu["low"] - 1, "high": cpu["high"] - 1, "wall": wall["ratio"] - 1}


def run(model: str, strategy: str, readout: str, pairs: int) -> dict[str, Any]:
    """Every figure of one cell."""
    plan = prepared(model, strategy, readout)
    assert plan.examples is not None and plan.collate is not None
    batch = plan.collate(plan.examples().encoded)
    took, counted = turns(plan, pairs)
    step = statistics.median(wall for _, wall in took)
    print(f"{model}: {step:.3f} s a step, {paired(took, pairs)}", flush=True)
    meter = alone(batch)
    return {
        "model": model,
        "strategy": strategy,
        "batch": BATCH,
        "padded_length": batch.padded,
        "pairs": pairs,
        "step_seconds": step,
        "paired": paired(took, pairs),
        "alone_seconds": meter,
        "alone_share": meter / step,
        "counting_step_ratio": counted,
    }


def markdown(found: dict[str, Any]) -> str:
    """The report."""
    head = (
        "| cell | step | paired overhead (95% interval) | on the wall | meter alone | share of the step "
        "| a step counting FLOPs |"
    )
    lines = [
        "# What measuring costs",
        "",
        "`python -m benchmarks.overhead` writes this page; `benchmarks/overhead.py` says what is compared with what.",
        f"At most {BOUND:.1%} of step time is allowed.",
        "",
        head,
        "| :--- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for cell in found["cells"]:
        pair = cell["paired"]
        name = f"{cell['model']}, {cell['strategy']}, {cell['batch']} x {cell['padded_length']}"
        found_paired = f"{pair['overhead']:+.2%} [{pair['low']:+.2%}, {pair['high']:+.2%}]"
        alone_us, counts = cell["alone_seconds"] * 1e6, cell["counting_step_ratio"]
        lines.append(
            f"| {name} | {cell['step_seconds'] * 1000:.1f} ms | {found_paired} | {pair['wall']:+.2%} "
            f"| {alone_us:.0f} µs | {cell['alone_share']:.3%} | x {counts:.2f} |"
        )
    machine = found["environment"]["machine"]
    lines += [
        "",
        f"{found['cells'][0]['pairs']} pairs of steps a cell, on, off, off, on, on one thread; {ALONE:,} rounds of the "
        f"meter alone. {machine['cpu']}, {machine['cores']} cores, load {found['load']:.1f} when it began.",
        "",
        "Where the paired interval is wider than the allowance, other processes were at work and the figure of the "
        "meter alone is the one that counts. FLOPs are counted for a few shapes of batch; such steps stand "
        "in the budget's seconds and not in the throughput.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Exit code 0 where every cell keeps the bound by the meter alone, and no paired interval lies above it; else 1."""
    asked = [int(argument.removeprefix("pairs=")) for argument in arguments if argument.startswith("pairs=")]
    pairs = max([FEWEST_PAIRS, *asked])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found: dict[str, Any] = {"load": os.getloadavg()[0], "cells": []}
    found["environment"] = environment(torch.get_num_threads())
    REPORT.mkdir(parents=True, exist_ok=True)
    for cell in CELLS:  # written after each: on a busy machine the second takes minutes
        found["cells"].append(run(*cell, pairs))
        found["ok"] = all(c["alone_share"] <= BOUND and c["paired"]["low"] <= BOUND for c in found["cells"])
        (REPORT / "overhead.md").write_text(markdown(found), encoding="utf-8")
        (REPORT / "overhead.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(markdown(found))
    print(json.dumps(found))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
