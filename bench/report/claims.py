"""The answer in two sentences: what to use, and what cannot be told apart from it or is not claimed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from bench.report import format as show
from bench.report.compare import FEWEST_SEEDS, MOST_STRATEGIES, Pair, adjust, explained, mean_pairs, task_pairs
from bench.report.evidence import gather
from bench.report.standing import Standing, standings
from bench.report.summary import Board, Row


@dataclass(frozen=True)
class Answer:
    """The two sentences over a leaderboard. `pick` is None where nothing is recommended."""

    board: Board
    pick: Row | None
    use: str
    caveat: str


@dataclass
class Conclusion:
    """Everything said about one leaderboard."""

    answer: Answer
    pairs: list[Pair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    standings: dict[str, Standing] = field(default_factory=dict)
    """Ranks, groups and the front, by strategy."""


def conclude(board: Board, sample: bool = False) -> Conclusion:
    """Compare a board's strategies and word its answer. Reads the predictions of its cells.

    On a `sample` the best is named, not recommended: its items cannot separate tuned methods.
    """
    gathered = gather(board)
    notes = [f"Left out of the comparisons: {problem}." for problem in gathered.problems[:20]]
    if len(gathered.problems) > 20:
        notes.append(f"And {len(gathered.problems) - 20} more were left out for such reasons.")
    on_mean = adjust(mean_pairs(board, gathered))
    pairs = adjust([pair for task in board.tasks for pair in task_pairs(board, task, gathered)])
    if len(board.rows) > MOST_STRATEGIES:
        notes.append(
            f"{len(board.rows)} strategies make too many pairs to read: only the best of each task is "
            "compared with the others."
        )
    every = [*on_mean, *pairs]
    return Conclusion(answer(board, on_mean, sample), every, [*explained(every), *notes], standings(board, gathered))


def answer(board: Board, on_mean: list[Pair], sample: bool = False) -> Answer:
    """The two sentences: what to use, and what cannot be told apart from it or is not claimed."""
    ranked = board.ranked
    if not board.included:
        return _nothing(board)
    if not ranked:
        return Answer(
            board,
            None,
            "Nothing can be recommended: no strategy has a score for every seed of every task that counts.",
            "See the outcomes in the leaderboard below and the reasons under failures.",
        )
    best = ranked[0]
    if best.low is None or best.low <= board.mean_chance:
        return Answer(
            board,
            None,
            f"Nothing is recommended: no strategy that finished beats chance on the {board.mean_name}.",
            f"The best of them, {best.strategy}, has {_scored(best)} where {board.trivials} reach "
            f"{show.score(board.mean_chance)}.",
        )
    lead = f"On this sample {best.strategy} scores highest" if sample else f"Use {best.strategy}"
    use = f"{lead}: {board.mean_name} {_scored(best)} on {_by_task(board, best)}; {_cost(best)}."
    return Answer(board, best, use, _caveat(board, best, on_mean))


def _nothing(board: Board) -> Answer:
    if not board.chance:
        return Answer(
            board,
            None,
            "Nothing can be recommended: no cell has a score yet.",
            "See the outcomes in the leaderboard below and the reasons under failures.",
        )
    closest = max(
        (
            (score.value - board.chance[task], row.strategy, task)
            for row in board.rows
            for task, score in row.scores.items()
            if score.value is not None and task in board.chance
        )
    )
    task = closest[2]
    score = next(row for row in board.rows if row.strategy == closest[1]).scores[task]
    return Answer(
        board,
        None,
        "No strategy beats chance on any task, so nothing is recommended.",
        f"The closest is {closest[1]} on {task} with {show.score(score.value)} {show.interval(score.low, score.high)}, "
        f"where the {board.trivial(task)} reaches {show.score(board.chance[task])}: more labels, a longer budget or a "
        "larger model may change that.",
    )


def _caveat(board: Board, best: Row, on_mean: list[Pair]) -> str:
    """The second sentence."""
    mine = {
        pair.second if pair.first == best.strategy else pair.first: pair
        for pair in on_mean
        if best.strategy in (pair.first, pair.second)
    }
    same = [row for row in board.ranked if row is not best and row.strategy in mine and not mine[row.strategy].differs]
    worse = [
        row.strategy
        for row in board.ranked
        if row.strategy in mine
        and mine[row.strategy].differs
        and mine[row.strategy].claimable
        and mine[row.strategy].difference > 0
    ]
    others = [row for row in board.ranked if row is not best]
    if len(board.rows) == 1:
        return "It is the only strategy with this readout, so it is compared with nothing."
    if not others:
        return "No other strategy finished every task, so it is compared with nothing."
    waiting = [row.strategy for row in board.rows if row.rank is None]
    unclaimed = _runs(board)
    parts = [unclaimed] if unclaimed else []
    if worse and not unclaimed:
        parts.append(
            f"It is better than {show.listed(worse)} (over seeds and test items, false discoveries held at 5%)"
        )
    if not mine:
        parts.append("without predictions on disk nothing can be tested")
    elif same:
        where = "on these test items it" if unclaimed else "It" if not parts else "it"
        names = show.listed([row.strategy for row in same])
        parts.append(f"{where} cannot be told apart from {names}{_cheapest(best, same)}")
    elif unclaimed:
        parts.append("on these test items its trained model differs from every other one")
    if waiting:
        parts.append(f"{show.listed(waiting)} did not finish and {'is' if len(waiting) == 1 else 'are'} not ranked")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _runs(board: Board) -> str | None:
    """The words that fewer than three training runs call for, those of DESIGN 8; None where there are enough."""
    runs = min((len(score.cells) for row in board.ranked if row.seeded for score in row.scores.values()), default=None)
    if runs is None or runs >= FEWEST_SEEDS:
        return None
    who = "This is one training run" if runs == 1 else "These are two training runs"
    return f"{who}: differences between trained strategies are not claimed"


def _cheapest(best: Row, same: list[Row]) -> str:
    """Which of the strategies that cannot be told apart needs the least memory."""
    measured = [row for row in (best, *same) if row.memory is not None]
    if best.memory is None or len({row.memory.kind for row in measured if row.memory}) != 1:
        return ""
    least = min(measured, key=lambda row: (row.memory.size if row.memory else math.inf, row.adapt_seconds or math.inf))
    if least is best:
        return ", none of which needs less memory" if len(same) > 1 else ", which does not need less memory"
    lead = f", of which {least.strategy} is the cheapest" if len(same) > 1 else ", which is cheaper"
    return f"{lead} ({show.gib(least.memory.size if least.memory else None)}, {show.seconds(least.adapt_seconds)})"


def _by_task(board: Board, row: Row) -> str:
    """The tasks of the mean, with their own scores where there are several."""
    if len(board.included) == 1:
        return board.included[0]
    return show.listed([f"{task} ({show.score(row.scores[task].value)})" for task in board.included])


def _scored(row: Row) -> str:
    return f"{show.score(row.mean)} {show.interval(row.low, row.high)}"


def _cost(row: Row) -> str:
    memory = (
        f"peak memory {show.gib(row.memory.size)} ({row.memory.kind})" if row.memory else "peak memory not measured"
    )
    time = (
        "training time not measured" if row.adapt_seconds is None else f"{show.seconds(row.adapt_seconds)} of training"
    )
    return f"{memory}, {time} a task"
