"""The one way a user's fault is told: a single line saying what is wrong, what was got, what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserFault(Exception):
    """Bad input. The command line prints it as one line without a traceback and exits with code 2.

    The message may quote files of others: what would steer a terminal or turn a line around is replaced by U+FFFD.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.split())
        super().__init__("".join(char if char.isprintable() else "\ufffd" for char in line))


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The allowed name most like `name`, or None where nothing comes close.

    A part of a longer name counts as close: `secnds` finds `train_seconds`.
    """
    best, best_score = None, 0.0
    for candidate in allowed:
        parts = [candidate, *candidate.replace("-", "_").split("_")]
        score = max(difflib.SequenceMatcher(None, name.lower(), part.lower()).ratio() for part in parts)
        whole = difflib.SequenceMatcher(None, name.lower(), candidate.lower()).ratio()
        if score + 0.01 * whole > best_score:
            best, best_score = candidate, score + 0.01 * whole
    return best if best_score >= (0.5 if len(name) < 4 else 0.6) else None  # of two letters one is half


def unknown(kind: str, name: str, allowed: Iterable[str]) -> UserFault:
    """The fault for a name that does not exist: `unknown <kind> '<name>'; did you mean '<nearest>'?`."""
    allowed = sorted(allowed)
    close = nearest(name, allowed)
    hint = f"did you mean '{close}'?" if close else "allowed: " + (", ".join(allowed) or "none")
    return UserFault(f"unknown {kind} '{name}'; {hint}")
