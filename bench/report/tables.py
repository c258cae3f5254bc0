"""Tables of the page, once for HTML and Markdown: what each cell says and what it is sorted by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.report import format as show
from bench.report.collect import STATUS_WORDS, CellView
from bench.report.compare import FEWEST_SEEDS
from bench.report.held_out import held_out_note
from bench.report.scores import TaskScore
from bench.report.standing import Standing, ranks_note
from bench.report.summary import Board, Memory, Row
from bench.stats.metrics import smallest

OTHER_CODE = "other code"
IMPROVING = "still improving when the budget ended"


@dataclass(frozen=True)
class Column:
    """A column's name, its unit or remark in small print, and whether it holds numbers."""

    name: str
    unit: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Plot:
    """An interval drawn in a cell: places in 0..100 of value, ends and chance."""

    value: float
    low: float
    high: float
    chance: float | None
    """None where chance lies too far off to be on the picture."""


@dataclass(frozen=True)
class Entry:
    """One cell: text, small print below it, what it sorts by (None: always last), badges of (status, words)."""

    text: str = ""
    sub: str = ""
    sort: float | str | None = None
    badges: tuple[tuple[str, str], ...] = ()
    plot: Plot | None = None
    faint: bool = False


@dataclass
class Table:
    """A table; the first column names its row."""

    caption: str
    columns: list[Column]
    rows: list[list[Entry]]
    notes: list[str] = field(default_factory=list)
    strong: int | None = None
    """Index of a row to stress."""


class Axis:
    """Places scores of one table on 0..100 so that its intervals can be compared by eye."""

    def __init__(self, values: list[float | None], chance: float | None) -> None:
        known = [value for value in values if value is not None]
        self.low, self.high, self.chance = *within(known), chance
        if chance is not None and near(chance, self.low, self.high):
            self.low, self.high = within([self.low, self.high, chance])
        else:
            self.chance = None

    def at(self, value: float) -> float:
        """Where a value lies, in per cent of the width."""
        return round(4 + 92 * (value - self.low) / ((self.high - self.low) or 1.0), 1)

    def plot(self, value: float | None, low: float | None, high: float | None) -> Plot | None:
        """The picture of an interval; None where something is not measured."""
        if value is None or low is None or high is None:
            return None
        return Plot(self.at(value), self.at(low), self.at(high), None if self.chance is None else self.at(self.chance))


def within(values: list[float]) -> tuple[float, float]:
    """Smallest and largest; 0 and 1 of nothing."""
    return (min(values), max(values)) if values else (0.0, 1.0)


def near(chance: float, low: float, high: float) -> bool:
    """Whether chance can be drawn beside the scores without pressing them into less than half of the room."""
    return max(low - chance, chance - high) <= high - low


def leaderboard(board: Board, pick: Row | None, found: dict[str, Standing] | None = None) -> Table:
    """The table of one model and readout, best first, unfinished rows below; with the standings `found` of its rows."""
    found = found or {}
    fronts = any(one.front is not None for one in found.values())
    axis = Axis([end for row in board.rows for end in (row.low, row.high, row.mean)], board.mean_chance)
    kinds = {row.memory.kind for row in board.rows if row.memory}
    columns = [
        Column("strategy", "family", False),
        Column("rank", "95%, group") if any(one.ranks for one in found.values()) else Column("rank"),
        Column(board.mean_name, "95% interval"),
        *[Column(task, board.metrics[task]) for task in board.tasks],
        Column("peak memory", kinds.pop() if len(kinds) == 1 else "largest"),
        Column("training", "median, a task"),
        Column("tokens/s", "training"),
        Column("trainable", "parameters"),
        Column("stored", "a task"),
        *([Column("on the front", "score, memory, time")] if fronts else []),
        Column("outcome", "", False),
    ]
    rows = [_leader(board, row, axis, len(kinds) > 1, found.get(row.strategy, Standing())) for row in board.rows]
    for row, entries in zip(board.rows, rows, strict=True):
        if fronts:
            entries.insert(-1, _front(found.get(row.strategy, Standing())))
    strong = next((i for i, row in enumerate(board.rows) if row is pick), None)
    shown = [row.scores[task] for row in board.rows for task in board.tasks]
    notes = [
        *_mean_notes(board),
        *held_out_note(board.rows, board.tasks),
        *ranks_note(board, found),
        *interval_notes(shown),
    ]
    return Table(board.title, columns, rows, notes, strong)


