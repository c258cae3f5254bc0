"""The page as one HTML file: no network, no inline style, one script (sorting) that nothing depends on."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from bench.report.belief import Belief
from bench.report.breakeven import BreakEven, break_even_table
from bench.report.breakeven_chart import break_even_figures
from bench.report.breakeven_chart import line_classes as cost_classes
from bench.report.curve import Curve, curve_table
from bench.report.curve_chart import curve_figure, line_classes
from bench.report.figures import Figure, family_classes, figures
from bench.report.format import plain
from bench.report.formats_chart import formats_figure
from bench.report.page import Page, Section
from bench.report.planted import Control, control_table
from bench.report.power_chart import power_figure
from bench.report.tables import Table
from bench.report.watched_chart import watched_figures

TEMPLATES = Path(__file__).parent / "templates"
MOST_FIGURES = 12
"""Leaderboards that get figures; a page of a hundred would be all figures."""


@dataclass(frozen=True)
class Drawn:
    """A section with its figures and the legend of its families."""

    section: Section
    figures: list[Figure]
    legend: dict[str, str]


@dataclass(frozen=True)
class DrawnCurve:
    """A curve with its figure, the legend of its lines and its table."""

    curve: Curve
    figure: Figure | None
    legend: dict[str, str]
    table: Table


@dataclass(frozen=True)
class DrawnBreakEven:
    """A break-even view with its figures, the legend of its lines and its table."""

    view: BreakEven
    figures: list[Figure]
    legend: dict[str, str]
    table: Table


@dataclass(frozen=True)
class DrawnBelief:
    """What a task can be believed for, with its figures: formats, and a planted leak for each strategy that has one."""

    belief: Belief
    formats: Figure | None
    controls: list[tuple[Control, Figure | None]]


def to_html(page: Page) -> str:
    """The page as HTML. Every string of a record passes autoescape; only our own style, script and SVG do not."""
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "sort.js"))
    colours = family_classes(row for section in page.sections for row in section.board.rows)
    drawn = [_drawn(section, colours, f"f{i}", i < MOST_FIGURES) for i, section in enumerate(page.sections)]
    lines = [
        DrawnCurve(curve, curve_figure(curve, f"l{i}"), line_classes(curve), curve_table(curve))
        for i, curve in enumerate(page.curves)
    ]
    costs = [
        DrawnBreakEven(
            view,
            break_even_figures(view, f"b{i}") if i < MOST_FIGURES else [],
            cost_classes(view),
            break_even_table(view),
        )
        for i, view in enumerate(page.break_evens)
    ]
    template = environment().get_template("report.html.jinja")
    return template.render(
        page=page,
        drawn=drawn,
        curves=lines,
        costs=costs,
        beliefs=[_believed(b, f"t{i}-{j}") for i, s in enumerate(page.sections) for j, b in enumerate(s.beliefs)],
        style=Markup(style),
        script=Markup(script),
        policy=policy(style, script),
    )


def _drawn(section: Section, colours: dict[str, str], key: str, wanted: bool) -> Drawn:
    legend = {row.family: colours[row.family] for row in section.board.ranked}
    drawn = figures(section.board, section.answer.pick, colours, key) if wanted else []
    return Drawn(section, [*drawn, *(watched_figures(section.board, key) if wanted else [])], legend)


def _believed(belief: Belief, key: str) -> DrawnBelief:
    view = belief.formats
    figure = None if view is None else formats_figure(view.rows, view.title, view.chance, f"{key}-formats")
    controls = [(one, power_figure(one, f"{key}-power{i}")) for i, one in enumerate(belief.controls)]
    return DrawnBelief(belief, figure, controls)


def environment() -> Environment:
    """Jinja with autoescape on and every printed string made printable first."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    env.filters["svg"] = Markup
    env.filters["control_table"] = control_table
    env.filters["breaking"] = breaking
    return env


def breaking(name: str) -> Markup:
    """A name that may be broken after its underscores, so that a narrow column does not break it within a word."""
    return escape(plain(name)).replace("_", Markup("_<wbr>"))


def _printable(value: Any) -> Any:
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy: nothing is loaded; only this style and this script count (CSP level 3, 2.3.1)."""
    return (
        f"default-src 'none'; style-src 'sha256-{_hash(style)}'; script-src 'sha256-{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
