"""Has this cell seen its test items? Overlap, membership and perturbations, each with a verdict in words.

What a check is held against decides what it can say. Test items and controls are one pool split at random, so in a
cell that has seen neither they behave alike; whatever is larger on the test items was made by having seen them. A
model that nothing was trained on has no such contrast: of it the drops are shown and nothing is concluded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.config.probes import ContaminationProbe
from bench.data.rows import Rows, TaskRows, limited
from bench.probed import Check, ContaminationFindings
from bench.probes import overlap
from bench.probes.drops import Asked, Found, perturbed
from bench.probes.membership import Evidence, controls, draw_members, gold, judge
from bench.stats.contamination import holm_verdicts
from bench.stats.metrics import chance
from bench.strategy import Answerer, TaskContext

if TYPE_CHECKING:
    from bench.budget import Meter

Fields = Mapping[str, str]
POOL = "overlap: pool"


@dataclass(frozen=True)
class Subject:
    """A finished cell as the checks see it."""

    answer: Answerer
    """The adapted model."""
    context: TaskContext
    """As the cell saw it: its seed draws the test items."""
    rows: TaskRows
    base: Answerer | None = None
    """The base before any training, in the same readout; None where it has no answer (a head)."""
    trained: bool = True
    """Whether anything was trained; not so where the base is only prompted."""
    read: Sequence[Fields] = field(default_factory=list)
    """Every row it trained on or was shown, source tasks and planted items included (`rows_read`)."""
    pool: Sequence[Fields] = field(default_factory=list)
    """All rows those were drawn from; empty: not looked at."""
    dose: int = 0
    """How often it was trained on the drawn test items first."""


def rows_read(context: TaskContext, planted: Rows | None = None) -> list[Fields]:
    """What a cell trained on: its own labels, its sources', and test items planted in it."""
    parts = [context.train, *(source.train for source in context.sources), *([planted] if planted else [])]
    return [fields for rows in parts for fields in rows.fields]


@dataclass(frozen=True)
class Sides:
    """The drawn test items; those of them (by position) that have a control, and these controls, pair by pair."""

    tests: Rows
    paired: list[int]
    controls: Rows
    base: tuple[NDArray[np.floating], NDArray[np.floating]] | None
    """The base's gold log-probabilities of the pairs, test items and controls; None where it has none."""


def examine(subject: Subject, asked: ContaminationProbe, meter: Meter) -> ContaminationFindings:
    """All contamination checks of one cell, verdicts adjusted by Holm over them.

    Overlap looks for every row of the test split in what was trained on. Membership and perturbations ask `asked.items`
    drawn test items and as many matched controls; of an untrained model its scored test rows, without controls.
    """
    checks = overlaps(subject) if "overlap" in asked.checks else []
    sides = paired_sides(subject, asked, meter) if subject.trained else None
    tests = sides.tests if sides else limited(subject.rows.test, asked.items)
    plain = subject.answer.predict(tests.fields, meter)
    other = subject.answer.predict(sides.controls.fields, meter) if sides else None
    if "membership" in asked.checks:
        checks.append(membership(subject, sides, plain, other, asked) if sides and other is not None else untrained())
    asks = Asked(
        answer=subject.answer,
        task=subject.context.task,
        tests=tests,
        plain=right(plain, tests),
        seed=subject.context.seed,
        paired=sides.paired if sides else [],
        controls=sides.controls if sides else None,
        plain_controls=right(other, sides.controls) if sides and other is not None else None,
        base=subject.base if subject.trained else None,
        draws=asked.permutations,
    )
    found = perturbed(asks, subject.rows.wordings, meter) if "perturbation" in asked.checks else Found()
    return ContaminationFindings(
        dose=subject.dose,
        test_items=tests.index,
        control_items=sides.controls.index if sides else [],
        test_accuracy=float(asks.plain.mean()),
        control_accuracy=None if asks.plain_controls is None else float(asks.plain_controls.mean()),
        checks=holm_verdicts([*checks, *found.checks]),
        correct={"plain": asks.plain.tolist(), **found.correct},
        touched=found.touched,
        notes=notes(subject, asked, tests),
    )


