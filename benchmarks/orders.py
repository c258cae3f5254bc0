"""Does the order of strategies hang on what binds? Runs of the same cells under different axes, side by side.

    python -m bench run suite=glue-small tasks=sst2 ... run.name=by-examples budget.train_examples=256
    python -m bench run suite=glue-small tasks=sst2 ... run.name=by-flops    budget.train_flops=4e12
    python -m benchmarks.orders results/by-examples results/by-flops [out=reports/benchmarks/orders]

writes one Markdown page and ends with a JSON line. A change of order is only one where both orders may be claimed
(paired test over seeds and items, false discoveries held at 5% within a run); else the two cannot be told apart and may
swap by chance.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from bench.report.claims import conclude
from bench.report.collect import Run, collect
from bench.report.compare import Pair
from bench.report.markdown import escape
from bench.report.summary import TaskScore, boards


@dataclass(frozen=True)
class Ordered:
    """One run: what bound, scores by (task, strategy), and what may be claimed of pairs within a readout."""

    axis: str
    scores: dict[tuple[str, str], TaskScore]
    used: dict[tuple[str, str], str]
    pairs: dict[tuple[str, str, str], Pair]

    def order(self, task: str) -> list[str]:
        """Strategies from the best mean score down."""
        found = {name: score.value for (of, name), score in self.scores.items() if of == task}
        return sorted((n for n, v in found.items() if v is not None), key=lambda n: (-(found[n] or 0.0), n))

    def better(self, task: str, first: str, second: str) -> str | None:
        """Which of two may be claimed to be better; None where they cannot be told apart or no test compared them."""
        pair = self.pairs.get((task, first, second)) or self.pairs.get((task, second, first))
        if pair is None or not pair.differs or not pair.claimable:
            return None
        return pair.first if pair.difference > 0 else pair.second


def ordered(folder: Path) -> Ordered:
    """Read one run."""
    run = collect(folder)
    if len(models := sorted({cell.info.model for cell in run.cells})) != 1:
        raise SystemExit(f"{run.plan.run}: got cells of several models {models}; allowed: one")
    found = boards(run.cells)
    scores = {(task, row.strategy): one for board in found for row in board.rows for task, one in row.scores.items()}
    pairs = {(p.task, p.first, p.second): p for board in found for p in conclude(board).pairs if p.task is not None}
    return Ordered(axis_of(run), scores, spent(run), pairs)


def axis_of(run: Run) -> str:
    """The binding axis and its limit, the same for every cell of the run."""
    budgets = {json.dumps({k: v for k, v in c.info.budget.items() if k.startswith("train_")}) for c in run.cells}
    if len(budgets) != 1:
        raise SystemExit(f"{run.plan.run}: its cells have several budgets {sorted(budgets)}; allowed: one")
    ((axis, limit),) = json.loads(budgets.pop()).items()
    return f"{axis} = {limit:g}"


def spent(run: Run) -> dict[tuple[str, str], str]:
    """What the fits of a strategy used, the first seed's, in words."""
    found: dict[tuple[str, str], str] = {}
    for cell in run.cells:
        if cell.result is not None and cell.result.used is not None:
            u = cell.result.used
            words = f"{u.train_examples} examples, {u.train_flops or 0:.2g} FLOPs, {u.train_seconds or 0:.0f} s"
            found.setdefault((cell.info.task, cell.info.strategy), words)
    return found


def changes(runs: list[Ordered], task: str) -> list[str]:
    """Every pair whose order is not the same under all axes, and whether that may be claimed."""
    told = []
    names = set.intersection(*(set(run.order(task)) for run in runs))
    for first, second in combinations(sorted(names), 2):
        signs = {run.axis: run.order(task).index(first) < run.order(task).index(second) for run in runs}
        if len(set(signs.values())) == 1:
            continue
        claims = {run.axis: run.better(task, first, second) for run in runs}
        ahead = [axis for axis, is_first in signs.items() if is_first]
        winners = {name for name in claims.values() if name}
        verdict = "a change that may be claimed" if len(winners) == 2 else "no change that may be claimed"
        some = "; ".join(f"{name} is better under {axis}" for axis, name in claims.items() if name)
        told.append(
            f"{first} stands above {second} under {', '.join(ahead)} only: {verdict}{f' ({some})' if some else ''}"
        )
    return told


def kept(runs: list[Ordered], task: str) -> list[str]:
    """Pairs with the same claimed winner under every axis."""
    told = []
    for first, second in combinations(sorted(set.intersection(*(set(run.order(task)) for run in runs))), 2):
        winners = {run.better(task, first, second) for run in runs}
        if len(winners) == 1 and (winner := winners.pop()) is not None:
            told.append(f"{winner} over {second if winner == first else first}")
    return told


def page(runs: list[Ordered], folders: list[Path]) -> str:
    """The comparison as Markdown."""
    tasks = list(dict.fromkeys(task for run in runs for task, _ in run.scores))
    lines = ["# The order of strategies under different binding axes", ""]
    lines += [
        f"`python -m benchmarks.orders {' '.join(folder.name for folder in folders)}`, over runs of the same cells."
    ]
    for task in tasks:
        lines += ["", f"## {escape(task)}", ""]
        names = list(dict.fromkeys(name for run in runs for name in run.order(task)))
        lines += [f"| strategy | {' | '.join(run.axis for run in runs)} |", f"|:---|{':---|' * len(runs)}"]
        lines += [f"| {name} | {' | '.join(entry(run, task, name) for run in runs)} |" for name in names]
        lines += [
            "",
            "Rank, mean over seeds, its 95% interval over seeds and items, SD over seeds; what the first seed used.",
            "",
        ]
        lines += ["Where the order changes:", ""]
        lines += [f"- {one}" for one in changes(runs, task)] or ["- nowhere"]
        same = kept(runs, task)
        lines += ["", f"Claimed under every axis: {', '.join(same) if same else 'nothing'}."]
    return "\n".join(lines) + "\n"


def entry(run: Ordered, task: str, name: str) -> str:
    """One strategy under one axis."""
    score = run.scores.get((task, name))
    if score is None or score.value is None:
        return "no score"
    ends = "" if score.low is None or score.high is None else f" [{score.low:.3f}, {score.high:.3f}]"
    seeds = "" if score.seed_sd is None else f", SD {score.seed_sd:.3f}"
    return f"{run.order(task).index(name) + 1}. {score.value:.3f}{ends}{seeds}; {run.used.get((task, name), '')}"


def main(tokens: list[str]) -> dict[str, Any]:
    """Write the page; the figures as one dictionary."""
    out = Path(next((t.removeprefix("out=") for t in tokens if t.startswith("out=")), "reports/benchmarks/orders"))
    folders = [Path(token) for token in tokens if not token.startswith("out=")]
    if len(folders) < 2:
        raise SystemExit(
            "benchmarks.orders: got fewer than two run folders; allowed: two or more, e.g. results/a results/b"
        )
    runs = [ordered(folder) for folder in folders]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text(page(runs, folders), encoding="utf-8")
    tasks = dict.fromkeys(task for run in runs for task, _ in run.scores)
    return {
        t: {run.axis: run.order(t) for run in runs} | {"changes": changes(runs, t), "kept": kept(runs, t)}
        for t in tasks
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
