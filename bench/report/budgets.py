"""Budgets in words."""

from __future__ import annotations

from typing import Any

from bench.report import format as show

AXIS_WORDS = {
    "train_examples": "training examples",
    "train_tokens": "training tokens",
    "train_flops": "training FLOPs",
    "train_seconds": "training seconds",
}
"""The axes of which one binds."""
WORDS = {"labels": "labels", **AXIS_WORDS, "memory_gib": "GiB of memory at most", "trials": "trials"}


def budget(entries: dict[str, Any]) -> str:
    """A budget in words: labels, the binding axis, caps."""
    parts = [f"{_number(value)} {WORDS.get(key, key)}" for key, value in entries.items() if value is not None]
    return ", ".join(parts) or show.ABSENT


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return show.text(value)
    return (
        f"{value:,}"
        if isinstance(value, int) and abs(value) < 10**15
        else f"{value:g}"
        if show.finite(value) is not None
        else show.ABSENT
    )