def right(scores: NDArray[np.floating], rows: Rows) -> NDArray[np.bool_]:
    """Whether each row's likeliest label is the right one."""
    hits: NDArray[np.bool_] = scores.argmax(-1) == np.asarray(rows.labels)
    return hits


def notes(subject: Subject, asked: ContaminationProbe, tests: Rows) -> list[str]:
    """What a reader must know of the draw."""
    if len(tests) >= asked.items:
        return []
    if not subject.trained:
        return [f"{len(tests)} test items, not {asked.items}: those the cell is scored on"]
    return [f"{len(tests)} test items, not {asked.items}: half of the test split's {len(subject.rows.pool)} rows"]


def overlaps(subject: Subject) -> list[Check]:
    """The two overlap checks: with the rows this cell trained on, and with the pool they were drawn from."""
    tested = [overlap.row_text(fields) for fields in subject.rows.pool.fields]
    read = [overlap.row_text(fields) for fields in subject.read]
    what = "the rows it was given" if subject.trained else "what it was shown"
    made = subject.context.task.data.arithmetic is not None
    checks = [overlap.check(read, tested, what=what, made=made)]
    if subject.pool:
        pool = [overlap.row_text(fields) for fields in subject.pool]
        checks.append(overlap.check(pool, tested, POOL, "the pool its training rows are drawn from", made))
    return checks


def paired_sides(subject: Subject, asked: ContaminationProbe, meter: Meter) -> Sides | None:
    """The drawn test items, and a control for each that has one; None where no row of the pool is left for that.

    A candidate that stands in what was trained on is no control.
    """
    rows, seed = subject.rows, subject.context.seed
    if len(rows.pool) < 2:
        return None
    tests, candidates = draw_members(rows.pool, asked.items, seed)
    texts = [overlap.row_text(fields) for fields in candidates.fields]
    made = subject.context.task.data.arithmetic is not None
    met = overlap.overlap([overlap.row_text(fields) for fields in unplanted(subject, tests)], texts, made)
    candidates = candidates.take([i for i, found in enumerate(met.found) if not found and not met.equal[i]])
    base = None
    if subject.base is not None:
        both = subject.base.predict([*tests.fields, *candidates.fields], meter)
        base = gold(both, [*tests.labels, *candidates.labels])
    pairs = controls(base, tests, candidates, seed)
    if not pairs:
        return None
    paired, chosen = [i for i, _ in pairs], [j for _, j in pairs]
    scores = None if base is None else (base[paired], base[len(tests) :][chosen])
    return Sides(tests, paired, candidates.take(chosen), scores)


def unplanted(subject: Subject, tests: Rows) -> list[Fields]:
    """What was trained on beside planted items: a control may share words with a test item, in a clean cell too."""
    if not subject.dose:
        return list(subject.read)
    planted = {overlap.row_text(fields) for fields in tests.fields}
    return [fields for fields in subject.read if overlap.row_text(fields) not in planted]


def membership(
    subject: Subject,
    sides: Sides,
    plain: NDArray[np.floating],
    other: NDArray[np.floating],
    asked: ContaminationProbe,
) -> Check:
    """The membership check from the adapted model's scores of test items and controls, (items, labels) each."""
    tests, plain = sides.tests.take(sides.paired), plain[sides.paired]
    test, control = gold(plain, tests.labels), gold(other, sides.controls.labels)
    if sides.base is not None:
        test, control = test - sides.base[0], control - sides.base[1]
    correct = int(right(plain, tests).sum() + right(other, sides.controls).sum())
    level = chance("accuracy", [*tests.labels, *sides.controls.labels])
    evidence = Evidence(test, control, correct, level, sides.base is None)
    return judge(evidence, subject.context.seed % 2**32, asked.permutations)


def untrained() -> Check:
    """Membership where there is no contrast."""
    return Check(
        name="membership",
        family="membership",
        verdict="not applicable",
        says="Membership compares a trained cell with its base on items held back: nothing was trained here, or no "
        "item is left that nobody trained on.",
    )
