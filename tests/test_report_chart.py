"""Where the figures' points and labels really are: read back from the SVG."""

from __future__ import annotations

import re

import pytest

from bench.report.chart import Point, draw

PLACE = re.compile(r'<(path|text)[^>]*transform="translate\(([-\d.e]+),([-\d.e]+)\)"[^>]*>([^<]*)')
WIDTH, HEIGHT = 530, 340


def places(points: list[Point]) -> tuple[list[tuple[float, float]], dict[str, tuple[float, float]]]:
    """Pixels of the points, in their order, and of the labels by name."""
    found = PLACE.findall(draw(points, 0.5, "memory", "accuracy", (WIDTH, HEIGHT)))
    marks = [(float(x), float(y)) for kind, x, y, _ in found if kind == "path"]
    return marks, {text: (float(x), float(y)) for kind, x, y, text in found if kind == "text"}


@pytest.mark.parametrize(
    "xs", [[1.11], [10.5], [1.1, 2.0, 2.2, 2.7, 3.6], [0.1, 39.0, 80.0]], ids=["one", "ten", "linear", "logarithmic"]
)
def test_a_label_lies_beside_its_point(xs: list[float]) -> None:
    """Not on it, not beyond the plot: the layout and the drawing must mean the same axis."""
    points = [
        Point(f"name{i}", x, 0.6 + 0.04 * i, 0.5 + 0.04 * i, 0.7 + 0.04 * i, "c1", i == 0) for i, x in enumerate(xs)
    ]
    marks, labels = places(points)
    assert len(marks) == len(points)
    for point, (x, y) in zip(points, marks, strict=True):
        left, middle = labels[point.name]
        width = 6.4 * len(point.name)
        assert 0 <= x <= WIDTH and left >= 0 and left + width <= WIDTH + 1
        beside = left >= x + 6 or left + width <= x - 6
        assert beside or abs(middle - y) >= 10, f"{point.name} lies on its point"
