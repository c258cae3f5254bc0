"""What a comparison found: one sentence a figure, and whether it holds the gate shut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["regression", "improvement", "told"]


@dataclass(frozen=True)
class Finding:
    """One figure of one cell that is not as it was."""

    kind: Kind
    """`regression` ends with exit code 1; `told` decides nothing."""
    gate: str
    """`outcome`, `count`, `score`, `answers`, `labels`, `speed` or `definition`."""
    cell: str
    figure: str
    before: Any
    after: Any
    says: str = ""
    """What else there is to know, in words."""

    def line(self) -> str:
        """`regression: <cell>: <figure> 3 -> 4 (+33.3%): <words>`."""
        change = relative(self.before, self.after)
        words = f": {self.says}" if self.says else ""
        return f"{self.kind}: {self.cell}: {self.figure} {shown(self.before)} -> {shown(self.after)}{change}{words}"


def shown(value: Any) -> str:
    """A figure as a reader compares it: counts to the last digit, anything else short."""
    if value is None:
        return "not measured"
    if isinstance(value, float):
        return f"{int(value):,}" if value.is_integer() and abs(value) < 1e15 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def relative(before: Any, after: Any) -> str:
    """` (+33.3%)`; nothing where either is no number or the first is 0."""
    if not all(isinstance(one, int | float) for one in (before, after)) or not before:
        return ""
    return f" ({after / before - 1:+.2%})"
