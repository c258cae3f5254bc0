"""Where each strategy of a leaderboard stands for sure: its ranks, its group, and how likely it is on the front."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.report import format as show
from bench.report.compare import FEWEST_SEEDS, LEVEL, Pair, mean_pairs
from bench.report.evidence import Evidence, Gathered
from bench.report.summary import Board, Row
from bench.stats.front import item_draws, on_front, seed_draws
from bench.stats.pairs import holm, smallest_difference
from bench.stats.power import detectable_share
from bench.stats.ranks import letters, rank_intervals

DRAWS = 2000
"""Bootstrap draws for the front: its share is known to about one per cent."""


@dataclass(frozen=True)
class Standing:
    """What can be said of one ranked strategy beside its rank."""

    ranks: tuple[int, int] | None = None
    """Lowest and highest rank that the data allow, at 95% for all together; None where no rank may be claimed."""
    group: str = ""
    """Letters: two strategies share one where they are not shown to differ."""
    front: float | None = None
    """Share of bootstrap draws in which nothing else is at least as good, as small and as fast; None where a cost is
    not measured."""


def standings(board: Board, gathered: Gathered) -> dict[str, Standing]:
    """The standing of every ranked strategy, by name."""
    ranks = _ranks(board, mean_pairs(board, gathered, every=True))
    fronts = _fronts(board, gathered)
    found = {}
    for row in board.ranked:
        ends, group = ranks.get(row.strategy, (None, ""))
        found[row.strategy] = Standing(ends, group, fronts.get(row.strategy))
    return found


def _ranks(board: Board, pairs: list[Pair]) -> dict[str, tuple[tuple[int, int], str]]:
    """Ranks and letters from every pair on the mean, Holm's correction over all of them; a pair that could not be
    tested, or holds too few training runs for a claim, is one that may stand either way."""
    names = [row.strategy for row in board.ranked]
    if not any(pair.claimable for pair in pairs):
        return {}
    place = {name: i for i, name in enumerate(names)}
    better = np.zeros((len(names), len(names)), dtype=bool)
    for pair, p in zip(pairs, holm([pair.p for pair in pairs]), strict=True):
        if p < LEVEL and pair.claimable:
            first, second = place[pair.first], place[pair.second]
            better[(first, second) if pair.difference > 0 else (second, first)] = True
    ends, groups = rank_intervals(better), letters(better | better.T)
    return {name: ((int(ends[i, 0]), int(ends[i, 1])), groups[i]) for name, i in place.items()}


def _fronts(board: Board, gathered: Gathered) -> dict[str, float]:
    """Chance to be on the front of mean score, peak memory and training time, among rows with all three."""
    rows = [
        (row, (row.memory.size, max(row.adapt_seconds, show.INSTANT)))  # who trains nothing takes some ms or others
        for row in board.ranked
        if row.memory is not None
        and row.adapt_seconds is not None
        and all((row.strategy, task) in gathered.found for task in board.included)
    ]
    kinds = {row.memory.kind for row, _ in rows if row.memory is not None}
    if len(rows) < 2 or len(kinds) > 1:
        return {}
    random = np.random.default_rng(0)
    scores = np.zeros((DRAWS, len(rows)))
    for task in board.included:
        found = [gathered.found[row.strategy, task] for row, _ in rows]
        scores += board.scale(task) / len(board.included) * _drawn(found, random)
    shares = on_front(scores, [costs for _, costs in rows])
    return {row.strategy: float(share) for (row, _), share in zip(rows, shares, strict=True)}


def _drawn(found: list[Evidence], random: np.random.Generator) -> NDArray[np.floating]:
    """Scores of strategies on one task under a bootstrap over items (shared) and seeds (their own), (DRAWS, k)."""
    values = [np.array(list(one.values.values())) for one in found]
    left_out = np.stack([one.left_out for one in found], axis=1)
    # of a mean over seeds the deviations of pseudo-values are those of the left-out means, times n - 1
    pseudo = (len(left_out) - 1) * (left_out.mean(axis=0) - left_out)
    moved = item_draws(pseudo, DRAWS, random, found[0].clusters)
    seeds = np.stack([seed_draws(one, DRAWS, random) for one in values], axis=1)
    drawn: NDArray[np.floating] = np.array([one.mean() for one in values]) + moved + seeds
    return drawn


def smallest(pairs: Sequence[Pair]) -> float | None:
    """The true difference that comparisons like these find in 80% of cases; None where there is none.

    Of tests over seeds in the task's metric; of McNemar's tests in the share of items right.
    """
    if tests := [pair.over for pair in pairs if pair.over is not None]:
        return smallest_difference(tests)
    shares = [sum(pair.only) / pair.items for pair in pairs if pair.only is not None]
    return detectable_share(statistics.fmean(shares), pairs[0].items) if shares else None


def detectable(pairs: Sequence[Pair], task: str) -> str | None:
    """The smallest difference that the comparisons on a task would find, as a sentence; None without comparisons."""
    mine = [pair for pair in pairs if pair.task == task]
    most = max((pair.seeds for pair in mine), default=0)
    # strategies that no seed changes have fewer runs: what is said is of those that were trained
    mine = [pair for pair in mine if pair.seeds == most]
    found = smallest(mine)
    if found is None:
        return None
    share = "" if mine[0].over is not None else " in the share of items right"
    one = "how often only one was right" if mine[0].only is not None else "how differently they do on each"
    basis = f"{show.count(most, 'training run')} and their spread" if most > 1 else one
    return (
        f"Smallest true difference{share} that a comparison here finds in 80% of cases: {show.score(found)}, from "
        f"{show.count(mine[0].items, 'item')}, {basis}; correcting for many pairs makes it larger."
    )


def ranks_note(board: Board, found: dict[str, Standing]) -> list[str]:
    """What the rank intervals, letters and the front column are, in sentences; nothing where there are none."""
    notes = []
    if any(standing.ranks for standing in found.values()):
        notes.append(
            "Ranks in small print are those the data allow, 95% for all rows together (Holm over all pairs on the "
            "mean); strategies that share a letter cannot be told apart."
        )
    elif len(board.ranked) > 1:
        notes.append(f"Ranks have intervals from {FEWEST_SEEDS} training runs on.")
    if any(standing.front is not None for standing in found.values()):
        trained = "" if _enough(board.ranked) else " Of these trained models: retraining is not in it."
        notes.append(
            "On the front: how often, over bootstrap draws of test items and seeds, no other strategy is at "
            "least as good with no more memory and training time; costs are taken as measured, but for times below "
            f"0.1 s, which are alike.{trained}"
        )
    return notes


def _enough(rows: list[Row]) -> bool:
    """Whether every seeded row has the training runs that a claim needs."""
    return all(len(score.cells) >= FEWEST_SEEDS for row in rows if row.seeded for score in row.scores.values())
