"""Which pairs of strategies are tested, how, and what a test's result allows to be said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from bench.report.evidence import Evidence, Gathered
from bench.report.scores import FEWEST_SEEDS as FEWEST_SEEDS
from bench.report.summary import Board, Row
from bench.stats.pairs import SeedTest, benjamini_hochberg, jackknife_variance, mcnemar, seed_test

LEVEL = 0.05
MOST_STRATEGIES = 12
"""Beyond this many strategies only the best is compared with each of the others: 12 make 66 pairs a task."""


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
    items: int = 0
    """Test items, or the clusters they come in."""
    over: SeedTest | None = None
    """The test over seeds and items, where that was used."""

    clustered: bool = False
    """Whether its items come in clusters, over which its error is."""

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


def explained(pairs: list[Pair]) -> list[str]:
    """Which tests were used, and what each is a comparison of."""
    notes = []
    if any(not pair.claimable for pair in pairs):
        notes.append(
            "With fewer than three training runs these are comparisons of two trained models, not of the strategies "
            "that trained them."
        )
    if any(pair.only for pair in pairs):
        notes.append(
            "On a task scored by accuracy: exact McNemar test over the items that only one of the two got right. On "
            "the mean: the paired difference over its jackknife error over items."
        )
    if any(pair.seeds < 2 and pair.over is not None and pair.task and not pair.clustered for pair in pairs):
        notes.append(
            "Where the metric is no share of right items (F1, Matthews, ROUGE, chrF, span F1) and there is one "
            "training run: a t test on the difference of the metric, its error over items by the jackknife."
        )
    if any(pair.clustered for pair in pairs):
        notes.append(
            "Items of one cluster (a shared passage) are not independent: errors are over clusters, and with one "
            "training run a t test on the difference of the metric stands in for McNemar's."
        )
    if any(pair.seeds >= FEWEST_SEEDS for pair in pairs):
        notes.append(
            "From three training runs on: the larger p-value of a paired t test over seeds and of one whose error "
            "holds seeds and test items."
        )
    return (
        [
            *notes,
            "p-values are adjusted (Benjamini–Hochberg) over all tasks together, and those on the mean among "
            "themselves; below 0.05 counts.",
        ]
        if notes
        else []
    )


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


def task_pairs(board: Board, task: str, gathered: Gathered) -> list[Pair]:
    """Comparisons on one task, the better first; strategies without evidence are not in them."""
    rows = [row for row in board.rows if (row.strategy, task) in gathered.found]
    rows.sort(key=lambda row: -(row.scores[task].value or 0.0))
    by_name = {row.strategy: row for row in rows}
    found = []
    for names in _chosen(list(by_name)):
        first, second = (gathered.found[name, task] for name in names)
        seeds, runs = _common(first, second, (by_name[names[0]], by_name[names[1]]))
        if seeds:
            both = by_name[names[0]], by_name[names[1]]
            found.append(compared((task, board.metrics[task]), names, first, second, both, seeds, runs))
    return found


def compared(
    scored: tuple[str, str],
    names: tuple[str, str],
    first: Evidence,
    second: Evidence,
    rows: tuple[Row, Row],
    seeds: list[int],
    runs: int,
) -> Pair:
    """One comparison on one task (`scored`: its name and metric) over the seeds that both have; `runs` is how many
    training runs they are.

    McNemar's test is of the share of right items: of F1 or Matthews it says nothing, and may point the other way.
    """
    task, metric = scored
    differences = [_at(first, rows[0], seed) - _at(second, rows[1], seed) for seed in seeds]
    clustered = first.clusters is not None
    alike = metric == "accuracy" and not clustered
    if runs < 2 and alike and first.correct is not None and second.correct is not None:
        test = mcnemar(first.correct, second.correct)
        only = (test.first_only, test.second_only)
        return Pair(task, *names, differences[0], test.p, runs, only, items=first.independent)
    variance = jackknife_variance(first.left_out - second.left_out, first.clusters)
    over = seed_test(differences, variance, first.effective)
    return Pair(task, *names, over.difference, over.p, runs, clustered=clustered, items=first.independent, over=over)


def mean_pairs(board: Board, gathered: Gathered, every: bool = False) -> list[Pair]:
    """Comparisons on the mean over the board's tasks: tasks hold different items, so their variances add.

    Of many strategies only the best is compared with the others, unless `every` pair is asked for.
    """
    rows = [row for row in board.ranked if all((row.strategy, task) in gathered.found for task in board.included)]
    by_name, pairs = {row.strategy: row for row in rows}, []
    for names in combinations(by_name, 2) if every else _chosen(list(by_name)):
        both = by_name[names[0]], by_name[names[1]]
        variance, items, by_seed, runs, known, worth = 0.0, 0, [], [], True, 0.0
        for task in board.included:
            first, second = (gathered.found[name, task] for name in names)
            seeds, found = _common(first, second, both)
            weight = board.scale(task) / len(board.included)
            variance += weight**2 * jackknife_variance(first.left_out - second.left_out, first.clusters)
            items += first.independent
            worth += first.effective
            known = known and first.effective >= 2
            runs.append(found)
            by_seed.append({seed: weight * (_at(first, both[0], seed) - _at(second, both[1], seed)) for seed in seeds})
        shared = sorted(set.intersection(*[set(part) for part in by_seed]))
        if shared:
            summed = [math.fsum(part[seed] for part in by_seed) for seed in shared]
            test = seed_test(summed, variance, worth if known else 1)  # one item or cluster of a task says no error
            pairs.append(
                Pair(None, *names, test.difference, test.p, min(min(runs), len(shared)), items=items, over=test)
            )
    return pairs
