"""What there is: strategies, suites, models, cards. Plain rows for tables and `--json`."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_jsonable_python

from bench import registry
from bench.cards import cards
from bench.config.load import read_suite_file, suite_file, suite_names
from bench.errors import unknown
from bench.models.catalog import known_models

KINDS = ("strategies", "suites", "models", "gpus")


def strategies(adapters_path: str | None = None) -> list[dict[str, Any]]:
    """Every strategy with family, what trains, readouts, options and paper."""
    rows = [
        {
            "name": name,
            "family": s.family,
            "trains": s.trains,
            "readouts": list(s.readouts),
            "options": {
                k: to_jsonable_python(f.get_default(), fallback=str) for k, f in s.Options.model_fields.items()
            },
            "paper": s.paper,
        }
        for name, s in registry.load(adapters_path).items()
    ]
    return sorted(rows, key=lambda row: (str(row["family"]), str(row["name"])))


def suites() -> list[dict[str, Any]]:
    """Every bundled suite with its description, models, tasks and strategies."""
    rows = []
    for name in suite_names():
        raw = read_suite_file(suite_file(name))
        rows.append(
            {
                "name": name,
                "description": raw.get("description", ""),
                "model": raw.get("model"),
                "tasks": list(raw.get("tasks") or {}),
                "strategies": list(raw.get("strategies") or {}),
            }
        )
    return rows


def gpus() -> list[dict[str, Any]]:
    """Every card that `gpu=` can name, with its figures and their source."""
    return [{"name": name, **card.model_dump(exclude={"name"}), "card": card.name} for name, card in cards().items()]


def rows(kind: str) -> list[dict[str, Any]]:
    """Rows of `list <kind>`. Raises `UserFault` for an unknown kind."""
    if kind not in KINDS:
        raise unknown("kind to list", kind, KINDS)
    return {"strategies": strategies, "suites": suites, "models": known_models, "gpus": gpus}[kind]()


SHOWN = {
    "strategies": ("name", "family", "trains", "paper"),
    "suites": ("name", "description", "tasks", "strategies"),
    "models": ("name", "what", "licence", "parameters"),
    "gpus": ("name", "card", "memory_mib", "bandwidth_gb_s", "compute_capability", "source"),
}
"""Columns of the printed tables; `--json` has everything."""
