"""What a cell loses under each perturbation, and what that is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.config.schema import Task
from bench.data.rows import Rows
from bench.probed import Check
from bench.probes.perturb import OptionOrder, Perturbation, Variant, perturbations
from bench.stats.contamination import FEWEST, Paired, difference_in_differences, judged, paired
from bench.stats.intervals import wilson
from bench.stats.metrics import chance
from bench.strategy import Answerer, Unsupported

if TYPE_CHECKING:
    from bench.budget import Meter

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Asked:
    """A cell, the items it is asked, and whether it was right on them as they are."""

    answer: Answerer
    task: Task
    tests: Rows
    plain: Bools
    seed: int
    paired: list[int] = field(default_factory=list)
    """Positions of the test items that have a control."""
    controls: Rows | None = None
    """Theirs, in that order; None where nothing was trained."""
    plain_controls: Bools | None = None
    base: Answerer | None = None
    draws: int = 10_000


@dataclass
class Found:
    """The checks, and each item's answers, which a comparison with a twin needs."""

    checks: list[Check] = field(default_factory=list)
    correct: dict[str, list[bool]] = field(default_factory=dict)
    touched: dict[str, list[bool]] = field(default_factory=dict)


@dataclass(frozen=True)
class Changed:
    """Items after a change: right in each variant, (variants, items), and whether any variant changed the item."""

    correct: Bools
    touched: Bools

    @property
    def mean(self) -> Floats:
        """Share of the variants in which each item was right."""
        share: Floats = self.correct.mean(0)
        return share


def perturbed(asked: Asked, wordings: Mapping[int, Mapping[str, str]], meter: Meter) -> Found:
    """Every perturbation that applies, asked and judged; what the readout cannot be asked is said in words."""
    found = Found()
    base_plain = None
    for one in perturbations(asked.task, wordings):
        try:
            tests = answers(asked.answer, one, asked.tests, asked, meter)
            others = answers(asked.answer, one, asked.controls, asked, meter) if asked.controls else None
            check = against_controls(one, asked, tests, others) if others else alone(one, asked, tests)
            if asked.base is not None:
                if base_plain is None:
                    base_plain = asked.base.predict(asked.tests.fields, meter).argmax(-1) == np.asarray(
                        asked.tests.labels
                    )
                based = answers(asked.base, one, asked.tests, asked, meter)
                check = check.model_copy(update={"figures": check.figures | base_figures(base_plain, based)})
        except Unsupported as error:
            found.checks.append(start(one, verdict="not applicable", says=f"It cannot be asked here: {error}"))
            continue
        found.checks.append(check)
        found.touched[one.name] = tests.touched.tolist()
        several = len(tests.correct) > 1
        for i, correct in enumerate(tests.correct, start=1):
            found.correct[f"{one.name} #{i}" if several else one.name] = correct.tolist()
    return found


def answers(answer: Answerer, one: Perturbation, rows: Rows, asked: Asked, meter: Meter) -> Changed:
    """Ask every variant of some rows."""
    variants = one.apply(rows, asked.task, asked.seed)
    correct = [_right(answer, variant, meter) for variant in variants]
    return Changed(np.stack(correct), np.any([variant.touched for variant in variants], axis=0))


def _right(answer: Answerer, variant: Variant, meter: Meter) -> Bools:
    asked = answer if variant.template is None else answer.through(variant.template)
    right: Bools = asked.predict(variant.rows.fields, meter).argmax(-1) == np.asarray(variant.rows.labels)
    return right


def start(one: Perturbation, **more: object) -> Check:
    """A check of this perturbation."""
    return Check.model_validate(
        {"name": f"perturbation: {one.name}", "family": "perturbation", "kind": one.kind, **more}
    )


def base_figures(plain: Bools, changed: Changed) -> dict[str, float]:
    """What the base loses on the same items."""
    kept = changed.touched
    if not kept.any():
        return {}
    return {"base, plain": float(plain[kept].mean()), "base, changed": float(changed.mean[kept].mean())}


