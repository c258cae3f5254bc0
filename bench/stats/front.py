"""How sure it is that nothing else is both as good and as cheap: the Pareto front under uncertain scores."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

AT_ONCE = 4_000_000
"""Item weights held at a time: 32 MB."""


def item_draws(
    pseudo: ArrayLike, draws: int, random: np.random.Generator, clusters: ArrayLike | None = None
) -> NDArray[np.floating]:
    """How far a bootstrap over items moves the scores of k strategies that share them, shape (draws, k).

    `pseudo` (n, k) are the items' pseudo-values averaged over seeds (see `bench.stats.seeds`). All strategies see the
    same draw, so that what an item does to all of them cancels; with `clusters`, one integer an item, whole clusters
    are drawn.
    """
    values = np.asarray(pseudo, dtype=float)
    items = len(values)
    groups = np.arange(items) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    number, moves = int(groups.max()) + 1, []
    chunk = max(1, AT_ONCE // items)
    for start in range(0, draws, chunk):
        picked = random.multinomial(number, np.full(number, 1 / number), size=min(chunk, draws - start))
        weights = picked[:, groups].astype(float)
        moves.append((weights / weights.sum(axis=1, keepdims=True)) @ (values - values.mean(axis=0)))
    return np.concatenate(moves)


def seed_draws(values: ArrayLike, draws: int, random: np.random.Generator) -> NDArray[np.floating]:
    """How far a bootstrap over seeds moves their mean, shape (draws,); one seed moves nothing.

    Deviations are scaled by sqrt(S / (S - 1)), which a bootstrap of so few lacks (Davison & Hinkley 1997, section 2.3).
    """
    per_seed = np.asarray(values, dtype=float)
    seeds = per_seed.size
    if seeds < 2:
        return np.zeros(draws)
    picked = per_seed[random.integers(0, seeds, (draws, seeds))].mean(axis=1)
    moved: NDArray[np.floating] = (picked - per_seed.mean()) * math.sqrt(seeds / (seeds - 1))
    return moved


def on_front(scores: ArrayLike, costs: ArrayLike) -> NDArray[np.floating]:
    """Share of draws in which each of k is on the Pareto front, shape (k,).

    `scores` are (B, k), more is better; `costs` (k, c), less is better and not uncertain. One is off the front where
    another scores at least as high at costs no higher, and is better in one of them (Pareto 1906). Raises
    `ValueError` for other shapes.
    """
    drawn, paid = np.asarray(scores, dtype=float), np.asarray(costs, dtype=float)
    if drawn.ndim != 2 or paid.ndim != 2 or drawn.shape[1] != paid.shape[0]:
        raise ValueError(f"on_front needs scores (B, k) and costs (k, c), got {drawn.shape} and {paid.shape}")
    cheap = np.all(paid[:, None, :] <= paid[None, :, :], axis=2)
    cheaper = np.logical_and(cheap, np.asarray(paid[:, None, :] < paid[None, :, :]).any(axis=2))
    free = np.ones(drawn.shape, dtype=bool)
    for j, mine in enumerate(drawn.T):
        beaten = np.logical_and(drawn > mine[:, None], cheap[:, j])
        equalled = np.logical_and(drawn == mine[:, None], cheaper[:, j])
        free[:, j] = ~np.logical_or(beaten, equalled).any(axis=1)
    result: NDArray[np.floating] = free.mean(axis=0)
    return result
