"""A figure of the harness about itself: what was measured, and the bounds it must lie in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One line of the self-test. It is in order where every value lies within the bounds, ends included."""

    name: str
    values: dict[str, float]
    """Setting in words -> what was measured there."""
    low: float | None = None
    """Least value allowed; None where the figure is only stated."""
    high: float | None = None
    """Largest value allowed."""
    share: bool = True
    """Whether values are shares, shown in per cent; else they are counts."""

    @property
    def ok(self) -> bool:
        """Whether something was measured and nothing lies out of bounds."""
        return bool(self.values) and not self.outside

    @property
    def outside(self) -> dict[str, float]:
        """What lies out of bounds; a value that is not finite always does."""
        return {where: v for where, v in self.values.items() if not math.isfinite(v) or not self._within(v)}

    def _within(self, v: float) -> bool:
        return (self.low is None or v >= self.low) and (self.high is None or v <= self.high)

    def measured(self) -> str:
        """The values as one short text: one, or the range of several."""
        if not self.values:
            return "nothing"
        ends = [self.text(end) for end in (min(self.values.values()), max(self.values.values()))]
        return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"

    def bounds(self) -> str:
        """The bounds as text."""
        if self.low is None and self.high is None:
            return "stated"
        if self.low is not None and self.high is not None:
            return f"{self.text(self.low)} to {self.text(self.high)}" if self.low < self.high else self.text(self.low)
        return f"at most {self.text(self.high)}" if self.high is not None else f"at least {self.text(self.low)}"

    def text(self, v: float | None) -> str:
        """A value as it is shown."""
        return "?" if v is None else f"{100 * v:.1f}%" if self.share else f"{v:.4g}"

    def as_json(self) -> dict[str, Any]:
        """The figure as plain data; a value that is not finite is None."""
        values = {where: v if math.isfinite(v) else None for where, v in self.values.items()}
        return {"name": self.name, "measured": values, "low": self.low, "high": self.high, "ok": self.ok}
