"""FLOPs of passes by shape: counted where nothing tells them, else calculated, or bounded before the pass is run.

A shape is a kind and three numbers: rows, tokens a row that the LM head reads (0 where that is the same in every pass
of the kind), and the padded length. Products with weights are linear in the rows and in the tokens read by body and
head, but for what is done to weights alone; products of activations with activations, attention, are quadratic in the
length. So a few counted shapes give all the others of their kind, exactly, and one more shows that they do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

Size = tuple[int, int, int]
"""Rows, tokens a row that the head reads, padded length."""


class Flops(NamedTuple):
    """FLOPs of one pass."""

    total: int
    attention: int
    """The part of products of activations with activations."""

    @property
    def rest(self) -> int:
        """What is not attention."""
        return self.total - self.attention


class Linear:
    """A function that is linear in some features, exact wherever known values tell it."""

    def __init__(self) -> None:
        self.known: list[tuple[int, list[Fraction], Fraction]] = []
        """In echelon form: the first feature that is not 0, where it is 1, all features, and the value."""

    def add(self, features: Sequence[int], value: int) -> None:
        """Learn a value."""
        left, rest = self._reduced(features, Fraction(value))
        first = next((i for i, one in enumerate(left) if one), None)
        if first is not None:
            self.known.append((first, [one / left[first] for one in left], rest / left[first]))

    def at(self, features: Sequence[int]) -> int | None:
        """The value there; None where those known do not tell it."""
        left, rest = self._reduced(features, Fraction(0))
        return None if any(left) else round(-rest)

    def _reduced(self, features: Sequence[int], value: Fraction) -> tuple[list[Fraction], Fraction]:
        """Features and value less what those known explain of them."""
        left = [Fraction(one) for one in features]
        for first, row, known in self.known:
            share = left[first]
            if share:
                left = [a - share * b for a, b in zip(left, row, strict=True)]
                value -= share * known
        return left, value


class Kind:
    """Passes of one kind."""

    def __init__(self) -> None:
        self.counted: dict[Size, Flops] = {}
        self.attention, self.rest = Linear(), Linear()
        self.regular: bool | None = None
        """Whether a pass that the others had told was what they told when it was counted; None: not tried yet."""

    def add(self, size: Size, flops: Flops) -> None:
        """Learn what a pass took."""
        told = self.parts(size)
        if None not in told and size not in self.counted:
            self.regular = self.regular is not False and told == (flops.attention, flops.rest)
        self.counted[size] = flops
        rows, width, length = size
        self.attention.add((1, rows, rows * length, rows * length**2), flops.attention)
        self.rest.add((1, rows, rows * length, rows * width), flops.rest)

    def parts(self, size: Size) -> tuple[int | None, int | None]:
        """Attention and the rest of a pass of this size; None for what the counted ones do not tell."""
        rows, width, length = size
        attention = self.attention.at((1, rows, rows * length, rows * length**2))
        return attention, self.rest.at((1, rows, rows * length, rows * width))

    def most(self, size: Size) -> float:
        """FLOPs of a pass at most: of each part what it is, or the least bound that a counted pass gives.

        No term falls with any of the three numbers, and none of the rest grows faster than linearly. What is told is
        believed here before it was tried; where it proved wrong this is the dearest that a counted pass suggests.
        """
        if self.regular is False:
            return max(self._attention_bounds(size)) + max(self._rest_bounds(size))
        attention, rest = self.parts(size)
        most = min(self._attention_bounds(size)) if attention is None else attention
        return most + (min((*self._rest_bounds(size), *self._rest_lines(size))) if rest is None else rest)

    def _attention_bounds(self, size: Size) -> Iterator[float]:
        """Bounds of attention, by single counted passes."""
        rows, _, length = size
        for (of, _, long), flops in self.counted.items():
            yield flops.attention * times(rows, of) * times(length, long) ** 2

    def _rest_bounds(self, size: Size) -> Iterator[float]:
        """Bounds of what is not attention, by single counted passes."""
        rows, width, length = size
        for (of, wide, long), flops in self.counted.items():
            yield flops.rest * times(rows, of) * max(times(length, long), times(width, wide))

    def _rest_lines(self, size: Size) -> Iterator[float]:
        """The same by pairs of counted passes that differ in length alone."""
        rows, width, length = size
        for (first, a), (second, b) in pairwise(sorted(self.counted.items())):
            (of, wide, short), (_, _, long) = first, second
            if first[:2] == second[:2] and width <= wide:
                token = (b.rest - a.rest) / (long - short) / of
                # what does not grow with the length: how much of it is a row's and how much the weights' is not known
                yield (a.rest - token * of * short) * times(rows, of) + token * rows * length


class Book:
    """FLOPs by shape, `(*kind, rows, tokens the head reads, padded length)`."""

    def __init__(self) -> None:
        self.kinds: dict[tuple[Any, ...], Kind] = {}
        self._told: dict[tuple[Any, ...], Flops] = {}

    def add(self, shape: tuple[Any, ...], flops: Flops) -> None:
        """Note a counted shape."""
        self.kinds.setdefault(shape[:-3], Kind()).add(shape[-3:], flops)
        self._told[shape] = flops

    def get(self, shape: tuple[Any, ...]) -> Flops | None:
        """FLOPs of a shape, as counted or as counted ones give them; None: count it.

        The first shape of a kind that others tell is counted all the same. Where it is not what they tell, as in layers
        that read in chunks of a certain length, all shapes of the kind are counted.
        """
        found, kind = self._told.get(shape), self.kinds.get(shape[:-3])
        if found is None and kind is not None and kind.regular:
            attention, rest = kind.parts(shape[-3:])
            if attention is not None and rest is not None:
                found = self._told[shape] = Flops(attention + rest, attention)
        return found

    def most(self, shape: tuple[Any, ...]) -> float | None:
        """FLOPs of a shape, or an upper bound; None where nothing of its kind was counted."""
        found = self.get(shape)
        if found is not None:
            return float(found.total)
        kind = self.kinds.get(shape[:-3])
        return None if kind is None else kind.most(shape[-3:])


def times(asked: int, counted: int) -> float:
    """By how much one number passes another, at least 1."""
    if asked <= counted:
        return 1.0
    return asked / counted if counted else math.inf
