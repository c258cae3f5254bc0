"""The whole page as data: what both renderings say, in their common order."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.report import format as show
from bench.report.appendix import ended, failures, pair_tables
from bench.report.belief import Belief, beliefs, caution
from bench.report.breakeven import BreakEven, break_evens
from bench.report.budgets import budget
from bench.report.claims import Answer, Conclusion, conclude
from bench.report.collect import STATUS_WORDS, CellView, Run
from bench.report.compare import FEWEST_SEEDS
from bench.report.curve import Curve, curves
from bench.report.engines import engine_table
from bench.report.foretold import foretold
from bench.report.judged import judges
from bench.report.literature import literature
from bench.report.planted import Control, planted_controls
from bench.report.provenance import Fact, facts
from bench.report.summary import Board, boards
from bench.report.tables import Table, leaderboard
from bench.report.task_table import task_table
from bench.report.tuning import tunings
from bench.report.watched import watched_table

NONE_DECIDES = (
    "Nothing is recommended: all strategies of this run stand in a group of their own, which is ranked and decides "
    "nothing."
)
READING = {
    "95% interval": (
        "With one or two training runs: how far the score of these trained models could lie off on other test items "
        "of the same kind. It then says nothing about training again: with another seed the score moves too. From "
        f"{FEWEST_SEEDS} training runs on: how far the mean could lie off under training again and on other test items "
        "(t over seeds and items as crossed random effects). Overlapping intervals are no test; see the comparisons. "
        "An interval without width means that resampling these items shows no doubt, not that there is none. One run: "
        "accuracy has Wilson's interval, other metrics a BCa bootstrap; two runs: the mean of theirs, marked “wide”. "
        "Over several tasks their distances add in squares. “Too few items”: so few that it may hold less often than "
        "it says."
    ),
    "Chance": (
        "The best any constant answer reaches on these items, in the task's own metric; where answers are texts or "
        "entities, or questions offer some, what a baseline reaches that reads no label (named under the task's "
        "table). A task in which no strategy beats it says nothing about strategies and stays out of means and "
        "headlines."
    ),
    "Difference": (
        f"Claimed between strategies only from {FEWEST_SEEDS} training runs on, where it holds over seeds (paired "
        "t test) and over test items, with false discoveries held at 5% (Benjamini–Hochberg). With fewer, exact "
        "McNemar tests (t tests where an item is not simply right or wrong) compare two trained models, which says "
        "little about the strategies that trained them. "
        "“Cannot be told apart” is not “equal”."
    ),
    "Peak memory": (
        "The largest peak over all phases and seeds. RSS is the resident memory of the whole process on a CPU, "
        "libraries included; CUDA allocated is what tensors took on the card, without the context."
    ),
    "Training": (
        "Wall time of adapting, without loading and scoring. Tokens/s counts real tokens over optimizer steps "
        "after warm-up."
    ),
}
"""Term -> what it means and what it does not."""
IMPROVING_MEANS = (
    "The training loss was still clearly falling when the budget ended: the score is one of the budget, not of the "
    "strategy's best."
)


@dataclass(frozen=True)
class Section:
    """One leaderboard with everything that belongs to it."""

    board: Board
    answer: Answer
    table: Table
    tasks: list[Table]
    pairs: list[Table]
    pair_notes: list[str]
    beliefs: list[Belief]


@dataclass(frozen=True)
class Page:
    """Everything a report says."""

    run: str
    compared: str
    description: str
    sample: str | None
    status: list[tuple[str, str]]
    remarks: list[str]
    curves: list[Curve]
    break_evens: list[BreakEven]
    literature: Table | None
    judges: list[Table]
    sections: list[Section]
    tunings: list[Table]
    engines: Table | None
    failures: Table | None
    facts: list[Fact]
    ended: Table
    foretold: Table | None
    reading: list[tuple[str, str]]
    created: str

    @property
    def answered(self) -> list[Section]:
        """Leaderboards whose answer is said; a group apart decides nothing."""
        return [section for section in self.sections if section.board.group is None]


def build(run: Run) -> Page:
    """Everything the page says about a run. Reads the predictions of each leaderboard as it comes to it."""
    sample = _on_sample(run)
    found, controls = boards(run.cells), planted_controls(run)
    sections = [_section(controls, board, conclude(board, sample), len(found) > 1) for board in found]
    return Page(
        run.plan.run,
        _compared(run),
        run.plan.description,
        _sample(run) if sample else None,
        _status(run),
        _remarks(run),
        curves(deciding(run.cells)),
        break_evens(deciding(run.cells)),
        literature(run.plan.claims, run.cells),
        judges(run.cells),
        sections,
        tunings(run.cells),
        engine_table(run),
        failures([*run.cells, *run.engines, *run.planted]),
        facts(run),
        ended(run.cells),
        foretold(run.cells),
        _reading(sections),
        run.plan.created,
    )


def deciding(cells: list[CellView]) -> list[CellView]:
    """Cells that stand in no group apart."""
    return [cell for cell in cells if cell.info.group is None]


def headline(page: Page) -> str:
    """The page's first answer as one line of plain text; empty where there is nothing to answer from."""
    if page.curves:
        return show.plain(f"{page.curves[0].title}. {' '.join(page.curves[0].sentences)}")
    if not page.answered:
        return NONE_DECIDES if page.sections else ""
    first = page.answered[0]
    title = f"{first.board.title}. " if len(page.answered) > 1 else ""
    return show.plain(f"{title}{first.answer.use} {first.answer.caveat}")


