"""The figure of a curve: a line a strategy, label counts or rungs at equal steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import altair as alt
import vl_convert

from bench.report import format as show
from bench.report.chart import COLOURS, style, y_range
from bench.report.curve import Curve, Line
from bench.report.figures import Figure, clean

DASHES = {False: [1, 0], True: [4, 3]}
"""A control is dashed."""


def line_classes(curve: Curve) -> dict[str, str]:
    """Strategy -> class of its colour; beyond seven they repeat."""
    return {line.strategy: f"c{1 + i % 7}" for i, line in enumerate(curve.lines)}


def curve_figure(curve: Curve, key: str) -> Figure | None:
    """The figure in two widths; None where no point has a score. `key` makes its ids unique."""
    drawn = [line for line in curve.lines if line.complete]
    if not drawn:
        return None
    title = f"{curve.title[0].upper()}{curve.title[1:]}"
    words = "; ".join(f"{line.strategy} {_said(line)}" for line in drawn)
    wide, narrow = (
        clean(draw(curve, drawn, size), f"{key}-{kind}")
        for kind, size in (("wide", (560, 320)), ("narrow", (282, 290)))
    )
    note = f"A strategy that more {curve.across} cannot change is drawn across. Bars are 95% intervals over test items."
    return Figure(title, wide, narrow, f"{title}. {words}", note)


def _said(line: Line) -> str:
    return ", ".join(f"{show.score(score.value)} with {labels}" for labels, score in line.complete.items())


def draw(curve: Curve, lines: Iterable[Line], size: tuple[int, int]) -> str:
    """SVG text: intervals, lines and points; what reads no label as a rule across; chance dashed."""
    classes = line_classes(curve)
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        counts = curve.counts if len(line.points) == 1 else list(line.complete)
        for labels in counts:
            score = line.complete[min(line.complete)] if len(line.points) == 1 else line.complete[labels]
            rows.append(_row(curve, line, labels, score, COLOURS[classes[line.strategy]], number))
    low, high = y_range([row["low"] for row in rows] + [row["high"] for row in rows], curve.chance or 0.0)
    names = [show.compact(n) for n in curve.counts]
    x = alt.X(
        "at:Q",
        title=curve.across,
        scale=alt.Scale(domain=[-0.4, len(curve.counts) - 0.6], nice=False),
        axis=alt.Axis(values=list(range(len(names))), labelExpr=f"{names}[datum.value]"),
    )
    y = alt.Y(
        "y:Q",
        title=curve.metric,
        scale=alt.Scale(domain=[low, high], nice=False, zero=False),
        axis=alt.Axis(format=".2f", tickCount=6),
    )
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, color=alt.Color("colour:N", scale=None))
    dash = alt.StrokeDash("dash:N", scale=alt.Scale(domain=[False, True], range=list(DASHES.values())), legend=None)
    measured = base.transform_filter("datum.measured")
    layers: list[alt.Chart] = []
    if curve.chance is not None and low <= curve.chance <= high:
        data = alt.Data(values=[{"y": curve.chance}])
        layers.append(alt.Chart(data).mark_rule(color=COLOURS["chance"], strokeDash=[5, 4], aria=False).encode(y=y))
    layers += [
        base.mark_line(strokeWidth=1.6, aria=False).encode(y=y, detail="strategy:N", strokeDash=dash),
        measured.mark_rule(strokeWidth=1.3, opacity=0.45, aria=False).encode(
            x=x.copy(deep=True), y=alt.Y("low:Q", title=curve.metric), y2="high:Q"
        ),
        measured.mark_point(filled=True, size=46, opacity=1, aria=False).encode(y=y),
    ]
    chart = alt.layer(*layers).properties(width=size[0], height=size[1], padding=6).configure(**style())
    return str(vl_convert.vegalite_to_svg(chart.to_dict()))


def _row(curve: Curve, line: Line, labels: int, score: Any, colour: str, number: int) -> dict[str, Any]:
    """One point; points of one label count stand a little apart so that their bars can be told."""
    apart = (number - len(curve.lines) / 2) * 0.05
    measured = labels in line.points
    return {
        "at": curve.counts.index(labels) + (apart if measured else 0),
        "y": score.value,
        "low": score.low if score.low is not None else score.value,
        "high": score.high if score.high is not None else score.value,
        "strategy": line.strategy,
        "colour": colour,
        "dash": line.control,
        "measured": measured,
    }
