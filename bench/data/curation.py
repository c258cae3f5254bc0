"""Which rows of a source are trained on: a filter and a choice for instruction files, and a number for all; with the
provenance of what was kept and left out."""

from __future__ import annotations

from collections import Counter
from typing import Literal

from bench.config.task import INPUT, INSTRUCTION, TARGET, Task
from bench.data.instructions import Dropped, choose, sift
from bench.data.rows import Rows
from bench.measured import Curated, LeftOut

Select = Literal["drawn", "chosen"]
EMPTY = "empty output"


def curate(
    name: str, task: Task, rows: Rows, seed: int, *, sifted: bool, select: Select, n: int | None
) -> tuple[Rows, Curated | None]:
    """`n` of a source's rows (None: all), and how they came about; None where all are taken as they are.

    Filter and choice are about instructions, so they leave rows of other tasks alone: of these the first `n` are taken,
    as drawn. Instructions with an empty answer are never taken. Raises `ValueError` where fewer than `n` can be chosen.
    """
    if not task.instructs:
        return (rows, None) if n is None else (rows.take(range(min(n, len(rows)))), None)
    texts = [texts_of(fields) for fields in rows.fields]
    empty = [at for at, text in enumerate(texts) if not text["output"]]
    left = list(range(len(rows)))
    dropped = [Dropped(at, "the output is empty; allowed: any text", EMPTY) for at in empty]
    if sifted:
        dropped = sift(texts).dropped
    if dropped:
        out = {row.position for row in dropped}
        left = [at for at in left if at not in out]
    said = [f"of {len(rows)} rows {len(left)} kept{by_rule(dropped)}"]
    if select == "chosen":
        picked = choose([texts[at] for at in left], len(left) if n is None else n, seed)
        dropped += [Dropped(left[row.position], row.reason, row.rule) for row in picked.dropped]
        said.append(f"{len(picked.chosen)} of them chosen by quality{by_rule(picked.dropped)}")
        left = [left[at] for at in picked.chosen]
    elif n is not None:
        left = left[:n]
        said.append(f"{len(left)} of them as drawn")
    if not (dropped or sifted or n is not None):
        return rows, None
    out_of = [LeftOut(row=rows.index[d.position], rule=d.rule, similarity=d.similarity,
                      nearest=None if d.nearest is None else rows.index[d.nearest]) for d in dropped]  # fmt: skip
    kept = rows.take(left)
    how = f"{name}: {', '.join(said)}"
    return kept, Curated(source=name, candidates=len(rows), kept=kept.index, left_out=out_of, how=how)


def texts_of(fields: dict[str, str]) -> dict[str, str]:
    """A row as the filter reads it."""
    return {"instruction": fields[INSTRUCTION], "input": fields.get(INPUT, ""), "output": fields[TARGET].strip()}


def by_rule(dropped: list[Dropped]) -> str:
    """How many rows each rule left out, in words; nothing where none was."""
    counts = Counter(row.rule for row in dropped)
    told = ", ".join(f"{number} {rule}" for rule, number in sorted(counts.items()))
    return f" (left out: {told})" if told else ""
