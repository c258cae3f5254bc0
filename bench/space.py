"""Which configurations a strategy may try: its published ranges, and draws from them. Imports no torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Log:
    """A positive number; every ratio is as likely as any other."""

    low: float
    high: float

    def at(self, share: float) -> float:
        """The value at this share (0..1) of the range, to three digits: what is shown is what ran."""
        value = self.low * (self.high / self.low) ** share
        return min(self.high, max(self.low, float(f"{value:.3g}")))

    def edge(self, value: float) -> str | None:
        """Which end of the range `value` lies at or beyond, within 2% of the range's logarithm."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return "lowest" if share <= 0.02 else "highest" if share >= 0.98 else None


@dataclass(frozen=True)
class Choice:
    """One of several values, each as likely as any other."""

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value at this share (0..1)."""
        return self.values[min(len(self.values) - 1, int(share * len(self.values)))]

    def edge(self, value: Any) -> str | None:
        """Choices have no ends."""
        return None


Space = Mapping[str, Log | Choice]


def around(rate: float) -> Log:
    """Half a decade to either side of a single published value."""
    return Log(float(f"{rate / math.sqrt(10):.2g}"), float(f"{rate * math.sqrt(10):.2g}"))


def draws(space: Space, default: Mapping[str, Any], n: int, seed: int) -> list[dict[str, Any]]:
    """At most `n` different configurations, the default first; fewer where the space has no more.

    The others are a Latin hypercube (McKay et al. 1979) over the space: each of n - 1 equal parts of every range is
    drawn from once. The shares drawn depend on `n` and `seed` only, so that strategies with one range each are tried
    at the same places of their ranges.
    """
    chosen = [{name: default[name] for name in space}]
    if not space:
        return chosen
    rng = np.random.default_rng([seed % 2**64, 0x7121A15])
    if all(isinstance(one, Choice) for one in space.values()):
        every = [dict(zip(space, v, strict=True)) for v in itertools.product(*(one.values for one in space.values()))]  # type: ignore[union-attr]
        others = [one for one in every if one != chosen[0]]
        return chosen + [others[i] for i in rng.permutation(len(others))[: n - 1]]
    parts = n - 1
    columns = {name: (rng.permutation(parts) + rng.random(parts)) / parts for name in space}
    for i in range(parts):
        one = {name: space[name].at(float(column[i])) for name, column in columns.items()}
        if one not in chosen:
            chosen.append(one)
    return chosen


def described(space: Space) -> dict[str, list[Any]]:
    """Name -> both ends of a range, or the values to choose from."""
    return {n: [one.low, one.high] if isinstance(one, Log) else list(one.values) for n, one in space.items()}
