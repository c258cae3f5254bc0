"""One chart, drawn by altair and vl-convert: points with interval bars, direct labels, chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from bench.report import format as show
from bench.report.labels import Spot, place
from bench.report.tables import near

COLOURS = {
    "ink": "#1c2126",
    "soft": "#5a636d",
    "rule": "#e2e1db",
    "chance": "#8f8a80",
    "paper": "#fffefb",
    "c1": "#2660a4",
    "c2": "#b4550a",
    "c3": "#2e7d4f",
    "c4": "#7b4fa0",
    "c5": "#b2383f",
    "c6": "#197a86",
    "c7": "#6a6e76",
}
"""Class -> its light colour. `c1`..`c7` are strategy families in order of appearance."""
MOST_LABELS = 24
"""Points with a label, best first; fewer where there is no room."""
ROOM = 62
"""Pixels kept free on the right, so that the outermost point's label fits beside it."""
FLOOR = 0.1
"""Seconds below which a training time is drawn at the edge: prompting trains for no time at all."""


@dataclass(frozen=True)
class Point:
    """One strategy: x in GiB or seconds, y with its interval, class of its colour."""

    name: str
    x: float
    y: float
    low: float
    high: float
    colour: str
    pick: bool


def plain(name: str, most: int = 22) -> str:
    """A label: printable and short."""
    text = show.plain(name)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def draw(points: list[Point], chance: float, x_title: str, y_title: str, size: tuple[int, int]) -> str:
    """SVG text of one chart; x is logarithmic where it spans a decade."""
    xs = [p.x for p in points]
    log = max(xs) / min(xs) >= 10
    x_domain, y_domain = _x_domain(xs, log, size[0]), y_domain_of(points, chance)
    seen = y_domain[0] <= chance <= y_domain[1]
    scale = Frame(x_domain, y_domain, log, size)
    x = alt.X(
        "x:Q",
        title=x_title,
        scale=alt.Scale(domain=x_domain, type="log" if log else "linear", nice=False),
        axis=_x_axis(x_domain, log, min(xs)),
    )
    y = alt.Y(
        "y:Q",
        title=y_title,
        scale=alt.Scale(domain=y_domain, nice=False, zero=False),
        axis=alt.Axis(format=".2f", tickCount=6),
    )
    data = [{"x": p.x, "y": p.y, "low": p.low, "high": p.high, "colour": COLOURS[p.colour]} for p in points]
    base = alt.Chart(alt.Data(values=data)).encode(x=x, color=alt.Color("colour:N", scale=None))
    layers = [
        *(_chance(chance, scale) if seen else []),
        base.mark_rule(strokeWidth=1.5, opacity=0.55, aria=False).encode(y=alt.Y("low:Q", title=y_title), y2="high:Q"),
        base.mark_point(filled=True, size=58, opacity=1, stroke=COLOURS["paper"], strokeWidth=1.2, aria=False).encode(
            y=y
        ),
        *_labels(points, scale, chance if seen else None),
    ]
    chart = alt.layer(*layers).properties(width=size[0], height=size[1], padding=6).configure(**style())
    spec: dict[str, Any] = chart.to_dict()
    return str(vl_convert.vegalite_to_svg(spec))


@dataclass(frozen=True)
class Frame:
    """From data to pixels of the plot and back."""

    x: list[float]
    y: list[float]
    log: bool
    size: tuple[int, int]

    def to(self, x: float, y: float) -> tuple[float, float]:
        """Pixels from the left and the top."""
        low, high, at = (math.log(v) if self.log else v for v in (*self.x, x))
        return (
            (at - low) / (high - low) * self.size[0],
            (1 - (y - self.y[0]) / (self.y[1] - self.y[0])) * self.size[1],
        )

    def back(self, left: float, top: float) -> tuple[float, float]:
        """Data at a pixel."""
        low, high = (math.log(v) if self.log else v for v in self.x)
        at = low + left / self.size[0] * (high - low)
        return math.exp(at) if self.log else at, self.y[0] + (1 - top / self.size[1]) * (self.y[1] - self.y[0])


def _x_domain(xs: list[float], log: bool, width: int) -> list[float]:
    low, high = min(xs), max(xs)
    if log:
        right = ROOM / (width - ROOM - 0.07 * width)
        return [low / (high / low) ** 0.07, high * (high / low) ** right]
    return [0.0, high * width / (width - ROOM)]  # a linear axis starts at zero, whatever domain it is given


