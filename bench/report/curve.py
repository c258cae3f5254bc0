"""Score against the number of labels (from which on does tuning beat prompting?) or the budget's axis (`ladder`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bench.report import format as show
from bench.report.budgets import AXIS_WORDS
from bench.report.collect import CellView
from bench.report.scores import TaskScore, task_score
from bench.report.tables import Column, Entry, Table, scored

PROMPTING = "prompting"


@dataclass(frozen=True)
class Line:
    """One strategy over the label counts, or rungs, it was planned for."""

    strategy: str
    family: str
    readout: str
    control: bool
    """Whether its demonstrations show random labels."""
    method: str
    """Strategy file and options apart from whose labels are shown: a control has that of what it controls."""
    points: dict[int, TaskScore]

    @property
    def complete(self) -> dict[int, TaskScore]:
        """The points every seed of which has a score."""
        return {labels: score for labels, score in self.points.items() if score.complete and score.value is not None}


@dataclass(frozen=True)
class Curve:
    """One model on one task at several label counts, or at several rungs of the budget's axis."""

    model: str
    task: str
    metric: str
    across: str
    """What the counts are of: `labels`, or the axis in words."""
    counts: list[int]
    lines: list[Line]
    chance: float | None
    sentences: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """What is drawn, of which task and model."""
        return f"{self.metric} against {self.across}: {self.task}, {self.model}"


def curves(cells: Iterable[CellView]) -> list[Curve]:
    """A curve for every model and task with more than one label count among its cells, or more than one rung."""
    groups: dict[tuple[str, str], list[CellView]] = {}
    for cell in cells:
        groups.setdefault((cell.info.model, cell.info.task), []).append(cell)
    found = []
    for (model, task), members in groups.items():
        counts = sorted({labels_of(cell) for cell in members})
        if len(counts) > 1:
            found.append(_labels(model, task, counts, members))
            continue
        for axis in dict.fromkeys(axis_of(cell) for cell in members):
            own = [cell for cell in members if axis_of(cell) == axis]
            rungs = sorted({rung_of(cell) for cell in own})
            if len(rungs) > 1:
                found.append(_ladder(model, task, rungs, own))
    return found


def rows_there_are(cells: Iterable[CellView]) -> int | None:
    """How many rows could be labelled, where a record says so: a larger label count is no point of the curve."""
    known = [cell.result.data.train_rows for cell in cells if cell.result is not None]
    return max((rows for rows in known if rows is not None), default=None)


def labels_of(cell: CellView) -> int:
    """The label budget of a cell."""
    return int(cell.info.budget.get("labels") or 0)


def axis_of(cell: CellView) -> str:
    """The binding axis of a cell's budget; empty where a record names none."""
    return next((axis for axis in AXIS_WORDS if cell.info.budget.get(axis) is not None), "")


def rung_of(cell: CellView) -> int:
    """The value of the binding axis, in whole units."""
    return round(cell.info.budget.get(axis_of(cell)) or 0)


def _labels(model: str, task: str, counts: list[int], cells: list[CellView]) -> Curve:
    there = rows_there_are(cells)
    beyond = [n for n in counts if there is not None and n > there]
    curve = _curve(model, task, "labels", [n for n in counts if n not in beyond], cells, labels_of)
    curve.sentences.extend(sentences(curve))
    if beyond:
        left = show.listed([str(n) for n in beyond])
        curve.sentences.append(f"Only {there} labelled rows exist, so {left} labels are no points of this curve.")
    return curve


def _ladder(model: str, task: str, rungs: list[int], cells: list[CellView]) -> Curve:
    curve = _curve(model, task, AXIS_WORDS[axis_of(cells[0])], rungs, cells, rung_of)
    curve.sentences.extend(climbed(curve))
    return curve


def _curve(
    model: str, task: str, across: str, counts: list[int], cells: list[CellView], at: Callable[[CellView], int]
) -> Curve:
    lines = []
    for strategy in dict.fromkeys(cell.info.strategy for cell in cells):
        own = [cell for cell in cells if cell.info.strategy == strategy]
        points = {n: task_score(group) for n in counts if (group := [c for c in own if at(c) == n])}
        info = own[0].info
        control = info.options.get("demonstration_labels") == "random"
        others = {k: v for k, v in info.options.items() if k != "demonstration_labels"}
        method = json.dumps([info.base_strategy, others], sort_keys=True, default=str)
        lines.append(Line(strategy, info.family, info.readout, control, method, points))
    chances = [s.chance for line in lines for s in line.points.values() if s.chance is not None]
    return Curve(model, task, cells[0].info.metric, across, counts, lines, max(chances, default=None))


