"""Running out of memory, in words: what was asked for, what was allowed, and the least the cell needs."""

from __future__ import annotations

import re

from bench.cards import GIB, verdict
from bench.job import Job
from bench.records import Predicted, PredictedPhase, Result, Status

REMEDY = "lower batch or sequence, use micro_batch=auto, or raise budget.memory_gib"
ASKED = (
    re.compile(r"[Tt]ried to allocate ([\d.]+) ?([KMGT]iB|bytes)"),  # torch, on a card and on a CPU
    re.compile(r"Unable to allocate ([\d.]+) ?([KMGT]iB|bytes)"),  # numpy
)
UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def bytes_asked(message: str) -> int | None:
    """The bytes an allocator was asked for when it gave up, from its own message; None where it does not say."""
    for pattern in ASKED:
        if found := pattern.search(message):
            return round(float(found.group(1)) * UNITS[found.group(2)])
    return None


def ran_out(message: str, job: Job) -> str:
    """The reason of a cell whose allocator gave up with `message`."""
    return f"{gave_up(message, job)}{least(job)}: {REMEDY}"


def gave_up(message: str, job: Job) -> str:
    """What an allocator gave up at, with its own `message`, and the cap it was held to."""
    asked = bytes_asked(message)
    what = "" if asked is None else f"asked for {in_gib(asked)} more; "
    cap = "" if job.memory_gib is None else f"; the cap is {job.memory_gib:g} GiB"
    return f"memory ran out: {what}{' '.join(message.split())[:300]}{cap}"


def over_the_cap(held: int, job: Job) -> str:
    """The reason of a cell that was ended at `held` resident bytes."""
    assert job.memory_gib is not None
    return f"resident memory reached {held / GIB:.2f} GiB, over the cap of {job.memory_gib:g} GiB{least(job)}: {REMEDY}"


def need(known: Predicted) -> int | None:
    """Bytes to compare with a limit: of all tensors at the peak, or what a CPU is expected to hold for them."""
    if known.peak_bytes is None:
        return None
    held = [loaded(phase) + phase.resident_bytes for phase in known.phases.values() if phase.resident_bytes]
    return max([known.peak_bytes, *held])


def loaded(phase: PredictedPhase) -> int:
    """Bytes of weights in a process as a phase begins: what is quantised then was whole before. The parameters at its
    peak where a prediction does not tell, being one for a card or an older one."""
    return phase.parts.get("parameters", 0) if phase.held_bytes is None else phase.held_bytes


def least(job: Job) -> str:
    """The smallest bytes the cell needs, where they were predicted."""
    known = job.predicted
    if known.least_bytes is not None:
        return f"; at micro-batch 1 it is predicted to need {in_gib(known.least_bytes)}{beside(job)}"
    if (expected := need(known)) is not None:
        return f"; it was predicted to need {in_gib(expected)}{beside(job)}"
    return ""


def hopeless(job: Job) -> str | None:
    """Why a cell need not be tried: even at micro-batch 1 it is predicted to need more than an enforced limit, by more
    than predictions err. None where it may fit, or where nothing is enforced."""
    known = job.predicted
    if known.least_bytes is None or known.limit_bytes is None or not enforced(job):
        return None
    if verdict(known.least_bytes, known.limit_bytes, job.cell.device)[0] is not False:
        return None
    cap = "" if job.memory_gib is None else f" under the cap of {job.memory_gib:g} GiB"
    return (
        f"not tried: needs at least {in_gib(known.least_bytes)} at micro-batch 1{beside(job)} (predicted), and "
        f"{in_gib(known.limit_bytes)} are left for it{cap}: lower sequence, choose a method that holds less, or raise "
        "budget.memory_gib"
    )


def enforced(job: Job) -> bool:
    """Whether the limit holds on this machine: a target card does not cap a CPU."""
    return job.memory_gib is not None or job.cell.device == "cuda"


def beside(job: Job) -> str:
    """What a prediction leaves out."""
    return " beside the process itself" if job.cell.device == "cpu" else ""


def again(job: Job, result: Result, scoring: bool) -> Job | None:
    """The same cell with half the micro-batch, where `micro_batch=auto` chose one that ran out in training; else None.

    `scoring`: it was answering already, where micro-batches change nothing.
    """
    if job.cell.micro_batch != "auto" or result.outcome.status != Status.out_of_memory or scoring:
        return None
    rows = job.micro_batch or job.cell.batch
    if rows == 1:
        return None
    reason = " ".join((result.outcome.reason or "").split())[:160]
    note = f"started anew with micro-batch {rows // 2}, because {rows} ran out of memory ({reason})"
    return job.model_copy(update={"micro_batch": rows // 2, "notes": [*job.notes, note]})


def in_gib(size: float) -> str:
    """Bytes as GiB, or MiB where GiB would say nothing."""
    return f"{size / GIB:.2f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.1f} MiB"
