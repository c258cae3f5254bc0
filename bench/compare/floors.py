"""Noise floors: what a ratio of two equals is, learned by comparing code with itself, and kept in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import ValidationError

from bench.compare.matching import match
from bench.compare.sides import Side
from bench.compare.speed import FEWEST_PAIRS, FIGURES, Ratios, spreads
from bench.errors import UserFault
from bench.records import Record
from bench.report.format import count
from bench.store import write_atomically

DEFAULT = 0.05
"""Log ratio that is called noise where nothing was learned: 5%."""
SMALLEST = 0.01
"""No floor is below 1%: so few pairs of equals cannot tell."""
SHARE = 0.95
"""Of the figures of equals, how many lie below the floor."""
FEWEST_RUNS = 3
FLOOR_VERSION = 1


class Session(Record):
    """What was seen when equals were compared once."""

    how: Literal["pairs", "runs"]
    """`pairs`: cells in turn; `runs`: whole runs at different times."""
    machine: str
    """The machine's digest, as records hold it."""
    of: int
    """Pairs a cell, or runs."""
    means: dict[str, list[float]]
    """Figure -> log ratios: the mean over pairs of every cell, or the median over cells of every two runs."""


class Floors(Record):
    """The file."""

    floor_version: int = FLOOR_VERSION
    sessions: list[Session]


@dataclass(frozen=True)
class Known:
    """Floors in force: figure -> log ratio, and where they are from."""

    floors: dict[str, float]
    says: str
    learned: bool


def floor(seen: Sequence[float], how: str) -> float:
    """The floor of what was seen: for pairs the 95% quantile of sizes over cells, for runs the largest size."""
    sizes = np.abs(np.asarray(seen, dtype=float))
    found = float(np.quantile(sizes, SHARE) if how == "pairs" else sizes.max())
    return max(SMALLEST, found)


def known(path: str | None, how: Literal["pairs", "runs"], machine: str | None) -> Known:
    """The floors for this machine: of the file where it holds any, else the default. Raises `UserFault`."""
    default = dict.fromkeys(FIGURES, DEFAULT)
    if path is None:
        return Known(default, f"a floor of x{math.exp(DEFAULT):.2f}, which nobody learned (see floors=)", False)
    sessions = [s for s in read(Path(path)).sessions if s.how == how and s.machine == machine]
    if not sessions:
        return Known(
            default, f"{path} holds nothing of {how} on this machine: a floor of x{math.exp(DEFAULT):.2f}", False
        )
    found = {}
    for figure in FIGURES:
        seen = [mean for session in sessions for mean in session.means.get(figure, [])]
        found[figure] = floor(seen, how) if seen else DEFAULT
    shown = ", ".join(f"{figure} x{math.exp(value):.2f}" for figure, value in found.items())
    return Known(found, f"floors of {path}, learned from {count(len(sessions), 'comparison')} of equals: {shown}", True)


def read(path: Path) -> Floors:
    """A file of floors. Raises `UserFault` where it is missing or damaged."""
    try:
        return Floors.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserFault(f"cannot read the floors {path}: {error.strerror}; learn=FILE makes such a file") from None
    except (ValidationError, UnicodeDecodeError):
        raise UserFault(f"{path} holds no noise floors; allowed: a file written by learn=FILE") from None


def learn(path: Path, session: Session) -> Floors:
    """Add what was seen to the file, which is made where it is missing. Raises `UserFault`."""
    earlier = read(path).sessions if path.is_file() else []
    found = Floors(sessions=[*earlier, session])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(found.model_dump(mode="json"), indent=1) + "\n")
    except OSError as error:
        raise UserFault(f"learn: cannot write {path}: {error.strerror}") from None
    return found


def of_pairs(ratios: Ratios, machine: str) -> Session:
    """What pairs of equals gave. Raises `UserFault` where there are too few."""
    counts = [len(values) for values in ratios.values()]
    if not counts or max(counts) < FEWEST_PAIRS:
        raise UserFault(
            f"learn: {max(counts, default=0)} pairs of timed cells are too few; allowed: {FEWEST_PAIRS} or more"
        )
    means: dict[str, list[float]] = {}
    for (_, figure), values in ratios.items():
        means.setdefault(figure, []).append(round(float(np.mean(values)), 5))
    return Session(how="pairs", machine=machine, of=max(counts), means=means)


def of_runs(sides: Sequence[Side]) -> Session:
    """What repeated runs of the same code gave: every two of them. Raises `UserFault` where they are too few, of
    several machines, or of different code."""
    if len(sides) < FEWEST_RUNS:
        raise UserFault(f"learn: {len(sides)} runs are too few; allowed: {FEWEST_RUNS} or more of the same code")
    machines = {(side.environment.get("machine") or {}).get("id") for side in sides}
    codes = {side.environment.get("code_digest") for side in sides}
    if len(machines) > 1 or None in machines:
        raise UserFault("learn: the runs are of several machines, or do not say of which; allowed: runs of one machine")
    if len(codes) > 1:
        raise UserFault("learn: the runs are of different code, so they are no equals; allowed: runs of one code")
    means: dict[str, list[float]] = {}
    for i, first in enumerate(sides):
        for second in sides[i + 1 :]:
            for spread in spreads(match(first, second).pairs):
                means.setdefault(spread.figure, []).append(round(math.log(spread.median), 5))
    if not means:
        raise UserFault("learn: no cell of these runs has a timed step; allowed: runs with cells that are ok")
    return Session(how="runs", machine=machines.pop() or "", of=len(sides), means=means)


def told(path: Path, session: Session) -> str:
    """What a session taught, in a line."""
    shown = ", ".join(f"{figure} x{math.exp(floor(seen, session.how)):.3f}" for figure, seen in session.means.items())
    return f"learned from {session.of} {session.how} of equals: {shown}; kept in {path}"
