"""Memory of one of several processes, foretold: what is divided, what is gathered, and what stays whole."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from bench import plan
from bench.config import load
from bench.forecast import place
from bench.job import Job
from bench.models.catalog import parse
from bench.predict import depth
from bench.predict.fakes import fake_base
from bench.predict.rehearse import Rehearsal, rehearse, spread_over
from bench.predict.shards import GRADIENTS, OPTIMIZER, PARAMETERS, TEMPORARIES, Split
from bench.predict.timeline import KINDS, Peak, Stage, Timeline
from bench.strategy import Unsupported

ALL = 4 * 54_144
"""Bytes of tiny-gpt2."""
ROOT, BLOCK = 4 * (384 * 32 + 512 * 32 + 64), 4 * 12_704
"""Its embeddings and last norm; one of its two blocks."""


@cache
def job(strategy: str, *tokens: str) -> Job:
    """One cell of the smoke suite."""
    asked = ["suite=smoke", "tasks=sst2", "model=random:tiny-gpt2", f"strategies={strategy}", "data.source=sample"]
    return plan.make(load([*asked, "device=cpu", "budget.train_examples=24", *tokens])).jobs[0]


@cache
def found(strategy: str, *tokens: str) -> Rehearsal:
    """Its rehearsal."""
    order = job(strategy, *tokens)
    return rehearse(order, fake_base(parse(order.model), None, torch.float32), on_card=False)


FSDP2, DDP = ("sharding=fsdp2", "devices=2"), ("sharding=ddp", "devices=2")


def test_the_model_is_as_counted_here() -> None:
    assert ALL == ROOT + 2 * BLOCK


def test_fsdp2_divides_what_a_step_holds_and_gathers_what_a_pass_needs() -> None:
    """Half of 4, 4 and 8 bytes a parameter; in a pass the root and two blocks whole as well."""
    one, two = found("full"), found("full", *FSDP2)
    step = two.peaks["adapt step"].parts
    assert step["parameters"] == pytest.approx(ALL / 2, rel=0.02)  # and buffers
    assert step["gradients"] == ALL / 2 and step["optimizer"] == pytest.approx(ALL, rel=0.01)
    forward = two.peaks["adapt forward"].parts
    assert forward["parameters"] == pytest.approx(ALL / 2 + ROOT + 2 * BLOCK, rel=0.01)
    ends = two.peaks["adapt backward 2"].parts
    assert ROOT + 2 * BLOCK <= ends["gradients"] <= ALL / 2 + ROOT + 2 * BLOCK
    assert forward["activations"] < 0.7 * one.peaks["adapt forward"].parts["activations"], "half the rows"
    assert two.peaks["predict"].size == one.peaks["predict"].size, "the first process answers with all of it"


def test_ddp_holds_its_buckets_throughout() -> None:
    """Parameters, gradients and optimizer state whole; the largest gradient once more while it is copied."""
    two = found("full", *DDP)
    assert two.peaks["adapt forward"].parts["gradients"] == two.peaks["adapt step"].parts["gradients"] == ALL
    assert two.peaks["adapt backward 1"].parts["gradients"] == ALL + 4 * 512 * 32
    step = two.peaks["adapt step"].parts
    assert step["parameters"] == pytest.approx(ALL, rel=0.01) and step["optimizer"] == pytest.approx(2 * ALL, rel=0.01)


def test_lora_shards_the_frozen_base() -> None:
    """Under fsdp2 the base is divided, under ddp it is not; the factors are few either way."""
    one, ddp, fsdp2 = (found("lora", *how).peaks["adapt step"].parts["parameters"] for how in ((), DDP, FSDP2))
    assert ddp == one and fsdp2 == pytest.approx(one / 2, rel=0.02)


@pytest.mark.parametrize("how", [DDP, FSDP2])
def test_flops_are_those_of_all_devices(how: tuple[str, str]) -> None:
    """As on one device, up to padding; so are trained parameters."""
    one, two = found("full"), found("full", *how)
    assert one.flops is not None and two.flops is not None
    assert 0.9 * one.flops < two.flops <= one.flops and two.trainable == one.trainable


def test_batches_are_dealt_out() -> None:
    """As the ranks do it: every second row, and none for a device that gets none."""
    assert spread_over(2, [[5, 6, 7], [8]]) == [[5, 7], [6], [8]]
    assert spread_over(1, [[5, 6, 7], [8]]) == [[5, 6, 7], [8]]


def test_a_split_by_hand() -> None:
    """Four devices; 100 bytes of module, 20 of them in the root, blocks of 40; 60 bytes train, 12 of them a head beside
    that every device holds whole: 48/4 + 12 = 24 of 60, a share of 0.4."""
    split = Split("fsdp2", 4, module=100, root=20, block=40, trained=60, kept_whole=12, root_trained=8, block_trained=20, largest=9)  # fmt: skip
    assert split.share == pytest.approx(0.4)
    names = ["load", "adapt prepare", "adapt forward", "adapt backward", "adapt step", "predict"]
    stages = [Stage(name, i, i + 1) for i, name in enumerate(names)]
    alive = np.zeros((len(KINDS), len(names) + 1))
    alive[PARAMETERS], alive[GRADIENTS, 4:6], alive[OPTIMIZER, 5:], alive[TEMPORARIES] = 112, 60, 120, 10
    told = split.applied(Timeline(alive), stages).alive[:, 1:]
    assert told[PARAMETERS].tolist() == [112, 112, 37 + 20 + 80, 37 + 20 + 80, 37, 112]
    assert told[GRADIENTS].tolist() == pytest.approx([0, 0, 0, 24 + 8 + 40, 24, 0])
    assert told[OPTIMIZER].tolist() == pytest.approx([0, 0, 0, 0, 48, 120])
    assert told[TEMPORARIES].tolist() == pytest.approx([10, 10, 10, 10, 4, 10])
    copies = Split("ddp", 4, 100, 20, 40, 60, 12, 8, 20, 9).applied(Timeline(alive), stages).alive[:, 1:]
    assert copies[GRADIENTS].tolist() == [0, 0, 60, 69, 60, 0] and copies[PARAMETERS].tolist() == [112] * 6


def test_a_strategy_that_is_refused_is_foretold_so() -> None:
    """In the words of the cell itself."""
    with pytest.raises(Unsupported, match="bitfit does not train over several devices: use dpo, full, lora"):
        found("bitfit", *DDP)


def test_resident_memory_of_a_rank_is_not_modelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """So no heap is replayed for it, and the field stays empty."""
    heaps = []

    def foresee(order: Job, on_card: bool, heaped: bool) -> Rehearsal:
        heaps.append(heaped)
        return Rehearsal(peaks={"adapt step": Peak(7.0, {})})

    monkeypatch.setattr(depth, "foresee", foresee)
    told = depth.predicted(job("full", *FSDP2), on_card=False)
    assert heaps == [False] and told["phases"]["adapt"]["resident_bytes"] is None


def test_another_prediction_is_kept_for_each_way() -> None:
    """One device, two by ddp, two and four by fsdp2: four places."""
    ways = [(), DDP, FSDP2, ("sharding=fsdp2", "devices=4")]
    assert len({place(job("full", *how), False) for how in ways}) == 4
