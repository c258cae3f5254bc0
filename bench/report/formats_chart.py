"""The figure of prompt formats: a row a strategy, a dot a format, quartiles as a box, the median as its middle line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from bench.report import format as show
from bench.report.chart import COLOURS, plain, style, y_range
from bench.report.figures import Figure, clean
from bench.stats.spread import spread

ROW = {"wide": 54, "narrow": 60}
"""Pixels a strategy's row takes: its name, then its dots and box."""
WIDTH = {"wide": 560, "narrow": 282}
LANES = (0.0, 0.11, -0.11)
"""Dots of a row stand in lanes, so that equal scores can be told: offsets from its middle, rows being 1 apart."""


@dataclass(frozen=True)
class Dot:
    """A strategy's score in one prompt format."""

    value: float
    trained_on: bool
    """Drawn full, as are those of a strategy that trains on none; hollow where it never trained on the format."""
    degenerate: bool
    """Drawn as a cross: every item got the same label."""


@dataclass(frozen=True)
class FormatRow:
    """A strategy over formats."""

    strategy: str
    colour: str
    """Class of its colour: `c1` to `c7`."""
    dots: list[Dot]


def formats_figure(rows: Sequence[FormatRow], title: str, chance: float | None, key: str) -> Figure | None:
    """The figure in two widths; None where no row has a dot. `title` names what is drawn, e.g. `sst2: accuracy in ten
    prompt formats`; the axis takes what stands before ` in `. `key` makes its ids unique."""
    drawn = [row for row in rows if row.dots]
    if not drawn:
        return None
    wide, narrow = (clean(draw(drawn, chance, title, kind), f"{key}-{kind}") for kind in ("wide", "narrow"))
    words = "; ".join(_said(row) for row in drawn)
    dots = [dot for row in drawn for dot in row.dots]
    notes = ["A dot is a format, the box its quartiles with the median."]
    if not all(dot.trained_on for dot in dots):
        notes.append("Hollow: never trained on.")
    if any(dot.degenerate for dot in dots):
        notes.append("A cross: every item got the same label in some seed.")
    return Figure(title, wide, narrow, f"{title}. {words}", " ".join(notes))


def _said(row: FormatRow) -> str:
    found = spread([dot.value for dot in row.dots])
    assert found is not None
    ends = f"{show.score(found.low)} to {show.score(found.high)}"
    return f"{plain(row.strategy)} median {show.score(found.median)}, {ends}"


def draw(rows: Sequence[FormatRow], chance: float | None, title: str, kind: str) -> str:
    """SVG text: boxes below, then dots, names above each row; chance dashed."""
    low, high = y_range([dot.value for row in rows for dot in row.dots], chance or 0.0)
    scale = alt.Scale(domain=[low, high], nice=False, zero=False)
    axis = alt.Axis(format=".2f", tickCount=6)
    x = alt.X("x:Q", title=title.partition(" in ")[0].rpartition(": ")[2], scale=scale, axis=axis)
    y = alt.Y("y:Q", title=None, axis=None, scale=alt.Scale(domain=[len(rows) - 0.5, -0.62], nice=False))
    colour = alt.Color("colour:N", scale=None)
    layers: list[Any] = []
    if chance is not None and low <= chance <= high:
        line = alt.Chart(alt.Data(values=[{"x": chance, "y": len(rows) - 0.7}]))
        text = line.mark_text(color=COLOURS["chance"], align="left", dx=4, fontSize=11, aria=False)
        layers.append(line.mark_rule(color=COLOURS["chance"], strokeDash=[5, 4], aria=False).encode(x=x))
        layers.append(text.encode(x=_x("x"), y=y, text=alt.value("chance")))
    boxes = alt.Chart(alt.Data(values=[_box(row, at) for at, row in enumerate(rows)]))
    layers += [
        boxes.mark_rect(opacity=0.16, aria=False).encode(x=_x("q1"), x2="q3:Q", y=y, y2="bottom:Q", color=colour),
        boxes.mark_rule(strokeWidth=2.2, aria=False).encode(x=_x("median"), y=y, y2="bottom:Q", color=colour),
        *_dots(rows, y),
        boxes.mark_text(align="left", baseline="middle", fontSize=12, color=COLOURS["ink"], aria=False).encode(
            x=alt.value(0), y=alt.Y("top:Q"), text="name:N"
        ),
    ]
    height = max(110, ROW[kind] * len(rows))
    chart = alt.layer(*layers).properties(width=WIDTH[kind], height=height, padding=6).configure(**style())
    return str(vl_convert.vegalite_to_svg(chart.to_dict()))


def _x(name: str) -> alt.X:
    """On the layer's shared scale, without a title of its own."""
    return alt.X(f"{name}:Q", title="")


def _box(row: FormatRow, at: int) -> dict[str, Any]:
    found = spread([dot.value for dot in row.dots])
    assert found is not None
    quartiles = {"q1": found.q1, "median": found.median, "q3": found.q3}
    ends = {"y": at - 0.2, "bottom": at + 0.2, "top": at - 0.4}
    return {**quartiles, **ends, "name": plain(row.strategy), "colour": COLOURS[row.colour]}


def _dots(rows: Sequence[FormatRow], y: alt.Y) -> list[alt.Chart]:
    """Full, hollow and crossed ones."""
    values = [
        {
            "x": dot.value,
            "y": at + LANES[number % len(LANES)],
            "colour": COLOURS[row.colour],
            "kind": "cross" if dot.degenerate else "full" if dot.trained_on else "hollow",
        }
        for at, row in enumerate(rows)
        for number, dot in enumerate(sorted(row.dots, key=lambda d: d.value))
    ]
    marks: dict[str, dict[str, Any]] = {
        "full": {"filled": True, "size": 38},
        "hollow": {"filled": False, "size": 34, "strokeWidth": 1.5},
        "cross": {"shape": "M-1,-1L1,1M-1,1L1,-1", "filled": False, "size": 70, "strokeWidth": 1.7},
    }
    charts = []
    for name, look in marks.items():
        chosen = [value for value in values if value["kind"] == name]
        if chosen:
            data = alt.Chart(alt.Data(values=chosen)).mark_point(opacity=1, aria=False, **look)
            charts.append(data.encode(x=_x("x"), y=y, color=alt.Color("colour:N", scale=None)))
    return charts
