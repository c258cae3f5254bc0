"""A cell's predictions as the statistics need them, checked against the score its record holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.report.collect import CellView
from bench.stats.confusion import leave_one_out
from bench.stats.intervals import Interval
from bench.stats.metrics import value
from bench.stats.seeds import BOUNDS, seeds_interval


class Unusable(ValueError):
    """Predictions that cannot be compared; the message continues `<strategy> on <task>: `."""


DAMAGED = (OSError, ValueError, KeyError, pa.ArrowException)
"""What reading predictions of unknown origin may raise."""


@dataclass(frozen=True)
class Items:
    """Test items ordered by row: row numbers, labels, predictions, and where the task has them clusters; each (n,)."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    clusters: NDArray[np.int64] | None = None

    def same(self, other: Items) -> bool:
        """Whether both are answers to the same items."""
        mine, theirs = (np.zeros(0) if one.clusters is None else one.clusters for one in (self, other))
        return (
            np.array_equal(self.rows, other.rows)
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(mine, theirs)
        )


def read_predictions(path: Path) -> Items:
    """A `predictions.parquet`.

    Raises `OSError`, `KeyError`, `ValueError` or `pyarrow.ArrowException` where the file cannot be used.
    """
    if not path.is_file():
        raise Unusable("its predictions are missing")
    file = pq.ParquetFile(path)
    names = ["row", "label", "predicted", *(["cluster"] if "cluster" in file.schema_arrow.names else [])]
    table = file.read(columns=names)
    rows, labels, predicted, *clusters = (table[name].to_numpy().astype(np.int64) for name in names)
    if rows.size == 0 or np.unique(rows).size != rows.size:
        raise Unusable("its predictions have no rows or a row twice")
    order = np.argsort(rows)
    return Items(rows[order], labels[order], predicted[order], clusters[0][order] if clusters else None)


def positive_of(metric: str, items: Items, cell: CellView) -> int:
    """The label index with which the predictions give the recorded score; F1's positive label is not in a record."""
    scores = cell.result.scores if cell.status == "ok" and cell.result is not None else None
    recorded = (scores or {}).get(metric)
    if recorded is not None and recorded.n != items.labels.size:
        raise Unusable(f"its predictions hold {items.labels.size} items, its score {recorded.n}")
    for positive in (1, 0) if metric == "f1" else (1,):
        if recorded is not None and abs(value(metric, items.labels, items.predicted, positive) - recorded.value) < 1e-6:
            return positive
    raise Unusable("its predictions do not give the recorded score")


def over_seeds(cells: list[CellView], metric: str) -> Interval | None:
    """The interval of the mean of a metric over the seeds of one strategy on one task, for other seeds and items.

    None where predictions are missing, damaged, or not of the same items.
    """
    values, left_out, first = [], [], None
    try:
        for cell in cells:
            items = read_predictions(cell.folder / "predictions.parquet")
            positive = positive_of(metric, items, cell)
            first = first or items
            if not items.same(first):
                return None
            values.append(value(metric, items.labels, items.predicted, positive))
            left_out.append(leave_one_out(metric, items.labels, items.predicted, positive))
    except DAMAGED:
        return None
    if first is None or metric not in BOUNDS or len(first.rows) < 2:
        return None
    return seeds_interval(values, left_out, BOUNDS[metric], first.clusters)
