"""Prediction: driving a cell with fake weights shows the bytes and FLOPs that real ones take."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from bench import plan, registry
from bench.config import load
from bench.job import Job
from bench.models.base import load_base
from bench.models.catalog import parse
from bench.predict.depth import SHALLOW, extrapolated, names_blocks
from bench.predict.fakes import fake_base
from bench.predict.live import Live
from bench.predict.rehearse import Rehearsal, rehearse
from bench.records import Result, Status
from bench.strategy import Unsupported
from bench.worker import run_cell

FAMILIES = ("tiny-gpt2", "tiny-llama", "tiny-bert", "tiny-t5")
SMALL = {
    "few_shot": ["strategies.few_shot.k=2"],
    "peft": ["strategies.peft.peft_type=LN_TUNING"],
    "meta_prompt": ["strategies.meta_prompt.demonstrations=2", "strategies.meta_prompt.candidates=2"],
}


@cache
def job(model: str, strategy: str, *tokens: str) -> Job:
    """One cell of the smoke suite."""
    asked = ["suite=smoke", "tasks=sst2", f"model=random:{model}", f"strategies={strategy}", "data.source=sample"]
    return plan.make(load([*asked, *SMALL.get(strategy, []), "budget.train_examples=24", *tokens])).jobs[0]


def driven(order: Job, fake: bool) -> Rehearsal | str:
    """The rehearsal with fake or real weights, or why there is none."""
    ref = parse(order.model)
    base = fake_base(ref, None, torch.float32) if fake else load_base(ref, None, torch.float32)
    try:
        return rehearse(order, base, on_card=False)
    except Unsupported as error:
        return str(error)


def stages(found: Rehearsal) -> dict[str, float]:
    """Peaks by stage, both halves of a backward pass together: fakes take more operators, so their middle differs."""
    sizes: dict[str, float] = {}
    for name, peak in found.peaks.items():
        stage = " ".join(name.split()[:2])
        sizes[stage] = max(sizes.get(stage, 0.0), peak.size)
    return sizes


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("strategy", sorted(registry.load()))
def test_fake_weights_take_the_bytes_of_real_ones(strategy: str, model: str) -> None:
    fake, real = driven(job(model, strategy), True), driven(job(model, strategy), False)
    if isinstance(real, str) or isinstance(fake, str):
        assert fake == real
        return
    assert fake.flops == real.flops
    assert fake.trainable == real.trainable
    assert stages(fake).keys() == stages(real).keys()
    for stage, size in stages(real).items():
        assert stages(fake)[stage] == pytest.approx(size, rel=0.01, abs=20_000), stage


def test_a_cards_update_needs_no_room_beside() -> None:
    """Fused it holds weights, gradients and moments; all weights at once, as may be asked for, copies of them too."""

    def update(*tokens: str) -> float:
        order = job("tiny-llama", "full", *tokens)
        return (
            rehearse(order, fake_base(parse(order.model), None, torch.float32), on_card=True).peaks["adapt step"].size
        )

    weights = sum(p.nbytes for p in fake_base(parse("random:tiny-llama"), None, torch.float32).module.parameters())
    fused, at_once = update(), update("foreach=true")
    assert 4 * weights <= fused < 4.2 * weights < 4.8 * weights < at_once


@pytest.mark.parametrize(("strategy", "within"), [("lora", 0.0), ("dpo", 0.03), ("kto", 0.03)])
def test_flops_are_those_of_the_run(strategy: str, within: float, tmp_path: Path) -> None:
    """Of policies with the pass in which the reference is asked, whose batches are told from the heaviest two."""
    order = job("tiny-gpt2", strategy).model_copy(update={"folder": str(tmp_path)})
    found = driven(order, True)
    assert isinstance(found, Rehearsal)
    run_cell(order, lambda: load_base(parse(order.model), None, torch.float32), lambda phase, share: None)
    result = Result.model_validate_json((tmp_path / "result.json").read_bytes())
    assert result.outcome.status == Status.ok
    assert result.used is not None and result.parameters is not None
    assert found.flops == pytest.approx(result.used.train_flops, rel=within, abs=0)
    assert found.trainable == result.parameters.trainable


@pytest.mark.parametrize("strategy", ["ppo", "grpo"])
def test_flops_of_responses_that_are_still_to_be_drawn_are_not_foretold(strategy: str) -> None:
    found = driven(job("tiny-gpt2", strategy), True)
    assert isinstance(found, Rehearsal) and found.flops is None and found.peaks["adapt forward"].size > 0


def test_full_fine_tuning_holds_sixteen_bytes_a_parameter() -> None:
    found = driven(job("tiny-gpt2", "full"), True)
    assert isinstance(found, Rehearsal)
    parts, parameters = found.peaks["adapt step"].parts, 54_144
    # buffers and the step counters of AdamW come on top
    assert parts["parameters"] == pytest.approx(4 * parameters, rel=0.01)
    assert parts["gradients"] == 4 * parameters
    assert parts["optimizer"] == pytest.approx(8 * parameters, rel=0.01)
    assert found.trainable == parameters


@pytest.mark.parametrize("strategy", ["full", "lora", "qlora", "prompt_tuning", "few_shot"])
def test_depth_is_extrapolated(strategy: str) -> None:
    ref, order = parse("random:tiny-llama"), job("tiny-llama", strategy)
    low, high, deep = (rehearse(order, fake_base(ref, None, torch.float32, depth), False) for depth in (*SHALLOW, 10))
    told = extrapolated(low, high, 10)
    assert told.trainable == deep.trainable
    assert told.flops == pytest.approx(deep.flops, rel=1e-6)
    for phase in ("adapt", "predict"):
        told_peak, peak = (
            max((p.size for stage, p in found.peaks.items() if stage.startswith(phase)), default=0.0)
            for found in (told, deep)
        )
        assert told_peak == pytest.approx(peak, rel=0.01), phase


def test_bytes_are_counted_while_they_are_alive() -> None:
    live = Live()
    with live:
        live.stage("adapt forward")
        first = torch.empty(1000)
        second = torch.empty(500)
        view = first[:10]
        del first
        live.stage("adapt step")
        del view
        third = torch.empty(100)
    peaks = live.peaks()
    assert peaks["adapt forward"].size == 6000  # the view keeps the first one alive
    assert peaks["adapt step"].size == 2400
    assert peaks["adapt step"].parts["activations"] == 2000  # made in the forward pass and needed after it
    assert second.numel() + third.numel() == 600


@pytest.mark.parametrize("strategy", ["full", "lora", "adapter_fusion", "prompt_tuning"])
def test_checkpointing_holds_less_and_counts_what_it_repeats(strategy: str) -> None:
    order = job("tiny-llama", strategy)
    again = order.model_copy(update={"cell": order.cell.model_copy(update={"checkpointing": True})})
    ref = parse(order.model)
    kept, dropped = (rehearse(one, fake_base(ref, None, torch.float32, 6), False) for one in (order, again))
    assert dropped.peaks["adapt forward"].parts["activations"] < kept.peaks["adapt forward"].parts["activations"] / 3
    assert dropped.flops == kept.flops


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"last_blocks": 6}, True),
        ({"last_blocks": 4}, False),  # in both shallow models, and as many in each
        ({"last_blocks": None}, False),
        ({"top_layers": 5}, True),
        ({"config": {"layers_to_transform": [20, 21]}}, True),
        ({"config": {"layers_to_transform": None, "target_modules": ["c_attn"]}}, False),
        ({"config": {"rank_pattern": {"^h.23.attn": 4}}}, True),
        ({"target_modules": r".*\.(2[0-9])\.self_attn\.q_proj"}, True),
        ({"target_modules": r"layers\.\d+\.mlp\.up_proj"}, True),
        ({"target_modules": r".*attn\.c_attn"}, False),
        ({"target_modules": ["q_proj", "fc1", "w1"], "lr": 1e-3}, False),
        ({"parameters": ["*attn.*", "*Attention.*"]}, False),
        ({"parameters": ["*.h.1?.*"]}, True),
    ],
)
def test_options_that_pick_blocks_are_seen(options: dict[str, object], named: bool) -> None:
    """Models of four and eight blocks would lack them, or hold another share of them: such cells are rehearsed whole."""
    assert names_blocks(options) is named
