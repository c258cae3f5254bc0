"""The labels of a budget in parts, each held out once."""

from __future__ import annotations

from bench.data.rows import Rows


def folds(rows: Rows, number: int) -> list[tuple[Rows, Rows]]:
    """(trained on, held out) for each of `number` parts; the labels of every class are dealt round the parts.

    The order of `rows` is the seed's draw, so the parts are random too.
    """
    part: dict[int, int] = {}
    dealt = 0
    for label in sorted(set(rows.labels)):
        for i in (i for i, own in enumerate(rows.labels) if own == label):
            part[i] = dealt % number
            dealt += 1
    return [
        (
            rows.take([i for i in range(len(rows)) if part[i] != held]),
            rows.take([i for i in range(len(rows)) if part[i] == held]),
        )
        for held in range(number)
    ]
