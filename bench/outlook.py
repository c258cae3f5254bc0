"""What a run will need, cell by cell: predicted memory, FLOPs and time, and whether it fits. Runs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import plan
from bench.cards import GIB, Card, verdict
from bench.claims import Tested, examined
from bench.config import Request
from bench.forecast import Tell, forecast
from bench.measure import card
from bench.measure.environment import machine
from bench.plan import Job, Planned
from bench.records import CellInfo, Predicted

NO_LIMIT = "no limit to compare with: name a card (gpu=t4) or a cap (budget.memory_gib=8)"


def outlook(request: Request, planned: Planned, tell: Tell = lambda done, of: None) -> dict[str, Predicted]:
    """The prediction of every cell by id, with seconds of like cells on this machine and a verdict on memory."""
    # a claim about a card is one about what the card would hold, on whatever machine this is
    claimed = {(claim.task, claim.strategy) for claim in request.suite.claims.values() if claim.fits}
    on_card = {j.cell.id for j in planned.jobs if j.cell.device == "cuda" or (j.cell.task, j.cell.strategy) in claimed}
    foretold = forecast(planned.jobs, on_card, tell)
    earlier = plan.earlier_seconds(Path(request.settings.results_dir), machine()["id"])
    return {
        job.cell.id: judged(foretold[job.cell.id], limit_of(job, planned.target)).model_copy(
            update={"seconds": earlier.get(plan.like(job.cell))}
        )
        for job in planned.jobs
    }


def limit_of(job: Job, target: Card | None) -> int | None:
    """Bytes the cell's tensors may take: the cap, else the target card, else the card of this machine."""
    if job.memory_gib is not None:
        return round(job.memory_gib * GIB)
    if target is not None:
        return target.usable_bytes
    described = card.describe() if job.cell.device == "cuda" else None
    return None if described is None else int(described["memory_bytes"])


def judged(foretold: Predicted, limit: int | None) -> Predicted:
    """With the verdict; a prediction that is missing keeps its reason."""
    if foretold.peak_bytes is None:
        return foretold
    if limit is None:
        return foretold.model_copy(update={"reason": NO_LIMIT})
    fits, words = verdict(foretold.peak_bytes, limit)
    return foretold.model_copy(update={"fits": fits, "reason": words, "limit_bytes": limit})


def claims(request: Request, planned: Planned, known: dict[str, Predicted]) -> list[Tested]:
    """The suite's claims beside the predictions of their cells."""
    peaks = {(job.cell.task, job.cell.strategy): known[job.cell.id].peak_bytes for job in planned.jobs}
    return examined(request.suite.claims, peaks)


def claim_row(one: Tested) -> dict[str, Any]:
    """One claim of `plan --json`."""
    return {
        "name": one.name,
        **one.claim.model_dump(mode="json"),
        "predicted_bytes": one.peak,
        "holds": one.holds,
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
        "fits": known.fits,
        "limit_bytes": known.limit_bytes,
        "reason": known.reason,
    }
