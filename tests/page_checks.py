"""Whether a rendered page is well-formed HTML or sound Markdown."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Wellformed(HTMLParser):
    """Fails on a tag closed that was not open; collects what a page would load, run or style."""

    VOID = ("meta", "br", "wbr", "img", "link", "hr", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.ids: list[str | None] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open[-4:])
        self.open.pop()


def check_markdown(text: str) -> int:
    """Every table has a rule and rows as wide as its head; returns the number of tables."""
    tables = [block.split("\n") for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)]
    for lines in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines if line}
        assert len(widths) == 1, lines[:3]
        assert re.fullmatch(r"\|( (---:|:---) \|)+", lines[1])
    return len(tables)
