"""What a run will need, cell by cell: predicted memory, FLOPs and time, and whether it fits. Runs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.cards import CONTEXT_BYTES, GIB, PROCESS_BYTES, Card
from bench.claims import Tested, examined
from bench.config import Request
from bench.earlier import earlier_seconds, like
from bench.forecast import PATIENCE_SECONDS, Forecaster, Tell
from bench.job import Job
from bench.measure import card
from bench.measure.environment import machine
from bench.plan import Planned
from bench.records import CellInfo, Predicted
from bench.sizing import sized


def outlook(
    request: Request, planned: Planned, tell: Tell = lambda done, of: None, jobs: list[Job] | None = None
) -> dict[str, Predicted]:
    """The prediction of every cell (or of `jobs`) by id, with a verdict on memory and the seconds of like cells on this
    machine; with `predict=false` the seconds only. Where `micro_batch=auto`, it is that of the largest micro-batch that
    fits."""
    jobs = planned.jobs if jobs is None else jobs
    # a claim about a card is one about what the card would hold, on whatever machine this is
    claimed = {(claim.task, claim.strategy) for claim in request.suite.claims.values() if claim.fits}
    on_card = {j.cell.id for j in jobs if j.cell.device == "cuda" or (j.cell.task, j.cell.strategy) in claimed}
    here = request.settings.executor == "local"
    limits = {job.cell.id: limit_of(job, planned.target, here) for job in jobs}
    if request.settings.predict:
        with Forecaster(min(PATIENCE_SECONDS, request.settings.run.cell_seconds)) as forecaster:
            known = sized(jobs, limits, lambda some: forecaster.ask(some, on_card, tell))
    else:
        known = {job.cell.id: Predicted(reason="not predicted: predict=false") for job in jobs}
    where = machine()["id"] if here else None
    earlier = earlier_seconds(Path(request.settings.results_dir), where)
    return {job.cell.id: known[job.cell.id].model_copy(update={"seconds": earlier.get(like(job.cell))}) for job in jobs}


def foretold(request: Request, planned: Planned, jobs: list[Job], say: Callable[[str], None]) -> list[Job]:
    """The jobs with their predictions and, where `micro_batch=auto`, the micro-batch found."""
    begun: float | None = None

    def tell(done: int, of: int) -> None:
        nonlocal begun
        if begun is None:
            begun = time.monotonic()
            say(f"predicting the memory of {of} cells before the first one runs (predict=false leaves it out)")

    known = outlook(request, planned, tell, jobs)
    if begun is not None:
        say(f"predicted in {time.monotonic() - begun:.0f} s; kept for the next run")
    return [with_prediction(job, known[job.cell.id]) for job in jobs]


def with_prediction(job: Job, known: Predicted) -> Job:
    """The job with what was foretold, and the micro-batch that was found."""
    if job.cell.micro_batch != "auto":
        return job.model_copy(update={"predicted": known})
    rows, batch = known.micro_batch, job.cell.batch
    words = f"micro-batch {rows} of {batch} rows: the most that is predicted to fit"
    notes = [words] if rows is not None and rows < batch else []
    return job.model_copy(update={"predicted": known, "micro_batch": rows, "notes": [*job.notes, *notes]})


def limit_of(job: Job, target: Card | None, here: bool = True) -> int | None:
    """Bytes the cell may take: the cap or the target card, whichever is smaller, else the card of this machine if it
    runs `here`; cards without CUDA's context. On a CPU the cap is one on the whole process, so what its libraries take
    is subtracted."""
    limits = [] if target is None else [target.usable_bytes]
    if job.memory_gib is not None:
        process = PROCESS_BYTES if job.cell.device == "cpu" else 0
        limits.append(round(job.memory_gib * GIB) - process)
    if limits:
        return min(limits)
    described = card.describe() if job.cell.device == "cuda" and here else None
    return None if described is None else int(described["memory_bytes"]) - CONTEXT_BYTES


def claims(request: Request, planned: Planned, known: dict[str, Predicted]) -> list[Tested]:
    """The suite's claims beside the predictions of their cells."""
    cells = {(job.cell.task, job.cell.strategy): job.cell for job in planned.jobs}
    return examined(request.suite.claims, {key: known[cell.id].peak_bytes for key, cell in cells.items()}, cells)


def claim_row(one: Tested) -> dict[str, Any]:
    """One claim of `plan --json`."""
    return {
        "name": one.name,
        **one.claim.model_dump(mode="json"),
        "predicted_bytes": one.peak,
        "holds": one.holds,
        "unlike": one.unlike,
    }


def row(cell: CellInfo, known: Predicted) -> dict[str, Any]:
    """One cell of `plan --json`."""
    return {
        "id": cell.id,
        "model": cell.model,
        "task": cell.task,
        "strategy": cell.strategy,
        "seed": cell.seed,
        "labels": cell.budget["labels"],
        "readout": cell.readout,
        "precision": cell.precision,
        "trainable_params": known.trainable,
        "predicted": {
            "peak_bytes": known.peak_bytes,
            "flops": known.flops,
            "seconds": known.seconds,
            "phases": {name: phase.model_dump() for name, phase in known.phases.items()},
        },
        "micro_batch": known.micro_batch if cell.micro_batch == "auto" else cell.micro_batch,
        "least_bytes": known.least_bytes,
        "fits": known.fits,
        "limit_bytes": known.limit_bytes,
        "reason": known.reason,
    }
