"""The check of recorded runs: every record readable and what it says it is, nothing left behind. Changes nothing."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from bench.identity import id_of
from bench.migrations import Newer
from bench.records import Result, Status
from bench.report.format import count
from bench.shelf import answers
from bench.shelf.found import Found, Run, safe
from bench.store import kind_of, read_json, read_probe, read_record

Kind = Literal["damaged", "newer", "older", "orphan", "leftover", "missing"]
LEFTOVERS = (
    (r"\..+\.(json|parquet|md|html)\.[A-Za-z0-9_]{8}", "a temporary file of a writer that was killed, or is at work"),
    (r".+\.part", "a temporary file of a writer that was killed, or is at work"),
    (r"tmp[a-z0-9_]{8}", "a temporary folder of a cell that was killed, or is at work"),
    (r".+\.old", "a record kept by a migration that was cut short"),
    (r"result\.damaged-\d+\.json", "a damaged record, set aside when its cell ran again"),
)  # fmt: skip
"""Names of what should be gone, and what it is."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    kind: Kind
    path: str
    says: str


@dataclass
class Checked:
    """What a check looked at and found."""

    runs: int = 0
    records: int = 0
    probes: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged; the rest is told and harms nothing."""
        return all(one.kind != "damaged" for one in self.findings)

    def add(self, kind: Kind, path: Path, says: str) -> None:
        """Take down a finding; a message that begins with the path says it once."""
        self.findings.append(Finding(kind, str(path), says.removeprefix(f"{path}: ")))

    def line(self) -> str:
        """All of it in one line."""
        kinds = dict.fromkeys(one.kind for one in self.findings)
        told = [f"{sum(one.kind == kind for one in self.findings)} {kind}" for kind in kinds]
        cells, probes = count(self.records, "record"), count(self.probes, "probe record")
        looked = f"{cells} and {probes} in {count(self.runs, 'run')}"
        return f"checked {looked}: {', '.join(told) or 'nothing to tell'}"

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        numbers = {"runs": self.runs, "records": self.records, "probes": self.probes}
        return {**numbers, "ok": self.ok, "findings": [asdict(one) for one in self.findings]}


def check(runs: list[Run]) -> Checked:
    """Look at every record of the runs."""
    found = Checked(runs=len(runs))
    for run in runs:
        check_plan(run, found)
        leftovers(run.folder, found)
        for cell in run.cells:
            check_cell(cell, found)
            if run.plan and not cell.planned:
                found.add("orphan", cell.folder, "plan.json does not name it: of an earlier request, in no report")
        if run.plan is None:
            continue
        named = {cell.folder.name for cell in run.cells}
        for folder in sorted(path for path in run.folder.iterdir() if path.is_dir() and path.name not in named):
            if not re.fullmatch(LEFTOVERS[2][0], folder.name):
                found.add("orphan", folder, "no record, and plan.json does not name it")
    return found


def check_plan(run: Run, found: Checked) -> None:
    """A run's plan.json."""
    path = run.folder / "plan.json"
    if not path.is_file():
        found.add("orphan", run.folder, f"no plan.json names its {count(len(run.cells), 'cell')}; no report shows them")
        return
    readable(path, found)
    for info in run.plan.cells if run.plan else []:
        if not safe(info.id):
            found.add("damaged", path, f"the cell id {info.id!r} is not a folder name")


def readable(path: Path, found: Checked) -> bool:
    """Take down what keeps a record from being read, or that it is of an older schema; whether it can be read."""
    try:
        read_record(path)
        version, wanted = read_json(path)["schema_version"], kind_of(path).version
    except Newer as error:
        found.add("newer", path, str(error))
        return False
    except (ValueError, OSError) as error:
        found.add("damaged", path, str(error))
        return False
    if version < wanted:
        found.add("older", path, f"schema_version {version}; --migrate rewrites it as {wanted}")
    return True


def check_cell(cell: Found, found: Checked) -> None:
    """A cell's folder."""
    path = cell.folder / "result.json"
    if path.is_file():
        found.records += 1
        if readable(path, found):
            check_result(cell, found)
    else:
        found.add("missing", cell.folder, "planned, and has no record yet")
    if cell.folder.is_dir():
        leftovers(cell.folder, found)
    for probe in sorted((cell.folder / "probes").glob("*.json")):
        found.probes += 1
        if readable(probe, found):
            check_probe(cell, probe, found)


def check_result(cell: Found, found: Checked) -> None:
    """A record that can be read, beside the files it tells of."""
    path, result = cell.folder / "result.json", cell.result
    if result is None:
        found.add("damaged", path, cell.reason or "of another cell")
        return
    given = id_of(result.cell, result.data.fingerprint)
    if given != result.cell.id:
        found.add("damaged", path, f"its fields give the id {given}: one of them was changed")
    ok = result.outcome.status == Status.ok
    if ok and result.cell.metric not in (result.scores or {}):
        found.add("damaged", path, f"it is ok and holds no {result.cell.metric}")
    if (why := answers.fault(cell.folder, result)) is not None:
        found.add("damaged", cell.folder / "predictions.parquet", why)
    if not ok and (cell.folder / "predictions.parquet").is_file():
        found.add("leftover", cell.folder / "predictions.parquet", f"its cell is {result.outcome.status}")
    if (why := wrong_size(cell.folder / "adapted", result)) is not None:
        found.add("damaged", cell.folder / "adapted", why)


def wrong_size(stored: Path, result: Result) -> str | None:
    """What is stored of a strategy, where it is not as large as was recorded; None where it is or was not kept."""
    if not stored.is_dir() or result.parameters is None:
        return None
    size = sum(path.stat().st_size for path in stored.rglob("*") if path.is_file())
    if size == result.parameters.stored_bytes:
        return None
    return f"its files hold {size:,} bytes, {result.parameters.stored_bytes:,} were recorded"


def check_probe(cell: Found, path: Path, found: Checked) -> None:
    """A probe's record that can be read."""
    record = read_probe(path)
    if record.cell != cell.folder.name:
        found.add("damaged", path, f"the record is of another cell ({record.cell})")
    elif record.probe != path.stem:
        found.add("damaged", path, f"the record is of another probe ({record.probe})")
    elif record.outcome.status == Status.ok and getattr(record, record.probe) is None:
        found.add("damaged", path, "it is ok and holds no findings")


def leftovers(folder: Path, found: Checked) -> None:
    """Files and folders that should be gone, here and beside probes."""
    for path in sorted([*folder.iterdir(), *(folder / "probes").glob("*")]):
        for pattern, says in LEFTOVERS:
            if re.fullmatch(pattern, path.name):
                found.add("leftover", path, says)
                break
