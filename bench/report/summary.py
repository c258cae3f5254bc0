"""From cells to leaderboards: seeds averaged, tasks averaged where something beats chance, rows ranked."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from bench.records import Phase, Result
from bench.report.budgets import budget as budget_words
from bench.report.collect import CellView
from bench.report.format import finite
from bench.report.scores import TaskScore, task_score
from bench.stats.intervals import mean_of


@dataclass(frozen=True)
class Memory:
    """Largest peak over phases, seeds and tasks: bytes, which memory (`RSS`, `CUDA allocated`), in which phase."""

    size: float
    kind: str
    phase: str


@dataclass
class Row:
    """One strategy of a leaderboard. Costs are over all its ok cells: largest memory, median time and speed."""

    strategy: str
    family: str
    seeded: bool
    scores: dict[str, TaskScore]
    memory: Memory | None
    adapt_seconds: float | None
    tokens_per_second: float | None
    trainable: float | None
    stored_bytes: float | None
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    rank: int | None = None

    @property
    def cells(self) -> list[CellView]:
        """Every cell of the row, task by task."""
        return [cell for score in self.scores.values() for cell in score.cells]

    @property
    def still_improving(self) -> list[str]:
        """Tasks in which the loss was still clearly falling when the budget ended."""
        return [task for task, score in self.scores.items() if any(improving(cell) for cell in score.cells)]

    @property
    def source_labels(self) -> int:
        """The most labels of other tasks that one of its cells read."""
        used = [cell.result.used for cell in self.cells if cell.result is not None]
        return max((u.source_labels for u in used if u is not None), default=0)

    @property
    def statuses(self) -> Counter[str]:
        """How many of its cells ended how."""
        return Counter(cell.status for cell in self.cells)


@dataclass
class Board:
    """One leaderboard: one model, one readout, tasks that the same strategies were planned for."""

    model: str
    readout: str
    tasks: list[str]
    metrics: dict[str, str]
    rows: list[Row]
    partial: bool
    """Whether the same model and readout have a further board with other tasks."""
    under: str | None = None
    """The budget in words, where the run has several."""
    group: str | None = None
    """The group its strategies stand in apart from all others, ranked among themselves; None: they decide."""
    chance: dict[str, float] = field(default_factory=dict)
    chance_is: dict[str, str] = field(default_factory=dict)
    """Task -> the baseline that stands for chance, where that is no constant answer."""
    included: list[str] = field(default_factory=list)
    """Tasks in the mean: at least one strategy beats chance there."""

    @property
    def gain(self) -> bool:
        """Whether the mean is over (score - chance) / (1 - chance): metrics of several kinds are never averaged raw."""
        return len({self.metrics[task] for task in self.included}) > 1

    @property
    def mean_name(self) -> str:
        """What the mean is called."""
        if self.gain or not self.included:
            return "mean gain over chance" if self.included else "mean"
        metric = self.metrics[self.included[0]]
        return f"mean {metric}" if len(self.included) > 1 else metric

    @property
    def mean_chance(self) -> float:
        """Where chance lies on the scale of the mean."""
        return 0.0 if self.gain or not self.included else statistics.fmean(self.chance[t] for t in self.included)

    @property
    def ranked(self) -> list[Row]:
        """Rows with a rank, best first."""
        return [row for row in self.rows if row.rank is not None]

    @property
    def title(self) -> str:
        """Model and readout in words."""
        under = "" if self.under is None else f", {self.under}"
        apart = "" if self.group is None else f", {self.group} apart"
        of = f" ({', '.join(self.tasks)})" if self.partial else ""
        return f"{self.model}, {self.readout} readout{under}{apart}{of}"

    def trivial(self, task: str, metric: str = "") -> str:
        """What chance is on a task, in words: `best constant answer`, or the baseline."""
        if task in self.chance_is:
            return f"baseline that reads no label ({self.chance_is[task]})"
        return f"best {metric} of any constant answer" if metric else "best constant answer"

    @property
    def trivials(self) -> str:
        """What chance is on the tasks of the mean, in words."""
        if not any(task in self.chance_is for task in self.included):
            return "the best constant answers"
        return "baselines that read no label"

    def scale(self, task: str) -> float:
        """What one point of the task's metric is worth on the scale of the mean, before dividing by the tasks."""
        return 1 / (1 - self.chance[task]) if self.gain else 1.0


def boards(cells: Iterable[CellView]) -> list[Board]:
    """Leaderboards: one for each model, readout, budget and group apart, split where tasks have other strategies.

    In the plan's order, but those that compare several strategies come first, and those without any score last: an
    encoder's prompting cells, which it cannot do, must not stand above its answer. Groups that decide nothing follow.
    """
    found: list[Board] = []
    groups: dict[tuple[str, str, str, str | None], dict[str, dict[str, list[CellView]]]] = {}
    for cell in cells:
        key = (cell.info.model, cell.info.readout, json.dumps(cell.info.budget, sort_keys=True), cell.info.group)
        tasks = groups.setdefault(key, {})
        tasks.setdefault(cell.info.task, {}).setdefault(cell.info.strategy, []).append(cell)
    told_apart = differing([json.loads(budget) for _, _, budget, _ in groups])
    for (model, readout, budget, group), tasks in groups.items():
        under = told_apart(json.loads(budget))
        blocks: dict[frozenset[str], list[str]] = {}
        for task, strategies in tasks.items():
            blocks.setdefault(frozenset(strategies), []).append(task)
        found += [
            replace(_board(model, readout, {task: tasks[task] for task in names}, len(blocks) > 1, under), group=group)
            for names in blocks.values()
        ]
    return sorted(found, key=lambda board: (board.group is not None, not board.chance, len(board.rows) < 2))


