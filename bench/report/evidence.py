"""What a comparison needs of each cell: its predictions, checked against the score the record holds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bench.report.predictions import DAMAGED, Items, Unusable, positive_of, predictions_of
from bench.report.scores import TaskScore
from bench.report.summary import Board
from bench.stats.metrics import METRICS
from bench.stats.pairs import worth
from bench.stats.ratios import RATIOS


@dataclass
class Evidence:
    """One strategy on one task. `left_out` is the metric without each item, averaged over seeds, shape (n,)."""

    values: dict[int, float]
    left_out: NDArray[np.floating]
    correct: NDArray[np.bool_] | None = None
    """Items the first seed got right, shape (n,); None where answers are no labels."""
    clusters: NDArray[np.int64] | None = None
    """Which items belong together, shape (n,); None where each stands alone."""

    @property
    def independent(self) -> int:
        """Items, or the clusters they come in."""
        return self.left_out.size if self.clusters is None else np.unique(self.clusters).size

    @property
    def effective(self) -> float:
        """As many clusters of one size as these are worth (`bench.stats.pairs.worth`)."""
        return float(self.left_out.size) if self.clusters is None else worth(self.clusters)


@dataclass
class Gathered:
    """Evidence by (strategy, task), and what had to be left out of comparisons and why."""

    found: dict[tuple[str, str], Evidence] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def gather(board: Board) -> Gathered:
    """Read the predictions of every complete (strategy, task) of a board. Never raises for a damaged file."""
    gathered = Gathered()
    for task in board.tasks:
        items: Items | None = None
        for row in board.rows:
            score = row.scores[task]
            if not score.complete or board.metrics[task] not in {*METRICS, *RATIOS}:
                continue
            try:
                evidence, items = _evidence(score, board.metrics[task], items, row.seeded)
            except DAMAGED as error:
                gathered.problems.append(f"{row.strategy} on {task}: {_short(error)}")
            else:
                gathered.found[row.strategy, task] = evidence
    return gathered


def _evidence(score: TaskScore, metric: str, shared: Items | None, seeded: bool) -> tuple[Evidence, Items]:
    """Evidence of one strategy on one task, and the test items all strategies must share."""
    values: dict[int, float] = {}
    left_out: list[NDArray[np.floating]] = []
    correct: NDArray[np.bool_] | None = None
    # a strategy whose seed cannot matter has one result, however often it was planned
    for cell in score.cells if seeded else score.cells[:1]:
        items = predictions_of(cell)
        # checked before its items may become the ones that the other strategies must share
        positive = positive_of(metric, items, cell)
        shared = shared or items
        if not items.same(shared):
            raise Unusable("its test items are not those of the other strategies")
        values[cell.info.seed] = items.value(metric, positive)
        left_out.append(items.left_out(metric, positive))
        correct = items.correct if correct is None else correct
    assert shared is not None
    return Evidence(values, np.mean(left_out, axis=0), correct, shared.clusters), shared


def _short(error: Exception) -> str:
    """Why predictions cannot be used, without the path that Arrow and the system put into their messages."""
    if isinstance(error, Unusable):
        return str(error)
    if isinstance(error, OSError | KeyError | pa.ArrowException):
        return "its predictions are damaged"
    return f"its predictions are damaged ({error})"