def sentences(curve: Curve) -> list[str]:
    """What the curve says: prompting's best, where each tuned strategy passes it, and what the control shows."""
    prompting = [
        (score.value or 0.0, line.strategy, labels, score)
        for line in curve.lines
        if line.family == PROMPTING and not line.control
        for labels, score in line.complete.items()
    ]
    if not prompting:
        return ["No prompting strategy has a score yet, so nothing can be said of where tuning passes it."]
    value, strategy, labels, best = max(prompting, key=lambda entry: entry[0])
    where = f" with {show.count(labels, 'label')}" if labels else " without labels"
    found = [
        f"The best that prompting reached is {show.score(value)} {show.interval(best.low, best.high)} "
        f"({strategy}{where}; the best of several on these very items, which flatters it)."
    ]
    tuned = [line for line in curve.lines if line.family != PROMPTING]
    found += [_passing(line, best) for line in tuned]
    found += [_control(curve, line) for line in curve.lines if line.control]
    if tuned and min((len(s.cells) for line in tuned for s in line.points.values()), default=0) < 3:
        found.append(
            "With fewer than three training runs a point, none of this is claimed of the strategies themselves."
        )
    return [sentence for sentence in found if sentence]


def _passing(line: Line, best: TaskScore) -> str:
    """From which label count on a tuned strategy stays above the best of prompting."""
    points = line.complete
    if not points:
        return f"{line.strategy} has no score yet."
    limit = best.value or 0.0
    above = [n for n in points if all((points[m].value or 0.0) > limit for m in points if m >= n)]
    if not above:
        top = max(points, key=lambda n: points[n].value or 0.0)
        return f"{line.strategy} does not pass it: its best is {show.score(points[top].value)} with {top} labels."
    first = points[min(above)]
    apart = first.low is not None and best.high is not None and first.low > best.high
    doubt = "; the intervals do not overlap" if apart else "; the intervals overlap"
    tried = " (the smallest count with a score)" if min(above) == min(points) else ""
    missing = [str(n) for n in line.points if n > min(above) and n not in points]
    but = f" (not measured at {show.listed(missing)})" if missing else ""
    return (
        f"{line.strategy} is above it from {min(above)} labels on{tried}{but}: {show.score(first.value)} "
        f"{show.interval(first.low, first.high)}{doubt}."
    )


def _control(curve: Curve, line: Line) -> str:
    """Demonstrations with random labels beside those with their own."""
    gold = next((o for o in curve.lines if not o.control and o.method == line.method), None)
    both = [n for n in line.complete if gold is not None and n in gold.complete]
    if gold is None or not both:
        return ""
    parts = [f"{show.score(line.complete[n].value)} for {show.score(gold.complete[n].value)} with {n}" for n in both]
    return f"Random labels in the demonstrations ({line.strategy} for {gold.strategy}): {show.listed(parts, 8)}."


def climbed(curve: Curve) -> list[str]:
    """Which strategies a larger budget lifts: was a method merely slow?"""
    found, single = [], False
    for line in curve.lines:
        points = line.complete
        if len(points) < 2:
            continue
        low, high = min(points), max(points)
        first, last = points[low], points[high]
        moved = (last.value or 0.0) - (first.value or 0.0)
        apart = first.high is not None and last.low is not None and last.low > first.high
        words = "rises clearly" if apart else "rises" if moved > 0 else "does not rise"
        doubt = "" if apart or moved <= 0 else ", within the intervals"
        found.append(
            f"{line.strategy} {words}{doubt}: {show.score(first.value)} with {show.compact(low)} {curve.across}, "
            f"{show.score(last.value)} with {show.compact(high)}."
        )
        single = single or min(len(first.cells), len(last.cells)) < 3
    if single:
        found.append(
            "With fewer than three training runs a rung, none of this is claimed of the strategies themselves."
        )
    return found or ["No strategy has a score at two rungs yet, so nothing can be said of what a larger budget gives."]


def curve_table(curve: Curve) -> Table:
    """Strategies down, label counts or rungs across."""
    columns = [
        Column("strategy", "readout", False),
        *[Column(f"{show.compact(n)} {curve.across}", curve.metric) for n in curve.counts],
    ]
    missing = Entry("–", faint=True)
    rows = [
        [
            Entry(line.strategy, line.readout, line.strategy),
            *[scored(line.points[n]) if n in line.points else missing for n in curve.counts],
        ]
        for line in curve.lines
    ]
    notes = [f"A strategy that more {curve.across} cannot change is run once, at the smallest count."]
    return Table(curve.title, columns, rows, notes)
