"""Figures of what methods watched while they trained: a small chart a number, a line a strategy, its seeds together."""

from __future__ import annotations

import statistics
from typing import Any

import altair as alt
import vl_convert

from bench.report.chart import COLOURS, plain, style
from bench.report.figures import Figure, clean
from bench.report.summary import Board

POINTS = 60
"""Most points of a line: of more steps, means of even parts."""
FEWEST = 3
"""Steps below which a number is no curve."""


def watched_figures(board: Board, key: str) -> list[Figure]:
    """One figure a task and watched number. `key` makes ids unique on the page."""
    found = []
    for task in board.tasks:
        for number, (name, lines) in enumerate(curves(board, task).items()):
            title = f"{task}: {name}"
            wide, narrow = (
                clean(draw(name, lines, size), f"{key}-{task}-watched{number}-{kind}")
                for kind, size in (("wide", (560, 220)), ("narrow", (282, 220)))
            )
            ends = "; ".join(f"{strategy} ends at {line[-1][1]:.2f}" for strategy, line in lines.items())
            found.append(Figure(title, wide, narrow, f"{title}. {ends}", "Mean over seeds, by share of its own stage."))
    return found


def curves(board: Board, task: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Watched number -> strategy -> (share of its stage, mean over seeds) in order."""
    told: dict[str, dict[str, list[list[float]]]] = {}
    for row in board.rows:
        for cell in row.scores[task].cells:
            training = cell.result.training if cell.result is not None else None
            for name, values in (training.told if training is not None else {}).items():
                if len(values) >= FEWEST:
                    told.setdefault(name, {}).setdefault(row.strategy, []).append(values)
    return {name: {strategy: _line(seeds) for strategy, seeds in of.items()} for name, of in told.items()}


def _line(seeds: list[list[float]]) -> list[tuple[float, float]]:
    """Even parts of the stage, each the mean of its steps and of the seeds."""
    parts = min(POINTS, min(map(len, seeds)))
    line = []
    for i in range(parts):
        means = []
        for values in seeds:
            low, high = i * len(values) // parts, (i + 1) * len(values) // parts
            means.append(statistics.fmean(values[low:high]))
        line.append(((i + 0.5) / parts, statistics.fmean(means)))
    return line


def draw(name: str, lines: dict[str, list[tuple[float, float]]], size: tuple[int, int]) -> str:
    """SVG text: the lines, each named at its end."""
    colours = {strategy: COLOURS[f"c{1 + i % 7}"] for i, strategy in enumerate(lines)}
    rows: list[dict[str, Any]] = [
        {"x": 100 * x, "y": y, "strategy": strategy, "colour": colours[strategy]}
        for strategy, line in lines.items()
        for x, y in line
    ]
    ends = [
        {"x": 100.0, "y": line[-1][1], "name": plain(strategy, 14), "colour": colours[strategy]}
        for strategy, line in lines.items()
    ]
    x = alt.X("x:Q", title="% of the stage", scale=alt.Scale(domain=[0, 128], nice=False), axis=alt.Axis(
        values=[0, 25, 50, 75, 100]))  # fmt: skip
    y = alt.Y("y:Q", title=name, axis=alt.Axis(tickCount=5), scale=alt.Scale(zero=True))
    colour = alt.Color("colour:N", scale=None)
    drawn = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=1.6, aria=False)
    named = alt.Chart(alt.Data(values=ends)).mark_text(align="left", dx=3, fontSize=10, aria=False)
    chart = alt.layer(
        drawn.encode(x=x, y=y, color=colour, detail="strategy:N"),
        named.encode(x=x.copy(deep=True), y=y.copy(deep=True), text="name:N", color=colour),
    )
    chart = chart.properties(width=size[0], height=size[1], padding=6).configure(**style())
    return str(vl_convert.vegalite_to_svg(chart.to_dict()))
