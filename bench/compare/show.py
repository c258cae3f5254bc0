"""A comparison as a reader wants it: a table, JSON, or Markdown for a pull request."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from bench.compare.finding import Finding, relative, shown
from bench.compare.speed import as_json as pace_json
from bench.compare.whole import Comparison
from bench.report.format import count, plain

MOST = 40
"""Rows of a kind that are shown; JSON holds all."""
HEADINGS = ("cell", "figure", "base", "new", "change", "why")
TITLES = {"regression": "worse", "improvement": "better", "told": "told, decides nothing"}


def row(one: Finding) -> tuple[str, ...]:
    """A finding as cells of a table."""
    figure = one.figure if one.gate != "definition" else f"definition: {one.figure}"
    change = relative(one.before, one.after).strip(" ()") or "-"
    return tuple(map(plain, (one.cell, figure, shown(one.before), shown(one.after), change, one.says)))


def tables(found: Comparison) -> list[Table]:
    """One table for each kind of finding there is, and one for the speed of pairs."""
    made = []
    for kind, title in TITLES.items():
        findings = found.of(kind)
        if not findings:
            continue
        table = Table(title=f"{title}: {len(findings)}", title_justify="left")
        for heading in HEADINGS:
            table.add_column(heading, overflow="fold")
        for one in findings[:MOST]:
            table.add_row(*row(one))
        made.append(table)
    if found.paced:
        table = Table(title="speed, new over base", title_justify="left")
        for heading in ("cell", "figure", "ratio", "95% bound", "floor", "p (Holm)", "slower"):
            table.add_column(heading, overflow="fold")
        for speed in speeds(found):
            table.add_row(*speed)
        made.append(table)
    return made


def speeds(found: Comparison) -> list[tuple[str, ...]]:
    """Rows of the table of speed, the slowest first."""
    slowest = sorted(found.paced, key=lambda one: -one.ratio)
    return [
        (plain(one.cell), one.figure, *(f"x{value:.3f}" for value in (one.ratio, one.low, one.floor)),
         f"{one.adjusted:.3f}", "YES" if one.slower else "no")
        for one in slowest[:MOST]
    ]  # fmt: skip


def lines(found: Comparison) -> list[str]:
    """What stands below the tables; the verdict is the last."""
    cut = [
        f"{TITLES[kind]}: {len(found.of(kind)) - MOST} more (--json has all)" for kind in TITLES
        if len(found.of(kind)) > MOST
    ]  # fmt: skip
    speed = [one.says() for one in found.spread]
    return [*cut, *found.remarks, *speed, *([found.speed] if found.speed else []), found.verdict()]


def as_json(found: Comparison) -> dict[str, Any]:
    """All of it."""
    return {
        "base": found.base,
        "new": found.new,
        "cells": found.cells,
        "ok": found.code == 0,
        "verdict": found.verdict(),
        "regressions": [vars(one) for one in found.of("regression")],
        "improvements": [vars(one) for one in found.of("improvement")],
        "told": [vars(one) for one in found.of("told")],
        "remarks": found.remarks,
        "speed": {"says": found.speed, "pairs": [pace_json(one) for one in found.paced],
                  "runs": [vars(one) for one in found.spread]},
    }  # fmt: skip


def markdown(found: Comparison) -> str:
    """For a pull request: the verdict first, what got worse in full sight, the rest folded."""
    mark = "❌" if found.code else "✅"
    parts = [
        f"## {mark} {escaped(found.verdict())}",
        "",
        f"{quoted(found.base)} → {quoted(found.new)}, {count(found.cells, 'cell')}.",
    ]
    for kind, title in TITLES.items():
        findings = found.of(kind)
        if findings:
            body = grid(HEADINGS, [row(one) for one in findings[:MOST]])
            if len(findings) > MOST:
                body += f"\n\n{len(findings) - MOST} more in the JSON."
            parts += ["", *folded(f"{title}: {len(findings)}", body, kind == "regression")]
    if found.paced:
        heads = ("cell", "figure", "ratio", "95% bound", "floor", "p (Holm)", "slower")
        parts += ["", *folded("speed, new over base", grid(heads, speeds(found)), False)]
    parts += ["", *(f"- {escaped(line)}" for line in [*found.remarks, *(one.says() for one in found.spread)])]
    if found.speed:
        parts.append(f"- {escaped(found.speed)}")
    return "\n".join(parts).rstrip() + "\n"


def folded(title: str, body: str, is_open: bool) -> list[str]:
    """A part with a heading, open or folded."""
    if is_open:
        return [f"### {title}", "", body]
    return [f"<details><summary>{title}</summary>", "", body, "", "</details>"]


def grid(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table of Markdown."""
    made = [f"| {' | '.join(heads)} |", f"|{' :--- |' * len(heads)}"]
    return "\n".join([*made, *(f"| {' | '.join(escaped(part) for part in one)} |" for one in rows)])


def quoted(text: str) -> str:
    """A name in back quotes, which hold anything but back quotes."""
    return f"`{plain(text).replace('`', chr(39))}`"


def escaped(text: str) -> str:
    """Text that a table of Markdown takes as it is: records hold names that others chose."""
    cut = plain(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")
    return cut.replace("`", "\\`")
