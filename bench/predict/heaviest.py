"""Which batches hold the most memory: a rehearsal drives those alone."""

from __future__ import annotations

from bench.job import Job
from bench.models.base import Base, depth_of
from bench.models.cache import ensure
from bench.models.catalog import parse
from bench.strategy import Examples

KEPT = 16
"""Numbers as wide as the model that a block keeps of a token for the backward pass; roughly, for a ranking."""
LOGITS = 3
"""Numbers a token of the vocabulary that the LM head and the loss hold for each token read: logits, their
log-probabilities, and a gradient."""


def head_weight(job: Job, base: Base) -> float:
    """What a token that the LM head reads weighs in memory beside one that the whole model's blocks read.

    `base` may have fewer blocks than the model.
    """
    ref = parse(job.model)
    blocks = depth_of(ref, ensure(ref))
    kept = blocks + KEPT if job.cell.checkpointing else KEPT * blocks
    vocabulary = int(getattr(base.module.config, "vocab_size", 0))
    return LOGITS * vocabulary / (kept * base.width)


def heaviest(executed: list[list[int]], examples: Examples, head: float) -> list[list[int]]:
    """Of every group the batch that holds most: by its padded tokens, and by those that the LM head reads, of which a
    shorter batch with longer answers has more."""

    def weight(rows: list[int]) -> float:
        longest = max(examples.lengths[i] for i in rows)
        return len(rows) * (longest + head * max(examples.encoded[i].head_reads for i in rows))

    best: dict[int, list[int]] = {}
    for rows in executed:
        group = examples.encoded[rows[0]].group
        best[group] = max(best.get(group, rows), rows, key=weight)
    return list(best.values())
