"""The figure of a planted leak: the p-value of membership in every split, by dose."""

from __future__ import annotations

import math

import altair as alt
import vl_convert

from bench.report import format as show
from bench.report.chart import COLOURS, style
from bench.report.figures import Figure, clean
from bench.report.planted import STRICT, Control

LEAST = 1e-4
"""p-values below are drawn here: 10,000 permutations give no smaller one."""


def power_figure(control: Control, key: str) -> Figure | None:
    """The figure in two widths; None where no split has a p-value. `key` makes its ids unique."""
    points = [(s.dose, max(p, LEAST), s.seed) for s in control.splits if (p := s.p("membership")) is not None]
    if len({dose for dose, _, _ in points}) < 2:
        return None
    title = f"When membership sees a planted leak: {control.title}"
    words = "; ".join(
        f"dose {dose}: p {', '.join(show.p_value(p) for d, p, _ in points if d == dose)}" for dose in control.doses
    )
    wide, narrow = (
        clean(draw(points, control.doses, size), f"{key}-{kind}")
        for kind, size in (("wide", (470, 250)), ("narrow", (282, 230)))
    )
    note = "A dot is one random split of test items and controls; lower is surer. The dashed line is p = 0.01."
    return Figure(title, wide, narrow, f"{title}. {words}", note)


def draw(points: list[tuple[int, float, int]], doses: list[int], size: tuple[int, int]) -> str:
    """SVG text: dots at equal steps of dose on a logarithmic p axis, their median as a tick, p = 0.01 dashed."""
    by_dose = [[p for d, p, _ in points if d == dose] for dose in doses]
    # splits of one dose stand a little apart, so that each can be seen
    data = [
        {"at": at + 0.07 * (i - (len(of) - 1) / 2), "p": p} for at, of in enumerate(by_dose) for i, p in enumerate(of)
    ]
    names = ["clean", *map(str, doses[1:])] if doses[0] == 0 else [str(dose) for dose in doses]
    x = alt.X(
        "at:Q",
        title="times trained on the test items",
        scale=alt.Scale(domain=[-0.5, len(doses) - 0.5], nice=False),
        axis=alt.Axis(values=list(range(len(doses))), labelExpr=f"{names}[datum.value]"),
    )
    y = alt.Y(
        "p:Q",
        title="p of membership",
        scale=alt.Scale(type="log", domain=[LEAST / 1.6, 1.3], nice=False, clamp=True),
        axis=alt.Axis(values=[1e-4, 1e-3, 1e-2, 1e-1, 1], labelExpr="datum.value <= 0.0001 ? '≤ 0.0001' : datum.label"),
    )
    rule = alt.Chart(alt.Data(values=[{"p": STRICT}])).mark_rule(color=COLOURS["chance"], strokeDash=[5, 4], aria=False)
    base = alt.Chart(alt.Data(values=data))
    steps = [{"p": _middle(of), "low": at - 0.26, "high": at + 0.26} for at, of in enumerate(by_dose) if of]
    middle = alt.Chart(alt.Data(values=steps)).mark_rule(color=COLOURS["c1"], strokeWidth=2, aria=False)
    layers = [
        rule.encode(y=y),
        middle.encode(x=alt.X("low:Q"), x2="high:Q", y=y.copy(deep=True)),
        base.mark_point(filled=True, size=44, opacity=0.85, color=COLOURS["c2"], aria=False).encode(x=x, y=y),
    ]
    chart = alt.layer(*layers).properties(width=size[0], height=size[1], padding=6).configure(**style())
    return str(vl_convert.vegalite_to_svg(chart.to_dict()))


def _middle(values: list[float]) -> float:
    """The median on the logarithmic scale."""
    logs = sorted(math.log(value) for value in values)
    half = len(logs) // 2
    return math.exp(logs[half] if len(logs) % 2 else (logs[half - 1] + logs[half]) / 2)
