"""The order in which labelled rows are trained on: by seed, in batches of like length, the same for every strategy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np

BUCKET_BATCHES = 16
"""Rows are sorted by length within this many shuffled batches: long enough to save padding, short enough to mix."""


def batches(lengths: Sequence[int], size: int, seed: int, groups: Sequence[int] | None = None) -> Iterator[list[int]]:
    """Endless batches of row indexes. Every epoch reads every row once; the last batch of one may be smaller.

    `lengths` in tokens; no batch holds rows of two `groups`. The order depends on these arguments only.
    """
    of = [0] * len(lengths) if groups is None else groups
    if not lengths:
        return
    rng = np.random.default_rng([seed % 2**64, 0x0BA7C4])  # numpy refuses negative seeds
    while True:
        order = rng.permutation(len(lengths))
        epoch: list[list[int]] = []
        for start in range(0, len(order), size * BUCKET_BATCHES):
            bucket = sorted(order[start : start + size * BUCKET_BATCHES].tolist(), key=lambda i: (of[i], lengths[i]))
            for _, members in groupby(bucket, key=lambda i: of[i]):
                rows = list(members)
                epoch += [rows[i : i + size] for i in range(0, len(rows), size)]
        for i in rng.permutation(len(epoch)):
            yield epoch[i]


class Order:
    """Endless batches, drawn by what is wanted, that know how many were drawn.

    Groups are mixed within an epoch, or `apart`: each has epochs of its own, as stages of training need that follow one
    another, of which one may have few rows.
    """

    def __init__(
        self, lengths: Sequence[int], size: int, seed: int, groups: Sequence[int], apart: bool = False
    ) -> None:
        self.groups = groups
        parts = sorted(set(groups)) if apart else [None]
        self.parts = {part: self._part(part, lengths, size, seed) for part in parts}
        self.drawn = dict.fromkeys(parts, 0)

    def _part(self, part: int | None, lengths: Sequence[int], size: int, seed: int) -> Iterator[list[int]]:
        members = [i for i, group in enumerate(self.groups) if part in (None, group)]
        inner = batches([lengths[i] for i in members], size, seed, [self.groups[i] for i in members])
        return ([members[i] for i in rows] for rows in inner)

    def draw(self, wanted: Callable[[int], bool]) -> list[int] | None:
        """The next rows of a group that is wanted; None where there are none at all."""
        for part in self.parts:
            if part is None or wanted(part):
                while (rows := self._next(part)) is not None:
                    if wanted(self.groups[rows[0]]):
                        return rows
        return None

    def _next(self, part: int | None) -> list[int] | None:
        rows = next(self.parts[part], None)
        self.drawn[part] += rows is not None
        return rows

    def skip(self, drawn: Sequence[int]) -> None:
        """Pass over so many of each part, in the order of the parts."""
        for part, number in zip(self.parts, drawn, strict=True):
            for _ in range(number):
                self._next(part)
