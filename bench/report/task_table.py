"""The table of one task: every strategy's score, its best seed, phases and costs, and what could have been found."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report import format as show
from bench.report.collect import CellView
from bench.report.compare import Pair
from bench.report.held_out import held_out_note
from bench.report.scores import TaskScore, beside, score_of
from bench.report.standing import detectable
from bench.report.summary import Board, Row, improving, median, peak_memory, phase_of
from bench.report.tables import (
    Axis,
    Column,
    Entry,
    Table,
    ends_text,
    interval_notes,
    memory_entry,
    outcome,
    scored,
    timed,
)


def task_table(board: Board, task: str, pairs: Sequence[Pair] = ()) -> Table:
    """Every strategy on one task: score and what stands beside it, seeds, phases, FLOPs, memory, outcome; from the
    board's `pairs` the smallest difference that they would find."""
    metric, scores = board.metrics[task], [row.scores[task] for row in board.rows]
    axis = Axis([end for score in scores for end in (score.low, score.high, score.value)], board.chance.get(task))
    columns = [Column("strategy", "family", False), Column(metric, "95% interval")]
    columns += [Column(other, "95% interval") for other in beside(metric)]
    several = any(score.best is not None for score in scores)
    columns += [
        Column("seeds", "ok, spread"),
        *([Column("best seed", "not a mean")] if several else []),
        Column("adapt", "median"),
        Column("predict", "median"),
        Column("FLOPs", "training"),
        Column("peak memory", "largest"),
        Column("outcome", "", False),
    ]
    ordered = sorted(board.rows, key=lambda row: (row.scores[task].value is None, -(row.scores[task].value or 0)))
    table = Table(f"{task}: {board.title}", columns, [_task_row(row, task, metric, axis, several) for row in ordered])
    n = max((score.n for score in scores if score.n is not None), default=None)
    if task in board.chance:
        table.notes.append(
            f"Chance {show.score(board.chance[task])}: the {board.trivial(task, metric)}. "
            f"{show.count(n or 0, 'test item')}."
        )
    else:
        table.notes.append("Chance and the number of test items: not measured.")
    table.notes += [*held_out_note(board.rows, [task]), *interval_notes(scores)]
    if several:
        table.notes.append("The best of k seeds is the largest of k scores and not comparable with a mean.")
    if finds := detectable(pairs, task):
        table.notes.append(finds)
    return table


def _task_row(row: Row, task: str, metric: str, axis: Axis, several: bool) -> list[Entry]:
    score = row.scores[task]
    main = scored(score)
    entries = [
        Entry(row.strategy, row.family, row.strategy),
        Entry(main.text, main.sub, main.sort, main.badges, axis.plot(score.value, score.low, score.high), main.faint),
    ]
    entries += [_other(score.cells, other) for other in beside(metric)]
    adapts, predicts = ([phase_of(cell, name) for cell in score.cells] for name in ("adapt", "predict"))
    flops = median(phase.flops for phase in adapts if phase)
    spread = (
        f"SD {show.score(score.seed_sd)}" if score.seed_sd is not None else "" if row.seeded else "seed has no effect"
    )
    results = [cell.result for cell in score.cells if cell.result is not None]
    return [
        *entries,
        Entry(f"{score.ok} of {len(score.cells)}", spread, score.ok),
        *([_best(score)] if several else []),
        timed(median(phase.seconds for phase in adapts if phase)),
        timed(median(phase.seconds for phase in predicts if phase)),
        Entry(show.large(flops), sort=flops, faint=flops is None),
        memory_entry(peak_memory(results), True),
        outcome(score.cells, [task] if any(improving(cell) for cell in score.cells) else []),
    ]


def _other(cells: list[CellView], metric: str) -> Entry:
    """A metric beside the task's own, seeds averaged."""
    value, low, high = score_of(cells, metric)
    return Entry(show.score(value), ends_text(value, low, high), value, faint=value is None)


def _best(score: TaskScore) -> Entry:
    """The best seed, named for what it is: the best of k, never comparable with a mean."""
    if score.best is None:
        return Entry("–", faint=True)
    return Entry(show.score(score.best), f"best of {score.ok} seeds", score.best, faint=True)
