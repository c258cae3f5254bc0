"""Agreement of a judge with people: the share of equal labels, and Cohen's kappa."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bench.records import Agreement, Judged
from bench.stats.confusion import confusion
from bench.stats.intervals import wilson

RESAMPLES = 10_000
Judgements = Sequence[tuple[int, int | None, str | None]]
"""A row each: the judge's label, a person's (None: nobody gave one), and the judge's principle."""


def kappa(counts: NDArray[np.floating]) -> NDArray[np.floating]:
    """Cohen's kappa (1960) of tables (..., K, K): (agreement - chance) / (1 - chance), chance from both sides' shares.

    NaN where chance is 1: both sides always gave one and the same label.
    """
    total = counts.sum((-2, -1))
    observed = np.trace(counts, axis1=-2, axis2=-1) / total
    chance = (counts.sum(-1) * counts.sum(-2)).sum(-1) / total**2
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.floating] = np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)
    return found


def agreement(judge: Sequence[int], human: Sequence[int], principle: str | None = None, seed: int = 0) -> Agreement:
    """Share of equal labels with Wilson's interval, and kappa with a percentile bootstrap's over rows, both at 95%.

    Drawing n rows with replacement makes the table's counts multinomial, so one such draw is one resample; those in
    which kappa is undefined are left out. Raises `ValueError` as `confusion` does.
    """
    counts, _ = confusion(human, judge)
    n, equal = int(counts.sum()), int(np.trace(counts))
    interval, value = wilson(equal, n), float(kappa(counts))
    if np.isnan(value):
        return Agreement(principle=principle, n=n, share=equal / n, low=interval.low, high=interval.high)
    draws = np.random.default_rng(seed).multinomial(n, counts.reshape(-1) / n, size=RESAMPLES)
    resampled = kappa(draws.reshape(-1, *counts.shape).astype(float))
    low, high = np.quantile(resampled[~np.isnan(resampled)], (0.025, 0.975))
    return Agreement(
        principle=principle, n=n, share=equal / n, low=interval.low, high=interval.high,
        kappa=value, kappa_low=float(low), kappa_high=float(high),
    )  # fmt: skip


def judged(judgements: Judgements, by: str | None, scored_rows: bool, left_out: int) -> Judged:
    """The record of a judge. `scored_rows`: whether test rows have people's labels."""
    both = [(label, human, principle) for label, human, principle in judgements if human is not None]
    principles = sorted({principle for *_, principle in both if principle is not None})
    groups: list[tuple[str | None, list[tuple[int, int, str | None]]]] = [(None, both)] if both else []
    groups += [(one, [row for row in both if row[2] == one]) for one in principles]
    return Judged(
        by=by,
        rows=len(judgements),
        agreements=[agreement([j for j, *_ in rows], [h for _, h, _ in rows], name) for name, rows in groups],
        scored_against="people" if scored_rows else "judge",
        left_out=left_out,
    )
