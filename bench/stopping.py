"""The stop rule `run.max_hours`: a run that ends in time and goes on with the same command."""

from __future__ import annotations

import time

LEFT = 75
"""Exit code of a run that stopped with orders left: EX_TEMPFAIL of sysexits.h, "try again later", which schedulers
can requeue on."""


class Stop:
    """Says when no further cell or probe may begin. The first of a run always may, so that every run gets on."""

    def __init__(self, hours: float | None) -> None:
        self.hours, self.begun = hours, time.monotonic()
        self.started = 0
        self.cells, self.probes = 0, 0
        """Left by the rule."""

    def begins(self) -> bool:
        """Whether one more may begin, which then counts as begun."""
        if self.over and self.started:
            return False
        self.started += 1
        return True

    @property
    def over(self) -> bool:
        """Whether the hours are."""
        return self.hours is not None and time.monotonic() - self.begun >= self.hours * 3600

    @property
    def stopped(self) -> bool:
        """Whether the rule left something."""
        return bool(self.cells or self.probes)

    def line(self, of_cells: int) -> str:
        """What is left, and how it goes on."""
        number, what = (self.cells, f" of {of_cells} cells") if self.cells else (self.probes, " probes")
        left = f"{number}{what if self.cells or number != 1 else ' probe'} {'is' if number == 1 else 'are'} left"
        return f"stopped by run.max_hours={self.hours:g}: {left}; the same command goes on from here"
