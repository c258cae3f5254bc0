"""Numbers and text as a reader sees them. Absent is `not measured`, whatever the unit."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Sequence

ABSENT = "not measured"
GIB = 1024**3
INSTANT = 0.095
"""Seconds below which a time is shown as next to none, and times are alike."""


def plain(text: object) -> str:
    """Text without control, direction-changing and unpaired characters: each becomes a space or U+FFFD.

    Records hold text of others; what reorders or hides a line on screen has no place in a table.
    """
    raw = str(text)
    if raw.isprintable():
        return raw
    return "".join(_shown(char) for char in raw)


def _shown(char: str) -> str:
    if char in "\n\r\t\v\f\u2028\u2029\x85":
        return " "
    return "\ufffd" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn") else char


def finite(number: float | None) -> float | None:
    """The number as a float, or None where it is absent, NaN or infinite."""
    if number is None:
        return None
    try:
        value = float(number)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def score(value: float | None) -> str:
    """A score with three decimals."""
    number = finite(value)
    return ABSENT if number is None else f"{number:.3f}".replace("-0.000", "0.000")


def signed(change: float) -> str:
    """A change of a score with its sign and three decimals."""
    return f"{change:+.3f}"


def interval(low: float | None, high: float | None) -> str:
    """A 95% interval, `[0.890, 0.930]`; where there is none, the words."""
    if finite(low) is None or finite(high) is None:
        return "interval not measured"
    return f"[{score(low)}, {score(high)}]"


def stored(size: float | None) -> str:
    """Bytes on disk in the unit they are read in: an adapter is kilobytes to megabytes, where GiB would say nothing."""
    if size is None:
        return gib(None)
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.3g} {unit}" if size < 1000 * scale else f"{size / scale:.0f} {unit}"
    return f"{size:.0f} B"


def gib(size: float | None) -> str:
    """Bytes as GiB with three significant digits."""
    number = finite(size)
    if number is None:
        return ABSENT
    value = number / GIB
    if 0 < value < 0.001:
        return "< 0.001 GiB"
    return f"{value:.0f} GiB" if value >= 100 or value == 0 else f"{value:.{2 - min(2, _order(value))}f} GiB"


def seconds(value: float | None) -> str:
    """Seconds as `0.04 s`, `3.4 s`, `41 s`, `12.3 min` or `2.5 h`."""
    number = finite(value)
    if number is None:
        return ABSENT
    if number < INSTANT:
        return "0 s" if number == 0 else "< 0.1 s"
    if number < 9.95:
        return f"{number:.1f} s"
    if number < 599.5:
        return f"{number:.0f} s"
    return f"{number / 60:.1f} min" if number < 7200 else f"{number / 3600:,.1f} h"


def large(value: float | None, unit: str = "") -> str:
    """A count with a decimal prefix and three significant digits: `2.44 M`, `4.10 T`."""
    number = finite(value)
    if number is None:
        return ABSENT
    for scale, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= scale * 0.9995:
            part = number / scale
            return f"{part:.{2 - min(2, _order(part))}f} {prefix}{unit}"
    return f"{number:.0f} {unit}".rstrip()


def rate(value: float | None) -> str:
    """Tokens per second, with thousands apart."""
    number = finite(value)
    if number is None:
        return ABSENT
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def p_value(value: float) -> str:
    """A p-value with three decimals, never `0.000`."""
    return "< 0.001" if value < 0.0005 else f"{value:.3f}"


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 cell`, `3 cells`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def compact(number: int) -> str:
    """`2048`, and from a million on `4.1e+12`."""
    return str(number) if abs(number) < 10**6 else f"{number:.2g}"


def listed(names: Sequence[str], most: int = 6) -> str:
    """`a, b and c`, and beyond `most` names `a, b and 7 more`."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _order(value: float) -> int:
    """Power of ten of a positive number as it prints with three digits (9.996 counts as 10)."""
    return math.floor(math.log10(abs(value) * 1.0005)) if value else 0


def text(value: object) -> str:
    """Any recorded value as one short line."""
    line = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return line if len(line) <= 300 else f"{line[:300]}…"
