"""Which cell of one run is which of the other: by what a cell is, not by its id, which changes with the numerics."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from bench.compare.sides import Seen, Side
from bench.errors import UserFault
from bench.records import CellInfo

CORE = ("model", "task", "strategy", "seed", "readout", "device", "precision", "plant", "plant_items", "engine")
"""With the budget's labels and axis, what a cell is called. Two cells alike in these are the same cell."""
REST = ("base_strategy", "options", "batch", "micro_batch", "sequence", "checkpointing", "foreach", "sources",
        "held_out", "formats_digest", "limit", "metric", "model_fingerprint", "task_digest", "numerics",
        "sharding", "devices")  # fmt: skip
"""How it is defined; where only these differ, cells are compared and the differences told."""
CAPS = ("memory_gib", "trials", "search", "folds")


@dataclass(frozen=True)
class Match:
    """A cell on both sides."""

    name: str
    base: Seen
    new: Seen
    differs: dict[str, tuple[Any, Any]]
    """Parts of its definition that are not as they were: key -> (before, after)."""


@dataclass(frozen=True)
class Matched:
    """Both sides laid beside each other."""

    pairs: list[Match]
    only_base: list[tuple[str, Seen]]
    only_new: list[tuple[str, Seen]]


def core(info: CellInfo) -> str:
    """What a cell is called, as a key."""
    axis = {k: v for k, v in info.budget.items() if k not in CAPS and v is not None}
    tuned = info.budget.get("trials")
    return json.dumps([[getattr(info, name) for name in CORE], axis, tuned], sort_keys=True, default=str)


def definition(info: CellInfo) -> dict[str, Any]:
    """How a cell is defined, flat: options and caps one key each."""
    found = {name: getattr(info, name) for name in REST if name != "options"}
    found |= {f"options.{name}": value for name, value in info.options.items()}
    return found | {f"budget.{name}": info.budget.get(name) for name in CAPS}


def label(info: CellInfo, ambiguous: frozenset[str] = frozenset()) -> str:
    """A cell's name in a line: `model task strategy s0`, with budget and more where that names several cells."""
    plain = f"{info.model} {info.task} {info.strategy} s{info.seed}"
    if info.plant:
        plain += f" planted x{info.plant}"
    if plain not in ambiguous:
        return plain
    axis = " ".join(f"{k}={v:g}" for k, v in info.budget.items() if k not in CAPS and isinstance(v, int | float))
    return f"{plain} {info.readout} {axis} [{info.id[-8:]}]"


def names(cells: list[Seen]) -> frozenset[str]:
    """Short names that stand for more than one cell."""
    short = [label(cell.info) for cell in cells]
    return frozenset(name for name in short if short.count(name) > 1)


def differences(base: CellInfo, new: CellInfo) -> dict[str, tuple[Any, Any]]:
    """Keys of the definition that differ. A key that one side does not know yet is none unless it holds something."""
    before, after = definition(base), definition(new)
    return {
        key: (before.get(key), after.get(key))
        for key in dict.fromkeys([*before, *after])
        if before.get(key) != after.get(key)
    }


def match(base: Side, new: Side) -> Matched:
    """Pair the cells: the same id first, then the same name where it is one cell on each side, and of several the
    one with the fewest differences. Raises `UserFault` where nothing can be paired."""
    unclear = names(base.cells) | names(new.cells)
    by_id = {cell.info.id: cell for cell in new.cells}
    pairs = {cell.info.id: by_id[cell.info.id] for cell in base.cells if cell.info.id in by_id}
    taken = {cell.info.id for cell in pairs.values()}
    free: dict[str, list[Seen]] = defaultdict(list)
    for cell in new.cells:
        if cell.info.id not in taken:
            free[core(cell.info)].append(cell)
    for cell in base.cells:
        candidates = free[core(cell.info)]
        if cell.info.id in pairs or not candidates:
            continue
        info = cell.info
        best = min(candidates, key=lambda one, info=info: len(differences(info, one.info)))  # type: ignore[misc]
        candidates.remove(best)
        pairs[cell.info.id] = best
    if not pairs:
        raise UserFault(f"no cell of {base.name} is in {new.name}: {why_not(base, new)}")
    there = {cell.info.id for cell in pairs.values()}
    return Matched(
        [
            Match(label(cell.info, unclear), cell, other, differences(cell.info, other.info))
            for cell in base.cells
            if (other := pairs.get(cell.info.id)) is not None
        ],
        [(label(cell.info, unclear), cell) for cell in base.cells if cell.info.id not in pairs],
        [(label(cell.info, unclear), cell) for cell in new.cells if cell.info.id not in there],
    )


def why_not(base: Side, new: Side) -> str:
    """The keys in which two runs have no value in common."""
    apart = []
    for key in CORE:
        before, after = ({str(getattr(cell.info, key)) for cell in side.cells} for side in (base, new))
        if not before & after:
            apart.append(f"{key} is {'/'.join(sorted(before)[:3])} there and {'/'.join(sorted(after)[:3])} here")
    return "; ".join(apart) or "they share no combination of model, task, strategy, seed and budget"
