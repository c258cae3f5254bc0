"""The exact gate: what was counted is the same on any quiet or busy machine, so any increase is a regression."""

from __future__ import annotations

from collections.abc import Iterator

from bench.compare.finding import Finding
from bench.compare.matching import Match
from bench.records import Phase, Result
from bench.report.format import count, listed

PHASE_COSTS = ("flops", "recomputed_flops", "tokens", "padded_tokens", "peak_allocated_bytes")
"""Of a phase; allocated bytes are of CUDA's allocator, which asks for the same blocks every time."""
STEPPED = PHASE_COSTS[:-1]
"""Of them, what steps cost."""
SAME = "the same work was asked for, so this figure must not change at all"
ABSENT = "it is not measured any more, so nothing guards it"
FORETOLD = "predicted peak bytes"
FORETOLD_PHASE = f"{FORETOLD}, "
NOT_ASKED = "not predicted: predict=false"

Figures = dict[str, float | None]


def costs(result: Result) -> Figures:
    """Figures of which less is better, by name."""
    found: Figures = {}
    known = result.predicted
    found[FORETOLD] = known.peak_bytes
    found |= {f"{FORETOLD_PHASE}{name}": phase.peak_bytes for name, phase in known.phases.items()}
    found["predicted FLOPs"] = known.flops
    if result.parameters is not None:
        found["stored bytes"] = result.parameters.stored_bytes
        found["created parameters"] = result.parameters.created
    for name, phase in result.phases.items():
        if open_ended(result) and name != "predict":
            continue  # how many steps a budget of seconds holds is the machine's business
        found |= {f"{name}: {figure}": getattr(phase, figure) for figure in PHASE_COSTS} | none_done(name, phase)
        if idle(phase):
            continue
        found[f"{name}: forwards an item"] = forwards(phase, result if name == "predict" else None)
    return found


def idle(phase: Phase) -> bool:
    """Whether the phase saw no step at all."""
    return phase.steps is None and phase.tokens is None and phase.flops is None


def none_done(name: str, phase: Phase) -> Figures:
    """What a record leaves out because there was none of it: 0, so that some of it is more."""
    if idle(phase):
        return dict.fromkeys((f"{name}: {figure}" for figure in STEPPED), 0)
    if phase.flops is not None and phase.recomputed_flops is None:
        return {f"{name}: recomputed_flops": 0}
    return {}


def work(result: Result) -> dict[str, float | str | None]:
    """Figures that must be equal: what was read, trained and scored."""
    found: dict[str, float | str | None] = {}
    if result.parameters is not None:
        found["trainable parameters"] = result.parameters.trainable
    if result.used is not None:
        found["labels"] = result.used.labels
        found["source labels"] = result.used.source_labels
        found["ended by"] = result.used.ended_by
    if not open_ended(result) and (adapt := result.phases.get("adapt")) is not None:
        found["adapt: steps"], found["adapt: examples"] = adapt.steps, adapt.examples
    for metric, score in (result.scores or {}).items():
        if metric == result.cell.metric:
            found["test items"] = score.n
    return found


def forwards(phase: Phase, scored: Result | None) -> float | None:
    """Rows through the model an item: an item is a test item, or an example of the phase."""
    score = (scored.scores or {}).get(scored.cell.metric) if scored is not None else None
    items = score.n if score is not None else phase.examples
    return None if phase.forwards is None or not items else phase.forwards / items


def open_ended(result: Result) -> bool:
    """Whether its budget is one of seconds, so that what it does depends on how fast it is."""
    return result.cell.budget.get("train_seconds") is not None


