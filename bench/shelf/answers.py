"""Whether a cell's predictions are those its record was made of: their bytes, their number, the scores they give."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bench.records import Result, Score, Status
from bench.report.predictions import DAMAGED, Items, items_of
from bench.stats.metrics import METRICS
from bench.stats.ratios import RATIOS

CLOSE = 1e-6
"""Of a score computed again: as the report asks it."""


def fault(folder: Path, result: Result) -> str | None:
    """What is wrong with the predictions of a cell in a sentence; None where nothing is."""
    if result.outcome.status != Status.ok:
        return None
    path = folder / "predictions.parquet"
    if not path.is_file():
        return None if not result.scores else "missing, and its record holds scores made of it"
    try:
        data = path.read_bytes()
        known = result.predictions_sha256
        if known is not None and hashlib.sha256(data).hexdigest() != known:
            return f"not the {path.name} that was recorded: its sha256 is another one"
        table = pq.ParquetFile(path).read()
        columns = {name: table[name].to_numpy() for name in table.column_names}
        items = items_of(columns)
        column = unanswered(columns)
    except (*DAMAGED, TypeError, OverflowError) as error:
        return f"cannot be read ({' '.join(str(error).split())[:200]})"
    if column is not None:
        return column
    for name, score in (result.scores or {}).items():
        if (told := contradiction(name, score, items)) is not None:
            return told
    return None


def unanswered(columns: dict[str, np.ndarray]) -> str | None:
    """Labels that are said to be predicted and are not the likeliest; None where all are."""
    names = [name for name in columns if name.startswith("score_")]
    if len(names) < 2 or "predicted" not in columns:
        return None
    scores = np.stack([columns[name].astype(float) for name in names], axis=1)
    likeliest = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    wrong = int((likeliest != columns["predicted"]).sum())
    return f"{wrong} of its predicted labels are not those with the highest score" if wrong else None


def contradiction(name: str, score: Score, items: Items) -> str | None:
    """Where a recorded score is not what the items give; None where it is, or where items alone do not give it."""
    if score.n != items.rows.size:
        return f"it holds {items.rows.size} items, the recorded {name} is of {score.n}"
    if name not in (RATIOS if items.kept else METRICS):
        return None
    try:
        given = [items.value(name, positive) for positive in ((1, 0) if name == "f1" else (1,))]
    except (*DAMAGED, IndexError) as error:
        return f"it gives no {name} ({error})"
    if any(abs(value - score.value) < CLOSE for value in given):
        return None
    return f"it gives {name} {given[0]:.6g}, the record says {score.value:.6g}"
