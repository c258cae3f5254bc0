"""Two sides compared: every gate, in one verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.compare import answers, counts
from bench.compare.finding import Finding
from bench.compare.floors import Known
from bench.compare.matching import Match, Matched, match
from bench.compare.sides import Side
from bench.compare.speed import Paced, Spread, spreads
from bench.report.format import count

BROKEN = ("error", "interrupted", "damaged", "newer", "not_run")
"""How a cell may end without an outcome of its own."""
LIBRARIES = ("python", "torch", "transformers", "peft", "tokenizers", "safetensors", "scikit-learn", "numpy",
             "bitsandbytes")  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """What the gate says."""

    base: str
    new: str
    cells: int
    """Cells on both sides."""
    findings: list[Finding]
    remarks: list[str] = field(default_factory=list)
    """What else a reader must know: environments, what was not gated and why."""
    paced: list[Paced] = field(default_factory=list)
    """Speed, where cells were run in pairs."""
    spread: list[Spread] = field(default_factory=list)
    """Speed, where two runs were recorded."""
    speed: str = ""
    """How speed was judged, in a sentence."""

    def of(self, kind: str) -> list[Finding]:
        """Findings of one kind."""
        return [one for one in self.findings if one.kind == kind]

    @property
    def code(self) -> int:
        """Exit code: 1 where anything got worse."""
        return int(bool(self.of("regression")))

    def verdict(self) -> str:
        """The last line."""
        worse = self.of("regression")
        if not worse:
            better = len(self.of("improvement"))
            more = f", {better} better" if better else ""
            return f"no regression in {count(self.cells, 'cell')}{more}"
        seen: Counter[str] = Counter()
        rank = {}
        for one in worse:  # the first of every gate before the second of any: no kind of fault hides behind another
            rank[one] = seen[one.gate]
            seen[one.gate] += 1
        figures = list(dict.fromkeys(f"{one.figure} of {one.cell}" for one in sorted(worse, key=lambda one: rank[one])))
        rest = f" and {len(figures) - 3} more" if len(figures) > 3 else ""
        return f"REGRESSION: {count(len(figures), 'figure')} got worse: {'; '.join(figures[:3])}{rest}"


def compare(base: Side, new: Side, selected: Sequence[str] = ()) -> Comparison:
    """Counts, outcomes and scores of two sides; speed is added by what measured it. Raises `UserFault`."""
    matched = match(base, new)
    scores, said = answers.compared(matched.pairs)
    found = [
        *absent(matched),
        *(one for pair in matched.pairs for one in outcome(pair)),
        *(one for pair in matched.pairs for one in counts.exact(pair)),
        *scores,
        *(one for pair in matched.pairs for one in redefined(pair)),
    ]
    earlier = counts.earlier_records(matched.pairs)
    remarks = [
        *environments(base, new),
        *data(matched.pairs),
        *selected,
        *counts.unpredicted(matched.pairs),
        *([earlier] if earlier else []),
    ]
    remarks += said
    return Comparison(base.name, new.name, len(matched.pairs), found, remarks)


def absent(matched: Matched) -> Iterator[Finding]:
    """Cells of one side only."""
    for name, cell in matched.only_base:
        kind = "regression" if cell.ok else "told"
        yield Finding(kind, "outcome", name, "outcome", cell.status, "missing", "the new run has no such cell")  # type: ignore[arg-type]
    for name, cell in matched.only_new:
        yield Finding("told", "outcome", name, "outcome", "missing", cell.status, "nothing to compare it with")


def outcome(pair: Match) -> Iterator[Finding]:
    """A cell that ends in another way than it did."""
    before, after = pair.base.status, pair.new.status
    if before == after:
        return
    worse = before == "ok" or (after in BROKEN and before not in BROKEN)
    kind = "regression" if worse else "improvement" if after == "ok" else "told"
    reason = pair.new.reason or ""
    yield Finding(kind, "outcome", pair.name, "outcome", before, after, reason)  # type: ignore[arg-type]


def redefined(pair: Match) -> Iterator[Finding]:
    """Parts of a cell's definition that are not as they were: other figures may follow from them."""
    for key, (before, after) in pair.differs.items():
        yield Finding("told", "definition", pair.name, key, text(before), text(after), "the cell is defined otherwise")


def text(value: Any) -> str:
    """Any value of a definition, short."""
    return "none" if value is None else str(value)[:80]


def environments(base: Side, new: Side) -> list[str]:
    """Differences of where both were measured that may change counts or answers for reasons outside of this code."""
    before, after = base.environment, new.environment
    found = []
    for name in LIBRARIES:
        was, now = ((side.get("versions") or {}).get(name) for side in (before, after))
        if was != now:
            found.append(f"{name} {was or 'missing'} -> {now or 'missing'}")
    machines = [side.get("machine") or {} for side in (before, after)]
    for key, word in (("cpu", "processor"), ("gpu", "card")):
        was, now = ((one.get(key) or {}) if key == "gpu" else one.get(key) for one in machines)
        was, now = ((one.get("name") if isinstance(one, dict) else one) for one in (was, now))
        if was != now:
            found.append(f"{word} {was or 'none'} -> {now or 'none'}")
    if before.get("threads") != after.get("threads"):
        found.append(f"threads {before.get('threads')} -> {after.get('threads')}")
    why = "counts and answers may change with it; make the baseline anew where this is meant to stay"
    lines = [f"the environment differs ({', '.join(found)}): {why}"] if found else []
    return lines + [
        f"{side.name} holds records of several codes or versions" for side in (base, new)
        if side.differing("code_digest") or side.differing("versions")
    ]  # fmt: skip


def data(pairs: Sequence[Match]) -> list[str]:
    """A line where cells of the same name have read other data: their counts and scores are of other rows."""
    read = {
        pair.base.info.task: (pair.base.result.data, pair.new.result.data)
        for pair in pairs
        if pair.base.result and pair.new.result
        and pair.base.result.data.fingerprint != pair.new.result.data.fingerprint
    }  # fmt: skip
    if not read:
        return []
    told = ", ".join(
        f"{task}: {before.source} {before.fingerprint[:15]} -> {after.source} {after.fingerprint[:15]}"
        for task, (before, after) in read.items()
    )
    return [f"the data differ ({told}): counts and scores are of other rows"]


def with_spread(found: Comparison, pairs: list[Match], floors: Known) -> Comparison:
    """With the speed of two recorded runs: shown, and gated only where repeated runs of this machine told what two
    runs of equals differ by."""
    seen = spreads(pairs)
    if not seen:
        return replace(found, speed="speed: no cell has timed steps on both sides")
    if not floors.learned:
        words = (
            "speed: shown, not gated: two runs at two times differ by what else the machine does. Gate it with pairs "
            "(base_code=DIR new_code=DIR), or learn from repeated runs what equals differ by (learn=FILE, then "
            "floors=FILE)"
        )
        return replace(found, spread=seen, speed=words)
    worse = [
        Finding("regression", "speed", "all cells", one.figure, "x1", f"x{one.median:.2f}",
                f"median of {one.cells} cells, above the floor of x{math.exp(floors.floors[one.figure]):.2f} as is the "
                f"one-sided 95% bound of the mean, x{one.bound:.2f}")
        for one in seen
        if min(math.log(one.median), math.log(one.bound)) > floors.floors[one.figure]
    ]  # fmt: skip
    return replace(found, findings=[*found.findings, *worse], spread=seen, speed=f"speed: {floors.says}")
