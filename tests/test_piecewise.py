"""Models too large for the host: drawn layer by layer, with the values their architecture defines."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch

from bench.models.base import meta_base
from bench.models.catalog import RANDOM, parse
from bench.models.piecewise import place, too_large
from bench.models.quantise import to_4bit

CPU = torch.device("cpu")


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_a_skeleton_becomes_a_model(family: str) -> None:
    """Every weight has a value, norms begin at one, tied weights are one again, and it answers."""
    base = meta_base(parse(f"random:{family}"), None, torch.float32)
    torch.manual_seed(0)
    place(base.module, CPU)
    assert sum(p.numel() for p in base.module.parameters()) == RANDOM[family][1]
    like = tiny.base(family).module
    for (name, made), (_, usual) in zip(base.module.named_parameters(), like.named_parameters(), strict=True):
        assert float(made.std()) == pytest.approx(float(usual.std()), rel=0.25, abs=1e-6), name
        assert abs(float(made.mean() - usual.mean())) < 0.01 + 6 * float(usual.std()) / made.numel() ** 0.5, name
    for (name, one), (_, usual) in zip(base.module.named_buffers(), like.named_buffers(), strict=True):
        assert torch.equal(one, usual), f"{name}: positions and frequencies are no random numbers"
    plan = tiny.STRATEGIES["frozen"].prepare(base, tiny.context("head"), tiny.options("frozen"))
    assert plan.answer is not None


def test_a_skeleton_is_quantised_layer_by_layer() -> None:
    """Never more than one matrix whole: what is left without values afterwards is no linear layer of a block."""
    pytest.importorskip("bitsandbytes")
    base = meta_base(parse("random:tiny-llama"), None, torch.float32)
    names = to_4bit(base.module, "nf4", True, torch.bfloat16, CPU)
    for name in names:
        weight = base.module.get_submodule(name).weight
        assert not weight.is_meta and weight.dtype == torch.uint8
        assert len(weight.unique()) > 16, "random numbers, not zeros"
    assert {n for n, p in base.module.named_parameters() if p.is_meta}.isdisjoint(f"{n}.weight" for n in names)


def test_qlora_trains_on_a_skeleton() -> None:
    pytest.importorskip("bitsandbytes")
    base = meta_base(parse("random:tiny-llama"), None, torch.float32)
    plan = tiny.STRATEGIES["qlora"].prepare(base, tiny.context("verbalizer"), tiny.options("qlora"))
    assert plan.module is not None and not any(p.is_meta for p in plan.module.parameters())


def test_what_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the memory there is, for random weights only."""
    ref = parse("random:llama-65b")
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("", (), {"available": 128 * 2**30})())
    assert too_large(ref, torch.bfloat16)
    assert not too_large(parse("random:llama-8b"), torch.bfloat16)
    assert not too_large(replace(ref, form="path"), torch.bfloat16)
