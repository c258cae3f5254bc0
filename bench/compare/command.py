"""The compare command over recorded runs: compare two, keep one, or learn from several."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.compare import floors as noise
from bench.compare.asked import Asked
from bench.compare.keep import keep
from bench.compare.matching import match
from bench.compare.sides import Seen, Side, read_side
from bench.compare.whole import Comparison, compare, with_spread
from bench.errors import UserFault, unknown
from bench.report.format import count
from bench.store import write_atomically

FIELDS = {"models": "model", "tasks": "task", "strategies": "strategy"}


def recorded(asked: Asked) -> Comparison:
    """Two recorded runs compared. Raises `UserFault`."""
    base, new = (read_side(name, results_dir(asked)) for name in asked.runs)
    chosen = selection(asked, [base, new])
    base, new = (replace(side, cells=[c for c in side.cells if wanted(c, asked)]) for side in (base, new))
    found = compare(base, new, chosen)
    machines = {(side.environment.get("machine") or {}).get("id") for side in (base, new)}
    if None in machines:  # a baseline file holds no time
        return replace(found, speed="speed: not gated: a baseline file holds no times; pairs of two checkouts gate it "
                                    "(base_code=DIR new_code=DIR)")  # fmt: skip
    machine = machines.pop() if len(machines) == 1 else None
    if machine is None:
        return replace(found, speed="speed: not gated: the runs are of two machines")
    return with_spread(found, match(base, new).pairs, noise.known(asked.get("floors"), "runs", machine))


def results_dir(asked: Asked) -> str:
    """Where runs are looked for by name."""
    return asked.get("results_dir") or "results"


def selection(asked: Asked, sides: list[Side]) -> list[str]:
    """A remark on what was selected. Raises `UserFault` for a name that neither side has."""
    for kind, names in asked.selected.items():
        known = {getattr(cell.info, FIELDS[kind]) for side in sides for cell in side.cells}
        for name in names:
            if name not in known:
                raise unknown({"strategies": "strategy"}.get(kind, kind[:-1]), name, known)
    said = [f"{kind}={','.join(names)}" for kind, names in asked.selected.items()]
    return [f"only {' '.join(said)} were compared"] if said else []


def wanted(cell: Seen, asked: Asked) -> bool:
    """Whether a cell was selected."""
    return all(getattr(cell.info, FIELDS[kind]) in names for kind, names in asked.selected.items())


def kept(asked: Asked) -> str:
    """Keep a run as a baseline file; what was done, in a line. Raises `UserFault`."""
    path = Path(asked.options["keep"])
    if path.suffix != ".json":
        raise UserFault(f"keep={path}: a baseline file ends in .json, so that compare knows it from a run's folder")
    side = read_side(asked.runs[0], results_dir(asked))
    side = replace(side, cells=[cell for cell in side.cells if wanted(cell, asked)])
    selection(asked, [side])
    size = keep(side, path)
    return f"kept: {count(len(side.cells), 'cell')} in {path}, {size / 1024:.0f} KiB"


def learned(asked: Asked) -> str:
    """Learn from repeated runs what two runs of equals differ by; what was learned. Raises `UserFault`."""
    path = Path(asked.options["learn"])
    session = noise.of_runs([read_side(name, results_dir(asked)) for name in asked.runs])
    noise.learn(path, session)
    return noise.told(path, session)


def written(path: str, text: str) -> None:
    """Write the Markdown. Raises `UserFault` where it cannot be."""
    try:
        write_atomically(Path(path), text)
    except OSError as error:
        raise UserFault(f"--markdown: cannot write {path}: {error.strerror}; allowed: a writable file") from None
