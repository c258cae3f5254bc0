"""The order in which labelled rows are trained on: by seed, in batches of like length, the same for every strategy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

BUCKET_BATCHES = 16
"""Rows are sorted by length within this many shuffled batches: long enough to save padding, short enough to mix."""


def batches(lengths: Sequence[int], size: int, seed: int, groups: Sequence[int] | None = None) -> Iterator[list[int]]:
    """Endless batches of row indexes. Every epoch reads every row once; the last batch of one may be smaller.

    `lengths` in tokens; no batch holds rows of two `groups`. The order depends on these arguments only.
    """
    of = [0] * len(lengths) if groups is None else groups
    if not lengths:
        return
    rng = np.random.default_rng([seed % 2**64, 0x0BA7C4])  # numpy refuses negative seeds
    while True:
        order = rng.permutation(len(lengths))
        epoch: list[list[int]] = []
        for start in range(0, len(order), size * BUCKET_BATCHES):
            bucket = sorted(order[start : start + size * BUCKET_BATCHES].tolist(), key=lambda i: (of[i], lengths[i]))
            for _, members in groupby(bucket, key=lambda i: of[i]):
                rows = list(members)
                epoch += [rows[i : i + size] for i in range(0, len(rows), size)]
        for i in rng.permutation(len(epoch)):
            yield epoch[i]
