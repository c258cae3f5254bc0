"""What a cell holds resident beyond its tensors: pages of libraries that it is the first to use, Python's objects."""

from __future__ import annotations

import torch

from bench import registry
from bench.budget import Meter
from bench.config.schema import Budget
from bench.job import Job
from bench.measure.memory import high_water, reset_high_water, resident
from bench.models.base import Base, load_base
from bench.models.catalog import parse
from bench.models.parts import touch
from bench.predict.apart import apart
from bench.predict.fakes import fake_base
from bench.predict.heap import known
from bench.predict.rehearse import rehearse
from bench.predict.replay import grown
from bench.process import can_fork
from bench.train.loop import adapt
from bench.worker import Cell

MODEL = "random:tiny-gpt2"
STRATEGY = "lora"
STEPS = 2
told: dict[str, int] = {}
"""What this process has found: `bytes`, the answer, and `replayed`, how far the tiny model's tensors push a heap."""


def outside_the_heap(job: Job) -> int:
    """Bytes that adapting a tiny model with real weights makes resident, less what a replay of it says.

    A process sees pages of a library's code only once it runs them, and a cell's process has run none. So a process
    of its own, forked as a cell's is, adapts a tiny model to the task of `job`. 0 where that cannot be measured.
    """
    if not can_fork():
        return 0
    if "bytes" not in told:
        import peft  # noqa: F401  # a cell's parent has imported it, too

        registry.load()
        base = load_base(parse(MODEL), None, torch.float32)
        held = apart(lambda: adapted(tiny(job), base))
        warm(job)  # not before: its pages would count as seen
        told["bytes"] = max(0, held - told["replayed"])
    return told["bytes"]


def warm(job: Job) -> None:
    """Import what cells and rehearsals need, once, before the first of them is forked: a tiny one is rehearsed here."""
    if "replayed" in told:
        return
    import peft  # noqa: F401
    import sklearn.linear_model  # noqa: F401

    registry.load()
    trace = rehearse(tiny(job), fake_base(parse(MODEL), None, torch.float32), on_card=False, traced=known()).trace
    told["replayed"] = round(max(grown(trace).values())) if trace else 0


def tiny(job: Job) -> Job:
    """The job for the tiny model: a common strategy, the same task, a few steps."""
    labels = min(job.cell.budget["labels"], 8) or 2
    plain = {"base_strategy": STRATEGY, "readout": "verbalizer", "device": "cpu", "batch": 8, "sequence": 64}
    budget = {"labels": labels, "train_examples": 8 * STEPS}
    cell = job.cell.model_copy(update={**plain, "budget": budget, "micro_batch": None, "checkpointing": False})
    return job.model_copy(update={"cell": cell, "model": MODEL, "options": {}, "sources": [], "wants_sources": False})


def adapted(job: Job, base: Base) -> int:
    """Adapt in this process; the bytes by which its resident set grew at most."""
    cell = Cell(job, lambda: base, lambda phase, share: None)
    context, _ = cell.opened(base)
    touch(base.module)
    if not reset_high_water():
        return 0
    before = resident()
    adapt(cell.prepared(base, context), context, Meter(Budget.model_validate(job.cell.budget)))
    return (high_water() or before) - before
