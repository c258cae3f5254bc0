"""Both checkouts' cells in turn: base new, new base, base new ..., and the gate over what that gave."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.compare import floors as noise
from bench.compare.asked import Asked
from bench.compare.matching import match
from bench.compare.sides import Side, read_side
from bench.compare.speed import Paced, Ratios, gathered, judged, unguarded, without_short
from bench.compare.whole import Comparison, compare
from bench.errors import UserFault
from bench.measure.environment import machine
from bench.paired.checkout import Checkout
from bench.records import Result
from bench.report.format import count
from bench.store import read_result

Say = Callable[[str], None]


@dataclass(frozen=True)
class Turn:
    """A cell of both sides."""

    name: str
    base: int
    """Its place in the base's plan."""
    new: int


def measured(asked: Asked, say: Say = lambda line: None) -> Comparison:
    """Run both checkouts' cells once for counts and scores, then in pairs for speed; a figure that fails is measured
    again in fresh pairs, and is a regression only where it fails again. With `learn=`, what was seen is kept as noise.

    Raises `UserFault`.
    """
    known = noise.known(asked.get("floors"), "pairs", machine()["id"])
    with both(asked) as (base, new):
        say("planning, and predicting memory")
        base.begin()
        new.begin()
        for checkout in (base, new):
            for i, cell in enumerate(checkout.cells):
                say(f"{checkout.key}: counts and scores, cell {i + 1} of {len(checkout.cells)} ({cell})")
                checkout.run(i, 0)
        sides = [replace(read_side(str(one.first)), name=one.key) for one in (base, new)]
        found = compare(sides[0], sides[1])
        equals(asked, sides)
        places = [{cell: i for i, cell in enumerate(one.cells)} for one in (base, new)]
        turns = [
            Turn(pair.name, places[0][pair.base.info.id], places[1][pair.new.info.id])
            for pair in match(*sides).pairs
            if pair.base.ok and pair.new.ok
        ]
        if not turns:
            return replace(found, speed="speed: not gated: no cell is ok on both sides")
        seen = list(pairs(base, new, turns, range(1, asked.pairs + 1), say))
        ratios, lost = without_short(gathered(seen), seen), unguarded(seen)
        learned = learnt(asked, ratios)
        paced = judged(ratios, known.floors)
        again = suspects(paced, turns)
        if again:
            say(f"slower in {count(len(again), 'cell')}: measured once more in fresh pairs")
            fresh = gathered(pairs(base, new, again, range(asked.pairs + 1, 2 * asked.pairs + 1), say))
            paced = confirmed(paced, fresh, known.floors)
    found = replace(found, findings=[*found.findings, *lost])
    if not paced:
        return replace(found, speed="speed: not gated: no cell has a step to time on both sides")
    worse = [one.finding(rerun=True) for one in paced if one.slower]
    words = f"speed: {asked.pairs} pairs a cell in turn, {len(paced)} figures, {known.says}{learned}"
    if again:
        words += f"; measured again in as many fresh pairs, for they seemed slower: {count(len(again), 'cell')}"
    return replace(found, findings=[*found.findings, *worse], paced=paced, speed=words)


def equals(asked: Asked, sides: list[Side]) -> None:
    """Refuse to learn from two different codes: what they differ by is no noise. Raises `UserFault`."""
    codes = {side.environment.get("code_digest") for side in sides}
    if asked.get("learn") and len(codes) > 1:
        raise UserFault(
            "learn: the two checkouts hold different code, so they are no equals; allowed: the same code twice"
        )


def learnt(asked: Asked, ratios: Ratios) -> str:
    """With `learn=`, keep what pairs of equals differ by; what was learned, in words."""
    path = asked.get("learn")
    if path is None:
        return ""
    session = noise.of_pairs(ratios, machine()["id"])
    noise.learn(Path(path), session)
    return f"; {noise.told(Path(path), session)}"


@contextmanager
def both(asked: Asked) -> Iterator[tuple[Checkout, Checkout]]:
    """The processes of both checkouts, below `work=` or a folder that goes with them."""
    with ExitStack() as stack:
        work = Path(asked.get("work") or stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-compare-")))
        if asked.get("work") and work.exists() and (not work.is_dir() or any(work.iterdir())):
            raise UserFault(f"work={work} is not empty; allowed: a new or empty folder")
        made = []
        for key in ("base_code", "new_code"):
            folder = asked.get(key)
            assert folder is not None
            made.append(Checkout(key, folder, work.absolute() / key.removesuffix("_code"), asked.rest))
        yield stack.enter_context(made[0]), stack.enter_context(made[1])


def pairs(
    base: Checkout, new: Checkout, turns: list[Turn], repeats: range, say: Say
) -> Iterator[tuple[str, Result, Result]]:
    """Every cell on both sides, once a repeat, the one that went first going second in the next."""
    for repeat in repeats:
        for turn in turns:
            say(f"pair {repeat - repeats.start + 1} of {len(repeats)}: {turn.name}")
            order = [(base, turn.base), (new, turn.new)]
            if repeat % 2 == 0:
                order.reverse()
            seen = {checkout.key: read_result(checkout.run(cell, repeat) / "result.json") for checkout, cell in order}
            yield turn.name, seen[base.key], seen[new.key]


def suspects(paced: list[Paced], turns: list[Turn]) -> list[Turn]:
    """Cells of which some figure is slower."""
    slower = {one.cell for one in paced if one.slower}
    return [turn for turn in turns if turn.name in slower]


def confirmed(first: list[Paced], fresh: Ratios, floors: dict[str, float]) -> list[Paced]:
    """The figures after the rerun: those that failed are judged by their fresh pairs alone, and corrected only among
    themselves; all others stand."""
    failed = {(one.cell, one.figure) for one in first if one.slower}
    again = {(one.cell, one.figure): one for one in judged({k: v for k, v in fresh.items() if k in failed}, floors)}
    # a figure without fresh pairs (its cell failed the second time) stands as it was
    return [again.get((one.cell, one.figure), one) for one in first]