def at_chance(one: Perturbation, asked: Asked, plain: list[Bools], changed: list[Changed]) -> str | None:
    """The accuracy beside chance where it is not told from it, in words; None where the cell knows something."""
    if isinstance(one, OptionOrder):
        # all orders together: a constant answer reaches exactly 1 in K, whatever labels the data happens to have
        orders = [np.vstack([p, c.correct]).mean(0) for p, c in zip(plain, changed, strict=True)]
        values, level, where = np.concatenate(orders), 1 / len(asked.task.labels), "in every option order"
        share = float(values.mean())
        # as wide as for one order: a constant answer has no spread over all of them, and knows nothing
        interval = wilson(round(float(values.sum())), len(values))
    else:
        hits = np.concatenate(plain)
        labels = [*asked.tests.labels, *(asked.controls.labels if asked.controls else [])]
        interval, level = wilson(int(hits.sum()), len(hits)), chance("accuracy", labels)
        share, where = float(hits.mean()), "before the change"
    if interval.low > level:
        return None
    level_told = f"{share:.2f} [{interval.low:.2f}, {interval.high:.2f}], chance {level:.2f}"
    return (
        f"The model answers at chance ({level_told}) {where}: this check has no power here; nothing follows about "
        "contamination."
    )


def few(one: Perturbation, kept: int) -> Check:
    """Too little was changed to say anything."""
    says = f"It changes {kept} items or pairs of items; below {FEWEST} nothing is compared."
    return start(one, n=kept, verdict="no power", says=says)


def alone(one: Perturbation, asked: Asked, tests: Changed) -> Check:
    """The drop where there is nothing to hold it against: shown, and no evidence either way."""
    kept = tests.touched
    if kept.sum() < FEWEST:
        return few(one, int(kept.sum()))
    plain, changed = asked.plain[kept].astype(float), tests.mean[kept]
    drop = paired(plain - changed, asked.seed % 2**32, 1)
    says = at_chance(one, asked, [asked.plain], [tests]) or (
        f"{moved(plain, changed)} on {drop.n} items, a drop of {drop.value:+.2f} [{drop.low:+.2f}, {drop.high:+.2f}]. "
        "Nothing is at hand to hold it against (no training, no clean twin): a drop alone is brittleness, not evidence."
    )
    return start(
        one, statistic=drop.value, low=drop.low, high=drop.high, n=drop.n, plain=float(plain.mean()),
        changed=float(changed.mean()), verdict="no power", says=says,
    )  # fmt: skip


def moved(plain: Floats, changed: Floats) -> str:
    """The accuracy before and after."""
    return f"Accuracy goes from {plain.mean():.2f} to {changed.mean():.2f}"


def against_controls(one: Perturbation, asked: Asked, tests: Changed, others: Changed) -> Check:
    """The drop on test items less that on their controls: brittleness is the same on both, a leak is not."""
    assert asked.plain_controls is not None
    tests = Changed(tests.correct[:, asked.paired], tests.touched[asked.paired])
    plain = asked.plain[asked.paired]
    kept = tests.touched & others.touched
    if kept.sum() < FEWEST:
        return few(one, int(kept.sum()))
    if (plain == tests.correct).all() and (asked.plain_controls == others.correct).all():
        says = "No answer is right or wrong for this change: the model may not even see it, so nothing follows."
        return start(one, n=int(kept.sum()), verdict="no power", says=says)
    four = [v[kept].astype(float) for v in (plain, tests.mean, asked.plain_controls, others.mean)]
    test = difference_in_differences(four[0], four[1], four[2], four[3], asked.seed % 2**32, asked.draws)
    weak = at_chance(one, asked, [plain, asked.plain_controls], [tests, others])
    verdict = judged(test, weak is not None)
    figures = {
        "controls, plain": float(four[2].mean()),
        "controls, changed": float(four[3].mean()),
        "smallest extra drop told at 80%": test.detectable,
    }
    return start(
        one, statistic=test.value, low=test.low, high=test.high, p=test.p, n=test.n, plain=float(four[0].mean()),
        changed=float(four[1].mean()), reference="controls", figures=figures, verdict=verdict,
        says=weak if weak and verdict != "seen" else _sentence(test, four, verdict),
    )  # fmt: skip


def _sentence(test: Paired, four: list[Floats], verdict: str) -> str:
    why = {
        "seen": "More than brittleness: the test items were learnt as they stand.",
        "not seen": "Both lose alike: brittleness, not evidence.",
    }.get(verdict, f"An extra drop of {test.detectable:.2f} is the smallest it could tell: nothing follows.")
    return (
        f"{moved(four[0], four[1])} on test items, from {four[2].mean():.2f} to {four[3].mean():.2f} on controls: "
        f"{test.value:+.2f} [{test.low:+.2f}, {test.high:+.2f}] more is lost, p {test.p:.2g}. {why}"
    )
