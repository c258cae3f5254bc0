"""What earlier runs left: which cells are finished, and how long their like took on this machine."""

from __future__ import annotations

import statistics
from pathlib import Path

from bench import identity
from bench.config import Settings
from bench.job import Job, asked_of
from bench.records import CellInfo, Result, Status
from bench.store import probe_file, read_probe, read_result, read_whole


def finished(job: Job, settings: Settings, code: str) -> tuple[bool, str | None]:
    """Whether a cell's record stands, and a remark where it was damaged.

    `error` and `interrupted` run again, `timeout` under a larger `run.cell_seconds`; `out_of_memory` under a larger
    memory cap is another cell, because the cap is part of its identity.
    """
    path = Path(job.folder) / "result.json"
    if not path.is_file():
        return False, None
    try:
        result = read_result(path)
    except (ValueError, OSError) as error:
        return False, str(error)
    if result.cell.id != job.cell.id:
        return False, f"{path}: the record is of another cell ({result.cell.id})"
    if (damage := lost_answers(path, result)) is not None:
        return False, damage
    status, rerun = result.outcome.status, settings.rerun
    if status in (Status.error, Status.interrupted) or rerun == "all":
        return False, None
    if status == Status.timeout and settings.run.cell_seconds > (result.outcome.limit_seconds or 0):
        return False, None
    if rerun == "failed" and status != Status.ok:
        return False, None
    return not (rerun == "changed" and result.environment.get("code_digest") != code), None


def lost_answers(path: Path, result: Result) -> str | None:
    """What is wrong with the predictions that a record names by their hash; None where nothing is, or it names none."""
    if result.outcome.status != Status.ok or result.predictions_sha256 is None:
        return None
    try:
        read_whole(path.with_name("predictions.parquet"), result.predictions_sha256)
    except FileNotFoundError:
        return f"{path.with_name('predictions.parquet')}: missing, and its record holds scores made of it"
    except (ValueError, OSError) as error:
        return str(error)
    return None


def answered(order: Job, settings: Settings, code: str) -> bool:
    """Whether a probe has a record that stands: of the same options, and ended as a cell's record must have."""
    assert order.probe is not None
    try:
        record = read_probe(probe_file(Path(order.folder), order.probe))
    except (ValueError, OSError):
        return False
    if record.asked != asked_of(order) or record.outcome.status in (Status.error, Status.interrupted):
        return False
    if record.outcome.status == Status.timeout and settings.run.cell_seconds > (record.outcome.limit_seconds or 0):
        return False
    if settings.rerun == "failed" and record.outcome.status not in (Status.ok, Status.unsupported):
        return False
    other = record.environment.get("code_digest") != code
    return settings.rerun != "all" and not (settings.rerun == "changed" and other)


def untried_first(orders: list[Job]) -> list[Job]:
    """Orders without a record in their order, then those with one, the oldest first: so every order is reached by a run
    that `run.max_hours` ends again and again, whatever ends in an error each time."""
    return sorted(orders, key=recorded_at)


def recorded_at(order: Job) -> int:
    """When the record of a cell or probe was written, nanoseconds since 1970 as the file system has it (a node of a
    cluster may have another clock); -1 where there is none."""
    folder = Path(order.folder)
    path = folder / "result.json" if order.probe is None else probe_file(folder, order.probe)
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1


def earlier_seconds(results_dir: Path, machine_id: str | None) -> dict[tuple[str, ...], float]:
    """Median wall seconds of finished cells recorded on this machine (None: on any), by (model, task, strategy, device,
    precision)."""
    seconds: dict[tuple[str, ...], list[float]] = {}
    for path in sorted(results_dir.glob("*/*/result.json")):
        try:
            result = read_result(path)
        except (ValueError, OSError):
            continue
        here = machine_id is None or (result.environment.get("machine") or {}).get("id") == machine_id
        if result.outcome.status == Status.ok and here:
            seconds.setdefault(like(result.cell), []).append(total_seconds(result))
    return {key: statistics.median(values) for key, values in seconds.items()}


def like(cell: CellInfo) -> tuple[str, ...]:
    """Cells with this key in common are expected to take about as long."""
    return (
        cell.model,
        cell.task,
        cell.base_strategy,
        cell.device,
        cell.precision,
        identity.digest(cell.budget, 8),
        str(cell.limit),
        *((cell.sharding, str(cell.devices)) if cell.sharding else ()),
    )


def total_seconds(result: Result) -> float:
    """All phases of a record, seconds."""
    return sum(phase.seconds for phase in result.phases.values())
