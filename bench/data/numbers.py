"""Questions whose answer is a number, as a choice: the right number among wrong ones that are computed from it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any


def parse(text: str) -> Decimal | None:
    """`1,250`, `$18`, `-3.50` as a number; None for anything else."""
    try:
        number = Decimal(text.strip().strip("$%.").replace(",", ""))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def written(number: Decimal) -> str:
    """A number in digits, without needless zeros or an exponent."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def wrong(number: Decimal) -> list[Decimal]:
    """Numbers near the right one or made from it by usual slips, each once: off by a few, a step left out, doubled,
    halved, ten times as much, digits exchanged. None is negative where the right one is not."""
    digits = written(abs(number))
    turned = Decimal(digits[::-1]) if digits.isdigit() else number
    tenth = (number / 10).to_integral_value() or Decimal(3)
    near = [number + step for step in (1, -1, 2, -2, 5, -5, 10, -10)]
    slips = [number * 2, number / 2, number * 10, number + tenth, number - tenth, turned, number * 3, number + 4]
    whole = number == number.to_integral_value()
    kept = (n.to_integral_value() if whole else n for n in [*slips, *near])
    return [n for n in dict.fromkeys(kept) if n != number and (n >= 0 or number < 0)]


def options(number: Decimal, texts: Sequence[str], labels: Sequence[str]) -> tuple[dict[str, str], int]:
    """Label -> number as text, the right one among them, and the right one's position.

    Which wrong ones stand where is drawn from the texts and the number alone: the same question always has the same
    options. Raises `ValueError` for more labels than there are numbers to offer.
    """
    drawn = generator("\x1f".join([*texts, written(number)]))
    others = wrong(number)
    if len(labels) - 1 > len(others):
        raise ValueError(f"{len(labels)} options asked for the number {written(number)}, at most {len(others) + 1}")
    chosen = [others[i] for i in drawn.permutation(len(others))[: len(labels) - 1]]
    right = int(drawn.integers(len(labels)))
    chosen.insert(right, number)
    return {label: written(n) for label, n in zip(labels, chosen, strict=True)}, right


def generator(text: str) -> Any:
    """A generator of random numbers that depends on a text alone."""
    import numpy as np

    return np.random.Generator(np.random.PCG64(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")))