def _rank(row: Row, standing: Standing) -> Entry:
    """The rank, below it the ranks that the data allow and the letters of its group."""
    low, high = standing.ranks or (None, None)
    where = "" if low is None else f"rank {low}" if low == high else f"rank {low}–{high}"
    sub = ", ".join(filter(None, [where, standing.group]))
    return Entry(str(row.rank) if row.rank else "–", sub, row.rank, faint=row.rank is None)


def _front(standing: Standing) -> Entry:
    """The chance to be on the front."""
    if standing.front is None:
        return Entry("–", faint=True)
    return Entry(f"{100 * standing.front:.0f}%", sort=standing.front)


def interval_notes(scores: Iterable[TaskScore]) -> list[str]:
    """What the intervals of a table hold for, and which of them rest on too few items."""
    known = [score for score in scores if score.low is not None]
    notes = []
    if any(score.over_seeds for score in known):
        notes.append(
            f"Intervals of strategies with {FEWEST_SEEDS} training runs or more are of the mean over seeds and items: "
            "they hold for training again and for other items. Where a seed changes nothing they are over items."
        )
    if few := [score for score in known if score.too_few]:
        least = max(smallest(score.cells[0].info.metric, score.over_seeds) for score in few)
        notes.append(f"{FEW.capitalize()}: below {least} an interval was not seen to hold in 93% to 97% of cases.")
    if any(score.wide for score in known):
        notes.append(
            f"{WIDE.capitalize()}: the mean of several trained models' own intervals, which holds for these models and "
            "more often than 95% says (96.6% to 98.0% of simulated cases with two); three training runs get a true one."
        )
    return notes


def _leader(board: Board, row: Row, axis: Axis, mixed: bool, standing: Standing) -> list[Entry]:
    memory = row.memory
    marks = [marked(row.scores[task]) for task in board.included if task in row.scores]
    return [
        Entry(row.strategy, row.family, row.strategy),
        _rank(row, standing),
        Entry(
            show.score(row.mean) if row.mean is not None else "not ranked",
            ends_text(row.mean, row.low, row.high, next(filter(None, marks), "")),
            row.mean,
            plot=axis.plot(row.mean, row.low, row.high),
            faint=row.mean is None,
        ),
        *[scored(row.scores[task]) for task in board.tasks],
        memory_entry(memory, mixed),
        timed(row.adapt_seconds),
        Entry(show.rate(row.tokens_per_second), sort=row.tokens_per_second, faint=row.tokens_per_second is None),
        Entry(show.large(row.trainable), sort=row.trainable, faint=row.trainable is None),
        Entry(show.stored(row.stored_bytes), sort=row.stored_bytes, faint=row.stored_bytes is None),
        outcome(row.cells, row.still_improving),
    ]


