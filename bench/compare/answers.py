"""The score gate: the same items, asked of both sides, and a one-sided test for a drop.

Answers are compared as well. On a tiny random model a score is near chance, and a wrong label map leaves it there;
but it turns over most answers, which no rounding does.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.compare.finding import Finding
from bench.compare.matching import CAPS, Match
from bench.compare.sides import Seen
from bench.records import NEAR_TIE
from bench.report.collect import CellView
from bench.report.format import count
from bench.report.predictions import DAMAGED, Unusable, positive_of
from bench.stats.contamination import paired
from bench.stats.pairs import holm, jackknife_variance

LEVEL = 0.05
TURNED = 0.5
"""Share of answers beyond near-ties from which on they are called turned over."""
MEANT = {"limit", "task_digest", "numerics"}
"""Parts of a definition that say which items are asked about."""
DRAWS = 100_000
"""Exchanges of a randomisation test: its least p must stay below the level when many cells are corrected for."""


@dataclass(frozen=True)
class Drop:
    """A test of one strategy on one task: whether its score fell on the same items."""

    name: str
    metric: str
    before: float
    after: float
    p: float
    test: str
    """How it was made, in words."""


def compared(pairs: list[Match]) -> tuple[list[Finding], list[str]]:
    """Findings of scores and answers over all pairs, and remarks on what could not be tested."""
    findings: list[Finding] = []
    remarks: list[str] = []
    groups: dict[tuple[str, bytes, bytes], list[Match]] = defaultdict(list)
    moved: list[tuple[float, str]] = []
    for pair in pairs:
        if not (pair.base.ok and pair.new.ok):
            continue
        findings += labels(pair)
        if not comparable(pair):
            findings += [*drawn(pair), *untested(pair)]
            continue
        findings += answers(pair)
        moved += [(by, pair.name)] if (by := scores_moved(pair)) else []
        if (wrong := miscounted(pair)) is not None:
            findings.append(wrong)
        else:
            groups[group(pair)].append(pair)
    if moved:
        by, where = max(moved)
        remarks.append(
            f"label scores moved in {count(len(moved), 'cell')} whose answers stand, by at most {by:.2g} ({where})"
        )
    tested = [drop(members) for members in groups.values()]
    adjusted = holm([one.p for one in tested]) if tested else np.zeros(0)
    return findings + [judged(one, float(p), len(tested)) for one, p in zip(tested, adjusted, strict=True)
                       if one.before != one.after], remarks  # fmt: skip


def judged(one: Drop, p: float, of: int) -> Finding:
    """What is said of a score that is not what it was."""
    words = f"{one.test}, p = {one.p:.2g}, {p:.2g} after Holm over {count(of, 'test')}"
    if one.after > one.before:
        return Finding("improvement", "score", one.name, one.metric, one.before, one.after, "on the same items")
    kind = "regression" if p < LEVEL else "told"
    why = words if kind == "regression" else f"{words}: no more than chance would do"
    return Finding(kind, "score", one.name, one.metric, one.before, one.after, why)  # type: ignore[arg-type]


def group(pair: Match) -> tuple[str, bytes, bytes]:
    """What is tested together: all seeds of a strategy on a task under one budget that answered the same items. A
    planted cell's are drawn by its seed, so each of those is tested alone."""
    info, items = pair.base.info, pair.base.items
    assert items is not None
    budget = {key: value for key, value in info.budget.items() if key not in CAPS}
    told = [info.model, info.task, info.strategy, info.readout, info.precision, info.device, info.plant, info.engine]
    named = json.dumps([told, budget, info.options, info.budget.get("trials")], sort_keys=True, default=str)
    return named, items.rows.tobytes(), items.labels.tobytes()


def labels(pair: Match) -> Iterator[Finding]:
    """Right answers that changed while the data did not: labels are read otherwise."""
    base, new = pair.base, pair.new
    if base.items is None or new.items is None or not np.array_equal(base.items.rows, new.items.rows):
        return
    changed = int((base.items.labels != new.items.labels).sum())
    assert base.result is not None and new.result is not None
    if changed:
        same = base.result.data.fingerprint == new.result.data.fingerprint
        words = "the data is the same, so its labels are read otherwise" if same else "the data's fingerprint changed"
        kind = "regression" if same else "told"
        n = len(base.items.rows)
        yield Finding(kind, "labels", pair.name, "right answers changed", 0, f"{changed} of {n}", words)  # type: ignore[arg-type]


def comparable(pair: Match) -> bool:
    """Whether both sides answered the same items. Which clusters they come in is no part of an item."""
    base, new = pair.base.items, pair.new.items
    if base is None or new is None or set(base.kept) != set(new.kept):
        return False
    return np.array_equal(base.rows, new.rows) and np.array_equal(base.labels, new.labels)


