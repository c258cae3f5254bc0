"""Peaks of a deep model from two shallow ones: every stage's peak grows linearly with the number of blocks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from typing import Any

import torch

from bench.job import Job
from bench.models.base import Base, depth_of, load_base, meta_base
from bench.models.build import DTYPES
from bench.models.cache import ensure
from bench.models.catalog import parse
from bench.models.parts import count
from bench.predict.apart import apart
from bench.predict.fakes import fake_base
from bench.predict.heap import known
from bench.predict.outside import outside_the_heap, warm
from bench.predict.rehearse import Rehearsal, rehearse
from bench.predict.replay import grown
from bench.predict.timeline import Peak
from bench.strategy import Diverged, Unsupported

WHOLE = 12
"""Models of up to this many blocks are rehearsed as they are."""
SHALLOW = (4, 8)
"""Blocks of the two rehearsals of a deeper one; even, so that the middle of a pass lies between two blocks."""
MOST_CALLS = 29_000
"""Operators of a whole rehearsal up to which a deep model is rehearsed whole where resident memory is asked for: holes
in a heap do not grow evenly with depth. That many take 5 s; SmolLM2's IA3 has 17,000, LoRA 32,000, AdaLoRA 82,000."""
TOP = ("top_layers", "last_blocks")
"""Options that say how many blocks train, from the top."""
BY_NUMBER = {"layers_to_transform", "layer_replication"}
"""Keys of PEFT's configurations that name blocks by number."""
NUMBERED = re.compile(r"\.\(*(?:\?:)?[\[\d?\\]")
"""A number, or what stands for one in a glob or pattern, as a part of a parameter's name: `h.11.`, `layers.[12]*`,
`layers\\.(1|2)\\.`, `h\\.\\d+\\.`."""
SMALL = 1_000_000
"""Parameters of a model that is rehearsed with its weights: 4 MB."""


def predicted(job: Job, on_card: bool) -> dict[str, Any]:
    """Fields of `records.Predicted`: peaks by phase in bytes, FLOPs, trainable parameters; or why not.

    What a process holds resident is told for adapting on a CPU: what its heap grows by, and what lies outside of it.
    """
    heaped = not on_card and known() and job.cell.sharding is None  # whose processes hold other blocks than a rehearsal
    outside = outside_the_heap(job) if heaped else 0
    try:
        found = foresee(job, on_card, heaped)
    except Unsupported as error:
        return {"reason": f"unsupported: {error}"}
    phases: dict[str, Peak] = {}
    for stage, peak in found.peaks.items():
        phase = stage.partition(" ")[0]
        if phase not in phases or peak.size > phases[phase].size:
            phases[phase] = peak
    held = {"adapt": round(max(found.grown.values())) + outside} if found.grown else {}
    return {
        "peak_bytes": round(max(peak.size for peak in phases.values())),
        "phases": {
            name: {
                "peak_bytes": round(peak.size),
                "parts": {k: round(v) for k, v in peak.parts.items() if round(v)},
                "resident_bytes": held.get(name),
                "held_bytes": round(found.weights) if name in held else None,
            }
            for name, peak in phases.items()
        },
        "flops": found.flops,
        "trainable": found.trainable,
    }


def foresee(job: Job, on_card: bool, heaped: bool) -> Rehearsal:
    """Rehearse a cell, or extrapolate from two shallow models, each in a process of its own: this one stays small.

    Raises `Unsupported` where the cell itself would.
    """
    ref, dtype = parse(job.model), DTYPES[job.cell.precision]
    folder = ensure(ref)
    blocks = depth_of(ref, folder)
    warm(job)

    def rehearsed(make: Callable[[], Base]) -> Rehearsal:
        return Rehearsal.of(apart(lambda: rehearse(job, make(), on_card, heaped).told()))

    if blocks <= WHOLE or names_blocks(job.options):
        if not on_card and dtype == torch.float32 and small(job.model):
            with suppress(Diverged):  # two steps can be too many for real weights; fakes have no losses
                return replayed(rehearsed(lambda: load_base(ref, folder, dtype)))
        return replayed(rehearsed(lambda: fake_base(ref, folder, dtype)))
    low = rehearsed(partial(fake_base, ref, folder, dtype, SHALLOW[0]))
    if heaped and low.calls * blocks / SHALLOW[0] <= MOST_CALLS:
        return replayed(rehearsed(lambda: fake_base(ref, folder, dtype)))
    high = rehearsed(partial(fake_base, ref, folder, dtype, SHALLOW[1]))
    return extrapolated(replayed(low), replayed(high), blocks)


def replayed(found: Rehearsal) -> Rehearsal:
    """The same with what its heap grows by in place of its trace."""
    if found.trace is not None:
        found.grown, found.trace = grown(found.trace), None
    return found


@cache
def small(model: str) -> bool:
    """Whether a model is so small that computing with its weights is quicker than telling what computing would give.

    The bytes are the same: each storage is logged when it is made, fake or not.
    """
    ref = parse(model)
    base = meta_base(ref, ensure(ref), torch.float32)
    return count(list(base.module.parameters())) <= SMALL


def names_blocks(options: dict[str, Any]) -> bool:
    """Whether an option picks blocks, by number or so many of them, so that shallow models would lack some."""
    if any(isinstance(options.get(key), int) and options[key] > SHALLOW[0] for key in TOP):
        return True
    config = options.get("config")  # PEFT's own keys, where its configuration is passed through
    given: dict[str, Any] = config if isinstance(config, dict) else {}
    numbered = any(given.get(key) is not None for key in BY_NUMBER)
    return numbered or any(NUMBERED.search(word) for word in words_of(options))


def words_of(value: Any) -> Iterator[str]:
    """All words of an option: itself, or in lists and as keys or values of mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from (*words_of(key), *words_of(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from words_of(inner)


def extrapolated(low: Rehearsal, high: Rehearsal, blocks: int) -> Rehearsal:
    """On the lines through both. A stage that only one of them has is kept as it is."""
    share = (blocks - SHALLOW[0]) / (SHALLOW[1] - SHALLOW[0])

    def line(a: float, b: float) -> float:
        return a + (b - a) * share

    peaks = dict(high.peaks)
    for name in low.peaks.keys() & high.peaks.keys():
        a, b = low.peaks[name], high.peaks[name]
        peaks[name] = Peak(line(a.size, b.size), {kind: line(a.parts[kind], b.parts[kind]) for kind in a.parts})
    flops = None if low.flops is None or high.flops is None else line(low.flops, high.flops)
    grown = {name: line(low.grown[name], high.grown[name]) for name in low.grown.keys() & high.grown.keys()}
    trainable = round(line(low.trainable, high.trainable))
    return Rehearsal(
        peaks, None, grown, line(low.weights, high.weights), flops, trainable, calls=low.calls + high.calls
    )
