"""Where a figure's labels go so that none lies on a point, an interval bar or another label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels; y grows downwards."""
RINGS = (11, 20, 32, 46, 62, 80, 100)
"""Distances in pixels at which a label is tried; beyond the first a line leads to its point."""


@dataclass(frozen=True)
class Spot:
    """A point with its bar: pixels from the plot's left and top."""

    x: float
    y: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Placed:
    """A label's left edge and middle, and whether a line should lead to its point."""

    x: float
    y: float
    leader: bool


def place(
    spots: Sequence[Spot],
    widths: Sequence[float],
    size: tuple[float, float],
    blocked: Sequence[Box] = (),
    height: float = 14,
) -> list[Placed | None]:
    """Greedy placement (after Christensen, Marks & Shieber 1995, section 3.1): each label takes the cheapest of
    the positions on growing rings around its point, the first point's label first, then those of crowded points.
    A label that would lie on another is left out: None. `widths` are in pixels; `blocked` are places where something
    else is written.
    """
    solid = [(spot.x - 6, spot.y - 6, spot.x + 6, spot.y + 6) for spot in spots]
    bars = [(spot.x - 2, spot.top, spot.x + 2, spot.bottom) for spot in spots]
    crowd = [sum(abs(a.x - b.x) < 80 and abs(a.y - b.y) < 30 for b in spots) for a in spots]
    placed: dict[int, tuple[Placed, Box]] = {}
    for i in sorted(range(len(spots)), key=lambda i: (i > 0, -crowd[i])):
        taken = [*blocked, *(box for _, box in placed.values())]
        best = min(
            (_candidate(spots[i], widths[i], height, ring, angle) for ring in RINGS for angle in range(0, 360, 20)),
            key=lambda option: _cost(option, spots[i], size, solid, bars, taken),
        )
        if not any(_touch(best[1], other) for other in taken):
            placed[i] = best
    return [placed[i][0] if i in placed else None for i in range(len(spots))]


def _candidate(spot: Spot, width: float, height: float, ring: float, angle: int) -> tuple[Placed, Box]:
    """The label whose nearest edge lies on the ring in that direction."""
    dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    x = spot.x + ring * dx + (0 if dx > 0.3 else -width if dx < -0.3 else -width / 2)
    y = spot.y + ring * dy
    return Placed(x, y, ring > RINGS[0]), (x - 2, y - height / 2, x + width + 2, y + height / 2)


def _cost(
    option: tuple[Placed, Box],
    spot: Spot,
    size: tuple[float, float],
    solid: list[Box],
    bars: list[Box],
    taken: list[Box],
) -> float:
    label, box = option
    outside = max(0.0, -box[0]) + max(0.0, box[2] - size[0]) + max(0.0, -box[1]) + max(0.0, box[3] - size[1])
    middle = (box[0] + box[2]) / 2
    nearest = min(max(spot.x, box[0]), box[2])
    away = math.hypot(nearest - spot.x, label.y - spot.y)
    return (
        1000 * outside
        + 400 * sum(_touch(box, other) for other in taken)
        + 150 * sum(_touch(box, other) for other in solid)
        + 60 * sum(_touch(box, other) for other in bars)
        + away
        + (0 if middle >= spot.x else 4)
        + 0.2 * abs(label.y - spot.y)
    )


def _touch(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
