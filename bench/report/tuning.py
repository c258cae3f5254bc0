"""What tuning within the labels gave and cost: defaults beside the chosen options, the best of k, halving's regret."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from bench.records import Halt, Result, Score, Trial, Tuning
from bench.report import format as show
from bench.report.collect import CellView
from bench.report.tables import Column, Entry, Table
from bench.stats.halving import halts, last, replayed


@dataclass(frozen=True)
class Tuned:
    """The tuned cells of one strategy on one task, over seeds."""

    strategy: str
    metric: str
    results: list[Result]

    @property
    def tunings(self) -> list[tuple[Result, Tuning]]:
        """Those that were tuned and ended well."""
        return [(r, r.tuning) for r in self.results if r.tuning is not None]


def tunings(cells: Iterable[CellView]) -> list[Table]:
    """Tables for every model and task with tuned cells: what it gave and cost, and the best of k configurations."""
    groups: dict[tuple[str, str], dict[str, list[CellView]]] = {}
    for cell in cells:
        if cell.status == "ok" and cell.result is not None and cell.result.tuning is not None:
            groups.setdefault((cell.info.model, cell.info.task), {}).setdefault(cell.info.strategy, []).append(cell)
    tables = []
    for (model, task), strategies in groups.items():
        found = [Tuned(name, m[0].info.metric, [c.result for c in m if c.result]) for name, m in strategies.items()]
        tables += [_gains(f"{task}, {model}", found), _best_of(f"{task}, {model}", found)]
    return tables


def _gains(where: str, found: list[Tuned]) -> Table:
    """Defaults, chosen options, edges and costs."""
    regrets = any(tuning.search == "grid" for one in found for _, tuning in one.tunings)
    columns = [
        Column("strategy", "", False),
        Column("defaults", found[0].metric),
        Column("tuned", found[0].metric),
        Column("chosen", "by seed", False),
        Column("cost of trials", "FLOPs; seconds"),
        Column("cost of the fit", "FLOPs; seconds"),
        Column("trials", "configurations tried"),
        *([Column("halving's regret", "nats; its share of the trials' work")] if regrets else []),
    ]
    notes = [
        "Chosen by the mean log-likelihood of held-out labels, within the label budget and before any test item is "
        "read. Means over seeds; costs are medians. Defaults are fitted on all labels under the same budget; where "
        "they were chosen, the two scores are one."
    ]
    if any(tuning.edges for one in found for _, tuning in one.tunings):
        notes.append("At an edge: the chosen value lies at an end of its published range; better ones may lie beyond.")
    return Table(f"Tuned within the labels: {where}", columns, [_gain(one, regrets) for one in found], notes)


def _gain(one: Tuned, regrets: bool) -> list[Entry]:
    default = _mean([_value(defaults_of(r, t), one.metric) for r, t in one.tunings])
    tuned = _mean([_value(r.scores, one.metric) for r, _ in one.tunings])
    picks = "; ".join(f"s{r.cell.seed}: {words(t.trials[t.chosen])}" for r, t in one.tunings)
    edges = sorted({edge for _, t in one.tunings for edge in t.edges})
    number = sum(bool(t.edges) for _, t in one.tunings)
    flag = f"at an edge in {number} of {len(one.tunings)}: {', '.join(edges)}" if edges else ""
    tried = sorted({len(t.trials) for _, t in one.tunings})
    failed = sum(trial.failed is not None for _, t in one.tunings for trial in t.trials)
    regret = [_regret([t for _, t in one.tunings])] if regrets else []
    return [
        Entry(one.strategy, sort=one.strategy),
        Entry(show.score(default), sort=default, faint=default is None),
        Entry(show.score(tuned), sort=tuned),
        Entry(picks, flag, picks),
        _cost(one, "tune"),
        _cost(one, "adapt"),
        Entry(", ".join(map(str, tried)), f"{failed} failed" if failed else "", tried[-1]),
        *regret,
    ]


def defaults_of(result: Result, tuning: Tuning) -> dict[str, Score] | None:
    """Scores of the defaults: the cell's own where they were chosen."""
    return result.scores if tuning.chosen == 0 else tuning.default_scores


