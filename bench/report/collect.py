"""From a run's folder to cells: what was planned beside what was recorded. Nothing here raises for one bad cell."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from bench.migrations import Newer
from bench.probed import ProbeRecord
from bench.records import CellInfo, PlanFile, Result, Score, Status
from bench.report.format import finite
from bench.store import read_plan, read_probe, read_result

NOT_RUN = "not_run"
DAMAGED = "damaged"
NEWER = "newer"
STATUS_WORDS = {
    "ok": "ok",
    "out_of_memory": "out of memory",
    "unsupported": "unsupported",
    "diverged": "diverged",
    "timeout": "timeout",
    "error": "error",
    "interrupted": "interrupted",
    NOT_RUN: "not run yet",
    DAMAGED: "record damaged",
    NEWER: "record of a newer version",
}
"""Status -> what a reader sees, in the order a summary lists them."""


@dataclass(frozen=True)
class CellView:
    """One planned cell and what became of it. `status` is a key of `STATUS_WORDS`."""

    info: CellInfo
    folder: Path
    status: str
    reason: str | None = None
    result: Result | None = None
    probes: dict[str, ProbeRecord] = field(default_factory=dict)
    """Records of its probes, by name."""
    other_code: bool = False
    """Made by other code than the run's `code_digest`, while some other record was made by that."""

    @property
    def score(self) -> Score | None:
        """The score in the task's metric, where the cell is ok and its value is a number."""
        if self.status != "ok" or self.result is None or not self.result.scores:
            return None
        found = self.result.scores.get(self.info.metric)
        if found is None or finite(found.value) is None or finite(found.chance) is None:
            return None
        return found


@dataclass(frozen=True)
class Run:
    """A plan and its cells, in the plan's order."""

    plan: PlanFile
    cells: list[CellView]
    """Clean cells: all that a table may hold."""
    code_digest: str | None
    other_code: int = 0
    """Records made by other code than `code_digest`. Where that is all of them, no cell is marked."""
    engines: list[CellView] = field(default_factory=list)
    """Cells trained by another library's loop, in a table of their own."""
    planted: list[CellView] = field(default_factory=list)
    """Cells trained on their own test items on purpose: controls of the contamination checks, in no table."""

    @cached_property
    def statuses(self) -> Counter[str]:
        """How many cells ended how."""
        return Counter(cell.status for cell in self.cells)


def collect(run_dir: Path, code_digest: str | None = None) -> Run:
    """Read `plan.json` and every planned cell's record.

    `code_digest` is the digest of the code as it is now; without it the plan's own is taken. Raises `UserFault`
    where there is no readable plan; a cell without a record, or with a damaged or newer one, is a cell with that
    status.
    """
    plan = read_plan(run_dir / "plan.json")
    digest = code_digest or plan.code_digest or None
    cells = [_cell(run_dir, info, digest) for info in plan.cells]
    other = sum(cell.other_code for cell in cells)
    if other == sum(cell.result is not None for cell in cells):  # a mark on every row would tell nobody anything
        cells = [replace(cell, other_code=False) for cell in cells]
    clean, planted = ([cell for cell in cells if bool(cell.info.plant) is dosed] for dosed in (False, True))
    own, engines = ([cell for cell in clean if bool(cell.info.engine) is other_loop] for other_loop in (False, True))
    return Run(plan, own, digest, other, engines, planted)


def _cell(run_dir: Path, info: CellInfo, digest: str | None) -> CellView:
    folder = run_dir / info.id
    # An id is a folder's name; one with a separator would read outside the run.
    if Path(info.id).name != info.id or info.id in ("", ".", "..") or "\0" in info.id:
        return CellView(info, run_dir, DAMAGED, "the plan's cell id is not a folder name; run the suite again")
    path = folder / "result.json"
    try:
        if not path.is_file():
            return CellView(info, folder, NOT_RUN, "not run yet")
        result = read_result(path)
    except Newer as error:
        return CellView(info, folder, NEWER, _without_folder(str(error), run_dir))
    except (ValueError, OSError) as error:
        return CellView(info, folder, DAMAGED, f"{_without_folder(str(error), run_dir)}; remove the file and run again")
    if result.cell.id != info.id:
        return CellView(info, folder, DAMAGED, f"the record is of another cell ({result.cell.id}); run it again")
    recorded = result.environment.get("code_digest")
    other = digest is not None and recorded is not None and recorded != digest
    reason = result.outcome.reason
    if reason is None and result.outcome.status is not Status.ok:
        reason = "no reason was recorded"
    return CellView(info, folder, result.outcome.status.value, reason, result, _probes(folder, info.id), other)


def _probes(folder: Path, cell: str) -> dict[str, ProbeRecord]:
    """The readable records of a cell's probes; one that is damaged, newer, or of another cell, counts as not
    asked."""
    found: dict[str, ProbeRecord] = {}
    for path in sorted((folder / "probes").glob("*.json")):
        try:
            record = read_probe(path)
        except (ValueError, OSError):
            continue
        if record.cell == cell:
            found[record.probe] = record
    return found


def _without_folder(message: str, run_dir: Path) -> str:
    """A message without the folder the run lies in: a page that is passed on names no path of its author's."""
    return message.replace(f"{run_dir}/", "")
