"""FLOPs of passes by shape: counted once, then looked up, calculated, or bounded before the pass is run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple


class Flops(NamedTuple):
    """FLOPs of one pass."""

    total: float
    attention: float
    """The part of products of activations with activations: at most quadratic in the length. The rest, products with
    weights, is linear in it or constant."""

    @property
    def rest(self) -> float:
        """What is not attention."""
        return self.total - self.attention


class Book:
    """FLOPs by shape. The last entry of a shape is the padded length; the others name its family (rows, prefix...).

    Within a family FLOPs are a polynomial of second degree in the length (linear layers are linear in it, attention is
    quadratic, work on weights alone is constant), so three counted lengths give every other one exactly.
    """

    def __init__(self) -> None:
        self.counted: dict[tuple[Any, ...], dict[int, Flops]] = {}

    def add(self, shape: tuple[Any, ...], flops: Flops) -> None:
        """Note a counted shape."""
        self.counted.setdefault(shape[:-1], {})[shape[-1]] = flops

    def get(self, shape: tuple[Any, ...]) -> Flops | None:
        """FLOPs of a shape: counted, or by Lagrange's formula through three counted lengths; None: count it."""
        points, length = self.counted.get(shape[:-1], {}), shape[-1]
        if length in points:
            return points[length]
        if len(points) < 3:
            return None
        (a, fa), (b, fb), (c, fc) = list(points.items())[:3]
        total, attention = (
            fa[part] * (length - b) * (length - c) / ((a - b) * (a - c))
            + fb[part] * (length - a) * (length - c) / ((b - a) * (b - c))
            + fc[part] * (length - a) * (length - b) / ((c - a) * (c - b))
            for part in (0, 1)
        )
        return Flops(total, attention)

    def most(self, shape: tuple[Any, ...]) -> float | None:
        """FLOPs of a shape, or where it was not counted an upper bound that counted ones of its kind give: attention
        and the rest bounded apart, each by the counted shapes that bound it best.

        No term falls with rows or length, none grows faster than linearly in rows. None where nothing of its kind was
        counted.
        """
        known = self.get(shape)
        if known is not None:
            return known.total
        (of, kind), length = rows_of(shape), shape[-1]
        attention, rest = [], []
        for rows, points in self._like(kind):
            more = max(1.0, of / rows)
            for at, flops in points.items():
                longer = max(1.0, length / at)
                attention.append(flops.attention * more * longer**2)
                rest.append(flops.rest * more * longer)
            for (a, first), (b, second) in itertools.pairwise(points.items()):
                rest.append(on_line(rows, (a, first.rest), (b, second.rest), of, length))
        return min(attention) + min(rest) if rest else None

    def _like(self, kind: tuple[Any, ...]) -> Iterator[tuple[int, dict[int, Flops]]]:
        """Rows and counted lengths of every family of a kind."""
        for family, points in self.counted.items():
            rows, its_kind = rows_of((*family, 0))
            if its_kind == kind:
                yield rows, points


def on_line(rows: int, first: tuple[int, float], second: tuple[int, float], of: int, length: int) -> float:
    """FLOPs without attention of `of` rows of a length at most, by two (length, FLOPs) of `rows` rows: what grows with
    the length is a token's work, and of the remainder it is unknown how much is a row's and how much the weights'."""
    (a, fa), (b, fb) = first, second
    token = (fb - fa) / (b - a) / rows
    return (fa - token * rows * a) * max(1.0, of / rows) + token * of * length


def rows_of(shape: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
    """Rows of a shape (its first number) and what is left of it without rows and length."""
    place = next(i for i, part in enumerate(shape) if isinstance(part, int))
    return shape[place], (*shape[:place], *shape[place + 1 : -1])
