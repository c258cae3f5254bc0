"""The figures of a break-even view: total cost against the number of answers, both logarithmic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import altair as alt
import vl_convert

from bench.report import format as show
from bench.report.breakeven import BreakEven, Cost, Crossing, Setting, by_flops, by_seconds
from bench.report.chart import COLOURS, style
from bench.report.figures import Figure, clean

MOST_TUNED, MOST_PROMPTED = 5, 2
"""Lines drawn, best scores first; the table has them all."""
LEAST_ANSWERS, MOST_ANSWERS = 1e4, 1e8
"""The axis ends at the power of ten above the last crossing, within these."""
DASHES = {False: [1, 0], True: [4, 3]}
"""Prompting is dashed."""
UNITS = {"flops": "FLOPs", "seconds": "seconds"}


def drawn(view: BreakEven) -> list[Setting]:
    """The settings that get a line: the best of prompting and the best-scoring of each tuned strategy."""
    return [*view.references[:MOST_PROMPTED], *view.best[:MOST_TUNED]]


def line_classes(view: BreakEven) -> dict[str, str]:
    """Name of a drawn setting -> class of its colour."""
    return {one.name: f"c{1 + i % 7}" for i, one in enumerate(drawn(view))}


def break_even_figures(view: BreakEven, key: str) -> list[Figure]:
    """FLOPs and seconds, each in two widths; only what was measured. `key` makes their ids unique."""
    figures = (_figure(view, measure, f"{key}-{measure}") for measure in UNITS)
    return [figure for figure in figures if figure is not None]


def _figure(view: BreakEven, measure: str, key: str) -> Figure | None:
    known = [(one, cost) for one in drawn(view) if (cost := getattr(one, measure)) is not None]
    # a damaged record may say anything, and what is not above 0 has no place on a logarithmic axis
    lines = [
        (one, c) for one, c in known if min(c.training, c.answer) >= 0 < c.total(1) and c.total(MOST_ANSWERS) < math.inf
    ]
    if len({one.prompting for one, _ in lines}) < 2:
        return None
    marks = crossings(lines, by_flops if measure == "flops" else by_seconds)
    last = max((at for at, _ in marks), default=1.0)
    end = min(MOST_ANSWERS, max(LEAST_ANSWERS, 10.0 ** math.ceil(math.log10(last) + 0.2)))
    title = f"Total {UNITS[measure]} against the number of answers"
    words = "; ".join(f"{one.name} {cost.training:.3g} + {cost.answer:.3g} an answer" for one, cost in lines)
    wide, narrow = (
        clean(draw(view, lines, marks, end, UNITS[measure], size), f"{key}-{kind}")
        for kind, size in (("wide", (470, 300)), ("narrow", (282, 290)))
    )
    exact = "Counted, so exact." if measure == "flops" else "Medians over seeds; wall time of this machine."
    left = len(view.best) - sum(not one.prompting for one, _ in lines)
    notes = [
        exact,
        "Prompting is dashed, dots are crossings.",
        f"{show.count(left, 'strategy', 'strategies')} more in the table." * bool(left),
    ]
    return Figure(title, wide, narrow, f"{title}. {words}", " ".join(filter(None, notes)))


def crossings(
    lines: list[tuple[Setting, Cost]], meet: Callable[[Setting, Setting], Crossing | None]
) -> list[tuple[float, float]]:
    """(answers, total cost) where a tuned line falls below a prompted one."""
    found = []
    for one, cost in lines:
        for other, _ in lines:
            met = None if one.prompting or not other.prompting else meet(one, other)
            if met is not None and met.kind == "from" and 1 < met.at <= MOST_ANSWERS:
                found.append((met.at, cost.total(met.at)))
    return found


def draw(
    view: BreakEven,
    lines: list[tuple[Setting, Cost]],
    marks: list[tuple[float, float]],
    end: float,
    unit: str,
    size: tuple[int, int],
) -> str:
    """SVG text. On logarithmic axes a line is flat while training prevails and rises once answers do."""
    classes = line_classes(view)
    steps = [10 ** (math.log10(end) * i / 60) for i in range(61)]
    rows: list[dict[str, Any]] = [
        {"k": k, "cost": cost.total(k), "name": one.name, "colour": COLOURS[classes[one.name]], "dash": one.prompting}
        for one, cost in lines
        for k in steps
    ]
    powers = [10**e for e in range(round(math.log10(end)) + 1)]
    x = alt.X(
        "k:Q",
        title="answers",
        scale=alt.Scale(type="log", domain=[1, end], nice=False),
        axis=alt.Axis(values=powers, format="~s"),
    )
    costs = [row["cost"] for row in rows]
    low, high = math.floor(math.log10(min(costs))), math.ceil(math.log10(max(costs)))
    y = alt.Y(
        "cost:Q",
        title=f"{unit}, training and answers",
        scale=alt.Scale(type="log", domain=[10.0**low, 10.0**high], nice=False),
        axis=alt.Axis(values=[10.0**e for e in range(low, high + 1)], format=",~f" if unit == "seconds" else "~s"),
    )
    dash = alt.StrokeDash("dash:N", scale=alt.Scale(domain=[False, True], range=list(DASHES.values())), legend=None)
    colour = alt.Color("colour:N", scale=None)
    layers = [
        alt.Chart(alt.Data(values=rows))
        .mark_line(strokeWidth=1.6, aria=False)
        .encode(x=x, y=y, color=colour, detail="name:N", strokeDash=dash)
    ]
    if marks:
        layers.append(
            alt.Chart(alt.Data(values=[{"k": k, "cost": cost} for k, cost in marks]))
            .mark_point(filled=True, size=34, opacity=1, color=COLOURS["ink"], aria=False)
            .encode(x="k:Q", y="cost:Q")
        )
    chart = alt.layer(*layers).properties(width=size[0], height=size[1], padding=6).configure(**style())
    return str(vl_convert.vegalite_to_svg(chart.to_dict()))
