"""One rank of a test: trains tiny cells alone and together with the other rank, and writes what came of both.

Started by torchrun (`tests/test_sharding.py`): one start for all comparisons, for it is the imports that take time.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import tiny
import torch
from rank_cases import CASES, Case

from bench.budget import Meter
from bench.config.schema import Budget
from bench.models.parts import checkpointed
from bench.ranked import join
from bench.strategy import Plan, TaskContext
from bench.train.loop import adapt
from bench.train.ranks import RankMeter, Ranks, RankTraining
from bench.train.sharding import Replicas, Shards, changed, take_over
from bench.worker import seed_everything

TASKS = {"labels": tiny.task, "pairs": tiny.pair_task, "tags": tiny.tag_task, "language": tiny.language_task}
ROWS = {"pairs": tiny.pair_rows, "tags": tiny.tag_rows}


def prepared(case: Case) -> tuple[Plan, TaskContext]:
    """A fresh plan of the case, without dropout: its masks are drawn for the rows of a rank."""
    more = {**case.context}
    if "task" in more:
        more["task"] = TASKS[more["task"]]()
    base = tiny.base(case.family)
    for module in base.module.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0  # T5's attention
    context = tiny.context(case.readout, **more)
    seed_everything(0)
    plan = tiny.STRATEGIES[case.strategy].prepare(base, context, tiny.options(case.strategy))
    if case.checkpointing:
        checkpointed(base)
    return plan, context


def weights_of(plan: Plan) -> dict[str, list[float]]:
    """What training changes, flat."""
    return {name: tensor.detach().flatten().tolist() for name, tensor in changed(plan)}


def outcome(plan: Plan, case: Case, meter: Meter, losses: list[float], told: dict[str, list[float]]) -> dict[str, Any]:
    """What is compared."""
    fields = ROWS.get(case.context.get("task"), tiny.rows)().test.fields
    counts = {name: getattr(meter, name) for name in ("examples", "tokens", "flops", "rows")}
    scores = plan.answer.predict(fields, Meter()).tolist()
    return {
        "losses": losses,
        "told": told,
        "weights": weights_of(plan),
        "scores": scores,
        **counts,
        "steps": len(meter.steps),
    }


def alone(case: Case) -> dict[str, Any]:
    """By one process."""
    plan, context = prepared(case)
    meter, began = Meter(Budget(labels=tiny.LABELS, **case.budget)), weights_of(plan)
    meter.watch(plan.seen)
    done = adapt(plan, context, meter)
    meter.unwatch()
    trained = {name: values for name, values in began.items() if name.startswith("weight.")}
    return {**outcome(plan, case, meter, done.losses, done.told), "began": trained}


def together(case: Case, ranks: Ranks) -> dict[str, Any]:
    """By all ranks."""
    plan, context = prepared(case)
    meter = RankMeter(ranks, Budget(labels=tiny.LABELS, **case.budget), "cpu", None)
    meter.watch(plan.seen)
    spread = Replicas(plan, ranks.size) if case.sharding == "ddp" else Shards(plan, ranks.size, "cpu")
    held = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for g in plan.groups for p in g.params)
    done = adapt(plan, context, meter, partial(RankTraining, ranks=ranks, spread=spread))
    meter.unwatch()
    trained = spread.whole(plan, first=True)
    if trained is not None:
        plan, _ = prepared(case)
        take_over(plan, trained)
    told = {name: [v / ranks.size for v in ranks.total(values)] for name, values in done.told.items()}
    found = outcome(plan, case, meter, done.losses, told)
    trainable = sum(p.numel() for g in plan.groups for p in g.params)
    return {**found, "held": ranks.total([held]), "trainable": trainable}


def main(out: Path, chosen: list[str]) -> None:
    """Every case both ways, on both ranks; what went wrong is told in place of the numbers."""
    torch.set_num_threads(1)
    ranks = join("cpu", int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    found: dict[str, Any] = {}
    for case in (case for case in CASES if not chosen or case.name in chosen):
        try:
            found[case.name] = {"alone": alone(case), "together": together(case, ranks)}
        except Exception:
            found[case.name] = {"error": traceback.format_exc()}
    (out / f"{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
