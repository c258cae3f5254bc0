"""The draws from a task's rows that a budget of labels allows."""

from __future__ import annotations

from bench.data.rows import Rows, generator_of
from bench.data.splits import text_key


def draw_labels(rows: Rows, n: int, seed: int, classes: int) -> Rows:
    """`n` rows drawn at random, no two with the same normalised text; all distinct ones where there are fewer.

    The draw for `n` is the beginning of the draw for any larger one with the same seed. It opens with one row of each
    class (as they turn up, so `n` of at least `classes` holds every class there is); the rest follows the pool's
    own distribution.

    Raises:
        ValueError: `n` is negative.
    """
    if n < 0:
        raise ValueError(f"cannot draw {n} labels")
    order = generator_of(seed).permutation(len(rows)).tolist()
    drawn: list[int] = []
    seen: set[bytes] = set()
    met: set[int] = set()
    for i in order:
        if len(met) == classes or len(drawn) == n:
            break
        if rows.labels[i] not in met and (key := text_key(rows.fields[i])) not in seen:
            met.add(rows.labels[i])
            seen.add(key)
            drawn.append(i)
    for i in order:
        if len(drawn) == n:
            break
        if (key := text_key(rows.fields[i])) not in seen:
            seen.add(key)
            drawn.append(i)
    return rows.take(drawn)


def class_balanced(rows: Rows, k: int, seed: int, classes: int) -> Rows:
    """`k` of the rows with class counts as equal as they can be, in random order; all rows where there are fewer.

    Which classes get one more than the others is random too.

    Raises:
        ValueError: `k` is negative.
    """
    if k < 0:
        raise ValueError(f"cannot choose {k} rows")
    generator = generator_of(seed)
    queues: list[list[int]] = [[] for _ in range(classes)]
    for i in generator.permutation(len(rows)).tolist():
        queues[rows.labels[i]].append(i)
    chosen: list[int] = []
    turns = generator.permutation(classes).tolist()
    while len(chosen) < min(k, len(rows)):
        chosen += [queues[c].pop() for c in turns if queues[c]][: k - len(chosen)]
    return rows.take([chosen[i] for i in generator.permutation(len(chosen)).tolist()])