def words(trial: Trial) -> str:
    """A configuration in words."""
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in trial.values.items()
    )


def _cost(one: Tuned, phase: str) -> Entry:
    spent = [r.phases[phase] for r, _ in one.tunings if phase in r.phases]
    flops = [known for p in spent if (known := show.finite(p.flops)) is not None]
    middle = statistics.median(flops) if flops else None
    took = statistics.median([p.seconds for p in spent]) if spent else None
    return Entry(show.large(middle) if middle else "0", show.seconds(took), middle or 0.0)


def _regret(found: list[Tuning]) -> Entry:
    """How much likelihood halving would have lost against the full grid, and what share of its work it needs."""
    grids = [t for t in found if t.search == "grid" and len(t.trials) > 1]
    if not grids:
        return Entry("–", faint=True)
    values = [regret(t) for t in grids]
    known = [v for v in values if v is not None]
    same = sum(replayed(t.trials) == t.chosen for t in grids)
    share = statistics.fmean(work_share(len(t.trials)) for t in grids)
    mean = statistics.fmean(known) if known else None
    text = show.ABSENT if mean is None else f"{mean:.4f}"
    return Entry(text, f"same choice in {same} of {len(grids)}; {share:.0%} of the work", mean, faint=mean is None)


def regret(tuning: Tuning) -> float | None:
    """Likelihood at the end of the grid's choice less that of halving's, nats; None where one of them failed."""
    best, other = (last(tuning.trials[i].halts) for i in (tuning.chosen, replayed(tuning.trials)))
    return best - other if math.isfinite(best) and math.isfinite(other) else None


def work_share(number: int) -> float:
    """Budgets that halving spends on `number` configurations, as a share of the grid's."""
    spent, left, before = 0.0, number, 0.0
    for share in halts(number):
        spent += left * (share - before)
        left, before = math.ceil(left / 2), share
    return spent / number


def _best_of(where: str, found: list[Tuned]) -> Table:
    """What the best of k configurations is expected to reach."""
    most = max(len(t.trials) for one in found for _, t in one.tunings)
    columns = [Column("strategy", "", False), *[Column(f"k = {k}") for k in range(1, most + 1)]]
    rows = []
    for one in found:
        per_seed = [curve for _, t in one.tunings if (curve := best_of_k(compared(t))) is not None]
        entries = [Entry(one.strategy, sort=one.strategy)]
        for k in range(most):
            reached = _mean([curve[k] for curve in per_seed if k < len(curve)])
            entries.append(Entry("–" if reached is None else f"{reached:.3f}", sort=reached, faint=reached is None))
        rows.append(entries)
    note = (
        "Mean log-likelihood of held-out labels, nats, that the best of k configurations drawn from those tried is "
        "expected to reach (after Dodge et al. 2019, section 3), at the first halt: the furthest that all of them came "
        "under halving. A row that still climbs at its end is not tuned out; rows rank nothing."
    )
    return Table(f"The best of k configurations: {where}", columns, rows, [note])


def compared(tuning: Tuning) -> list[float]:
    """Likelihoods of all configurations at the furthest share that all of them reached; failed ones left out."""
    fewest = min(len(t.halts) for t in tuning.trials)
    seen: list[Halt] = [t.halts[fewest - 1] for t in tuning.trials if fewest]
    return [halt.log_likelihood for halt in seen if halt.log_likelihood is not None]


def best_of_k(values: list[float]) -> list[float] | None:
    """Expected best of k of the values drawn without replacement, k = 1 to all: the i-th smallest is the best of
    C(i - 1, k - 1) of the C(n, k) draws."""
    if not values:
        return None
    ordered, n = sorted(values), len(values)
    return [
        sum(math.comb(i, k - 1) * value for i, value in enumerate(ordered)) / math.comb(n, k) for k in range(1, n + 1)
    ]


def _value(scores: dict[str, Score] | None, metric: str) -> float | None:
    return None if scores is None or metric not in scores else show.finite(scores[metric].value)


def _mean(values: list[float | None]) -> float | None:
    """The mean; None where one is missing: seeds are not dropped."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None
