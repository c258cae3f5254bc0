"""Trainable parameters at true sizes are the papers' numbers: architectures on the meta device, no weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import tiny
import torch

from bench.models.base import Base, meta_base
from bench.models.catalog import parse
from bench.strategy import Plan

ROBERTA = {"width": 768, "layers": 12, "inner": 3072}


def at_true_size(model: str) -> Base:
    """A published architecture with shapes and no values."""
    return meta_base(parse(f"random:{model}"), None, torch.float32)


def prepared(name: str, model: str, readout: str, **options: Any) -> Plan:
    """The plan of a strategy on that model."""
    chosen = tiny.STRATEGIES[name].Options.model_validate(options)
    return tiny.STRATEGIES[name].prepare(at_true_size(model), tiny.context(readout), chosen)


def trained(plan: Plan, head: bool = False) -> int:
    """Scalars in the first group (the method's own), or in the second (the fresh head)."""
    return sum(p.numel() for p in plan.groups[int(head)].params)


def test_gpt2_small_has_124_439_808_parameters() -> None:
    """Radford et al. 2019's smallest model as published, the tied output layer counted once."""
    module = at_true_size("gpt2").module
    assert sum(p.numel() for p in module.parameters()) == 124_439_808
    assert trained(prepared("full", "gpt2", "verbalizer")) == 124_439_808


def test_lora_on_query_and_value_of_roberta_base() -> None:
    """Hu et al. 2021, table 2: 0.3 M; 12 layers x 2 matrices x 2 factors x 8 x 768, and the head apart."""
    plan = prepared("lora", "roberta-base", "head", r=8, target_modules=["query", "value"])
    assert trained(plan) == 12 * 2 * 2 * 8 * 768 == 294_912
    assert trained(plan, head=True) == 768 * 2 + 2


def test_bitfit_trains_a_thousandth_of_roberta_base() -> None:
    """Ben Zaken et al. 2022, table 1: 0.08% to 0.09% of BERT-base and RoBERTa-base."""
    plan = prepared("bitfit", "roberta-base", "head")
    assert plan.module is not None
    encoder = sum(p.numel() for p in plan.module.parameters())
    assert 0.0008 <= trained(plan) / encoder <= 0.0010


@pytest.mark.parametrize(("placement", "a_block"), [("houlsby", 2), ("pfeiffer", 1)])
def test_bottlenecks_on_bert_base(placement: str, a_block: int) -> None:
    """Houlsby et al. 2019, section 2.1: 2 m d + d + m an adapter; two a block, or one (Pfeiffer et al. 2021)."""
    width, size = 768, 768 // 16
    plan = prepared("adapter", "bert-base", "head", placement=placement, reduction_factor=16)
    assert trained(plan) == 12 * a_block * (2 * size * width + width + size)


def test_ia3_on_gpt2() -> None:
    """Liu et al. 2022, section 3.3: keys and values (one fused matrix in GPT-2, queries with them) and the inner layer."""
    plan = prepared("ia3", "gpt2", "verbalizer")
    assert trained(plan) == 12 * (3 * 768 + 3072)


def test_ia3_on_bert() -> None:
    """Liu et al. 2022: keys, values and the inner layer; the end of attention, which has a like name, is left alone."""
    for model in ("bert-base", "roberta-base"):
        assert trained(prepared("ia3", model, "head")) == 12 * (2 * 768 + 3072)


def test_ia3_on_t5() -> None:
    """Liu et al. 2022: d_k + d_v an attention and d_ff a feed-forward; a decoder block has two attentions."""
    base = at_true_size("t5-base")
    config: Any = base.module.config
    inner, layers = config.num_heads * config.d_kv, config.num_layers
    plan = prepared("ia3", "t5-base", "verbalizer")
    assert trained(plan) == layers * (3 * 2 * inner + 2 * config.d_ff)


def test_prompt_tuning_trains_tokens_times_width() -> None:
    """Lester et al. 2021, section 2: p x e, and no more."""
    plan = prepared("prompt_tuning", "gpt2", "verbalizer", num_virtual_tokens=20)
    assert trained(plan) == 20 * 768


def test_prefix_tuning_trains_keys_and_values_of_every_layer() -> None:
    """Li & Liang 2021, section 4.2: 2 x layers x length x width; grouped-query models have narrower keys and values."""
    prefix = partial(prepared, "prefix_tuning", readout="verbalizer", num_virtual_tokens=20)
    assert trained(prefix(model="gpt2")) == 2 * 12 * 20 * 768
    config: Any = at_true_size("llama-1b").module.config
    grouped = config.num_key_value_heads * config.head_dim
    assert trained(prefix(model="llama-1b")) == 2 * config.num_hidden_layers * 20 * grouped


def test_layer_norms_of_gpt2() -> None:
    """Two a block and a last one, gain and bias each."""
    assert trained(prepared("layernorm", "gpt2", "verbalizer")) == (2 * 12 + 1) * 2 * 768


def test_attention_only_of_gpt2() -> None:
    """Touvron et al. 2022: a third of a block; queries, keys, values and their output with biases."""
    plan = prepared("selective", "gpt2", "verbalizer")
    assert trained(plan) == 12 * (768 * 3 * 768 + 3 * 768 + 768 * 768 + 768)
