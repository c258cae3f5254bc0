"""The order for one cell or one of its probes: all that a worker needs, as JSON."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from bench import identity
from bench.config import Task, Template
from bench.config.probes import Probes
from bench.records import CellInfo, Predicted, Record


class SourceJob(Record):
    """Another task a cell trains on."""

    name: str
    task: Task
    located: dict[str, Any]
    formats: list[Template] = Field(default_factory=list)
    """As the job's."""


class Job(Record):
    """All a worker needs to run one cell. It travels as JSON; paths in it never reach a record."""

    cell: CellInfo
    task: Task
    options: dict[str, Any]
    located: dict[str, Any]
    sources: list[SourceJob] = Field(default_factory=list)
    """Other tasks it trains on, by name."""
    position: int = 0
    """Where the cell's own task stands among them."""
    wants_sources: bool = False
    """Whether it was to train on other tasks; a selection of one task may have left it none."""
    formats: list[Template] = Field(default_factory=list)
    """What the prompt formats trained on are taken from, the task's own first; empty: its own alone (see
    `bench.data.formats.candidates`: which of them are turns of a chat matters once the tokenizer is there)."""
    model: str
    """The model as the user named it; for a local folder this is a path, which the cell does not hold."""
    folder: str
    """Where the record goes."""
    adapters_path: str | None = None
    threads: int | None = None
    keep_adapters: bool = True
    features: str | None = None
    """Folder for features of frozen models, shared by the run's cells; None: every cell reads for itself."""
    memory_gib: float | None = None
    micro_batch: int | None = None
    """Rows per forward; where the cell says `auto`, what was found."""
    notes: list[str] = Field(default_factory=list)
    """Remarks for the record."""
    predicted: Predicted = Field(default_factory=Predicted)
    """What was foretold, for the record."""
    probes: Probes = Field(default_factory=Probes)
    """What it is asked once it is finished."""
    others: list[SourceJob] = Field(default_factory=list)
    """Tasks it is asked about though it is not tuned for them (`probes.retention`)."""
    probe: Literal["formats", "contamination", "retention", "writing"] | None = None
    """Which of them this order is for; None: the cell itself."""


def asked_of(job: Job) -> dict[str, Any]:
    """The options of the probe an order is for, and a digest of what its task gives it to ask with; planting is other
    cells' business. A record of the same is not asked for again."""
    assert job.probe is not None
    options: dict[str, Any] = getattr(job.probes, job.probe).model_dump(mode="json", exclude={"plant", "strategies"})
    if job.probe == "retention":
        return options | {
            "tasks": {o.name: [identity.task_digest(o.task), o.located["fingerprint"]] for o in job.others}
        }
    task = job.task.model_dump(mode="json", include=MATERIAL[job.probe])
    if job.probe == "contamination" and (wordings := job.located.get("wordings")):
        task["wordings"] = wordings  # what a file holds that no cell trains on, so that no cell's identity has it
    return options | {"material": identity.digest(task, 16)}


MATERIAL = {"formats": {"formats"}, "contamination": {"judges", "pairs"}, "writing": {"scorer"}}
"""Fields of a task that a probe uses and that are no part of a cell's identity."""


def probing(job: Job) -> list[Job]:
    """The orders for the probes of a cell, one each. A planted cell is a control of contamination checks only; where
    rows hold the answers there are no prompt formats to vary, and in a run of one task no other one to ask about."""
    asked = {
        "contamination": not (job.task.written or job.task.continued),
        "formats": not job.cell.plant and not job.task.spoken,
        "retention": not job.cell.plant and bool(job.others),
        "writing": not job.cell.plant and job.task.scorer is not None,
    }
    names = [name for name in job.probes.asked if asked[name]]
    return [job.model_copy(update={"probe": name}) for name in names]


def foreign(job: Job) -> dict[str, Any]:
    """What a record's environment says of a user's own strategies, for it must tell that foreign code ran: the name of
    their folder and the SHA-256 of each of its files, all of which are imported. Nothing without `adapters_path`."""
    if job.adapters_path is None:
        return {}
    folder = Path(job.adapters_path)
    return {"adapters_path": folder.name, "adapters": {path.name: sha256(path) for path in sorted(folder.glob("*.py"))}}


def sha256(path: Path) -> str | None:
    """`sha256:...` of a file; None where it cannot be read any more."""
    try:
        return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    except OSError:
        return None
