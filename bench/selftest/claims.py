"""How often the report claims a difference that is none and finds one that is: its comparisons on made-up answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.report.compare import FEWEST_SEEDS, adjust, task_pairs
from bench.report.evidence import Evidence, Gathered
from bench.report.scores import TaskScore
from bench.report.standing import smallest, standings
from bench.report.summary import Board, Row
from bench.selftest.coverage import SEED_SDS, answers
from bench.selftest.figures import Figure

COMPARISONS = 4000
"""Simulated comparisons a setting: a rate near 5% is known to 0.7 per cent points (two standard errors)."""
BOARDS = 1000
ACCURACY = 0.8
SIZES = (200, 1000)
DIFFERENCE = 0.05
"""The true difference whose finding is stated: five points."""
TASK = "simulated"


def board_of(right: NDArray[np.bool_]) -> tuple[Board, Gathered]:
    """A leaderboard of k strategies on one task from which items each of S seeds gets right, (k, S, n)."""
    rows, gathered = [], Gathered()
    n = right.shape[-1]
    for i, arm in enumerate(right):
        name, by_seed = f"s{i}", arm.mean(axis=1)
        score = TaskScore([], float(by_seed.mean()), None, None, 0.5, None, n)
        rows.append(Row(name, "simulated", True, {TASK: score}, None, None, None, None, None, mean=score.value))
        left_out = (n * by_seed.mean() - arm.mean(axis=0)) / (n - 1)
        gathered.found[name, TASK] = Evidence(dict(enumerate(by_seed.tolist())), left_out, arm[0])
    rows.sort(key=lambda row: -(row.mean or 0.0))
    for place, row in enumerate(rows, 1):
        row.rank = place
    board = Board("simulated", "head", [TASK], {TASK: "accuracy"}, rows, False, included=[TASK], chance={TASK: 0.5})
    return board, gathered


def arms(sd: float, n: int, number: int, random: np.random.Generator, below: float = 0.0) -> NDArray[np.bool_]:
    """`number` boards of two arms, each three seeds on the same n items, (number, 2, S, n); the second is `below`."""
    blocks = []
    for right in answers(ACCURACY, sd, (number, 2 * FEWEST_SEEDS, n), random):
        blocks.append(right.reshape(-1, 2, FEWEST_SEEDS, n))
    found = np.concatenate(blocks)
    if below:
        # of the second arm's right answers just so many become wrong that its accuracy falls by `below`
        found[:, 1] &= random.random(found[:, 1].shape) >= below / ACCURACY
    return found


def claimed(boards: NDArray[np.bool_]) -> float:
    """Share of boards on which the report says that one strategy is better."""
    told = 0
    for right in boards:
        [pair] = adjust(task_pairs(*_task(right)))
        told += pair.verdict().endswith("is better")
    return told / len(boards)


def _task(right: NDArray[np.bool_]) -> tuple[Board, str, Gathered]:
    board, gathered = board_of(right)
    return board, TASK, gathered


def same_against_same(sd: float) -> Figure:
    """A strategy against itself, three seeds a side."""
    values = {}
    for n in SIZES:
        random, told, left = np.random.default_rng([n, round(1000 * sd)]), 0.0, COMPARISONS
        while left:
            number = min(500, left)
            told += claimed(arms(sd, n, number, random)) * number
            left -= number
        values[f"{FEWEST_SEEDS} seeds a side, {n} items, seed SD {100 * sd:g} points"] = told / COMPARISONS
    return Figure(f"a strategy against itself, seed SD {100 * sd:g} points", values, None, 0.05)


def found_difference() -> Figure:
    """How often five points are found: stated, for they depend on items and seeds and not on the harness."""
    values = {}
    for n in SIZES:
        for sd in SEED_SDS:
            boards = arms(sd, n, 500, np.random.default_rng([n, round(1000 * sd), 5]), DIFFERENCE)
            values[f"{n} items, seed SD {100 * sd:g} points"] = claimed(boards)
    return Figure(f"a difference of {100 * DIFFERENCE:g} points found", values)


def foretold_power() -> Figure:
    """How often a difference is found that is as large as the report says is found in 80% of cases."""
    values = {}
    for n in SIZES:
        for sd in SEED_SDS[:2]:
            random = np.random.default_rng([n, round(1000 * sd), 80])
            pairs = [task_pairs(*_task(right))[0] for right in arms(sd, n, 300, random, DIFFERENCE)]
            finds = smallest(pairs) or 0.0
            found = claimed(arms(sd, n, 1000, random, finds))
            values[f"{n} items, seed SD {100 * sd:g} points, {100 * finds:.1f} points"] = found
    return Figure("the smallest difference foretold is found", values, 0.7, 0.9)


def wrong_ranks() -> Figure:
    """Boards of five equal strategies on which any rank interval leaves out a rank: all ranks are true of equals."""
    values = {}
    for sd in SEED_SDS[1:]:
        random, wrong = np.random.default_rng(round(1000 * sd)), 0
        for right in answers(ACCURACY, sd, (BOARDS, 5 * FEWEST_SEEDS, SIZES[0]), random):
            for one in right.reshape(-1, 5, FEWEST_SEEDS, SIZES[0]):
                found = standings(*board_of(one)).values()
                wrong += any(standing.ranks != (1, 5) for standing in found)
        values[f"five strategies, {SIZES[0]} items, seed SD {100 * sd:g} points"] = wrong / BOARDS
    return Figure("rank intervals of equals that are too narrow", values, None, 0.05)