def drawn(pair: Match) -> Iterator[Finding]:
    """Other rows that are asked about while the data, the task and the limit are the same: items are drawn otherwise,
    and no score can be compared."""
    base, new = pair.base.items, pair.new.items
    if base is None or new is None or np.array_equal(base.rows, new.rows) or MEANT & set(pair.differs):
        return
    assert pair.base.result is not None and pair.new.result is not None
    if pair.base.result.data.fingerprint == pair.new.result.data.fingerprint:
        n = len(set(new.rows.tolist()) - set(base.rows.tolist()))
        words = "the data is the same, so its items are drawn otherwise"
        yield Finding("regression", "labels", pair.name, "other test items", 0, f"{n} of {len(new.rows)}", words)


def miscounted(pair: Match) -> Finding | None:
    """A recorded score that its predictions do not give, where the base's do: the metric is computed otherwise."""
    metric, before, after = pair.base.info.metric, value(pair.base), value(pair.new)
    if before == after or not gives(pair.base) or gives(pair.new):
        return None
    words = "its predictions do not give it, and the base's gave its own: the metric is computed otherwise"
    return Finding("regression", "score", pair.name, metric, before, after, words)


def gives(cell: Seen) -> bool:
    """Whether the predictions of a cell give the score it recorded."""
    try:
        positive_of(cell.info.metric, cell.items, _view(cell))  # type: ignore[arg-type]
    except DAMAGED:
        return False
    return True


def untested(pair: Match) -> Iterator[Finding]:
    """A score without the same items on both sides: a drop cannot be excused by any test."""
    before, after = value(pair.base), value(pair.new)
    if pair.base.items is not None and pair.new.items is None and after is not None and (before or 0) <= after:
        yield Finding("regression", "answers", pair.name, "answers", "kept", None, "nothing guards them any more")
    if before is None or before == after:
        return
    missing = [side for side, one in (("base", pair.base), ("new", pair.new)) if one.items is None]
    why = f"the predictions of {' and '.join(missing)} are missing" if missing else "the test items are others"
    if after is None:
        yield Finding("regression", "score", pair.name, pair.base.info.metric, before, None, "it has no score any more")
    elif missing and after < before:
        words = f"{why}, so no test can call it chance"
        yield Finding("regression", "score", pair.name, pair.base.info.metric, before, after, words)
    else:
        yield Finding("told", "score", pair.name, pair.base.info.metric, before, after, f"{why}: not comparable")


def value(cell: Seen) -> float | None:
    """Its score in the task's metric."""
    found = ((cell.result.scores if cell.result else None) or {}).get(cell.info.metric)
    return None if found is None else found.value


def answers(pair: Match) -> Iterator[Finding]:
    """Answers that are not what they were. They close the gate only where most are, near-ties left out, with the same
    libraries: a wrong label map does that, another processor does not."""
    base, new = pair.base.items, pair.new.items
    assert base is not None and new is not None
    if base.kept:
        changed = int(np.any([base.kept[name] != new.kept[name] for name in base.kept], axis=0).sum())
        if changed:
            n = len(base.rows)
            yield Finding("told", "answers", pair.name, "answers changed", 0, f"{changed} of {n}", "texts or entities")
        return
    differ = base.predicted != new.predicted
    if not differ.any():
        return
    clear = np.ones(len(differ), bool)
    for side in (pair.base.scores, pair.new.scores):
        if side is not None and side.shape[1] > 1:
            clear &= np.diff(np.sort(side, axis=1)[:, -2:], axis=1)[:, 0] >= NEAR_TIE
    n, beyond = len(differ), int((differ & clear).sum())
    words = f"{beyond} of them no near-tie (labels less than {NEAR_TIE:g} nats apart)"
    turned = beyond > TURNED * n and same_libraries(pair)
    if turned:
        words += "; most answers turned over, as under a wrong label map"
    kind = "regression" if turned else "told"
    yield Finding(kind, "answers", pair.name, "answers changed", 0, f"{int(differ.sum())} of {n}", words)  # type: ignore[arg-type]


def same_libraries(pair: Match) -> bool:
    """Whether both were computed by the same versions of torch and transformers."""
    assert pair.base.result is not None and pair.new.result is not None
    versions = [one.environment.get("versions") or {} for one in (pair.base.result, pair.new.result)]
    return all(versions[0].get(name) == versions[1].get(name) for name in ("torch", "transformers"))