def exact(pair: Match) -> Iterator[Finding]:
    """What changed among the counts of one cell. Predictions are compared whatever became of the cell."""
    base, new = pair.base.result, pair.new.result
    if base is None or new is None:
        return
    before, after = costs(base), costs(new)
    if not (pair.base.ok and pair.new.ok):
        known = {k for k, v in after.items() if k.startswith("predicted") and v is not None}
        before = {k: v for k, v in before.items() if k in known}  # why the rest is missing, the outcome says
        after = {k: v for k, v in after.items() if k in known}
    for figure in before:
        yield from less_is_better(pair.name, figure, before[figure], after.get(figure))
    for figure in after:
        if figure not in before and (phase := of_phase(figure)) and had_none(base, phase, figure):
            yield from less_is_better(pair.name, figure, 0, after[figure], f"the base has no phase {phase}")
    yield from not_foretold(pair.name, before, after, new)
    if pair.base.ok and pair.new.ok:
        here = work(new)
        for figure, value in work(base).items():
            if value is not None and here.get(figure) != value:
                yield Finding("regression", "count", pair.name, figure, value, here.get(figure), SAME)


def of_phase(figure: str) -> str | None:
    """The phase a figure is of; None where it is of the whole cell."""
    if figure.startswith(FORETOLD_PHASE):
        return figure.removeprefix(FORETOLD_PHASE)
    phase, colon, _ = figure.partition(": ")
    return phase if colon else None


def had_none(base: Result, phase: str, figure: str) -> bool:
    """Whether the base lacks this phase, and would tell of it: whatever it costs now is more than the nothing it cost.
    A base without any predicted phase was not predicted."""
    foretold = base.predicted.phases
    return bool(foretold) and phase not in foretold if figure.startswith(FORETOLD_PHASE) else phase not in base.phases


def less_is_better(
    name: str, figure: str, before: float | None, after: float | None, says: str = ""
) -> Iterator[Finding]:
    """The finding of one figure, if it changed. Where it was not measured before there is nothing to compare with;
    predictions that are gone are `not_foretold`'s."""
    if before is None or before == after or (after is None and not before):
        return
    if after is not None:
        kind = "improvement" if after < before else "regression"  # what is no number is not less
        yield Finding(kind, "count", name, figure, before, after, says)  # type: ignore[arg-type]
    elif not figure.startswith("predicted"):
        yield Finding("regression", "count", name, figure, before, None, ABSENT)


def not_foretold(name: str, before: Figures, after: Figures, new: Result) -> Iterator[Finding]:
    """One finding a cell on all predicted figures that the new side has not any more, unless nobody asked for them."""
    lost = [key for key, value in before.items() if key.startswith("predicted") and value and after.get(key) is None]
    if not lost or new.predicted.reason == NOT_ASKED:
        return
    if lost[0] == FORETOLD:
        says = new.predicted.reason or ABSENT
    else:  # with a peak, the reason is a verdict on it
        says = ABSENT + (f"; nor {'are' if lost[2:] else 'is'} {listed(lost[1:])}" if lost[1:] else "")
    yield Finding("regression", "count", name, lost[0], before[lost[0]], None, says)


def unpredicted(pairs: list[Match]) -> list[str]:
    """Lines on cells whose memory nothing guards, because one side, or both, were not predicted."""
    lines = []
    known = [(p.base.result.predicted, p.new.result.predicted) for p in pairs if p.base.result and p.new.result]
    for side, ours in (("base", 0), ("new", 1)):
        reasons = [
            both[ours].reason or "no reason was recorded" for both in known
            if both[ours].peak_bytes is None and (ours == 0 or both[0].peak_bytes is not None)
            and not (both[ours].reason or "").startswith("unsupported")
        ]  # fmt: skip
        for reason in dict.fromkeys(reasons):
            lines.append(f"predicted bytes are not gated in {count(reasons.count(reason), 'cell')} of {side}: {reason}")
    return lines


def earlier_records(pairs: list[Match]) -> str | None:
    """A line where the base's records are from before forwards were counted."""
    left = [p for p in pairs if p.base.ok and p.base.result and p.new.result
            and any(getattr(one, "forwards", None) is None and one.examples for one in p.base.result.phases.values())
            and any(one.forwards for one in p.new.result.phases.values())]  # fmt: skip
    return (
        f"forwards an item are not gated in {count(len(left), 'cell')}: the base's records do not hold them"
        if left
        else None
    )
