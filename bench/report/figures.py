"""Score against memory and time as static inline SVG: altair through vl-convert, then made fit for a strict page.

Colours are written twice: as presentation attributes (light) and as a class each, which the page's style sheet
sets for light and dark. So one SVG serves both and nothing needs an inline style, which the page's policy forbids.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass

from bench.report import format as show
from bench.report.chart import COLOURS, FLOOR, MOST_LABELS, Point, draw, plain, y_domain_of
from bench.report.summary import Board, Row

CROWD = 12
"""Beyond this many points some may stay without a label, and the figure says so."""
SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Figure:
    """A figure in two widths, and what it says for those who do not see it."""

    title: str
    wide: str
    narrow: str
    alt: str
    note: str


def family_classes(rows: Iterable[Row]) -> dict[str, str]:
    """Family -> class, in order of appearance over all leaderboards of a page: a family keeps its colour."""
    families = dict.fromkeys(row.family for row in rows)
    return {family: f"c{1 + i % 7}" for i, family in enumerate(families)}


def figures(board: Board, pick: Row | None, colours: dict[str, str], key: str) -> list[Figure]:
    """The two figures of a leaderboard; fewer where nothing was measured. `key` makes their ids unique."""
    found = []
    kinds = {row.memory.kind for row in board.ranked if row.memory}
    memory = {row.strategy: row.memory.size / show.GIB for row in board.ranked if row.memory}
    if len(kinds) == 1:
        found.append(
            _figure(board, pick, colours, memory, f"{key}-memory", "peak memory", f"peak memory, GiB ({kinds.pop()})")
        )
    time = {row.strategy: max(row.adapt_seconds, FLOOR) for row in board.ranked if row.adapt_seconds is not None}
    found.append(
        _figure(board, pick, colours, time, f"{key}-time", "training time", "training, seconds a task (median)")
    )
    return [figure for figure in found if figure is not None]


def _figure(
    board: Board, pick: Row | None, colours: dict[str, str], xs: dict[str, float], key: str, what: str, axis: str
) -> Figure | None:
    points = [
        Point(
            row.strategy,
            xs[row.strategy],
            row.mean,
            row.low if row.low is not None else row.mean,
            row.high if row.high is not None else row.mean,
            colours[row.family],
            row is pick,
        )
        for row in board.ranked
        if row.mean is not None and xs.get(row.strategy, 0) > 0
    ]
    if not points:
        return None
    name = board.mean_name
    title = f"{name[0].upper()}{name[1:]} against {what}"
    notes = ["Labels where there is room; the leaderboard names every point."] if len(points) > CROWD else []
    low, high = y_domain_of(points, board.mean_chance)
    if not low <= board.mean_chance <= high:
        notes.append(
            f"Chance, {show.score(board.mean_chance)}, lies {'below' if board.mean_chance < low else 'above'} "
            "this picture."
        )
    words = "; ".join(f"{plain(p.name)} {show.score(p.y)} at {p.x:.3g}" for p in points[:MOST_LABELS])
    wide, narrow = (
        clean(draw(points, board.mean_chance, axis, name, size), f"{key}-{kind}")
        for kind, size in (("wide", (470, 300)), ("narrow", (282, 290)))
    )
    return Figure(title, wide, narrow, f"{title}. {words}", " ".join(notes))


def clean(svg: str, key: str) -> str:
    """A chart's SVG for a page with a strict policy.

    Drops namespaces (nothing on the page may name a network address), inline styles, accessibility marks of parts
    (the figure as a whole is labelled) and empty paths; prefixes ids; gives every known colour its class.
    """
    root = ET.fromstring(svg)
    by_colour = {colour: name for name, colour in COLOURS.items()}
    for element in root.iter():
        element.tag = element.tag.replace(SVG, "")
        classes = []
        for name in list(element.attrib):
            value = element.attrib[name]
            if name.startswith(("aria-", "{")) or name in ("style", "class", "role", "pointer-events", "version"):
                del element.attrib[name]
            elif name == "id":
                element.attrib[name] = f"{key}-{value}"
            elif "url(#" in value:
                element.attrib[name] = value.replace("url(#", f"url(#{key}-")
            elif name in ("fill", "stroke") and value in by_colour:
                classes.append(f"{name[0]}-{by_colour[value]}")
        if classes:
            element.attrib["class"] = " ".join(classes)
    _drop_empty(root)
    root.attrib.update({"aria-hidden": "true", "focusable": "false"})
    return ET.tostring(root, encoding="unicode")


def _drop_empty(element: ET.Element) -> None:
    """Remove what draws nothing: paths without ink and groups without children."""
    for child in list(element):
        _drop_empty(child)
        hidden = child.get("display") == "none" or (child.tag == "path" and not {"fill", "stroke"} & set(child.attrib))
        if hidden or (child.tag == "g" and len(child) == 0) or (child.tag == "text" and not child.text):
            element.remove(child)
