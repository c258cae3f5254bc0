"""What may be said and what may not: comparisons of pairs, and the answer in two sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

from bench.report import format as show
from bench.report.evidence import Evidence, Gathered, gather
from bench.report.summary import Board, Row
from bench.stats.pairs import benjamini_hochberg, jackknife_variance, mcnemar, seed_test

LEVEL = 0.05
MOST_STRATEGIES = 12
"""Beyond this many strategies only the best is compared with each of the others: 12 make 66 pairs a task."""
FEWEST_SEEDS = 3
"""Training runs from which on differences between trained strategies may be claimed (DESIGN 8)."""


@dataclass(frozen=True)
class Pair:
    """Two strategies on one task, or (`task` None) on the mean over the tasks of the leaderboard."""

    task: str | None
    first: str
    second: str
    difference: float
    """First minus second, in the task's metric or on the scale of the mean."""
    p: float
    seeds: int
    """Training runs compared; 0 where training cannot matter on either side."""
    only: tuple[int, int] | None = None
    """Items only the first, only the second got right, where McNemar's test was used."""
    adjusted: float = 1.0

    @property
    def claimable(self) -> bool:
        """Whether a difference would be one between strategies, not only between two trained models."""
        return self.seeds == 0 or self.seeds >= FEWEST_SEEDS

    @property
    def differs(self) -> bool:
        """Whether it holds after Benjamini-Hochberg at 5%."""
        return self.adjusted < LEVEL

    def verdict(self) -> str:
        """What the test allows to be said."""
        if not self.differs:
            return "cannot be told apart"
        if not self.claimable:
            return "the two trained models differ; no claim about the strategies"
        return f"{self.first if self.difference > 0 else self.second} is better"


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


def conclude(board: Board) -> Conclusion:
    """Compare a board's strategies and word its answer. Reads the predictions of its cells."""
    gathered = gather(board)
    notes = [f"Left out of the comparisons: {problem}." for problem in gathered.problems[:20]]
    if len(gathered.problems) > 20:
        notes.append(f"And {len(gathered.problems) - 20} more were left out for such reasons.")
    on_mean = adjust(_mean_pairs(board, gathered))
    pairs = adjust([pair for task in board.tasks for pair in _task_pairs(board, task, gathered)])
    if len(board.rows) > MOST_STRATEGIES:
        notes.append(f"{len(board.rows)} strategies make too many pairs to read: only the best of each task is "
                     "compared with the others.")
    return Conclusion(answer(board, on_mean), [*on_mean, *pairs], [*_explained([*on_mean, *pairs]), *notes])


def _explained(pairs: list[Pair]) -> list[str]:
    """Which tests were used, and what each is a comparison of."""
    notes = []
    if any(not pair.claimable for pair in pairs):
        notes.append("With fewer than three training runs these are comparisons of two trained models, not of the strategies "
                     "that trained them.")
    if any(pair.only for pair in pairs):
        notes.append("On a task: exact McNemar test over the items that only one of the two got right, whatever the task's "
                     "metric. On the mean: the paired difference over its jackknife error over items.")
    if any(pair.seeds >= FEWEST_SEEDS for pair in pairs):
        notes.append("From three training runs on: the larger p-value of a paired t test over seeds and of one whose error "
                     "holds seeds and test items.")
    return [*notes, "p-values are adjusted (Benjamini–Hochberg) over all tasks together, and those on the mean among "
            "themselves; below 0.05 counts."] if notes else []


def adjust(pairs: list[Pair]) -> list[Pair]:
    """The pairs with p-values adjusted among themselves (Benjamini & Hochberg 1995)."""
    adjusted = benjamini_hochberg([pair.p for pair in pairs])
    return [replace(pair, adjusted=float(p)) for pair, p in zip(pairs, adjusted, strict=True)]


def _chosen(names: Sequence[str]) -> list[tuple[str, str]]:
    """All pairs of names ordered best first, or with too many names those with the first."""
    if len(names) <= MOST_STRATEGIES:
        return list(combinations(names, 2))
    return [(names[0], name) for name in names[1:]]


def _common(first: Evidence, second: Evidence, rows: tuple[Row, Row]) -> tuple[list[int], int]:
    """Seeds to pair, and how many training runs they are. What no seed changes is paired with every seed."""
    seeded = [evidence for evidence, row in zip((first, second), rows, strict=True) if row.seeded]
    if not seeded:
        return [-1], 0
    seeds = sorted(set.intersection(*[set(evidence.values) for evidence in seeded]))
    return seeds, len(seeds)


def _at(evidence: Evidence, row: Row, seed: int) -> float:
    return evidence.values[seed] if row.seeded else next(iter(evidence.values.values()))


