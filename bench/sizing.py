"""Which micro-batch fits a limit, and the least a cell needs: questions put to the predictor, halving by halving."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.cards import GIB, PROCESS_BYTES, verdict
from bench.job import Job
from bench.records import Predicted
from bench.shortage import in_gib, need

Ask = Callable[[list[Job]], dict[str, Predicted]]
"""Jobs -> their predictions, by cell id."""
NO_LIMIT = "no limit to compare with: name a card (gpu=t4) or a cap (budget.memory_gib=8)"
MOST_PARTS = 3
"""Parts of a peak that a reason names."""
SAME = 1.01
"""Needs within this factor of each other are the same: smaller passes would be slower and save nothing."""


def sized(jobs: list[Job], limits: Mapping[str, int | None], ask: Ask) -> dict[str, Predicted]:
    """The judged prediction of every job by cell id; `limits` in bytes.

    A cell with `micro_batch=auto` gets that of the largest micro-batch that fits: its batch, half of it, and so on
    down to 1. Of every cell that does not clearly fit, `least_bytes` says what it needs at micro-batch 1.
    """
    first = ask(jobs)
    found = {job.cell.id: judged(job, first[job.cell.id], limits[job.cell.id]) for job in jobs}
    tried = {job.cell.id: {rows_of(job): found[job.cell.id]} for job in jobs}
    pending = [job for job in jobs if doubtful(found[job.cell.id])]
    while pending := [job for job in pending if min(tried[job.cell.id]) > 1 and doubtful(last(tried[job.cell.id]))]:
        smaller = [job.model_copy(update={"micro_batch": next_rows(job, tried[job.cell.id])}) for job in pending]
        answers = ask(smaller)
        for job in smaller:
            tried[job.cell.id][rows_of(job)] = judged(job, answers[job.cell.id], limits[job.cell.id])
    return {job.cell.id: chosen(job, tried[job.cell.id]) for job in jobs}


def judged(job: Job, foretold: Predicted, limit: int | None) -> Predicted:
    """With the verdict; a prediction that is missing keeps its reason."""
    needs = need(foretold)
    if needs is None:
        return foretold
    if limit is None:
        return foretold.model_copy(update={"reason": NO_LIMIT})
    if limit <= 0:
        words = f"the process alone takes {PROCESS_BYTES / GIB:.2f} GiB, and the cap is {job.memory_gib or 0:g} GiB"
        return foretold.model_copy(update={"fits": False, "reason": words, "limit_bytes": 0})
    fits, words = verdict(needs, limit, job.cell.device)
    if fits is not True and kept(foretold) > limit:  # counted, so no error of a prediction saves it
        fits, words = (
            False,
            f"{words.removeprefix('close: ').partition(', within')[0]}, and the weights alone do not fit",
        )
    capped = job.memory_gib is not None and limit == round(job.memory_gib * GIB) - PROCESS_BYTES  # not by a card
    if capped and job.cell.device == "cpu":
        words += f" (the cap of {job.memory_gib:g} GiB less {PROCESS_BYTES / GIB:.2f} GiB for the process itself)"
    return foretold.model_copy(update={"fits": fits, "reason": words, "limit_bytes": limit})


def kept(known: Predicted) -> int:
    """Bytes of the model's weights in whatever phase holds most of them: counted, not estimated."""
    phases = known.phases.values()
    counted = [one.parts.get("parameters", 0) + one.parts.get("quantisation", 0) for one in phases]
    return max([*counted, *(one.held_bytes or 0 for one in phases)], default=0)


def because(known: Predicted) -> str:
    """What the peak is made of, largest first, and the least the cell needs: why one does not fit."""
    phase = max(known.phases.values(), key=lambda one: one.peak_bytes, default=None)
    if phase is None or known.fits is True:
        return ""
    largest = sorted(phase.parts.items(), key=lambda part: -part[1])[:MOST_PARTS]
    told = ": " + ", ".join(f"{name.replace('_', ' ')} {in_gib(size)}" for name, size in largest)
    return told if known.least_bytes is None else f"{told}; at micro-batch 1 {in_gib(known.least_bytes)}"


def doubtful(known: Predicted) -> bool:
    """Whether it was compared with a limit and does not clearly fit."""
    return known.limit_bytes is not None and known.fits is not True


def rows_of(job: Job) -> int:
    """Rows per forward."""
    return min(job.micro_batch or job.cell.batch, job.cell.batch)


def last(tried: dict[int, Predicted]) -> Predicted:
    """The prediction of the smallest micro-batch."""
    return tried[min(tried)]


def next_rows(job: Job, tried: dict[int, Predicted]) -> int:
    """The next micro-batch to ask about: half the last one; at once 1 where the size is not ours to choose."""
    return max(1, min(tried) // 2) if job.cell.micro_batch == "auto" else 1


def chosen(job: Job, tried: dict[int, Predicted]) -> Predicted:
    """Of all that was tried the one the cell runs with; with the least it needs, where that was asked."""
    auto = job.cell.micro_batch == "auto"
    rows = rows_of(job)
    if auto:
        rows = next((r for r in tried if tried[r].fits), 0) or as_good_as_least(tried)
    known = tried[rows]
    update: dict[str, int | None] = {"micro_batch": rows if auto and known.peak_bytes is not None else None}
    if 1 in tried and doubtful(known):
        update["least_bytes"] = need(tried[1])
    found = known.model_copy(update=update)
    return found.model_copy(update={"reason": f"{found.reason}{because(found)}"}) if doubtful(found) else found


def as_good_as_least(tried: dict[int, Predicted]) -> int:
    """Where nothing clearly fits: the largest micro-batch that needs no more than the smallest one."""
    floor = need(last(tried))
    if floor is None:
        return max(tried)
    return next(rows for rows in tried if (need(tried[rows]) or 0) <= SAME * floor)
