"""Fakes for real tensors that meet a fake in an operator."""

from __future__ import annotations

import weakref
from typing import Any

import torch


class Twins:
    """A fake for every form in which a real storage is used, kept as long as the storage.

    torch makes a new one each time, which takes longer than the operator that wants it.
    """

    def __init__(self) -> None:
        self.made: dict[int, dict[Any, torch.Tensor]] = {}

    def of(self, tensor: torch.Tensor, mode: Any) -> torch.Tensor:
        """The fake of this shape, strides and dtype."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.made:
            self.made[key] = {}
            weakref.finalize(storage, self.made.pop, key)
        form = tensor.shape, tensor.stride(), tensor.dtype
        if form not in self.made[key]:
            with mode:
                self.made[key][form] = torch.empty_strided(form[0], form[1], dtype=form[2])
        return self.made[key][form]
