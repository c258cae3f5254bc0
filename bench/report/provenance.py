"""How it was measured: every fact the records state, with how many records where they disagree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.records import Apart, CellInfo
from bench.report import format as show
from bench.report.budgets import budget
from bench.report.collect import CellView, Run

MOST_VALUES = 8
SOURCES = {
    "mirror": "a local mirror of the hub",
    "hub": "the Hugging Face hub, revisions pinned",
    "sample": "the sample written for this project",
    "path": "the user's own folder",
    "lm_eval": "lm-eval's own task",
}


@dataclass(frozen=True)
class Fact:
    """One line of the list: a name and what the records say, one value a line."""

    name: str
    values: list[str]


def facts(run: Run) -> list[Fact]:
    """The list, in reading order. Absent is `not measured`."""
    cells = [cell for cell in run.cells if cell.result is not None]
    environments = [cell.result.environment for cell in cells if cell.result is not None]
    infos = [cell.info for cell in run.cells]
    return [
        Fact("Machine", _distinct(_machine(environment) for environment in environments)),
        Fact("Device and precision", _distinct(f"{info.device}, {info.precision}" for info in infos)),
        Fact("Versions", _distinct(_versions(environment) for environment in environments)),
        Fact("Code", [*_distinct(_commit(environment) for environment in environments), *_code(run)]),
        Fact("Numerics version", _distinct(str(info.numerics) for info in infos)),
        Fact("Base model", _each(f"{cell.info.model}: {_note(cell)}" for cell in cells)),
        Fact("Model fingerprint", _each(f"{info.model}: {info.model_fingerprint}" for info in infos)),
        Fact("Data", _each(_data(cell) for cell in cells)),
        Fact("Budget", _distinct(budget(info.budget) for info in infos)),
        Fact("What ended the cells", _distinct((_ended(cell) for cell in cells), counted=True)),
        Fact(
            "Batch and sequence",
            _distinct(
                f"{info.batch} rows a step{passes(info.micro_batch)}, at most {info.sequence} tokens" for info in infos
            ),
        ),
        Fact(
            "Seeds",
            [show.listed([str(seed) for seed in sorted({info.seed for info in infos})], 12)]
            if infos
            else [show.ABSENT],
        ),
        *spread(infos),
        *_lent(cells),
        Fact("Measured", _times(environments)),
        Fact("Planned", [run.plan.created]),
    ]


def spread(infos: list[CellInfo]) -> list[Fact]:
    """Over how many processes cells were spread; nothing where none was."""
    told = [
        f"{i.devices} processes by {i.sharding}; peaks are those of the one that held most" for i in infos if i.sharding
    ]
    return [Fact("Processes of a cell", _distinct(told))] if told else []


def passes(micro_batch: int | str | None) -> str:
    """The rows of a pass, where a step has several."""
    if micro_batch is None:
        return ""
    return f" in passes of {'as many as fit' if micro_batch == 'auto' else micro_batch}"


def _each(values: Iterable[str]) -> list[str]:
    """Each value once, in the order met: what differs by nature, such as the data of each task."""
    found = list(dict.fromkeys(values)) or [show.ABSENT]
    more = len(found) - 4 * MOST_VALUES
    return found if more <= 0 else [*found[: 4 * MOST_VALUES], f"and {more} more"]


def _distinct(values: Iterable[str], counted: bool = False) -> list[str]:
    """Each value once, the commonest first; how many cells each where they disagree."""
    found = Counter(values)
    if not found:
        return [show.ABSENT]
    shown = [
        value if len(found) == 1 and not counted else f"{value} ({show.count(times, 'cell')})"
        for value, times in found.most_common(MOST_VALUES)
    ]
    if len(found) > MOST_VALUES:
        shown.append(f"and {len(found) - MOST_VALUES} more")
    return shown


def _machine(environment: dict[str, Any]) -> str:
    machine = environment.get("machine")
    if not isinstance(machine, dict):
        return show.ABSENT if machine is None else show.text(machine)
    known = {"cpu": "{}", "cores": "{} cores", "system": "{}"}
    parts = [words.format(show.text(machine[key])) for key, words in known.items() if machine.get(key) is not None]
    if isinstance(machine.get("memory_bytes"), int | float):
        parts.append(f"{show.gib(machine['memory_bytes'])} memory")
    parts.append(f"GPU: {show.text(machine['gpu'])}" if machine.get("gpu") is not None else "no GPU")
    rest = [
        f"{key} {show.text(value)}"
        for key, value in machine.items()
        if key not in (*known, "memory_bytes", "gpu") and value is not None
    ]
    threads = environment.get("threads")
    return ", ".join([*parts, *rest, *([f"{show.text(threads)} threads"] if threads is not None else [])])


def _versions(environment: dict[str, Any]) -> str:
    versions = environment.get("versions")
    if not isinstance(versions, dict):
        return show.ABSENT if versions is None else show.text(versions)
    return (
        ", ".join(f"{name} {show.text(version)}" for name, version in versions.items() if version is not None)
        or show.ABSENT
    )


def _commit(environment: dict[str, Any]) -> str:
    if environment.get("commit") is None:
        return "commit not measured (not run from a checkout)"
    changed = {True: ", with uncommitted changes", False: ", clean"}.get(environment.get("dirty"), "")  # type: ignore[arg-type]
    return f"commit {show.text(environment['commit'])}{changed}"


def _code(run: Run) -> list[str]:
    lines = [f"code digest now: {run.code_digest or show.ABSENT}"]
    recorded = sum(cell.result is not None for cell in run.cells)
    if run.other_code:
        marked = " they are marked “other code” and" if run.other_code < recorded else ""
        lines.append(
            f"{run.other_code} of {show.count(recorded, 'recorded cell')} measured by other code than this digest;"
            f"{marked} rerun=changed does them again"
        )
    elif recorded and run.code_digest:
        lines.append("every recorded cell was measured by this code")
    return lines


def _note(cell: CellView) -> str:
    return (cell.result.model_note if cell.result else None) or "what it already is was not recorded"


def _data(cell: CellView) -> str:
    data = cell.result.data if cell.result else None
    if data is None:
        return show.ABSENT
    rows = f"{data.test_rows:,} test rows" if data.test_rows is not None else "test rows not measured"
    train = f"{data.train_rows:,} train rows" if data.train_rows is not None else "train rows not measured"
    train += apart(data.apart) if data.apart is not None else ""
    train += f" (those matching '{data.train_matches}')" if data.train_matches else ""
    return f"{cell.info.task}: {SOURCES.get(data.source, data.source)}; {train}, {rows}; {data.fingerprint}"


def apart(found: Apart) -> str:
    """How many training rows were dropped because they share a text with which test sets."""
    sets = show.listed([f"{name} ({texts:,} texts)" for name, texts in found.compared.items()], 20)
    missing = (
        f"; not compared, for the sample has no such file: {show.listed(found.missing, 20)}" if found.missing else ""
    )
    return f" ({found.dropped:,} of {found.of:,} dropped because a text of theirs stands in {sets}{missing})"


def _lent(cells: list[CellView]) -> list[Fact]:
    """How much of what frozen models read had been read before in the run; nothing where nothing was."""
    phases = [p for cell in cells if cell.result for p in cell.result.phases.values() if p.cached_steps]
    if not phases:
        return []
    steps, taken = sum(p.steps or p.cached_steps or 0 for p in phases), sum(p.cached_steps or 0 for p in phases)
    rows, seconds = sum(p.cached_forwards or 0 for p in phases), sum(p.cached_seconds or 0 for p in phases)
    return [
        Fact(
            "Features read once",
            [
                f"{taken:,} of {show.count(steps, 'batch', 'batches')} ({show.count(rows, 'row')}) of frozen models "
                f"had been read before in the run, and are charged what they took then: {show.seconds(seconds)}, "
                "tokens, FLOPs and peak memory; features=false has every cell read for itself"
            ],
        )
    ]


def _ended(cell: CellView) -> str:
    used = cell.result.used if cell.result else None
    return (used.ended_by if used else None) or show.ABSENT


def _times(environments: list[dict[str, Any]]) -> list[str]:
    times = sorted(str(environment["time"]) for environment in environments if environment.get("time"))
    if not times:
        return [show.ABSENT]
    return [times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"]
