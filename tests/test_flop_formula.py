"""Counted FLOPs against the closed formula: five architectures at true widths, whole and frozen and 4-bit weights."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import tiny
import torch
from flop_formula import Work, training_flops
from torch.utils.flop_counter import FlopCounterMode

from bench.measure.flops import counting, formulas
from bench.models.catalog import parse
from bench.predict.fakes import fake_base, stand_ins
from bench.predict.live import Live
from bench.score.batch import Batch, Encoded

METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # strategy -> its options, and what they mean to the formula
    "full": ({}, {}),
    "bitfit": ({}, {"weights": False}),
    "lora": ({"r": 8, "target_modules": "all-linear"}, {"weights": False, "rank": 8, "early": False}),
    "qlora": ({"r": 8}, {"weights": False, "rank": 8, "early": False}),
}
SHAPES = [
    # model, blocks kept (None: all), items, tokens an item
    ("gpt2", None, 8, 64),
    ("gpt2-xl", 4, 1, 1000),
    ("llama-1b", 6, 4, 96),
    ("bert-base", None, 8, 128),
    ("t5-small", None, 4, 80),
]
DROPOUTS = ("attn_pdrop", "attention_probs_dropout_prob", "dropout_rate", "attention_dropout")


def work_of(config: Any, batch: Batch, method: str, **update: Any) -> Work:
    """What the formula must know of a batch. With dropout attention runs in the unfused kernel on a CPU."""
    _, decoder, *_, rows, _, length = batch.shape
    positions = batch.extra["positions"].shape[1] if "positions" in batch.extra else 0
    fused = not any(getattr(config, name, 0) for name in DROPOUTS)
    return Work(rows, length, positions, decoder, fused=fused, **{**METHODS[method][1], **update})


def ratio(model: str, depth: int | None, items: int, length: int, method: str) -> float:
    """Counted over computed FLOPs of one training pass at true widths; weights have shapes and no values."""
    chosen = tiny.STRATEGIES[method].Options.model_validate(METHODS[method][0])
    with stand_ins(Live(), False):
        base = fake_base(parse(f"random:{model}"), None, torch.float32, depth)
        config: Any = base.module.config
        plan = tiny.STRATEGIES[method].prepare(base, tiny.context("verbalizer", sequence=2048), chosen)
        assert plan.module is not None and plan.collate is not None and plan.loss is not None
        plan.module.train()
        batch = plan.collate([Encoded([9] * length)] * items)
        with counting() as counted:
            plan.loss(batch, torch.zeros(items, dtype=torch.int64)).backward()
    return counted.flops / training_flops(config, work_of(config, batch, method))


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize(("model", "depth", "items", "length"), SHAPES, ids=[s[0] for s in SHAPES])
def test_five_shapes_within_one_per_cent(model: str, depth: int | None, items: int, length: int, method: str) -> None:
    """Grouped keys and values, gated and plain feed-forward layers, encoder-decoder, long and short inputs."""
    assert ratio(model, depth, items, length, method) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("model", ["llama-1b", "gpt2"])
def test_four_bit_products_count_as_whole_ones(model: str) -> None:
    """The base's products through bitsandbytes' operators, at true widths."""
    assert ratio(model, 2, 4, 96, "qlora") == pytest.approx(1, abs=0.01)


def test_frozen_weights_have_no_weight_gradients() -> None:
    """BitFit: two thirds of full fine-tuning's products, attention apart."""
    assert ratio("bert-base", 4, 8, 128, "bitfit") == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("readout", ["verbalizer", "head"])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_what_a_meter_booked_is_the_formula(method: str, readout: str, family: str) -> None:
    """Every shape a real cell counted, real 4-bit products of bitsandbytes included; rotary tables are the difference."""
    done = tiny.drive(method, family, readout, more=METHODS[method][0])
    assert done.refused is None and done.plan is not None and done.plan.collate is not None
    config: Any = done.base.module.config
    sample = done.plan.collate(done.plan.examples().encoded[:1])  # type: ignore[misc]
    kinds = done.meter.book.kinds.items()
    booked = [(kind[1], *size, flops.total) for kind, one in kinds for size, flops in one.counted.items()]
    assert booked
    for decoder, rows, _, length, flops in booked:
        known = work_of(config, sample, method)
        work = Work(**{**vars(known), "rows": rows, "length": length, "decoder": decoder})
        assert flops == pytest.approx(training_flops(config, work), rel=0.01)


@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama", "tiny-bert", "tiny-t5"])
@pytest.mark.parametrize("inference", [False, True])
def test_counts_what_torchs_own_counter_counts(family: str, inference: bool) -> None:
    """In inference mode operators arrive whole that are made of others, and those of products have no formula."""
    model = tiny.base(family).module.eval()
    inputs = {"input_ids": torch.full((3, 16), 9), "attention_mask": torch.ones(3, 16, dtype=torch.int64)}
    if family == "tiny-t5":
        inputs["decoder_input_ids"] = torch.full((3, 4), 9)

    def work() -> None:
        with torch.inference_mode(inference):
            logits = model(**inputs).logits
        if not inference:
            logits.sum().backward()

    with counting() as count:
        work()
    with FlopCounterMode(display=False, custom_mapping=formulas()) as whole:
        work()
    assert count.flops == whole.get_total_flops() > 0


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_counted_step_computes_what_any_other_does(family: str) -> None:
    """To the last bit: which steps are counted must not move a result. SiLU's backward pass has a kernel, and could
    also be made of other operators."""
    model = tiny.base(family).module.eval()
    inputs = {"input_ids": torch.arange(48).view(3, 16) + 5, "attention_mask": torch.ones(3, 16, dtype=torch.int64)}
    inputs["attention_mask"][1:, 11:] = 0
    if family == "tiny-t5":
        inputs["decoder_input_ids"] = torch.full((3, 4), 9)

    def gradients(counted: bool) -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        with counting() if counted else nullcontext():
            model(**inputs).logits.logsumexp(-1).mean().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    plain, counted = gradients(False), gradients(True)
    assert plain and all(map(torch.equal, plain, counted))


@pytest.mark.parametrize("inference", [False, True])
def test_a_condition_is_counted_by_the_branch_it_takes(inference: bool) -> None:
    """torch raises where a mode does not say that it knows operators whose arguments are functions."""
    x = torch.ones(4, 4)
    for taken, flops in ((True, 2 * 4**3), (False, 0)):
        with torch.inference_mode(inference), counting() as count:
            out = torch.cond(torch.tensor(taken), lambda one: one @ one, lambda one: one + 1, (x,))
        assert count.flops == flops and torch.equal(out, x @ x if taken else x + 1)