def _task_pairs(board: Board, task: str, gathered: Gathered) -> list[Pair]:
    rows = [row for row in board.rows if (row.strategy, task) in gathered.found]
    rows.sort(key=lambda row: -(row.scores[task].value or 0.0))
    by_name = {row.strategy: row for row in rows}
    pairs = []
    for names in _chosen(list(by_name)):
        first, second = (gathered.found[name, task] for name in names)
        both = by_name[names[0]], by_name[names[1]]
        seeds, runs = _common(first, second, both)
        if not seeds:
            continue
        differences = [_at(first, both[0], seed) - _at(second, both[1], seed) for seed in seeds]
        if runs < 2:
            test = mcnemar(first.correct, second.correct)
            pairs.append(Pair(task, *names, differences[0], test.p, runs, (test.first_only, test.second_only)))
        else:
            variance = jackknife_variance(first.left_out - second.left_out)
            over = seed_test(differences, variance, first.left_out.size)
            pairs.append(Pair(task, *names, over.difference, over.p, runs))
    return pairs


def _mean_pairs(board: Board, gathered: Gathered) -> list[Pair]:
    """Comparisons on the mean over the board's tasks: tasks hold different items, so their variances add."""
    rows = [row for row in board.ranked if all((row.strategy, task) in gathered.found for task in board.included)]
    by_name, pairs = {row.strategy: row for row in rows}, []
    for names in _chosen(list(by_name)):
        both = by_name[names[0]], by_name[names[1]]
        variance, items, by_seed, runs = 0.0, 0, [], []
        for task in board.included:
            first, second = (gathered.found[name, task] for name in names)
            seeds, found = _common(first, second, both)
            weight = board.scale(task) / len(board.included)
            variance += weight**2 * jackknife_variance(first.left_out - second.left_out)
            items += first.left_out.size
            runs.append(found)
            by_seed.append({seed: weight * (_at(first, both[0], seed) - _at(second, both[1], seed)) for seed in seeds})
        shared = sorted(set.intersection(*[set(part) for part in by_seed]))
        if shared:
            test = seed_test([math.fsum(part[seed] for part in by_seed) for seed in shared], variance, items)
            pairs.append(Pair(None, *names, test.difference, test.p, min(min(runs), len(shared))))
    return pairs


def answer(board: Board, on_mean: list[Pair]) -> Answer:
    """The two sentences: what to use, and what cannot be told apart from it or is not claimed."""
    ranked = board.ranked
    if not board.included:
        return _nothing(board)
    if not ranked:
        return Answer(board, None, "Nothing can be recommended: no strategy has a score for every seed of every task "
                      "that counts.", "See the outcomes in the leaderboard below and the reasons under failures.")
    best = ranked[0]
    if best.low is None or best.low <= board.mean_chance:
        return Answer(board, None, f"Nothing is recommended: no strategy that finished beats chance on the "
                      f"{board.mean_name}.", f"The best of them, {best.strategy}, has {_scored(best)} where the best "
                      f"constant answers reach {show.score(board.mean_chance)}.")
    use = (f"Use {best.strategy}: {board.mean_name} {_scored(best)} on {_by_task(board, best)}; "
           f"{_cost(best)}.")
    return Answer(board, best, use, _caveat(board, best, on_mean))


def _nothing(board: Board) -> Answer:
    if not board.chance:
        return Answer(board, None, "Nothing can be recommended: no cell has a score yet.",
                      "See the outcomes in the leaderboard below and the reasons under failures.")
    closest = max(((score.value - board.chance[task], row.strategy, task) for row in board.rows
                   for task, score in row.scores.items() if score.value is not None and task in board.chance))
    task = closest[2]
    score = next(row for row in board.rows if row.strategy == closest[1]).scores[task]
    return Answer(
        board, None, "No strategy beats chance on any task, so nothing is recommended.",
        f"The closest is {closest[1]} on {task} with {show.score(score.value)} {show.interval(score.low, score.high)}, "
        f"where the best constant answer reaches {show.score(board.chance[task])}: more labels, a longer budget or a "
        "larger model may change that.")


def _caveat(board: Board, best: Row, on_mean: list[Pair]) -> str:
    """The second sentence."""
    mine = {pair.second if pair.first == best.strategy else pair.first: pair
            for pair in on_mean if best.strategy in (pair.first, pair.second)}
    same = [row for row in board.ranked if row is not best and row.strategy in mine and not mine[row.strategy].differs]
    worse = [row.strategy for row in board.ranked if row.strategy in mine
             and mine[row.strategy].differs and mine[row.strategy].claimable and mine[row.strategy].difference > 0]
    others = [row for row in board.ranked if row is not best]
    if not others:
        return "No other strategy finished every task, so it is compared with nothing."
    waiting = [row.strategy for row in board.rows if row.rank is None]
    unclaimed = _runs(board)
    parts = [unclaimed] if unclaimed else []
    if worse and not unclaimed:
        parts.append(f"It is better than {show.listed(worse)} (over seeds and test items, "
                     "false discoveries held at 5%)")
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
    memory = f"peak memory {show.gib(row.memory.size)} ({row.memory.kind})" if row.memory else "peak memory not measured"
    time = "training time not measured" if row.adapt_seconds is None else f"{show.seconds(row.adapt_seconds)} of training"
    return f"{memory}, {time} a task"
