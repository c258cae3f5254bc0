"""One of the processes that train a sharded cell. All go from load to the end of training; the first one answers."""

from __future__ import annotations

import json
import signal
import traceback
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from torch import distributed

from bench.budget import Meter
from bench.job import Job
from bench.measure.environment import cores
from bench.models.build import build
from bench.outcomes import outcome_of
from bench.process import UNWRITABLE
from bench.records import Phase, Rank, Status
from bench.strategy import Plan, TaskContext
from bench.train.loop import Trained, adapt
from bench.train.ranks import RankMeter, Ranks, RankTraining
from bench.train.sharding import Replicas, Shards, take_over
from bench.worker import Cell, seed_everything

PATIENCE = timedelta(minutes=30)
"""How long one rank waits for another: a model may be read from a slow disk by one of them."""
PEAKS = ("peak_rss_bytes", "peak_allocated_bytes", "peak_reserved_bytes", "peak_device_bytes")
MEMORY = ("seconds", "baseline_rss_bytes", "energy_joules", *PEAKS)
"""Fields of a phase that are a process's own."""


class RankCell(Cell):
    """A sharded cell in progress, as this rank sees it."""

    def __init__(self, job: Job, tell: Callable[[str, float], None], ranks: Ranks) -> None:
        super().__init__(job, partial(build, job.model, job.cell.precision), tell if ranks.rank == 0 else untold)
        self.ranks = ranks

    def refuse_sharding(self) -> None:
        """Nothing to refuse: whoever started the ranks has asked."""

    def meter(self) -> Meter:
        """One that counts what all ranks do."""
        tick = lambda share: self.tell("adapt", share)  # noqa: E731
        return RankMeter(self.ranks, self.budget, self.job.cell.device, tick)

    def adapted(self, plan: Plan, context: TaskContext, meter: Meter) -> Trained:
        """Train this rank's share. What the method watches is the mean over ranks."""
        size, device = self.ranks.size, self.job.cell.device
        self.spread = Replicas(plan, size) if self.job.cell.sharding == "ddp" else Shards(plan, size, device)
        done = adapt(plan, context, meter, partial(RankTraining, ranks=self.ranks, spread=self.spread))
        done.told = {name: self.averaged(values) for name, values in done.told.items()}
        return done

    def averaged(self, values: list[float]) -> list[float]:
        """The mean of each value over all ranks."""
        return [value / self.ranks.size for value in self.ranks.total(values)]

    def answering(self, plan: Plan, context: TaskContext) -> Plan | None:
        """On the first rank a plan that holds all that was trained; None on the others, which are done."""
        self.tell("gather", 0.0)
        with self.ledger.phase("gather"):
            trained = self.spread.whole(plan, first=self.ranks.rank == 0)
            told = self.ranks.told({name: own(self.ledger.phases[name]) for name in ("load", "adapt")})
            distributed.destroy_process_group()
            if self.ranks.rank:
                return None
            if trained is not None:
                del plan
                plan = self.fresh(context, self.options)
                take_over(plan, trained)
                if plan.examples is not None:
                    plan.examples()  # what is too long is counted where it is read
        self.fields["ranks"] = [Rank(rank=i, phases=phases) for i, phases in enumerate(told)]
        for name, phase in self.ledger.phases.items():
            if name in told[0]:
                self.ledger.phases[name] = phase.model_copy(update=most_of([phases[name] for phases in told]))
        return plan


def untold(phase: str, share: float) -> None:
    """Only the first rank tells how far the cell is."""


def own(phase: Phase) -> Phase:
    """What a phase says of the process alone."""
    return Phase(**{name: getattr(phase, name) for name in MEMORY})


def most_of(phases: list[Phase]) -> dict[str, float]:
    """The peaks of the rank with most, field by field, and the energy of all cards together."""
    told = {name: [value for p in phases if (value := getattr(p, name)) is not None] for name in PEAKS}
    energy = [p.energy_joules for p in phases]
    together = {"energy_joules": sum(filter(None, energy))} if None not in energy else {}
    return {name: max(values) for name, values in told.items() if values} | together


def join(device: str, rank: int, size: int) -> Ranks:
    """Meet the other ranks; where they are is in the environment that torchrun gives."""
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    distributed.init_process_group(backend, rank=rank, world_size=size, timeout=PATIENCE)
    return Ranks(rank, size)


def run_rank(job: Job, tell: Callable[[str, float], None], rank: int, size: int, files: Path) -> int:
    """Run this rank's part of a cell; the exit code. The first rank writes the record; one that fails says so in a file
    of `files` as well."""
    torch.set_num_threads(job.threads or cores())
    seed_everything(job.cell.seed)
    cell = None
    status, reason = Status.ok, None
    try:
        cell = RankCell(job, tell, join(job.cell.device, rank, size))
        cell.run()
    except BaseException as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # others may end now; what happened here is to be written first
        traceback.print_exc()
        status, reason = outcome_of(error, job)
        (files / f"{rank}.json").write_text(json.dumps([status.value, reason]))
    if rank == 0 and cell is not None:
        try:
            cell.write(status, reason)
        except OSError as error:
            print(f"cannot write the record: {error}")
            return UNWRITABLE
    return 0 if status == Status.ok else 1
