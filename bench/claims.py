"""Statements of the literature about memory, beside what cells are predicted to need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.cards import card_named, verdict
from bench.config.schema import Claim

GB = 10**9
TOLERANCE = 0.08
"""A prediction's own error: so far outside of the range a statement gives, it still holds."""


@dataclass(frozen=True)
class Tested:
    """A claim with what was predicted for its cell."""

    name: str
    claim: Claim
    peak: int | None
    holds: bool | None
    """None: not predicted, or too close to say."""

    @property
    def expected(self) -> str:
        """What the statement expects, in words."""
        if self.claim.gigabytes is not None:
            low, high = self.claim.gigabytes
            return f"{low:g} to {high:g} GB"
        return f"fits {self.claim.fits}"


def examined(claims: Mapping[str, Claim], peaks: Mapping[tuple[str, str], int | None]) -> list[Tested]:
    """Every claim whose cell is among `peaks`, (task, strategy) -> predicted bytes. Raises `UserFault` for a card that
    does not exist."""
    found = []
    for name, claim in claims.items():
        if (claim.task, claim.strategy) in peaks:
            peak = peaks[claim.task, claim.strategy]
            found.append(Tested(name, claim, peak, None if peak is None else holds(claim, peak)))
    return found


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
            open_ones = ", ".join(row.claim.task for row in own if row.holds is None)
            found[says] = f"open for {open_ones}" + (f"; holds when {', '.join(yes)}" if yes else "")
        else:
            found[says] = (
                "holds" if len(yes) == len(own) else f"holds when {', '.join(yes)}" if yes else "does not hold"
            )
    return found
