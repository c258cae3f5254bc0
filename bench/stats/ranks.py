"""Ranks with intervals, and groups that cannot be told apart: both follow from which pairs differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rank_intervals(better: ArrayLike) -> NDArray[np.intp]:
    """Lowest and highest rank of each of k (1 is best), shape (k, 2), from a (k, k) table of claims.

    `better[i, j]` says that i was shown to be better than j. Where all claims are true together with 95% confidence
    (Holm's correction over all pairs), so are all intervals: at least as many stand above one as were shown to be
    better, at least as many below as were shown to be worse (Mogstad, Romano, Shaikh & Wilhelm 2024, section 3). Raises
    `ValueError` where the table is not square or calls each of two the better.
    """
    table = np.asarray(better, dtype=bool)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or (table & table.T).any():
        raise ValueError(f"better must be a square table in which no two are each better, got shape {table.shape}")
    return np.stack([1 + table.sum(axis=0), table.shape[0] - table.sum(axis=1)], axis=1)


def letters(different: ArrayLike) -> list[str]:
    """A compact letter display: two share a letter exactly where they are not shown to differ (Piepho 2004).

    `different` is a symmetric (k, k) table, best first; so letters run from a at the best. Insert and absorb: each
    difference splits the groups that hold both, and a group within another is dropped. Raises `ValueError` where the
    table is not square and symmetric.
    """
    table = np.asarray(different, dtype=bool)
    if table.ndim != 2 or table.shape[0] != table.shape[1] or (table != table.T).any():
        raise ValueError(f"different must be a square symmetric table, got shape {table.shape}")
    groups = [frozenset(range(len(table)))]
    for i, j in np.argwhere(np.triu(table, 1)).tolist():
        split = [part for group in groups for part in ([group - {i}, group - {j}] if {i, j} <= group else [group])]
        # of equal groups the first stays
        groups = [g for at, g in enumerate(split) if not any(g < h or (g == h and at > b) for b, h in enumerate(split))]
    groups.sort(key=sorted)
    return ["".join(_letter(at) for at, group in enumerate(groups) if i in group) for i in range(len(table))]


def _letter(index: int) -> str:
    """a to z, then a1 to z1 and so on: many groups stay readable."""
    return chr(ord("a") + index % 26) + (str(index // 26) if index >= 26 else "")