def _section(controls: list[Control], board: Board, conclusion: Conclusion, several: bool) -> Section:
    if board.group is not None:
        conclusion.answer = Answer(board, None, NONE_DECIDES, "")
    believed = beliefs(controls, board, conclusion.pairs, several)
    against = caution(believed, board.included, conclusion.answer.pick)
    return Section(
        board,
        replace(conclusion.answer, caveat=conclusion.answer.caveat + against),
        leaderboard(board, conclusion.answer.pick, conclusion.standings),
        [
            table
            for task in board.tasks
            for table in (task_table(board, task, conclusion.pairs), watched_table(board, task))
            if table is not None
        ],
        pair_tables(board, conclusion.pairs),
        conclusion.notes,
        believed,
    )


def _on_sample(run: Run) -> bool:
    return run.plan.source == "sample" or any(
        cell.result is not None and cell.result.data.source == "sample" for cell in run.cells
    )


def _sample(run: Run) -> str:
    """What a run on the sample says first, with the items of its largest task."""
    rows = max((cell.result.data.test_rows or 0 for cell in run.cells if cell.result is not None), default=0)
    items = f"{rows} items" if rows else "its few items"
    return f"This run used a sample written for this project, and {items} cannot separate tuned methods."


def _compared(run: Run) -> str:
    """One line: how many strategies, on which tasks, with which models and budget."""
    infos = [cell.info for cell in run.cells]
    if not infos:
        return "The plan holds no cell."
    strategies, tasks, models = (
        list(dict.fromkeys(getattr(info, name) for info in infos)) for name in ("strategy", "task", "model")
    )
    seeds = len({info.seed for info in infos if info.seeded} or {info.seed for info in infos})
    budgets = list(dict.fromkeys(budget(info.budget) for info in infos))
    spent = f", {budgets[0]} each" if len(budgets) == 1 and budgets[0] != show.ABSENT else ""
    return (
        f"{show.count(len(strategies), 'strategy', 'strategies')} on {show.listed(tasks)} with {show.listed(models)}: "
        f"{show.count(seeds, 'seed')}{spent}."
    )


def _status(run: Run) -> list[tuple[str, str]]:
    """(status, words) for every status that occurs: `24 of 28 cells ok`, `1 error`."""
    total = len(run.cells)
    parts = [("ok", f"{run.statuses['ok']} of {show.count(total, 'cell')} ok")]
    return parts + [
        (status, f"{run.statuses[status]} {words}")
        for status, words in STATUS_WORDS.items()
        if status != "ok" and run.statuses[status]
    ]


def _remarks(run: Run) -> list[str]:
    """What a reader must know before the first number."""
    remarks = []
    if waiting := run.statuses["not_run"] + run.statuses["interrupted"]:
        remarks.append(
            f"The run is not finished: {show.count(waiting, 'cell')} of {len(run.cells)} still to run, so every "
            "ranking below is provisional."
        )
    if run.other_code:
        marked = "; marked below" if any(cell.other_code for cell in run.cells) else ""
        remarks.append(f"{show.count(run.other_code, 'cell')} measured by other code than today's{marked}.")
    return remarks


def _reading(sections: list[Section]) -> list[tuple[str, str]]:
    """A short guide, (term, what it means and what it does not)."""
    guide = dict(READING)
    if any(row.still_improving for section in sections for row in section.board.rows):
        guide["Still improving"] = IMPROVING_MEANS
    return list(guide.items())
