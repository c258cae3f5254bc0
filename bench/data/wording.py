"""The end of a fault that names something which is not there: what is, and the nearest of it."""

from __future__ import annotations

from collections.abc import Sequence

from bench.errors import nearest

SHOWN = 8


def listing(there: Sequence[str], wanted: str | None = None) -> str:
    """`a, b`, cut after SHOWN names; and `; did you mean 'a'?` where one of them is close to `wanted`."""
    text = ", ".join(there[:SHOWN]) or "none"
    if len(there) > SHOWN:
        text += f" and {len(there) - SHOWN} more"
    return text + did_you_mean(wanted, there)


def did_you_mean(wanted: object, there: Sequence[str]) -> str:
    """`; did you mean '<nearest>'?`, or nothing where `wanted` is no string or nothing comes close."""
    close = nearest(wanted, there) if isinstance(wanted, str) else None
    return f"; did you mean '{close}'?" if close else ""