def differing(budgets: list[dict[str, Any]]) -> Callable[[dict[str, Any]], str | None]:
    """How to say which of several budgets one is: its label count, else all of it; nothing where there is one."""
    if len({json.dumps(one, sort_keys=True) for one in budgets}) < 2:
        return lambda one: None
    if len({one.get("labels") for one in budgets}) > 1:
        return lambda one: f"{one.get('labels')} labels"
    return budget_words


def _board(
    model: str, readout: str, tasks: dict[str, dict[str, list[CellView]]], partial: bool, under: str | None
) -> Board:
    strategies = list(next(iter(tasks.values())))
    rows = [_row(name, {task: tasks[task][name] for task in tasks}) for name in strategies]
    metrics = {task: next(iter(by.values()))[0].info.metric for task, by in tasks.items()}
    board = Board(model, readout, list(tasks), metrics, rows, partial, under)
    for task in board.tasks:
        known = [chance for row in rows if (chance := row.scores[task].chance) is not None]
        if known:
            board.chance[task] = max(known)
            if told := next((t for row in rows if (t := row.scores[task].chance_is)), None):
                board.chance_is[task] = told
        if known and board.chance[task] < 1 and any(row.scores[task].beats_chance for row in rows):
            board.included.append(task)
    _rank(board)
    return board


def _row(strategy: str, tasks: dict[str, list[CellView]]) -> Row:
    cells = [cell for group in tasks.values() for cell in group]
    results = [cell.result for cell in cells if cell.status == "ok" and cell.result is not None]
    adapts = [result.phases["adapt"] for result in results if "adapt" in result.phases]
    sizes = [result.parameters for result in results if result.parameters is not None]
    return Row(
        strategy,
        cells[0].info.family,
        any(cell.info.seeded for cell in cells),
        {task: task_score(group) for task, group in tasks.items()},
        peak_memory(results),
        median(phase.seconds for phase in adapts),
        median(phase.tokens_per_second for phase in adapts),
        largest(size.trainable for size in sizes),
        largest(size.stored_bytes for size in sizes),
    )


ASIDE = ("default", "plant", "probe")
"""Phases beside the way to the answers: defaults scored for comparison, a planted leak, and probes."""


def peak_memory(results: Iterable[Result]) -> Memory | None:
    """Largest peak over the phases that lead to the answers: CUDA bytes allocated where every record has them, else
    resident memory."""
    phases = [(name, p) for result in results for name, p in result.phases.items() if name not in ASIDE]

    def worst(kind: str, attribute: str) -> Memory | None:
        found = [(value, name) for name, phase in phases if (value := finite(getattr(phase, attribute))) is not None]
        return Memory(max(found)[0], kind, max(found)[1]) if found else None

    on_card = any(phase.peak_allocated_bytes is not None for _, phase in phases)
    return worst("CUDA allocated", "peak_allocated_bytes") if on_card else worst("RSS", "peak_rss_bytes")


def _rank(board: Board) -> None:
    """Mean and rank of every row that is complete on all tasks of the mean; equal means share a rank."""
    for row in board.rows:
        scores = [row.scores[task] for task in board.included]
        if not scores or not all(score.complete for score in scores):
            continue
        shifted = [_shifted(board, task) for task in board.included]
        ends = [
            tuple((end - shift) * scale if end is not None else math.nan for end in (s.value, s.low, s.high))
            for s, (shift, scale) in zip(scores, shifted, strict=True)
        ]
        mean, low, high = mean_of(ends)  # type: ignore[arg-type]
        row.mean, row.low, row.high = mean, finite(low), finite(high)
    board.rows.sort(key=lambda row: (row.mean is None, -(row.mean or 0.0)))
    place = 1
    for _, equal in groupby((row for row in board.rows if row.mean is not None), key=lambda row: row.mean):
        tied = list(equal)
        for row in tied:
            row.rank = place
        place += len(tied)


def _shifted(board: Board, task: str) -> tuple[float, float]:
    """What is taken off a task's score and what it is then multiplied by, to be averaged."""
    return (board.chance[task], board.scale(task)) if board.gain else (0.0, 1.0)


def improving(cell: CellView) -> bool:
    """Whether the loss of an ok cell was still clearly falling when its budget ended."""
    training = cell.result.training if cell.result is not None else None
    return cell.status == "ok" and training is not None and training.still_improving is True


def phase_of(cell: CellView, name: str) -> Phase | None:
    """One phase of a cell's record, where there is one."""
    return cell.result.phases.get(name) if cell.result is not None else None


def median(values: Iterable[float | None]) -> float | None:
    """Median of what was measured."""
    known = [number for value in values if (number := finite(value)) is not None]
    return statistics.median(known) if known else None


def largest(values: Iterable[float | None]) -> float | None:
    """Largest of what was measured."""
    return max((number for value in values if (number := finite(value)) is not None), default=None)
