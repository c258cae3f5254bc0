"""The page as GitHub-flavoured Markdown: the same tables and sentences, without figures."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bench.report.breakeven import break_even_table
from bench.report.curve import curve_table
from bench.report.format import plain
from bench.report.page import NONE_DECIDES, Page, Section
from bench.report.planted import control_table
from bench.report.tables import Entry, Table

SPECIAL = re.compile(r"[\\`*\[\]|~$#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def escape(text: object) -> str:
    """Text that Markdown shows as it stands: one line, no markup, no HTML, no link, no cell border."""
    line = " ".join(plain(text).split())
    line = SPECIAL.sub(lambda match: f"\\{match.group()}", line.replace("&", "&amp;"))
    line = line.replace("<", "&lt;").replace(">", "&gt;").replace("://", ":&#47;&#47;").replace("@", "&#64;")
    return re.sub(r"(?i)\bwww\.", "www&#46;", line)


def to_markdown(page: Page) -> str:
    """The page as Markdown, ending with a newline."""
    lines = [*_opening(page), *_answers(page), *_boards(page), *_beliefs(page)]
    if page.break_evens:
        lines += ["", "## When tuning is cheaper"]
        for view in page.break_evens:
            lines += ["", f"**{escape(view.title)}.** {escape(' '.join(view.sentences))}"]
            lines += _table(break_even_table(view))
    lines += ["", "## Tasks", *_tables(table for section in page.sections for table in section.tasks)]
    if page.tunings:
        lines += ["", "## Tuning", *_tables(page.tunings)]
    lines += _comparisons(page.sections)
    if page.engines:
        lines += ["", "## Another library's loop", *_table(page.engines)]
    lines += ["", "## Failures", *(_table(page.failures) if page.failures else ["", "None."])]
    lines += _measured(page)
    lines += ["", "## How to read this", ""]
    lines += [f"- **{escape(term)}**: {escape(meaning)}" for term, meaning in page.reading]
    return "\n".join(lines) + "\n"


def _opening(page: Page) -> list[str]:
    """What was run, on what, and how far it is."""
    lines = [f"# {escape(page.run)}", "", escape(page.compared)]
    if page.description:
        lines += ["", escape(page.description)]
    if page.sample:
        lines += ["", f"**{escape(page.sample)}**"]
    lines += ["", " · ".join(escape(words) for _, words in page.status)]
    for remark in page.remarks:
        lines += ["", escape(remark)]
    return lines


def _answers(page: Page) -> list[str]:
    """What to use: by curve, then by board."""
    lines = ["", "## The answer"]
    for curve in page.curves:
        lines += ["", f"**{escape(curve.title)}.** {escape(' '.join(curve.sentences))}"]
    if page.sections and not page.answered:
        lines += ["", escape(NONE_DECIDES)]
    for section in page.answered:
        title = f"**{escape(section.board.title)}.** " if len(page.answered) > 1 else ""
        lines += ["", f"{title}{escape(section.answer.use)} {escape(section.answer.caveat)}"]
    return lines


def _boards(page: Page) -> list[str]:
    """Curves as tables, claims, judges and leaderboards."""
    lines: list[str] = []
    if page.curves:
        lines += ["", f"## How many {escape(page.curves[0].across)}", *_tables(map(curve_table, page.curves))]
    if page.literature:
        lines += ["", "## What the literature says", *_table(page.literature)]
    if page.judges:
        lines += ["", "## Who judged", *_tables(page.judges)]
    lines += ["", "## Leaderboard", *_tables(section.table for section in page.sections)]
    return [*lines, "", "The figures, score against memory and against time, are in the HTML page."]


def _measured(page: Page) -> list[str]:
    """Facts of the run, what ended its cells, and what was foretold."""
    lines = ["", "## How it was measured", ""]
    lines += [f"- {escape(fact.name)}: {'; '.join(escape(value) for value in fact.values)}" for fact in page.facts]
    return [*lines, *_tables(table for table in (page.ended, page.foretold) if table and table.rows)]


def _beliefs(page: Page) -> list[str]:
    """Questions and answers for each task, the tables behind them, and the planted controls."""
    lines = ["", "## Can I believe it?"]
    for belief in (belief for section in page.sections for belief in section.beliefs):
        lines += ["", f"### {escape(belief.title)}", ""]
        lines += [f"- **{escape(question)}** {escape(' '.join(told))}" for question, told in belief.answers]
        tables = [*([belief.formats.table] if belief.formats else []), *belief.tables]
        lines += _tables([*tables, *map(control_table, belief.controls)], "####")
    return lines


def _comparisons(sections: list[Section]) -> list[str]:
    lines = ["", "## Comparisons"]
    for section in sections:
        for note in section.pair_notes:
            lines += ["", escape(note)]
        lines += _tables(section.pairs)
    return lines if len(lines) > 2 else [*lines, "", "No two strategies can be compared yet."]


def _tables(tables: Iterable[Table], level: str = "###") -> list[str]:
    """One after the other."""
    return [line for table in tables for line in _table(table, level)]


def _table(table: Table, level: str = "###") -> list[str]:
    """A heading, the table and its notes. Every row has as many cells as the head."""
    heads = [escape(f"{column.name} ({column.unit})" if column.unit else column.name) for column in table.columns]
    lines = [
        "",
        f"{level} {escape(table.caption)}",
        "",
        f"| {' | '.join(heads)} |",
        f"| {' | '.join('---:' if column.numeric else ':---' for column in table.columns)} |",
    ]
    for i, row in enumerate(table.rows):
        cells = [_cell(entry) for entry in row]
        if i == table.strong:
            cells[0] = f"**{cells[0]}**"
        lines.append(f"| {' | '.join(cells)} |")
    for note in table.notes:
        lines += ["", escape(note)]
    return lines


def _cell(entry: Entry) -> str:
    parts = [entry.text, entry.sub if entry.sub.startswith("[") else f"({entry.sub})" if entry.sub else ""]
    return escape(" ".join([*filter(None, parts), *(words for _, words in entry.badges)])) or " "
