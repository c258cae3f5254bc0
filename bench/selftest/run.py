"""The whole self-test: figures gathered in parallel, shown, and judged."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from bench.errors import UserFault, unknown
from bench.measure.environment import cores
from bench.selftest import claims, coverage, engine, written
from bench.selftest.figures import Figure

PARTS = ("coverage", "claims", "engine")
"""What the self-test measures where nobody says."""
EXTRA = ("correlations",)
"""Parts to be asked for by name: no task of a suite shows a correlation yet, and theirs take a quarter of an hour."""


@dataclass(frozen=True)
class Options:
    """What a user may ask of the self-test."""

    level: float = 0.95
    """Level of the intervals tried. The bounds are those of 95%, so another level shows what a broken interval does."""
    parts: tuple[str, ...] = PARTS


def options(tokens: Sequence[str]) -> Options:
    """`level=0.80` and `parts=coverage,claims` as options. Raises `UserFault` for anything else."""
    found: dict[str, str] = {}
    for token in tokens:
        key, sign, text = token.partition("=")
        if key not in ("level", "parts"):
            raise unknown("option", key, ("level", "parts"))
        if not sign or key in found:
            raise UserFault(f"option '{key}' is given {'twice' if sign else 'no value'}; allowed: {key}=VALUE once")
        found[key] = text
    parts = tuple(found["parts"].split(",")) if "parts" in found else PARTS
    for part in parts:
        if part not in PARTS + EXTRA:
            raise unknown("part", part, PARTS + EXTRA)
    return Options(_level(found.get("level", "0.95")), parts)


def _level(text: str) -> float:
    """A level between 0 and 1. Raises `UserFault`."""
    try:
        level = float(text)
    except ValueError:
        level = math.nan
    if not 0 < level < 1:
        raise UserFault(f"level is '{text}'; allowed: a number between 0 and 1, such as 0.95")
    return level


def orders(asked: Options) -> list[Callable[[], Figure]]:
    """The simulated figures still to be made, those that take longest first within each part."""
    made: list[Callable[[], Figure]] = []
    if "coverage" in asked.parts:
        made += [partial(coverage.wilson_coverage, asked.level)]
        made += [
            partial(coverage.bca_coverage, metric, n, asked.level)
            for metric in ("f1", "matthews")
            for n in coverage.sizes(metric)
        ]
        made += [partial(coverage.seeds_coverage, s, n, asked.level) for s in (3, 5) for n in coverage.SEED_SIZES]
        made += [partial(coverage.metric_seeds_coverage, metric, asked.level) for metric in ("f1", "matthews")]
        made += [partial(coverage.clusters_seeds_coverage, asked.level)]
        made += [partial(coverage.clusters_coverage, metric, asked.level) for metric in ("accuracy", "f1", "matthews")]
        made += [partial(coverage.tasks_coverage, asked.level), partial(coverage.two_seeds_coverage, asked.level)]
        made += [partial(coverage.change_coverage, asked.level)]
        made += [partial(of, n, asked.level) for of in (written.texts_coverage, written.spans_coverage)
                 for n in written.SIZES]  # fmt: skip
        made += [partial(written.seeds_coverage, metric, asked.level) for metric in written.METRICS]
    if "correlations" in asked.parts:
        made += [
            partial(coverage.correlation_coverage, metric, n, asked.level)
            for metric in ("spearman", "pearson")
            for n in sorted(coverage.sizes(metric), reverse=True)
        ]
    if "claims" in asked.parts:
        made += [partial(claims.same_against_same, sd) for sd in coverage.SEED_SDS]
        made += [claims.found_difference, claims.foretold_power, claims.wrong_ranks]
    return made


def gather(asked: Options) -> Iterator[Figure]:
    """Every figure, in order. Simulations run in processes beside the engine's cells."""
    wanted = orders(asked)
    # spawned, for the engine's part starts threads, and a forked child may inherit one of their locks
    with ProcessPoolExecutor(max(1, min(4, cores(), len(wanted))), get_context("spawn")) as pool:
        waiting = [pool.submit(order) for order in wanted]
        found: list[Figure] = []
        if "engine" in asked.parts:
            with tempfile.TemporaryDirectory(prefix="bench-selftest-") as folder:
                found = engine.figures(Path(folder))
        for one in waiting:
            yield one.result()
        yield from found


MOST_PLACES = 3
"""Settings out of bounds that are named, of each figure."""


def verdict(figures: Sequence[Figure]) -> tuple[int, list[str]]:
    """The exit code, and a line for every figure out of bounds or one that says that all are within."""
    lines = []
    for one in figures:
        if not one.ok:
            places = [f"{place}: {one.text(value)}" for place, value in one.outside.items()]
            rest = len(places) - MOST_PLACES
            where = "; ".join(places[:MOST_PLACES]) + (f"; and {rest} more (--json has all)" if rest > 0 else "")
            lines.append(f"out of bounds: {one.name}: {where or 'nothing was measured'} (allowed: {one.bounds()})")
    return (1, lines) if lines else (0, [f"all {len(figures)} figures within their bounds"])
