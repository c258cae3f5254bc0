"""How scoring grows with items and demonstrations, and planning with cells: counts exactly, seconds for the eye.

    python -m pytest -n0 --benchmark-timer=time.process_time benchmarks/test_growth.py

The model is small and random: what is shown is the growth, not the speed. Forwarded rows and tokens an item stand in
the table's extra figures (`--benchmark-json` keeps them).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from bench import plan
from bench.budget import Meter
from bench.config import DataSettings, load
from bench.config.schema import Task
from bench.data.rows import TaskRows, read
from bench.data.sources import locate
from bench.models.base import Base, load_base
from bench.models.catalog import parse
from bench.score.adapted import Adapted
from bench.score.demonstrations import Demonstrations
from bench.score.readers import VerbalizerReader
from bench.strategy import TaskContext

WORDS = {"negative": " it was rather awful", "positive": " it was very good indeed"}
"""Labels of several tokens."""


@cache
def base() -> Base:
    """Two blocks with random weights."""
    torch.set_num_threads(1)
    return load_base(parse("random:tiny-llama"), None, torch.float32)


@cache
def task() -> Task:
    """The bundled sample of SST-2 with labels of several tokens."""
    given = load(["suite=glue-small", "tasks=sst2", "data.source=sample"]).suite.tasks["sst2"]
    template = {"pattern": "Review: {text}\nSentiment:", "verbalizer": WORDS}
    return Task.model_validate(given.model_dump() | {"templates": [template]})


@cache
def rows() -> TaskRows:
    """Its rows: 128 to train on, 120 to test."""
    return read("sst2", task(), locate("sst2", task(), "sample", DataSettings(source="sample")))


def answering(shots: int) -> Any:
    """What answers, with so many demonstrations in front."""
    context = TaskContext("sst2", task(), rows().train, 0, "verbalizer", 8, 128)
    reader = VerbalizerReader(base(), context)
    if not shots:
        return Adapted(base().module, reader)
    shown = Demonstrations(reader, base().module, context)
    shown.rows = rows().train.take(range(shots))
    return shown


def counted(benchmark: Any, shots: int, items: int) -> Meter:
    """Score items; the meter of one time, its counts beside the seconds."""
    answer, meters = answering(shots), [Meter()]
    fields = rows().test.fields[:items]

    def score() -> None:
        meter = Meter()
        meter.book, meter.again = meters[0].book, meters[0].again  # FLOPs of shapes are counted once
        meter.watch([base().module])
        answer.predict(fields, meter)
        meter.unwatch()
        meters.append(meter)

    benchmark.pedantic(score, rounds=5, warmup_rounds=1)
    meter = meters[-1]
    benchmark.extra_info |= {"rows_an_item": meter.rows / items, "tokens_an_item": meter.tokens / items}
    return meter


@pytest.mark.benchmark(group="items: one row each, choices side by side")
@pytest.mark.parametrize("items", [15, 30, 60, 120])
def test_items(benchmark: Any, items: int) -> None:
    """A row an item, however many there are."""
    assert counted(benchmark, 0, items).rows == items


@pytest.mark.benchmark(group="demonstrations: read once for a cell")
@pytest.mark.parametrize("shots", [0, 1, 2, 3])
def test_shots(benchmark: Any, shots: int) -> None:
    """Demonstrations add the tokens of one row, not of every item."""
    meter = counted(benchmark, shots, 60)
    reader = answering(shots).reader
    alone = sum(row.length for row in reader.encode(rows().test.fields[:60]))
    behind = 60 * sum(len(word) - 1 for word in reader.words)
    front = len(answering(shots).prefix(rows().train.take(range(shots)))) if shots else 0
    assert meter.rows == 60 + bool(shots) and meter.tokens == alone + behind + front


@pytest.mark.benchmark(group="cells planned")
@pytest.mark.parametrize("seeds", [10, 100, 300])
def test_cells(benchmark: Any, seeds: int) -> None:
    """Planning reads each task's files once, however many cells there are."""
    request = load(["suite=glue-small", "data.source=sample", "strategies=lora,full,bitfit", f"seeds={seeds}"])
    planned = benchmark.pedantic(lambda: plan.make(request), rounds=3)
    assert len(planned.jobs) == 4 * 3 * seeds
    benchmark.extra_info["cells"] = len(planned.jobs)
