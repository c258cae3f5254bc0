"""Can I believe it? For every task: how sure the score is, who can be told apart, what the prompt's wording does, and
whether the test items had been seen, in words and with the positive control of each check."""

from __future__ import annotations

import json
from dataclasses import dataclass

from bench.report import format as show
from bench.report.collect import CellView
from bench.report.compare import Pair
from bench.report.contaminated import contamination_table, failed_probes, orders_table, verdict_sentence
from bench.report.formats_view import FormatsView, formats_view
from bench.report.planted import Control, sentences
from bench.report.retention import changes, retention_sentences, retention_table
from bench.report.summary import Board, Row
from bench.report.tables import Table
from bench.report.writing import writing_sentences, writing_tables, written
from bench.stats.ratios import RATIOS

NOT_ASKED = "Other prompt formats were not tried: probes=formats asks in ten of them."
NO_PROBE = "It cannot be asked: this check is of labels, and the answers here are texts or entities."


@dataclass(frozen=True)
class Belief:
    """One task of one leaderboard."""

    task: str
    title: str
    answers: list[tuple[str, list[str]]]
    """Question -> answer, a line each, in the order they are asked."""
    formats: FormatsView | None
    tables: list[Table]
    """Of the contamination checks."""
    controls: list[Control]


def beliefs(controls: list[Control], board: Board, pairs: list[Pair], several: bool) -> list[Belief]:
    """What a leaderboard's tasks can be believed for, beside the run's planted `controls`; `several` boards name
    themselves in every title."""
    return [_belief(board, task, pairs, controls, several) for task in board.tasks]


def _belief(board: Board, task: str, pairs: list[Pair], controls: list[Control], several: bool) -> Belief:
    cells = {row.strategy: row.scores[task].cells for row in board.rows}
    here = {(c.info.readout, json.dumps(c.info.budget, sort_keys=True)) for of in cells.values() for c in of}
    own = [
        c
        for c in controls
        if (c.model, c.task) == (board.model, task) and c.strategy in cells and (c.readout, c.budget) in here
    ]
    formats = formats_view(task, board.metrics[task], cells)
    power = [f"Of a leak planted in {c.strategy}: {' '.join(sentences(c))}" for c in own]
    answers = [
        ("How sure is the score?", [sure(board, task)]),
        ("Is the best really better?", [separable(board, task, pairs)]),
        ("Does the wording of the prompt matter?", formats.sentences if formats else [unasked(cells)]),
        ("Has it seen the test items?", [verdict_sentence(task, cells, None if not own else "")]),
    ]
    if board.metrics[task] in RATIOS:  # what is written has no labels to vary, and no label's likelihood to compare
        answers[2:] = [(question, [NO_PROBE]) for question, _ in answers[2:]]
    if power:
        answers.append(("Would the checks have noticed a leak?", power))
    moved = changes(cells)
    if moved:
        answers.append(("What did it forget?", retention_sentences(task, moved)))
    elif reasons := failed_probes(cells, "retention"):
        answers.append(("What did it forget?", [f"No cell could be asked about other tasks: {reasons[0]}"]))
    wrote = written(cells)
    if wrote:
        answers.append(("What became of what it writes?", writing_sentences(wrote)))
    elif reasons := failed_probes(cells, "writing"):
        answers.append(("What became of what it writes?", [f"No cell could be asked to write: {reasons[0]}"]))
    title = f"{task} ({board.title})" if several else task
    tables = [orders_table(task, cells), contamination_table(task, cells), retention_table(task, moved)]
    tables += writing_tables(task, wrote)
    return Belief(task, title, answers, formats, [table for table in tables if table], own)


def caution(found: list[Belief], counted: list[str], pick: Row | None) -> str:
    """What other prompt formats say against the strategy that an answer picks, as a sentence; empty where nothing."""
    against = [
        f"{words} on {one.task}"
        for one in found
        if pick and one.formats and one.task in counted and (words := one.formats.caution(pick.strategy))
    ]
    if not against:
        return ""
    return f" The wording favours it: in the median of all formats asked it has {'; '.join(against)}."


def unasked(by_strategy: dict[str, list[CellView]]) -> str:
    """Why there is nothing to say of formats: nobody asked, or whoever was asked could not answer."""
    reasons = failed_probes(by_strategy, "formats")
    return f"No cell could be asked in other formats: {reasons[0]}" if reasons else NOT_ASKED


def sure(board: Board, task: str) -> str:
    """How far the best score could lie off, and whether it beats a constant answer."""
    row = _best(board, task)
    if row is None:
        return "No strategy has a score on every seed yet."
    score, chance = row.scores[task], board.chance.get(task)
    seeds = len(score.cells) if row.seeded else 1
    if score.low is None or score.high is None:
        return f"{row.strategy} scores {show.score(score.value)}; no interval can be given for it."
    over = "other test items and other seeds" if score.over_seeds else "other test items of the same kind"
    told = (
        f"The best, {row.strategy}, scores {show.score(score.value)}; on {over} it may lie anywhere in "
        f"{show.interval(score.low, score.high)} "
        f"(95%, {show.count(score.n or 0, 'item')}, {show.count(seeds, 'seed')})."
    )
    if score.too_few:
        told += " So few items are too few for an interval that holds as it says: take it as wider."
    if not score.over_seeds and row.seeded:
        told += " Training again with another seed moves it too, which this interval does not hold."
    if chance is not None and not score.beats_chance:
        trivial = "A baseline that reads no label" if task in board.chance_is else "A constant answer"
        told += f" {trivial} scores {show.score(chance)}: that this is more cannot be said."
    return told


def _best(board: Board, task: str) -> Row | None:
    known = [row for row in board.rows if row.scores[task].complete and row.scores[task].value is not None]
    return max(known, key=lambda row: row.scores[task].value or 0.0, default=None)


def separable(board: Board, task: str, pairs: list[Pair]) -> str:
    """Which strategies the best cannot be told apart from on this task, and which it is better than."""
    best, own = _best(board, task), [pair for pair in pairs if pair.task == task]
    if len(board.rows) == 1:
        return "It is the only strategy: it is compared with nothing."
    if best is None or not own:
        return "Nothing can be compared yet."
    with_best = {
        (pair.second if pair.first == best.strategy else pair.first): pair
        for pair in own
        if best.strategy in (pair.first, pair.second)
    }
    better = [name for name, pair in with_best.items() if pair.differs and pair.claimable]
    models = [name for name, pair in with_best.items() if pair.differs and not pair.claimable]
    same = [name for name, pair in with_best.items() if not pair.differs]
    parts = []
    if not with_best:
        return f"{best.strategy} could not be compared with any other: its predictions cannot be used."
    if better:
        parts.append(f"{best.strategy} is better than {show.listed(better)}.")
    if models:
        parts.append(
            f"This trained model of {best.strategy} beats those of {show.listed(models)}; with fewer than three seeds "
            "that is no claim about the strategies."
        )
    if same:
        parts.append(f"It cannot be told apart from {show.listed(same)}.")
    return " ".join(parts)