def y_domain_of(points: list[Point], chance: float) -> list[float]:
    """The range of the y axis: all intervals, and chance where it lies near."""
    return y_range([end for p in points for end in (p.low, p.high)], chance)


def y_range(ends: list[float], chance: float) -> list[float]:
    """A range that holds all ends of intervals, and chance where it lies near."""
    low, high = min(ends), max(ends)
    if near(chance, low, high):
        low, high = min(low, chance), max(high, chance)
    room = max((high - low) * 0.06, 0.004)
    return [low - room, high + room]


def _x_axis(domain: list[float], log: bool, low: float) -> alt.Axis:
    if not log:
        return alt.Axis(format="~r", tickCount=6)
    first, last = math.floor(math.log10(domain[0])), math.ceil(math.log10(domain[1]))
    steps = (1, 2, 5) if domain[1] / domain[0] < 200 else (1,)
    ticks = [m * 10.0**e for e in range(first, last + 1) for m in steps if domain[0] <= m * 10.0**e <= domain[1]]
    # a tick at the edge where untrained strategies are drawn says that they may need less
    label = (
        f"(datum.value <= {low * 1.001} && {str(low == FLOOR).lower()} ? '≤ ' : '') + "
        "format(datum.value, datum.value < 1000 ? '~r' : ',.0f')"
    )
    return alt.Axis(values=ticks, labelExpr=label)


def _chance(chance: float, scale: Frame) -> list[alt.Chart]:
    at, _ = scale.back(scale.size[0] - 2, 0)
    data = alt.Data(values=[{"y": chance, "x": at}])
    line = alt.Chart(data).mark_rule(color=COLOURS["chance"], strokeDash=[5, 4], aria=False).encode(y="y:Q")
    text = (
        alt.Chart(data)
        .mark_text(color=COLOURS["chance"], align="right", dy=-7, fontSize=11, aria=False)
        .encode(x="x:Q", y="y:Q", text=alt.value("chance"))
    )
    return [line, text]


def _labels(points: list[Point], scale: Frame, chance: float | None) -> list[alt.Chart]:
    named = points[:MOST_LABELS]
    names = [plain(p.name) for p in named]
    spots = []
    for p in named:
        left, top = scale.to(p.x, p.y)
        spots.append(Spot(left, top, scale.to(p.x, p.high)[1], scale.to(p.x, p.low)[1]))
    line = scale.to(points[0].x, chance)[1] if chance is not None else 0.0
    blocked = [(scale.size[0] - 48.0, line - 15, float(scale.size[0]), line + 2)] if chance is not None else []
    places = place(spots, [6.9 * len(name) + 2 for name in names], scale.size, blocked)
    rows, leaders = [], []
    for p, spot, name, label in zip(named, spots, names, places, strict=True):
        if label is None:
            continue
        x, y = scale.back(label.x, label.y)
        rows.append({"x": x, "y": y, "name": name, "pick": p.pick, "colour": COLOURS[p.colour]})
        if label.leader:
            width = 6.4 * len(name)
            near = min(max(spot.x, label.x), label.x + width)
            to = scale.back(near, label.y + (7 if label.y < spot.y - 7 else -7 if label.y > spot.y + 7 else 0))
            leaders.append({"x": p.x, "y": p.y, "x2": to[0], "y2": to[1]})
    layers = []
    if leaders:
        layers.append(
            alt.Chart(alt.Data(values=leaders))
            .mark_rule(color=COLOURS["soft"], strokeWidth=0.7, aria=False)
            .encode(x="x:Q", y="y:Q", x2="x2:Q", y2="y2:Q")
        )
    for pick in (False, True):
        if chosen := [row for row in rows if row["pick"] is pick]:
            layers.append(
                alt.Chart(alt.Data(values=chosen))
                .mark_text(align="left", baseline="middle", fontSize=12, fontWeight=700 if pick else 400, aria=False)
                .encode(x="x:Q", y="y:Q", text="name:N", color=alt.Color("colour:N", scale=None))
            )
    return layers


def style() -> dict[str, Any]:
    """The look of every chart."""
    axis = {
        "labelColor": COLOURS["soft"],
        "titleColor": COLOURS["soft"],
        "gridColor": COLOURS["rule"],
        "domainColor": COLOURS["rule"],
        "tickColor": COLOURS["rule"],
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": 400,
        "titlePadding": 8,
        "labelFlush": False,
        "aria": False,
    }
    return {
        "background": "transparent",
        "font": "sans-serif",
        "axis": axis,
        "axisX": {"grid": False},
        "view": {"stroke": None},
    }
