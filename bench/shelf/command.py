"""The results command: list, export, check, migrate."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

from bench.report.format import count, plain
from bench.shelf.asked import Asked
from bench.shelf.export import export
from bench.shelf.found import runs, selected
from bench.shelf.fsck import check
from bench.shelf.migrate import migrate
from bench.shelf.rows import row, table


def answer(asked: Asked, as_json: bool, console: Console) -> int:
    """Do what was asked; the exit code. Raises `UserFault`."""
    if asked.does == "list":
        return listed(asked, as_json, console)
    return fsck(asked, as_json) if asked.does == "fsck" else migrated(asked, as_json)


def listed(asked: Asked, as_json: bool, console: Console) -> int:
    """List the cells, or export them; the exit code. Raises `UserFault`."""
    found = runs(asked)
    cells = selected(found, asked)
    if asked.export is not None:
        line = export(cells, asked.export, asked.force)
        print(json.dumps({"exported": str(asked.export), "says": line}) if as_json else line)
        return 0
    rows = [row(cell) for cell in cells]
    if as_json:
        show({"cells": rows})
    elif rows:
        names = ", ".join(run.name for run in found) if len(found) < 4 else count(len(found), "run")
        console.print(table(rows, f"{names}: {count(len(rows), 'cell')}"))
        for one in rows:
            if one["status"] in ("damaged", "newer"):
                print(plain(f"{one['status']}: {one['reason']}"))
    else:
        print("no cell is of all that was selected" if asked.selected else f"no run in {asked.results_dir}")
    return 0


def fsck(asked: Asked, as_json: bool) -> int:
    """Check the records; 1 where one is damaged. Raises `UserFault`."""
    found = check(runs(asked))
    if as_json:
        show(found.as_json())
    else:
        for one in found.findings:
            print(plain(f"{one.kind:<9} {one.path}: {one.says}"))
        print(found.line())
    return 0 if found.ok else 1


def migrated(asked: Asked, as_json: bool) -> int:
    """Bring the records to the present schema; the exit code. Raises `UserFault`."""
    done = migrate(runs(asked))
    if as_json:
        show(done.as_json())
    else:
        for path, why in done.left.items():
            print(plain(f"left      {path}: {why}"))
        print(done.line())
    return 0


def show(data: dict[str, Any]) -> None:
    """Print JSON."""
    print(json.dumps(data, indent=1))
