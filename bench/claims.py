"""Statements of the literature about memory, beside what cells are predicted to need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.cards import card_named, verdict
from bench.config.schema import Claim
from bench.records import CellInfo

GB = 10**9
CONDITIONS = ("model", "precision", "batch", "sequence", "foreach", "checkpointing")
"""What a claim may say of its cell, beside the cell's options."""
TOLERANCE = 0.08
"""A prediction's own error: so far outside of the range a statement gives, it still holds."""


@dataclass(frozen=True)
class Tested:
    """A claim with what was predicted for its cell."""

    name: str
    claim: Claim
    peak: int | None
    holds: bool | None
    """None: not predicted, too close to say, or of another cell than the claim is about."""
    unlike: str | None = None
    """What its cell computes with that the claim is not about; None: nothing."""

    @property
    def expected(self) -> str:
        """What the statement expects, in words."""
        if self.claim.gigabytes is not None:
            low, high = self.claim.gigabytes
            return f"{low:g} to {high:g} GB"
        return f"fits {self.claim.fits}"


def examined(
    claims: Mapping[str, Claim], peaks: Mapping[tuple[str, str], int | None], cells: Mapping[tuple[str, str], CellInfo]
) -> list[Tested]:
    """Every claim whose cell is among `cells`, (task, strategy) -> what was planned; `peaks`: its predicted bytes.
    Raises `UserFault` for a card that does not exist."""
    found = []
    for name, claim in claims.items():
        if (cell := cells.get((claim.task, claim.strategy))) is not None:
            peak, other = peaks[claim.task, claim.strategy], unlike(claim, cell)
            found.append(Tested(name, claim, peak, None if peak is None or other else holds(claim, peak), other))
    return found


def unlike(claim: Claim, cell: CellInfo) -> str | None:
    """In what a cell is not the one the claim is about, as after `precision=bf16`; None: in nothing the claim names."""
    about = {name: getattr(claim, name) for name in CONDITIONS} | claim.options
    has = cell.options | {name: getattr(cell, name) for name in CONDITIONS}
    names = [name for name, value in about.items() if value is not None and has.get(name) != value]
    if not names:
        return None
    here, there = (", ".join(f"{name}={said(values.get(name))}" for name in names) for values in (has, about))
    return f"the cell computes with {here}, the claim is about {there}"


def said(value: object) -> str:
    """A value as a command line gives it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def holds(claim: Claim, peak: int) -> bool | None:
    """Whether a predicted peak is what the claim expects."""
    if claim.gigabytes is not None:
        low, high = claim.gigabytes
        return low * (1 - TOLERANCE) <= peak / GB <= high * (1 + TOLERANCE)
    assert claim.fits is not None
    return verdict(peak, card_named(claim.fits).usable_bytes)[0]


def verdicts(rows: list[Tested]) -> dict[str, str]:
    """Statement -> `holds`, `holds when ...` (where only some of its cells show it), `does not hold` or `open`."""
    found: dict[str, str] = {}
    for says in dict.fromkeys(row.claim.says for row in rows):
        own = [row for row in rows if row.claim.says == says]
        yes = [row.claim.task for row in own if row.holds]
        if any(row.holds is None for row in own):
            open_ones = ", ".join(
                row.claim.task + (f" ({row.unlike})" if row.unlike else "") for row in own if row.holds is None
            )
            found[says] = f"open for {open_ones}" + (f"; holds when {', '.join(yes)}" if yes else "")
        else:
            found[says] = (
                "holds" if len(yes) == len(own) else f"holds when {', '.join(yes)}" if yes else "does not hold"
            )
    return found
