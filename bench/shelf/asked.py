"""What the results command is asked: runs, KEY=VALUE tokens and flags. Words that are neither are a fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bench.config.tokens import names
from bench.errors import UserFault, unknown
from bench.report.collect import STATUS_WORDS

SELECTIONS = ("task", "strategy", "model", "seed", "status")
PLURALS = {"tasks": "task", "strategies": "strategy", "models": "model"}
"""As the run and compare commands spell them. Not `seeds`: there `seeds=3` is three of them."""
OPTIONS = (*SELECTIONS, "export", "results_dir")
SUFFIXES = (".csv", ".parquet", ".jsonl")


@dataclass(frozen=True)
class Asked:
    """The command, read."""

    runs: list[str] = field(default_factory=list)
    """Names below `results_dir`, or folders; none: every run there."""
    results_dir: Path = Path("results")
    selected: dict[str, list[str]] = field(default_factory=dict)
    """Selections of cells, by key."""
    export: Path | None = None
    force: bool = False
    """Whether an export may replace a file."""
    does: Literal["list", "fsck", "migrate"] = "list"


def read(words: Sequence[str], fsck: bool = False, migrate: bool = False, force: bool = False) -> Asked:
    """Runs, selections and options. Raises `UserFault`."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if word.startswith("-"):
            raise UserFault(
                f"unknown option '{word}'; allowed: --json, --fsck, --migrate, --force, and KEY=VALUE with "
                f"{', '.join(OPTIONS)}"
            )
        if not equals:
            continue
        key = PLURALS.get(key, key)
        if key not in OPTIONS:
            raise unknown("option", key, OPTIONS)
        if key in found or not value:
            raise UserFault(
                f"option '{key}' is given {'twice' if key in found else 'no value'}; allowed: {key}=VALUE once"
            )
        found[key] = value
    fits(found, fsck, migrate, force)
    export = found.get("export")
    return Asked(
        runs=list(dict.fromkeys(word for word in words if "=" not in word)),
        results_dir=Path(found.get("results_dir", "results")),
        selected={key: chosen(key, found[key]) for key in SELECTIONS if key in found},
        export=None if export is None else table_file(export),
        force=force,
        does="fsck" if fsck else "migrate" if migrate else "list",
    )


def fits(found: dict[str, str], fsck: bool, migrate: bool, force: bool) -> None:
    """Refuse what does not go together. Raises `UserFault`."""
    if fsck and migrate:
        raise UserFault("got --fsck and --migrate; allowed: one of them, --fsck changes nothing")
    flag = "--fsck" if fsck else "--migrate" if migrate else None
    stray = next((key for key in found if key != "results_dir"), None)
    if flag and stray:
        raise UserFault(f"{flag} takes whole runs, got {stray}=; allowed: {flag} [RUN ...] results_dir=DIR")
    if force and "export" not in found:
        raise UserFault("--force goes with export=FILE: it lets an export replace a file")


def chosen(key: str, text: str) -> list[str]:
    """A selection's values. Raises `UserFault`."""
    values = names(key, text)
    for value in values:
        if key == "status" and value not in STATUS_WORDS:
            raise unknown("status", value, STATUS_WORDS)
        if key == "seed" and not value.isdecimal():
            raise UserFault(f"seed is '{value}'; allowed: whole numbers joined by commas, e.g. seed=0,1")
    return values


def table_file(text: str) -> Path:
    """A file to export to. Raises `UserFault` for an ending that names no format."""
    if Path(text).suffix not in SUFFIXES:
        raise UserFault(f"export={text}: the ending names the format; allowed: {', '.join(SUFFIXES)}")
    return Path(text)