def _mean_notes(board: Board) -> list[str]:
    """What the mean is over, in sentences."""
    left = [task for task in board.tasks if task not in board.included]
    notes = []
    if board.group is not None:
        notes.append(
            f"These strategies ({board.group}) stand in a group of their own: where rows have labels there is no "
            "preference to learn but the label itself, and what they sample is the label's word. They are ranked among "
            "themselves and decide no answer above."
        )
    if board.included:
        notes.append(
            f"Ranked by the {board.mean_name} over {show.listed(board.included, 20)}."
            if len(board.included) > 1
            else f"Ranked by {board.included[0]}, the only task in the mean."
        )
    if board.gain:
        notes.append(
            "The tasks have different metrics, so each score first becomes its gain over chance, "
            f"(score - chance) / (1 - chance): 0 is what {board.trivials} reach, 1 is perfect."
        )
    beaten = [task for task in left if task in board.chance]
    if beaten:
        notes.append(
            f"Left out of the mean because no strategy that finished beats chance there: {show.listed(beaten, 20)}."
        )
    if missing := [task for task in left if task not in board.chance]:
        notes.append(f"Left out of the mean because nothing has a score there yet: {show.listed(missing, 20)}.")
    helped = [row.strategy for row in board.rows if row.source_labels]
    if helped:
        most = max(row.source_labels for row in board.rows)
        notes.append(
            f"{show.listed(helped, 20)} also read labels of other tasks (up to {most:,} a cell), which the label "
            "budget does not hold."
        )
    if any(row.rank is None for row in board.rows) and board.included:
        notes.append("A strategy is ranked once every seed of every task in the mean has a score.")
    return notes


def scored(score: TaskScore) -> Entry:
    """One strategy's score on one task, or why there is none."""
    if score.value is None:
        return Entry(badges=badges(score.cells) or (("ok", "no score"),), faint=True)
    partial = () if score.complete else ((_worst(score.cells), f"{score.ok} of {len(score.cells)} ok"),)
    return Entry(
        show.score(score.value),
        ends_text(score.value, score.low, score.high, marked(score)),
        score.value if score.complete else None,
        partial,
        faint=not score.complete,
    )


def memory_entry(memory: Memory | None, named: bool = False) -> Entry:
    """A peak, the phase it fell in, and on mixed tables which memory."""
    if memory is None:
        return Entry(show.ABSENT, faint=True)
    return Entry(
        show.gib(memory.size), f"{memory.kind}, {memory.phase}" if named else f"in {memory.phase}", memory.size
    )


def timed(value: float | None) -> Entry:
    """Seconds."""
    return Entry(show.seconds(value), sort=value, faint=value is None)


def outcome(cells: list[CellView], improving_on: list[str] | None = None) -> Entry:
    """How a row's cells ended, with the marks a reader of its score needs."""
    marks = list(badges(cells))
    if improving_on:
        tasks = {cell.info.task for cell in cells}
        where = f" ({show.listed(improving_on)})" if len(improving_on) < len(tasks) else ""
        marks.append(("improving", f"{IMPROVING}{where}"))
    if other := sum(cell.other_code for cell in cells):
        marks.append(("other", OTHER_CODE if other == len(cells) else f"{other} of {len(cells)} {OTHER_CODE}"))
    return Entry(badges=tuple(marks), sort=" ".join(words for _, words in marks))


def badges(cells: list[CellView]) -> tuple[tuple[str, str], ...]:
    """(status, words) for each status among the cells; a count where they differ."""
    found = Counter(cell.status for cell in cells)
    if set(found) == {"ok"}:
        return (("ok", "ok"),)
    order = [status for status in STATUS_WORDS if found[status]]
    if len(found) == 1:
        return ((order[0], STATUS_WORDS[order[0]]),)
    return tuple((status, f"{found[status]} of {len(cells)} {STATUS_WORDS[status]}") for status in order)


FEW, WIDE = "too few items", "wide"
"""What an interval is marked with whose coverage is not known, or is known to be larger than it says."""


def marked(score: TaskScore) -> str:
    """The warning beside a score's interval; empty where it holds as it says."""
    return FEW if score.too_few else WIDE if score.wide else ""


def ends_text(value: float | None, low: float | None, high: float | None, warning: str = "") -> str:
    ends = "" if value is None else show.interval(low, high)
    return f"{ends} {warning}" if warning and ends else ends


def _worst(cells: list[CellView]) -> str:
    """The status that keeps a strategy from being complete: the commonest that is not ok."""
    others = Counter(cell.status for cell in cells if cell.status != "ok")
    return others.most_common(1)[0][0] if others else "ok"
