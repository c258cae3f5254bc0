"""A cell's predictions as the statistics need them, checked against the score its record holds."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.config.reply import OVERLAPS, SPANS
from bench.report.collect import CellView
from bench.stats.confusion import leave_one_out
from bench.stats.intervals import Interval
from bench.stats.metrics import value
from bench.stats.ratios import RATIOS, ratio_left_out, ratio_value
from bench.stats.seeds import BOUNDS, seeds_interval
from bench.store import read_whole


class Unusable(ValueError):
    """Predictions that cannot be compared; the message continues `<strategy> on <task>: `."""


DAMAGED = (OSError, ValueError, KeyError, pa.ArrowException)
"""What reading predictions of unknown origin may raise."""


@dataclass(frozen=True)
class Items:
    """Test items ordered by row: row numbers, labels, predictions, and where the task has them clusters; each (n,).

    Where answers are no labels the numbers kept of each are in `kept`, by name; `labels` are then the numbers that
    the items themselves give (their spans), and nothing is predicted.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    clusters: NDArray[np.int64] | None = None
    kept: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def same(self, other: Items) -> bool:
        """Whether both are answers to the same items."""
        mine, theirs = (np.zeros(0) if one.clusters is None else one.clusters for one in (self, other))
        return (
            np.array_equal(self.rows, other.rows)
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(mine, theirs)
        )

    def value(self, metric: str, positive: int = 1) -> float:
        """A metric of these items."""
        if metric in RATIOS:
            return ratio_value(metric, self.kept)
        return value(metric, self.labels, self.predicted, positive)

    def left_out(self, metric: str, positive: int = 1) -> NDArray[np.floating]:
        """The metric without each item in turn, (n,)."""
        if metric in RATIOS:
            return ratio_left_out(metric, self.kept)
        return leave_one_out(metric, self.labels, self.predicted, positive)

    @property
    def correct(self) -> NDArray[np.bool_] | None:
        """Items whose prediction is right, (n,); None where answers are no labels."""
        return None if self.kept else self.labels == self.predicted


def read_predictions(path: Path, sha256: str | None = None) -> Items:
    """A `predictions.parquet`; `sha256` is what its record says of it, if that is known.

    Raises `OSError`, `KeyError`, `ValueError` or `pyarrow.ArrowException` where the file cannot be used.
    """
    table = table_of(path, sha256)
    return items_of({name: table[name].to_numpy() for name in table.column_names})


def table_of(path: Path, sha256: str | None) -> pa.Table:
    """Columns of a `predictions.parquet`. Raises as `read_predictions`; bytes that are not the recorded are refused."""
    if not path.is_file():
        raise Unusable("its predictions are missing")
    try:
        data = read_whole(path, sha256)
    except ValueError:
        raise Unusable("its predictions are not those that were recorded") from None
    return pq.ParquetFile(io.BytesIO(data)).read()


def predictions_of(cell: CellView) -> Items:
    """A cell's predictions. Raises as `read_predictions`."""
    known = None if cell.result is None else cell.result.predictions_sha256
    return read_predictions(cell.folder / "predictions.parquet", known)


def items_of(columns: Mapping[str, NDArray[Any]]) -> Items:
    """The columns of a `predictions.parquet`, each (n,), as items.

    Raises `KeyError` for a column that is not there, `ValueError` for what cannot be used.
    """
    kept = next((names for names in (OVERLAPS, SPANS) if set(names) <= set(columns)), ())
    rows = columns["row"].astype(np.int64)
    if rows.size == 0 or np.unique(rows).size != rows.size:
        raise Unusable("its predictions have no rows or a row twice")
    order = np.argsort(rows)

    def column(name: str) -> NDArray[np.int64]:
        found: NDArray[np.int64] = columns[name][order].astype(np.int64)
        return found

    clusters = column("cluster") if "cluster" in columns else None
    if not kept:
        return Items(rows[order], column("label"), column("predicted"), clusters)
    given = column("gold") if "gold" in kept else np.zeros(rows.size, np.int64)
    numbers = {name: columns[name][order].astype(np.float64) for name in kept}
    return Items(rows[order], given, np.full(rows.size, -1), clusters, numbers)


def positive_of(metric: str, items: Items, cell: CellView) -> int:
    """The label index with which the predictions give the recorded score; F1's positive label is not in a record."""
    scores = cell.result.scores if cell.status == "ok" and cell.result is not None else None
    recorded = (scores or {}).get(metric)
    if recorded is not None and recorded.n != items.labels.size:
        raise Unusable(f"its predictions hold {items.labels.size} items, its score {recorded.n}")
    for positive in (1, 0) if metric == "f1" else (1,):
        if recorded is not None and abs(items.value(metric, positive) - recorded.value) < 1e-6:
            return positive
    raise Unusable("its predictions do not give the recorded score")


def over_seeds(cells: list[CellView], metric: str) -> Interval | None:
    """The interval of the mean of a metric over the seeds of one strategy on one task, for other seeds and items.

    None where predictions are missing, damaged, or not of the same items.
    """
    values, left_out, first = [], [], None
    try:
        for cell in cells:
            items = predictions_of(cell)
            positive = positive_of(metric, items, cell)
            first = first or items
            if not items.same(first):
                return None
            values.append(items.value(metric, positive))
            left_out.append(items.left_out(metric, positive))
    except DAMAGED:
        return None
    if first is None or metric not in BOUNDS or len(first.rows) < 2:
        return None
    return seeds_interval(values, left_out, BOUNDS[metric], first.clusters)
