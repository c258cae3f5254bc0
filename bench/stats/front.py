"""How sure it is that nothing else is both as good and as cheap: the Pareto front under uncertain scores."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def drawn_scores(
    values: ArrayLike, pseudo: ArrayLike, item_weights: NDArray[np.floating], random: np.random.Generator
) -> NDArray[np.floating]:
    """Scores of one strategy under a bootstrap over seeds and items, shape (B,).

    `values` are its scores by seed (S,), `pseudo` its pseudo-values averaged over seeds (n,), `item_weights` (B, n) the
    shares of each item in each draw, the same for all strategies of a task, so that what items share cancels. Seeds are
    drawn for each strategy alone; their deviations are scaled by sqrt(S / (S - 1)), which a bootstrap of so few lacks
    (Davison & Hinkley 1997, section 2.3). One seed adds nothing.
    """
    per_seed, by_item = np.asarray(values, dtype=float), np.asarray(pseudo, dtype=float)
    moved = per_seed.mean() + item_weights @ (by_item - by_item.mean())
    seeds = per_seed.size
    if seeds > 1:
        picked = per_seed[random.integers(0, seeds, (len(item_weights), seeds))].mean(axis=1)
        moved = moved + (picked - per_seed.mean()) * math.sqrt(seeds / (seeds - 1))
    result: NDArray[np.floating] = moved
    return result


def item_shares(
    draws: int, items: int, random: np.random.Generator, clusters: ArrayLike | None = None
) -> NDArray[np.floating]:
    """Shares of the items in bootstrap draws, shape (draws, items), rows adding to 1; whole clusters are drawn."""
    groups = np.arange(items) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    number = int(groups.max()) + 1
    times = random.multinomial(number, np.full(number, 1 / number), size=draws)[:, groups].astype(float)
    result: NDArray[np.floating] = times / times.sum(axis=1, keepdims=True)
    return result


def on_front(scores: ArrayLike, costs: ArrayLike) -> NDArray[np.floating]:
    """Share of draws in which each of k is on the Pareto front, shape (k,).

    `scores` are (B, k), more is better; `costs` (k, c), less is better and not uncertain. One is off the front where
    another scores at least as high at costs no higher, and is better in one of them (Pareto 1906). Raises
    `ValueError` for other shapes.
    """
    drawn, paid = np.asarray(scores, dtype=float), np.asarray(costs, dtype=float)
    if drawn.ndim != 2 or paid.ndim != 2 or drawn.shape[1] != paid.shape[0]:
        raise ValueError(f"on_front needs scores (B, k) and costs (k, c), got {drawn.shape} and {paid.shape}")
    cheap = np.asarray(paid[:, None, :] <= paid[None, :, :]).all(axis=2)
    cheaper = np.logical_and(cheap, (paid[:, None, :] < paid[None, :, :]).any(axis=2))
    free = np.ones(drawn.shape, dtype=bool)
    for j, mine in enumerate(drawn.T):
        beaten = (drawn > mine[:, None]) & cheap[:, j]
        equalled = (drawn == mine[:, None]) & cheaper[:, j]
        free[:, j] = ~(beaten | equalled).any(axis=1)
    result: NDArray[np.floating] = free.mean(axis=0)
    return result
