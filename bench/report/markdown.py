"""The page as GitHub-flavoured Markdown: the same tables and sentences, without figures."""

from __future__ import annotations

import re

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
    lines = [f"# {escape(page.run)}", "", escape(page.compared)]
    if page.description:
        lines += ["", escape(page.description)]
    if page.sample:
        lines += ["", f"**{escape(page.sample)}**"]
    lines += ["", " · ".join(escape(words) for _, words in page.status)]
    for remark in page.remarks:
        lines += ["", escape(remark)]
    lines += ["", "## The answer"]
    for curve in page.curves:
        lines += ["", f"**{escape(curve.title)}.** {escape(' '.join(curve.sentences))}"]
    if page.sections and not page.answered:
        lines += ["", escape(NONE_DECIDES)]
    for section in page.answered:
        title = f"**{escape(section.board.title)}.** " if len(page.answered) > 1 else ""
        lines += ["", f"{title}{escape(section.answer.use)} {escape(section.answer.caveat)}"]
    if page.curves:
        lines += ["", f"## How many {escape(page.curves[0].across)}"]
        for curve in page.curves:
            lines += _table(curve_table(curve))
    if page.literature:
        lines += ["", "## What the literature says", *_table(page.literature)]
    if page.judges:
        lines += ["", "## Who judged", *(line for table in page.judges for line in _table(table))]
    lines += ["", "## Leaderboard"]
    for section in page.sections:
        lines += _table(section.table)
    lines += ["", "The figures, score against memory and against time, are in the HTML page."]
    lines += _beliefs(page)
    if page.break_evens:
        lines += ["", "## When tuning is cheaper"]
        for view in page.break_evens:
            lines += ["", f"**{escape(view.title)}.** {escape(' '.join(view.sentences))}"]
            lines += _table(break_even_table(view))
    lines += ["", "## Tasks"]
    for section in page.sections:
        for table in section.tasks:
            lines += _table(table)
    if page.tunings:
        lines += ["", "## Tuning", *(line for table in page.tunings for line in _table(table))]
    lines += _comparisons(page.sections)
    if page.engines:
        lines += ["", "## Another library's loop", *_table(page.engines)]
    lines += ["", "## Failures", *(_table(page.failures) if page.failures else ["", "None."])]
    lines += ["", "## How it was measured", ""]
    lines += [f"- {escape(fact.name)}: {'; '.join(escape(value) for value in fact.values)}" for fact in page.facts]
    if page.ended.rows:
        lines += _table(page.ended)
    if page.foretold:
        lines += _table(page.foretold)
    lines += ["", "## How to read this", ""]
    lines += [f"- **{escape(term)}**: {escape(meaning)}" for term, meaning in page.reading]
    return "\n".join(lines) + "\n"


def _beliefs(page: Page) -> list[str]:
    """Questions and answers for each task, the tables behind them, and the planted controls."""
    lines = ["", "## Can I believe it?"]
    for belief in (belief for section in page.sections for belief in section.beliefs):
        lines += ["", f"### {escape(belief.title)}", ""]
        lines += [f"- **{escape(question)}** {escape(' '.join(told))}" for question, told in belief.answers]
        tables = [*([belief.formats.table] if belief.formats else []), *belief.tables]
        lines += [line for table in tables for line in _table(table, "####")]
        lines += [line for one in belief.controls for line in _table(control_table(one), "####")]
    return lines


def _comparisons(sections: list[Section]) -> list[str]:
    lines = ["", "## Comparisons"]
    for section in sections:
        for note in section.pair_notes:
            lines += ["", escape(note)]
        for table in section.pairs:
            lines += _table(table)
    return lines if len(lines) > 2 else [*lines, "", "No two strategies can be compared yet."]


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
