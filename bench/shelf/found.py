"""What lies below a results folder: runs, and their cells with what became of each. Nothing raises for one bad cell."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserFault, unknown
from bench.migrations import Newer
from bench.records import CellInfo, PlanFile, Result
from bench.report.collect import DAMAGED, NEWER, NOT_RUN
from bench.shelf.asked import Asked
from bench.store import read_plan, read_result


@dataclass(frozen=True)
class Found:
    """A cell. `status` is that of its record, or `not_run`, `damaged` or `newer`."""

    run: str
    folder: Path
    status: str
    reason: str | None = None
    info: CellInfo | None = None
    """Its identity from its record, else from the plan; None where neither can be read."""
    result: Result | None = None
    planned: bool = False
    """Whether the run's plan.json names it."""

    def has(self, key: str) -> str | None:
        """Its value of a selection's key; None where it is not known."""
        if key == "status":
            return self.status
        return None if self.info is None else str(getattr(self.info, key))


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    name: str
    folder: Path
    plan: PlanFile | None
    """None where there is none that can be read."""
    cells: list[Found]
    """The plan's in its order, then records it does not name."""


def runs(asked: Asked) -> list[Run]:
    """The runs asked for. Raises `UserFault` for a folder or a run that is not there."""
    return [read_run(folder) for folder in folders(asked)]


def folders(asked: Asked) -> list[Path]:
    """Folders of the runs asked for, by name. Raises `UserFault`."""
    base = asked.results_dir
    if not base.is_dir() and not asked.runs:
        raise UserFault(f"results_dir={base} is not a folder; allowed: the folder that runs are recorded in")
    known = {path.name: path for path in sorted(base.iterdir()) if is_run(path)} if base.is_dir() else {}
    if not asked.runs:
        return list(known.values())
    return [one_run(name, known) for name in asked.runs]


def one_run(name: str, known: dict[str, Path]) -> Path:
    """A run by its folder or its name. Raises `UserFault` with the nearest name."""
    if is_run(Path(name)):
        return Path(name)
    if name not in known:
        raise unknown("run", name, known)
    return known[name]


def is_run(folder: Path) -> bool:
    """Whether a folder holds a plan, or records without one."""
    if folder.name.startswith(".") or not folder.is_dir():
        return False
    return (folder / "plan.json").is_file() or any(folder.glob("*/result.json"))


def read_run(folder: Path) -> Run:
    """A run's plan and every cell that it names or that has a record."""
    try:
        plan = read_plan(folder / "plan.json")
    except UserFault:
        plan = None
    name = folder.resolve().name
    named = {info.id: info for info in plan.cells if safe(info.id)} if plan else {}
    others = sorted(path.parent.name for path in folder.glob("*/result.json"))
    ids = [*named, *(one for one in others if one not in named)]
    return Run(name, folder, plan, [read_cell(name, folder / one, named.get(one)) for one in ids])


def safe(name: str) -> bool:
    """Whether an id is a folder's name: one with a separator would read outside the run."""
    return Path(name).name == name and name not in ("", ".", "..") and "\0" not in name


def read_cell(run: str, folder: Path, info: CellInfo | None) -> Found:
    """One cell's record, or why there is none."""
    planned = info is not None
    path = folder / "result.json"
    if not path.is_file():
        return Found(run, folder, NOT_RUN, "not run yet", info, planned=planned)
    try:
        result = read_result(path)
    except Newer as error:
        return Found(run, folder, NEWER, str(error), info, planned=planned)
    except (ValueError, OSError) as error:
        return Found(run, folder, DAMAGED, str(error), info, planned=planned)
    if result.cell.id != folder.name:
        why = f"{path}: the record is of another cell ({result.cell.id})"
        return Found(run, folder, DAMAGED, why, info, planned=planned)
    return Found(run, folder, result.outcome.status.value, result.outcome.reason, result.cell, result, planned)


def selected(found: list[Run], asked: Asked) -> list[Found]:
    """The cells asked for. Raises `UserFault` for a value that no cell has, with the nearest."""
    cells = [cell for run in found for cell in run.cells]
    for key, values in asked.selected.items():
        known = {value for cell in cells if (value := cell.has(key)) is not None}
        for value in values:
            if value not in known and key != "status":  # a status that no cell has is an answer, not a slip
                raise unknown(key, value, known)
    return [cell for cell in cells if all(cell.has(key) in values for key, values in asked.selected.items())]