def scores_moved(pair: Match) -> float:
    """How far label scores moved where every answer stands; 0 where they did not, or answers did."""
    base, new = pair.base, pair.new
    if base.scores is None or new.scores is None or base.scores.shape != new.scores.shape:
        return 0.0
    assert base.items is not None and new.items is not None
    if not np.array_equal(base.items.predicted, new.items.predicted):
        return 0.0
    with np.errstate(invalid="ignore"):
        apart = np.abs(base.scores - new.scores)
    apart = apart[np.isfinite(apart)]
    most = float(apart.max()) if apart.size else 0.0
    return most if most > 1e-6 else 0.0  # a baseline file rounds


def drop(members: list[Match]) -> Drop:
    """Test one strategy on one task over all its seeds, seeds of an item together: whether the score fell.

    These are the same seeds and items on both sides, so the question is of these trained models, and items (or the
    clusters they come in) are what is drawn. Accuracy: the exact one-sided McNemar test for one seed (binomial form,
    Dietterich 1998, section 3.1), a randomisation test of the items' mean differences for several (Fisher 1935,
    section 21). Any other metric: a one-sided t test, its error by the jackknife over items (Efron & Tibshirani 1993,
    eq. 11.5).
    """
    first = members[0]
    assert first.base.items is not None
    metric, found = first.base.info.metric, [m.items.clusters for m in (first.base, first.new) if m.items is not None]
    clusters = next((one for one in found if one is not None), None)
    before = float(np.mean([value(m.base) or 0.0 for m in members]))
    after = float(np.mean([value(m.new) or 0.0 for m in members]))
    name = first.name if len(members) == 1 else f"{first.name.rsplit(' s', 1)[0]} over {len(members)} seeds"
    right = [(m.base.items.correct, m.new.items.correct) for m in members if m.base.items and m.new.items]
    honest = all(gives(m.base) and gives(m.new) for m in members)
    if metric == "accuracy" and honest and all(a is not None and b is not None for a, b in right):
        gained = np.mean([b.astype(float) - a for a, b in right], axis=0)  # type: ignore[union-attr]
        p, test = by_items(gained, clusters, len(members))
    else:
        p, test = by_metric(members, metric, clusters)
    return Drop(name, metric, before, after, p, test)


def by_items(gained: NDArray[np.floating], clusters: NDArray[np.int64] | None, seeds: int) -> tuple[float, str]:
    """p that items did not get worse, from each one's mean gain over seeds, (n,)."""
    if seeds == 1 and clusters is None:
        lost, won = int((gained < 0).sum()), int((gained > 0).sum())
        p = 1.0 if lost + won == 0 else float(stats.binom.cdf(won, lost + won, 0.5))
        return p, f"exact one-sided McNemar test ({lost} items lost, {won} won)"
    if clusters is not None:
        gained = np.bincount(np.unique(clusters, return_inverse=True)[1], gained).astype(float)
    if not gained.any():
        return 1.0, "no item changed"
    moved = gained[gained != 0]  # what did not change has no sign to turn
    over = "clusters" if clusters is not None else f"items, {seeds} seeds of each together"
    return paired(-moved, draws=DRAWS).p, f"one-sided randomisation test over {over}"


def by_metric(members: list[Match], metric: str, clusters: NDArray[np.int64] | None) -> tuple[float, str]:
    """p that the metric did not fall: its mean difference over seeds beside its jackknife error over items."""
    differences, left_out = [], []
    test = "one-sided t test, jackknife over items"
    try:
        for m in members:
            assert m.base.items is not None and m.new.items is not None and m.base.result is not None
            positive = positive_of(metric, m.base.items, _view(m.base))
            positive_of(metric, m.new.items, _view(m.new))  # what is tested must be what was recorded
            differences.append(m.new.items.value(metric, positive) - m.base.items.value(metric, positive))
            left_out.append(m.new.items.left_out(metric, positive) - m.base.items.left_out(metric, positive))
    except (Unusable, KeyError, ValueError):
        fell = any((value(m.new) or 0.0) < (value(m.base) or 0.0) for m in members)
        return (0.0 if fell else 1.0), "its predictions do not give the recorded score, so a drop has no excuse"
    mean = float(np.mean(differences))
    variance = jackknife_variance(np.mean(left_out, axis=0), clusters)
    n = len(left_out[0]) if clusters is None else len(np.unique(clusters))
    if variance <= 0 or n < 2:
        return (0.0 if mean < 0 else 1.0), test
    return float(stats.t.cdf(mean / math.sqrt(variance), n - 1)), test


def _view(cell: Seen) -> CellView:
    from pathlib import Path

    return CellView(cell.info, Path(), cell.status, cell.reason, cell.result)
