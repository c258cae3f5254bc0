"""The trace of a rehearsal and its replay: the allocator is asked what a process would ask it."""

from __future__ import annotations

import gc

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.measure.flops import counting
from bench.predict.fakes import FAKES, fake_like
from bench.predict.heap import known
from bench.predict.live import Live
from bench.predict.replay import grown
from bench.predict.trace import DROPPED, STAGE, STORED, Trace
from bench.predict.twins import Twins

glibc = pytest.mark.skipif(not known(), reason="asks glibc's allocator")
MIB = 2**20


def trace_of(*events: tuple[int, int, int], stage: str = "adapt forward") -> Trace:
    """A trace of these events in one stage."""
    trace = Trace()
    trace.stage(stage)
    for event in events:
        trace.add(*event)
    return trace


@glibc
def test_a_heap_grows_by_the_blocks_that_live_at_once() -> None:
    steps = [event for key in range(50) for event in ((STORED, key, MIB), (DROPPED, key, 0))]
    together = [(STORED, key, MIB) for key in range(50)]
    assert MIB <= grown(trace_of(*steps))["adapt forward"] < 1.2 * MIB
    assert 50 * MIB <= grown(trace_of(*together))["adapt forward"] < 51 * MIB


@glibc
def test_a_replay_says_the_same_each_time() -> None:
    generator = torch.Generator().manual_seed(3)
    sizes = torch.randint(256, MIB, (400,), generator=generator).tolist()
    events: list[tuple[int, int, int]] = []
    for key, size in enumerate(sizes):
        events.append((STORED, key, size))
        if key % 3 == 2:
            events.append((DROPPED, key - 2, 0))
    first, second = grown(trace_of(*events)), grown(trace_of(*events))
    assert first == second


@glibc
def test_stages_have_peaks_of_their_own_and_only_adapting_is_told() -> None:
    trace = trace_of((STORED, 1, 8 * MIB), (DROPPED, 1, 0))
    trace.stage("adapt backward")
    trace.add(STORED, 2, 2 * MIB)
    trace.stage("predict")
    trace.add(STORED, 3, 64 * MIB)
    found = grown(trace)
    assert set(found) == {"adapt forward", "adapt backward"}
    assert found["adapt forward"] >= 8 * MIB


@glibc
def test_a_replay_that_fails_says_so_in_a_line() -> None:
    with pytest.raises(RuntimeError, match=r"^the replay of the heap failed: .*Error"):
        grown(trace_of((STAGE, 7, 0)))


def test_a_trace_forgets_a_storage_that_never_was() -> None:
    trace = trace_of((STORED, 1, 8), (STORED, 2, 16), (DROPPED, 3, 0))
    trace.unstore(2)
    assert list(trace) == [(STAGE, 0, 0), (STORED, 1, 8), (DROPPED, 3, 0)]


class Marked(torch.autograd.Function):
    """Gives its input on, and notes where its gradient lies."""

    seen: list[int] = []

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, *grads: torch.Tensor) -> torch.Tensor:
        own = grads[0] * 2
        Marked.seen.append(own.data_ptr())
        return own


@pytest.mark.parametrize("counted", [False, True])
def test_autograd_adds_up_in_place_unless_operators_are_counted(counted: bool) -> None:
    """The fact that `Live.adds_in_place` rests on."""
    Marked.seen = []
    x = torch.ones(1024, requires_grad=True)
    middle = x * 1
    sums: list[int] = []
    middle.register_hook(lambda grad: sums.append(grad.data_ptr()))
    # two terms: both are alive while they are added, so no sum can lie where the first one lay but by being it
    loss = torch.stack([Marked.apply(middle) for _ in range(2)]).sum()
    if counted:
        with FlopCounterMode(display=False):
            loss.backward()
    else:
        loss.backward()
    assert (sums[0] == Marked.seen[0]) is not counted


@pytest.mark.parametrize("counted", [False, True])
def test_a_rehearsal_adds_up_as_autograd_would(counted: bool) -> None:
    live = Live(Trace())
    with live:
        x = fake_like(torch.empty(1024)).requires_grad_()
        live.stage("adapt forward")
        middle = x * 1
        loss = sum((middle * k).sum() for k in range(2, 6))
        assert isinstance(loss, torch.Tensor)
        live.stage("adapt backward")
        if counted:
            with counting():
                loss.backward()
        else:
            loss.backward()
        live.stage("adapt step")
        del middle
        gc.collect()
    whole = [one for one in live.log if one.size == 4096 and one.stage.name == "adapt backward"]
    # each of four branches gives a gradient and the first product one more; sums take three more where they are made
    # apart, and what was added up must be freed once, whoever held it
    apart = 4 + 1 + 3
    assert len(whole) == (apart if counted else apart - 3)
    assert live.trace is not None
    told = list(live.trace)
    stored = [key for code, key, size in told if code == STORED and size == 4096]
    dropped = [key for code, key, _ in told if code == DROPPED]
    assert len(stored) == len(set(stored)) and len(dropped) == len(set(dropped))
    assert set(stored) - set(dropped) == {live.note(x.grad).number}  # type: ignore[arg-type]


def test_a_real_tensor_has_one_twin_a_form_and_none_when_gone() -> None:
    twins = Twins()
    real = torch.zeros(4, 6)
    assert twins.of(real, FAKES) is twins.of(real, FAKES)
    assert twins.of(real.T, FAKES) is twins.of(real.T, FAKES)
    assert twins.of(real.T, FAKES).stride() == (1, 6)
    del real
    gc.collect()
    assert not twins.made


def test_a_real_tensor_changed_in_place_stays_itself() -> None:
    state, gradient = torch.zeros(8), fake_like(torch.empty(8))
    with Live() as live:
        live.note(state)
        before = len(live.log)
        assert state.lerp_(gradient, 0.5) is state
        assert len(live.log) == before
