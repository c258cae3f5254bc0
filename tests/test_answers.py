"""Remembered answers are what the fake mode would say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.predict.answers import Answers, bytes_of
from bench.predict.fakes import FAKES, fake_like

aten = torch.ops.aten
GRID = torch.empty(6, 4)


def calls() -> list[tuple[Any, tuple[Any, ...]]]:
    """Operators with an output of their own, views, views of views, and such as nothing can be said of."""
    grid, part = fake_like(GRID), fake_like(torch.empty(8, 4))[2:]
    return [
        (aten.mul.Tensor, (grid, grid)),
        (aten.mul.Tensor, (grid, 2.0)),
        (aten.mm.default, (grid, fake_like(torch.empty(4, 3)))),
        (aten.t.default, (grid,)),
        (aten.view.default, (part, [24])),
        (aten.slice.Tensor, (part, 0, 1, 3)),
        (aten._unsafe_view.default, (grid, [24])),
        (aten.detach.default, (part,)),
        (aten.cat.default, ([grid, part], 1)),
        (aten.sum.dim_IntList, (grid, [1], True)),
        (aten.expand.default, (fake_like(torch.empty(6, 1)), [6, 4])),
        (aten.empty_like.default, (grid.t(),)),
        (aten.native_layer_norm.default, (grid, [4], None, None, 1e-5)),
        (aten.add_.Tensor, (grid, part)),
    ]


def told(out: Any, args: tuple[Any, ...]) -> list[Any]:
    """All that is counted of an output: its form, its bytes, and whether it lies where the first argument does."""
    first = args[0] if isinstance(args[0], torch.Tensor) else args[0][0]
    return [
        (one.shape, one.stride(), one.dtype, one.device, one.untyped_storage().nbytes(),
         one.storage_offset() - first.storage_offset(), one.untyped_storage()._cdata == first.untyped_storage()._cdata)
        for one in (out if isinstance(out, tuple) else (out,))
    ]  # fmt: skip


@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize("at", range(len(calls())))
def test_the_second_answer_is_the_first(at: int, inference: bool) -> None:
    answers = Answers()
    seen = []
    for _ in range(3):
        func, args = calls()[at]
        with torch.inference_mode(inference):
            seen.append(told(answers.give(FAKES, func, (), args, {}), args))
    plain, args = calls()[at]
    assert seen == [told(FAKES.dispatch(plain, (), args, {}), args)] * 3


def test_answers_of_one_tensor_are_remembered() -> None:
    answers = Answers()
    for func, args in calls():
        answers.give(FAKES, func, (), args, {})
    asked = {key[0] for key, form in answers.known.items() if form is None}
    assert asked == {aten.native_layer_norm.default}
    grid = fake_like(GRID)
    assert answers.give(FAKES, aten.add_.Tensor, (), (grid, fake_like(torch.empty(8, 4))[2:]), {}) is grid


def test_forms_that_differ_have_answers_of_their_own() -> None:
    answers, grid = Answers(), fake_like(GRID)
    for other in (grid, fake_like(GRID.half()), fake_like(GRID.T), fake_like(GRID[:5])):
        out = answers.give(FAKES, aten.mul.Tensor, (), (other, 2), {})
        assert (out.shape, out.dtype) == (other.shape, other.dtype)
    assert answers.give(FAKES, aten.mul.Tensor, (), (fake_like(GRID.int()), 2), {}).dtype == torch.int32
    assert answers.give(FAKES, aten.mul.Tensor, (), (fake_like(GRID.int()), 2.0), {}).dtype == torch.float32


def test_a_view_that_counts_from_the_storages_begin_stays_there() -> None:
    answers, whole = Answers(), fake_like(torch.empty(8, 4))
    for part in (whole[1:], whole[3:]):
        out = answers.give(FAKES, aten.as_strided.default, (), (part, [4], [1], 2), {})
        assert out.storage_offset() == 2


def test_bytes_of_a_form() -> None:
    assert bytes_of((6, 4), (4, 1), torch.float32) == 96
    assert bytes_of((6, 4), (1, 6), torch.float16) == 48
    assert bytes_of((6, 4), (1, 0), torch.float32) == 24
    assert bytes_of((0, 4), (4, 1), torch.float32) == 0
    assert bytes_of((), (), torch.float64) == 8
