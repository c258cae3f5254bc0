"""A run as one file that can be committed: no time, no machine, no path, only what a gate compares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.compare.sides import BASELINE_VERSION, Baseline, KeptCell, Seen, Side
from bench.errors import UserFault
from bench.records import SCHEMA_VERSION, Result
from bench.store import write_atomically

DIGITS = 9
"""Of label scores: far more than a near-tie needs."""
OF_THE_MACHINE = ("step_seconds", "cached_seconds", "tokens_per_second", "peak_rss_bytes", "baseline_rss_bytes",
                  "peak_reserved_bytes", "peak_device_bytes", "energy_joules")  # fmt: skip


def keep(side: Side, path: Path) -> int:
    """Write a side as a baseline file; its bytes. Raises `UserFault` where it cannot be written, or holds no record."""
    cells = [kept(cell) for cell in side.cells if cell.result is not None]
    if not cells:
        raise UserFault(f"keep: {side.name} holds no record; run the suite first")
    planned = [cell.info.model_dump(mode="json", exclude_defaults=True) for cell in side.cells if cell.result is None]
    versions = {"baseline_version": BASELINE_VERSION, "schema_version": SCHEMA_VERSION}
    head = {**versions, "run": cells[0].result.cell.suite, "planned": planned}
    lines = [line(cell) for cell in cells]
    # one line a cell: a diff shows which of them moved
    text = json.dumps(head)[:-1] + ', "cells": [\n' + ",\n".join(lines) + "\n]}\n"
    Baseline.model_validate_json(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    except OSError as error:
        raise UserFault(f"keep: cannot write {path}: {error.strerror}; allowed: a writable file") from None
    return len(text.encode())


def line(cell: KeptCell) -> str:
    """A cell as JSON. Raises `UserFault` where its record or its predictions hold what JSON cannot."""
    try:
        return json.dumps(cell.model_dump(mode="json", exclude_defaults=True), allow_nan=False)
    except ValueError:
        raise UserFault(
            f"keep: {cell.result.cell.id} holds a number that is not finite; run the cell again (rerun=all)"
        ) from None


def kept(cell: Seen) -> KeptCell:
    """A cell of a baseline."""
    assert cell.result is not None
    rounded = {name: [round_off(value) for value in column] for name, column in cell.columns.items()}
    return KeptCell(result=stripped(cell.result), predictions=rounded or None)


def round_off(value: float) -> float:
    """A number of a prediction, short."""
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}")


def stripped(result: Result) -> Result:
    """A record without what another machine, or the same one tomorrow, would measure otherwise."""
    phases = {}
    for name, phase in result.phases.items():  # a phase must have its seconds: two digits, which nothing compares
        phases[name] = phase.model_copy(
            update={**dict.fromkeys(OF_THE_MACHINE), "seconds": float(f"{phase.seconds:.2g}")}
        )
    machine = result.environment.get("machine") or {}
    card = machine.get("gpu") or {}
    environment: dict[str, Any] = {
        "machine": {"system": machine.get("system"), "cpu": machine.get("cpu"),
                    "gpu": {"name": card["name"]} if card.get("name") else None},
        "versions": result.environment.get("versions"),
        "code_digest": result.environment.get("code_digest"),
        "threads": result.environment.get("threads"),
    }  # fmt: skip
    used = result.used and result.used.model_copy(update={"train_seconds": None})
    predicted = result.predicted.model_copy(update={
        "seconds": None, "limit_bytes": None, "fits": None,
        "phases": {name: phase.model_copy(update={"resident_bytes": None, "held_bytes": None})
                   for name, phase in result.predicted.phases.items()},
    })  # fmt: skip
    return result.model_copy(
        update={
            "phases": phases, "environment": environment, "used": used, "predicted": predicted,
            "training": None, "tuning": None, "curated": [], "notes": [], "model_note": None,
            "predictions_sha256": None,
        }
    )  # fmt: skip
