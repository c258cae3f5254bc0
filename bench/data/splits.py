"""Names of splits and slices of them (`train`, `train[:80%]`, `validation[:200]`); no text is on both sides of one."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from bench.errors import UserFault

SPLIT = re.compile(r"(?P<base>[A-Za-z0-9_](?:[\w.\-]*\w)?)(?:\[(?P<low>[^:\[\]]*):(?P<high>[^:\[\]]*)\])?", re.ASCII)
EDGE = re.compile(r"\d+|\d+(?:\.\d+)?%", re.ASCII)
SYNTAX = "allowed: a split's name, or a slice like train[:80%], train[80%:], validation[:200], train[100:300]"


@dataclass(frozen=True)
class Slice:
    """A split, or the part of it between two edges (a count `200` or a share `80%`; None is the end).

    Edges count rows ordered by `text_key`, so a slice depends on the split's texts alone, never on a seed.
    """

    base: str
    low: str | None = None
    high: str | None = None

    @property
    def whole(self) -> bool:
        """Whether this is the split itself."""
        return self.low is None and self.high is None

    def meets(self, other: Slice, n: int = 1_000_000) -> bool:
        """Whether both hold a row, in a split of `n` rows: exact for shares, for counts where there are as many."""
        (low, high), (start, end) = self.bounds(n), other.bounds(n)
        return self.base == other.base and max(low, start) < min(high, end)

    def bounds(self, n: int) -> tuple[int, int]:
        """First position and the one after the last, in a split of `n` rows. Counts beyond the end stop at the end."""
        low = 0 if self.low is None else position(self.low, n)
        high = n if self.high is None else position(self.high, n)
        return low, high


def position(edge: str, n: int) -> int:
    """The edge as a position in 0..n; a share is rounded down, in exact arithmetic so that equal edges always meet."""
    if edge.endswith("%"):
        return int(n * Fraction(edge[:-1]) / 100)
    return min(int(edge), n)


def parse(text: str) -> Slice:
    """Read a split's name or a slice of one; UserFault with the allowed forms otherwise."""
    match = SPLIT.fullmatch(text.strip())
    if match is None or ".." in text:
        raise UserFault(f"cannot read the split '{text}'; {SYNTAX}")
    edges = []
    for edge in (match["low"], match["high"]):
        edge = (edge or "").strip()
        if edge and not EDGE.fullmatch(edge):
            raise UserFault(f"cannot read '{edge}' in the split '{text}'; {SYNTAX}")
        if edge.endswith("%") and Fraction(edge[:-1]) > 100:
            raise UserFault(f"the split '{text}' goes to {edge}; allowed: 0% to 100%")
        edges.append(edge or None)
    return Slice(match["base"], *edges)


def normalise(text: str) -> str:
    """The text as far as sameness goes: Unicode NFKC, case folded, white space collapsed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def text_key(fields: Mapping[str, str]) -> bytes:
    """SHA-256 of a row's normalised texts in the order of its fields: equal for rows that read the same.

    The separator counts as white space, so a normalised text cannot hold it and no two rows collide by shifting it.
    """
    return hashlib.sha256("\x1f".join(normalise(text) for text in fields.values()).encode()).digest()


def cut(keys: Sequence[bytes], low: int, high: int) -> list[int]:
    """Rows (in file order) whose place in hash order lies in low..high-1; rows with one text share the first place.

    So slices that meet at an edge are disjoint by text and together cover the split. Where a text repeats, a slice can
    hold a few rows more or fewer than its edges say.
    """
    chosen = []
    start, previous = 0, None
    for place, row in enumerate(sorted(range(len(keys)), key=lambda i: (keys[i], i))):
        if keys[row] != previous:
            start, previous = place, keys[row]
        if low <= start < high:
            chosen.append(row)
    return sorted(chosen)
