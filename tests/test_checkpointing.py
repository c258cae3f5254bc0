"""Gradient checkpointing: less memory, the same training, recomputation counted apart."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from bench import plan, registry
from bench.config import load
from bench.models.base import load_base
from bench.models.catalog import parse
from bench.records import Result, Status
from bench.worker import run_cell


@cache
def options_of(strategy: str) -> list[str]:
    """What a tiny model needs."""
    return {"few_shot": ["strategies.few_shot.k=2"], "peft": ["strategies.peft.peft_type=LN_TUNING"]}.get(strategy, [])


def record(folder: Path, strategy: str, model: str, checkpointing: bool) -> Result:
    """The record of one cell of the smoke suite."""
    asked = ["suite=smoke", "tasks=sst2", f"model=random:{model}", f"strategies={strategy}", "data.source=sample"]
    more = ["budget.train_examples=24", f"checkpointing={str(checkpointing).lower()}"]
    order = plan.make(load([*asked, *options_of(strategy), *more])).jobs[0]
    order = order.model_copy(update={"folder": str(folder / str(checkpointing))})
    Path(order.folder).mkdir()
    run_cell(order, lambda: load_base(parse(order.model), None, torch.float32), lambda phase, share: None)
    return Result.model_validate_json((Path(order.folder) / "result.json").read_bytes())


CELLS = [(s, m) for s in sorted(registry.load()) for m in ("tiny-llama", "tiny-bert")] + [
    ("prefix_tuning", "tiny-gpt2")
]


@pytest.mark.parametrize(("strategy", "model"), CELLS)
def test_the_same_training_with_less_kept(tmp_path: Path, strategy: str, model: str) -> None:
    kept, dropped = (record(tmp_path, strategy, model, checkpointing) for checkpointing in (False, True))
    if kept.outcome.status != Status.ok:
        assert dropped.outcome == kept.outcome
        return
    if dropped.outcome.status == Status.unsupported:
        assert "checkpointing" in (dropped.outcome.reason or "")
        return
    assert dropped.outcome.status == Status.ok, dropped.outcome.reason
    assert dropped.cell.checkpointing and dropped.cell.id != kept.cell.id
    assert dropped.phases["adapt"].flops == kept.phases["adapt"].flops
    if kept.training is None:
        assert dropped.phases["adapt"].recomputed_flops is None, "nothing was trained by gradient"
        return
    assert dropped.training is not None
    assert dropped.training.losses == pytest.approx(kept.training.losses, rel=1e-5)
    flops, again = dropped.phases["adapt"].flops, dropped.phases["adapt"].recomputed_flops
    assert flops is not None and again is not None and 0.1 * flops < again < 0.6 * flops
    assert kept.phases["adapt"].recomputed_flops is None
