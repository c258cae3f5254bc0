"""What tuning did to tasks it was not meant for: the change of their accuracy, by strategy, its seeds together."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np

from bench.probed import Retained
from bench.report import format as show
from bench.report.collect import CellView
from bench.report.scores import FEWEST_SEEDS
from bench.report.tables import WIDE, Column, Entry, Table
from bench.stats.metrics import SMALLEST, too_few
from bench.stats.seeds import seeds_interval


@dataclass(frozen=True)
class Change:
    """One strategy on one task it was not tuned for."""

    strategy: str
    task: str
    before: float
    after: float
    chance: float
    low: float
    high: float
    items: int
    seeds: int

    @property
    def told(self) -> str:
        """`lost`, `gained`, or empty where the interval holds no change."""
        return "lost" if self.high < 0 else "gained" if self.low > 0 else ""

    @property
    def wide(self) -> bool:
        """Whether the interval is the mean of two seeds' own."""
        return 1 < self.seeds < FEWEST_SEEDS


def changes(by_strategy: dict[str, list[CellView]]) -> list[Change]:
    """Every strategy and other task that was asked of all its seeds that were asked at all."""
    found = []
    for strategy, cells in by_strategy.items():
        asked = [r.retention.tasks for c in cells if (r := c.probes.get("retention")) and r.retention]
        tasks = dict.fromkeys(one.task for of in asked for one in of)
        for task in tasks:
            seeds = [one for of in asked for one in of if one.task == task]
            if all(one.items == seeds[0].items for one in seeds):
                found.append(_change(strategy, task, seeds))
    return found


def _change(strategy: str, task: str, seeds: list[Retained]) -> Change:
    """The mean over seeds; from three on with an interval that holds for other seeds and items."""
    n = len(seeds[0].items)
    low, high = (statistics.fmean(getattr(one, end) for one in seeds) for end in ("low", "high"))
    if len(seeds) >= FEWEST_SEEDS and n > 1:
        moved = np.array([np.subtract(one.after, one.before, dtype=float) for one in seeds])
        left_out = (moved.sum(axis=1, keepdims=True) - moved) / (n - 1)
        ends = seeds_interval(moved.mean(axis=1), left_out, (-1.0, 1.0))
        low, high = ends.low, ends.high
    before, after = (statistics.fmean(sum(getattr(one, when)) / n for one in seeds) for when in ("before", "after"))
    return Change(strategy, task, before, after, seeds[0].chance, low, high, n, len(seeds))


def retention_sentences(task: str, found: list[Change]) -> list[str]:
    """What was lost and gained beyond doubt, and what cannot be told; nothing where nobody was asked."""
    if not found:
        return []
    said = []
    for verb in ("lost", "gained"):
        parts = [
            f"{one.strategy} {show.signed(one.after - one.before)} {show.interval(one.low, one.high)} on {one.task}"
            for one in found
            if one.told == verb
        ]
        if parts:
            said.append(f"Tuning on {task} {verb} accuracy elsewhere: {show.listed(parts, 12)}.")
    quiet = [f"{one.strategy} on {one.task}" for one in found if not one.told]
    if quiet:
        said.append(f"No change can be told of {show.listed(quiet, 12)}.")
    low = [one.task for one in found if one.before <= one.chance]
    if low:
        names = show.listed(list(dict.fromkeys(low)))
        said.append(f"The base itself does not beat a constant answer on {names}: there was little to forget.")
    return said


def retention_table(task: str, found: list[Change]) -> Table | None:
    """A row a strategy and other task; None where nobody was asked."""
    if not found:
        return None
    columns = [
        Column("strategy", "seeds", False),
        Column("asked about", "items", False),
        Column("base", "accuracy"),
        Column("tuned", "accuracy"),
        Column("change", "95%"),
        Column("chance", "best constant"),
    ]
    rows = [
        [
            Entry(one.strategy, show.count(one.seeds, "seed"), one.strategy),
            Entry(one.task, show.count(one.items, "item"), one.task),
            Entry(show.score(one.before), sort=one.before),
            Entry(show.score(one.after), sort=one.after),
            Entry(show.signed(one.after - one.before), _ends(one), one.after - one.before),
            Entry(show.score(one.chance), sort=one.chance),
        ]
        for one in found
    ]
    notes = [
        "Asked in the other task's own prompt, item by item, of the base and of the tuned model. The interval of one "
        "training run is Newcombe's for paired proportions (1998, method 10); from three runs on it holds for training "
        "again too."
    ]
    if any(too_few(one.items, "accuracy", one.seeds >= FEWEST_SEEDS) for one in found):
        fewest = SMALLEST["accuracy"]
        notes.append(f"Below {fewest} items (100 over three seeds) an interval may hold less often.")
    if any(one.wide for one in found):
        notes.append(f"Over two runs the interval is the mean of their own, which is {WIDE}.")
    return Table(f"What tuning on {task} did to other tasks", columns, rows, notes)


def _ends(one: Change) -> str:
    ends = show.interval(one.low, one.high)
    return f"{ends} {WIDE}" if one.wide else ends
