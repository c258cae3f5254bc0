"""Order, schedule, meter, FLOPs and phases against what they must be by hand."""

from __future__ import annotations

import gc
import itertools
from collections import Counter

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.budget import Meter
from bench.config.schema import Budget
from bench.measure.flops import counting
from bench.measure.phases import Ledger
from bench.strategy import Diverged, Plan
from bench.train.loop import adapt, checked, still_improving
from bench.train.optimizer import schedule
from bench.train.order import Order, batches


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 99), min_size=1, max_size=90), size=st.integers(1, 9), seed=st.integers(0, 9))
def test_every_epoch_reads_every_row_once(lengths: list[int], size: int, seed: int) -> None:
    """Batches are at most `size` long, an epoch is a permutation, and the order is a function of its arguments."""
    order = batches(lengths, size, seed)
    per_epoch = sum(-(-min(size * 8, len(lengths) - i) // size) for i in range(0, len(lengths), size * 8))
    for _ in range(2):
        epoch = list(itertools.islice(order, per_epoch))
        assert max(map(len, epoch)) <= size
        assert Counter(i for rows in epoch for i in rows) == Counter(range(len(lengths)))
    assert list(itertools.islice(batches(lengths, size, seed), 5)) == list(
        itertools.islice(batches(lengths, size, seed), 5)
    )


def test_a_negative_seed_has_an_order_too() -> None:
    """`seeds=[-1]` is a seed like any other; numpy alone would refuse it."""
    assert sorted(next(batches([1, 2, 3], 3, -1))) == [0, 1, 2]


def test_the_order_depends_on_the_seed_and_not_on_global_state() -> None:
    """Two seeds differ; numpy's and torch's global generators have no part in it. No rows: no batches."""
    first = list(itertools.islice(batches([5] * 40, 4, 0), 10))
    torch.manual_seed(7)
    assert first == list(itertools.islice(batches([5] * 40, 4, 0), 10))
    assert first != list(itertools.islice(batches([5] * 40, 4, 1), 10))
    assert list(batches([], 4, 0)) == []


def test_the_schedule_rises_and_falls_linearly() -> None:
    """Zero at both ends, one at the end of the warm-up, half way down in the middle of the rest."""
    assert schedule(0.0) == 0.0 and schedule(1.0) == 0.0 and schedule(2.0) == 0.0
    assert schedule(0.03) == pytest.approx(0.5) and schedule(0.06) == pytest.approx(1.0)
    assert schedule(0.53) == pytest.approx(0.5)


def test_every_step_moves_at_a_positive_rate() -> None:
    """The rate is taken at the middle of a step, so neither the first nor the last step is a step of nothing."""
    rates: list[float] = []
    linear = nn.Linear(2, 2)
    done = tiny.drive("full", "tiny-gpt2", "verbalizer", train_examples=8)
    assert len(done.trained.losses) == 2
    meter = Meter(Budget(train_examples=8))
    for _ in range(2):
        rates.append(schedule(meter.share(meter.spent() + 4 / 2)))
        with meter.step((4, 0, 0), 4):
            linear(torch.ones(4, 2))
    assert all(rate > 0 for rate in rates)


def test_still_improving() -> None:
    """None below 16 steps; a clear fall is told from a plateau and from noise around one."""
    assert still_improving([1.0] * 15) is None
    falling = [4.0 - 0.1 * i for i in range(32)]
    assert still_improving(falling) is True
    assert still_improving([*falling[:16], *[2.0, 2.1] * 8]) is False
    noise = torch.randn(64, generator=torch.Generator().manual_seed(0)).tolist()
    assert still_improving([1 + 0.1 * n for n in noise]) is False


def test_losses_that_are_not_finite_diverge() -> None:
    """NaN and infinity become the outcome, with the step and the key to lower."""
    assert checked(0.5, 0) == 0.5
    for bad in (float("nan"), float("inf")):
        with pytest.raises(Diverged, match=r"at step 3: lower the learning rate"):
            checked(bad, 2)


class TestMeter:
    """What was spent, what is left, what the next step costs."""

    def test_room_cuts_the_last_batch(self) -> None:
        """Seven examples in batches of three: 3, 3, 1, then none."""
        meter = Meter(Budget(train_examples=7))
        taken = []
        order = Order([1, 1, 1], 3, 0, [0, 0, 0])
        while rows := (order.draw(lambda group: True) or [])[: meter.room(3)]:
            taken.append(len(rows))
            with meter.step((len(rows), 0, 0), len(rows)):
                pass
        assert taken == [3, 3, 1] and meter.examples == 7 and meter.progress == 1.0
        assert Meter(Budget(train_tokens=5)).room(3) == 3, "other axes do not cut batches"

    def test_affords_is_exact_at_the_limit(self) -> None:
        """A step that ends on the limit is taken, one that passes it is not; without a budget everything is."""
        meter = Meter(Budget(train_tokens=100))
        assert meter.affords(100) and not meter.affords(101)
        assert meter.cost(4, 37, (4, 0, 8)) == 37 and Meter().affords(1e30) and Meter().progress == 0.0

    def test_flops_of_a_known_shape_are_its_cost(self) -> None:
        """The first step of a shape is counted, later ones are looked up; an unknown one is foretold at its bound:
        twice the length can cost twice as much where there is no attention."""
        meter, linear = Meter(Budget(train_flops=1e6)), nn.Linear(8, 4)
        with meter.step((2, 0, 5), 2):
            meter._tokens_sum += 10
            linear(torch.ones(10, 8))
        assert meter.flops == 2 * 10 * 8 * 4 and meter.cost(2, 10, (2, 0, 5)) == 640
        assert meter.cost(2, 20, (2, 0, 10)) == pytest.approx(1280)
        with meter.step((2, 0, 5), 2):
            pass
        assert meter.flops == 1280 and meter.progress == pytest.approx(1280 / 1e6)

    def test_tokens_are_counted_without_padding_and_with_virtual_ones(self) -> None:
        """Real tokens by the mask; a mask longer than the input (a cached prefix) counts the input only."""
        meter, model = Meter(), tiny.base("tiny-gpt2").module
        meter.watch([model])
        ids, mask = torch.full((2, 6), 9), torch.tensor([[1] * 6, [1] * 2 + [0] * 4])
        cache = model(input_ids=ids, attention_mask=mask, use_cache=True).past_key_values
        assert meter.tokens == 8 and meter.padded_tokens == 12
        model(input_ids=ids[:, :1], attention_mask=torch.cat([mask, torch.ones(2, 1)], 1).long(), past_key_values=cache)
        assert meter.tokens == 10 and meter.padded_tokens == 14
        embedded = model.get_input_embeddings()(ids)
        model(
            inputs_embeds=torch.cat([embedded[:, :3], embedded], 1),
            attention_mask=torch.cat([torch.ones(2, 3), mask], 1).long(),
        )
        assert meter.tokens == 10 + 6 + 8
        meter.unwatch()
        model(input_ids=ids)
        assert meter.tokens == 24

    def test_throughput_leaves_warm_up_out(self) -> None:
        """None before any timed step; steps that counted FLOPs and the first two are never timed."""
        meter = Meter()
        for _ in range(2):
            with meter.step((1, 0, 0), 1):
                meter._tokens_sum += 5
        assert meter.throughput() is None
        with meter.step((1, 0, 0), 1):
            meter._tokens_sum += 5
        assert [s.timed for s in meter.steps] == [False, False, True]
        assert meter.throughput() == pytest.approx(5 / meter.steps[2].seconds)

    def test_used_reports_every_axis(self) -> None:
        """Whichever axis bound, all are in the record; progress only where something trained."""
        meter = Meter(Budget(train_examples=4))
        with meter.step((1, 0, 0), 3):
            nn.Linear(2, 2)(torch.ones(1, 2))
        used = meter.used(5, "train_examples", True)
        assert (used.labels, used.train_examples, used.train_flops, used.progress) == (5, 3, 8, 0.75)
        assert meter.used(5, "converged", False).progress is None


def test_search_and_nothing_are_ended_in_words() -> None:
    """A plan that searches is run by its search; one with nothing to train is left alone."""
    called = []

    def search(meter: Meter) -> str:
        called.append(meter)
        return "converged"

    plan = Plan(answer=None, save=lambda f: None, search=search)  # type: ignore[arg-type]
    meter = Meter(Budget(train_examples=4))
    assert adapt(plan, tiny.context("head"), meter).ended_by == "converged" and called == [meter]
    assert adapt(Plan(answer=None, save=lambda f: None), tiny.context("head"), meter).ended_by == "nothing to train"  # type: ignore[arg-type]


def test_flops_of_a_linear_layer_by_hand() -> None:
    """Forward 2 x rows x in x out; the backward pass two more products of the same size."""
    x, layer = torch.ones(7, 5, requires_grad=True), nn.Linear(5, 3)
    with counting() as count:
        layer(x)
    assert count.flops == 2 * 7 * 5 * 3
    with counting() as count:
        layer(x).sum().backward()
    assert count.flops == 3 * 2 * 7 * 5 * 3


@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama", "tiny-bert", "tiny-t5"])
def test_flops_of_fused_attention_equal_those_of_the_plain_kernel(family: str) -> None:
    """torch's counter does not know the CPU's fused attention: with our formula both kernels count alike."""
    model = tiny.base(family).module.eval()
    inputs = {"input_ids": torch.full((3, 16), 9), "attention_mask": torch.ones(3, 16, dtype=torch.int64)}
    if family == "tiny-t5":
        inputs["decoder_input_ids"] = torch.full((3, 4), 9)
    counts = []
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        with sdpa_kernel(backend), torch.no_grad(), counting() as count:
            model(**inputs)
        counts.append(count.flops)
    assert counts[0] == counts[1] > 0


def test_flops_of_fused_attention_by_hand() -> None:
    """Two products of (length x dim) by (dim x length) a head; the backward pass two and a half times that."""
    q = torch.randn(2, 4, 16, 8, requires_grad=True)
    forward = 2 * 2 * (2 * 4) * 16 * 16 * 8
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION), counting() as count:
        out = nn.functional.scaled_dot_product_attention(q, q, q)
    assert count.flops == forward
    with counting() as count:
        out.sum().backward()
    assert count.flops == 2.5 * forward


def test_phases_reset_their_peaks() -> None:
    """200 MB held in one phase show in its peak and not in the next one's."""
    ledger, mb = Ledger("cpu"), 2**20
    with ledger.phase("load"):
        pass
    with ledger.phase("adapt"):
        held = bytearray(b"x") * (200 * mb)
        del held
        gc.collect()
    with ledger.phase("predict"):
        pass
    peaks = {name: phase.peak_rss_bytes or 0 for name, phase in ledger.phases.items()}
    assert peaks["adapt"] - peaks["load"] > 180 * mb and peaks["adapt"] - peaks["predict"] > 180 * mb, peaks
    assert list(ledger.phases) == ["load", "adapt", "predict"]
    assert (ledger.phases["adapt"].baseline_rss_bytes or 0) < peaks["adapt"] - 180 * mb


def test_a_phase_that_raises_is_recorded() -> None:
    """Seconds, peak and the meter's counts up to the failure."""
    ledger, meter = Ledger("cpu"), Meter(Budget(train_examples=9))
    with pytest.raises(RuntimeError, match="half way"), ledger.phase("adapt", meter):
        with meter.step((1, 0, 0), 3):
            meter._tokens_sum += 7
        raise RuntimeError("half way")
    phase = ledger.phases["adapt"]
    assert phase.seconds > 0 and phase.peak_rss_bytes and (phase.examples, phase.tokens, phase.steps) == (3, 7, 1)
