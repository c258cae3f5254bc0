"""What a comparison needs of each cell: its predictions, checked against the score the record holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.report.collect import CellView
from bench.report.summary import Board, TaskScore
from bench.stats.confusion import leave_one_out
from bench.stats.metrics import METRICS, value


class Unusable(ValueError):
    """Predictions that cannot be compared; the message continues `<strategy> on <task>: `."""


@dataclass
class Evidence:
    """One strategy on one task. `left_out` is the metric without each item, averaged over seeds, shape (n,)."""

    values: dict[int, float]
    left_out: NDArray[np.floating]
    correct: NDArray[np.bool_]
    """Items the first seed got right, shape (n,)."""


@dataclass
class Gathered:
    """Evidence by (strategy, task), and what had to be left out of comparisons and why."""

    found: dict[tuple[str, str], Evidence] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def gather(board: Board) -> Gathered:
    """Read the predictions of every complete (strategy, task) of a board. Never raises for a damaged file."""
    gathered = Gathered()
    for task in board.tasks:
        items: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        for row in board.rows:
            score = row.scores[task]
            if not score.complete or board.metrics[task] not in METRICS:
                continue
            try:
                evidence, items = _evidence(score, board.metrics[task], items, row.seeded)
            except (OSError, ValueError, KeyError, pa.ArrowException) as error:
                gathered.problems.append(f"{row.strategy} on {task}: {_short(error)}")
            else:
                gathered.found[row.strategy, task] = evidence
    return gathered


def _evidence(
    score: TaskScore, metric: str, items: tuple[NDArray[np.int64], NDArray[np.int64]] | None, seeded: bool
) -> tuple[Evidence, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Evidence of one strategy on one task, and the test items (rows, labels) all strategies must share."""
    values: dict[int, float] = {}
    left_out, correct = [], None
    # a strategy whose seed cannot matter has one result, however often it was planned
    for cell in score.cells if seeded else score.cells[:1]:
        rows, labels, predicted = read_predictions(cell.folder / "predictions.parquet")
        # checked before its items may become the ones that the other strategies must share
        positive = _positive(metric, labels, predicted, cell)
        if items is None:
            items = (rows, labels)
        if not (np.array_equal(rows, items[0]) and np.array_equal(labels, items[1])):
            raise Unusable("its test items are not those of the other strategies")
        values[cell.info.seed] = value(metric, labels, predicted, positive)
        left_out.append(leave_one_out(metric, labels, predicted, positive))
        correct = labels == predicted if correct is None else correct
    assert items is not None and correct is not None
    return Evidence(values, np.mean(left_out, axis=0), correct), items


def read_predictions(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(row, label, predicted) of a `predictions.parquet`, ordered by row.

    Raises `OSError`, `KeyError`, `ValueError` or `pyarrow.ArrowException` where the file cannot be used.
    """
    if not path.is_file():
        raise Unusable("its predictions are missing")
    table = pq.ParquetFile(path).read(columns=["row", "label", "predicted"])
    rows, labels, predicted = (table[name].to_numpy().astype(np.int64) for name in ("row", "label", "predicted"))
    if rows.size == 0 or np.unique(rows).size != rows.size:
        raise Unusable("its predictions have no rows or a row twice")
    order = np.argsort(rows)
    return rows[order], labels[order], predicted[order]


def _positive(metric: str, labels: NDArray[np.int64], predicted: NDArray[np.int64], cell: CellView) -> int:
    """The label index with which the predictions give the recorded score; F1's positive label is not in a record."""
    recorded = cell.score
    if recorded is not None and recorded.n != labels.size:
        raise Unusable(f"its predictions hold {labels.size} items, its score {recorded.n}")
    for positive in (1, 0) if metric == "f1" else (1,):
        if recorded is not None and abs(value(metric, labels, predicted, positive) - recorded.value) < 1e-6:
            return positive
    raise Unusable("its predictions do not give the recorded score")


def _short(error: Exception) -> str:
    """Why predictions cannot be used, without the path that Arrow and the system put into their messages."""
    if isinstance(error, Unusable):
        return str(error)
    if isinstance(error, OSError | KeyError | pa.ArrowException):
        return "its predictions are damaged"
    return f"its predictions are damaged ({error})"
