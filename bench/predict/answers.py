"""What operators gave before: fakes of the same form give a fake of the same form.

torch remembers this, too, but for any tensor there is; looking it up takes several times as long as for plain ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
CPU = torch.device("cpu")


class Answers:
    """Forms of outputs, by operator and forms of arguments.

    A form is a shape, strides, a dtype, and of a view of the first argument the distance from where that begins. An
    empty one is the first argument, changed in place.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[Any, ...], tuple[Any, ...] | None] = {}
        """None: has to be asked each time."""

    def give(self, mode: FakeTensorMode, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """The output of an operator on fakes of `mode`."""
        key = key_of(func, args, kwargs)
        known = self.known.get(key) if key else None
        if known is not None:
            return made(mode, known, args)
        out = mode.dispatch(func, types, args, kwargs)  # what `func` comes to by a longer way
        if key and key not in self.known:
            self.known[key] = form_of(out, args)
        return out


def key_of(func: Any, args: Iterable[Any], kwargs: dict[str, Any]) -> tuple[Any, ...] | None:
    """Operator and forms of its arguments; None where they are not plain."""
    parts: list[Any] = [func, torch.is_inference_mode_enabled()]
    for value in (*args, *kwargs, *kwargs.values()):
        for one in (len(value), *value) if type(value) in (list, tuple) else (value,):
            if type(one) is FakeTensor:
                parts += (one.shape, one.stride(), one.dtype, one.storage_offset())  # `as_strided` counts from 0
            elif type(one) in PLAIN:
                parts += (type(one), one)
            else:
                return None
    return tuple(parts)


def form_of(out: Any, args: Any) -> tuple[Any, ...] | None:
    """The form of an output; None where it is no single fake with a storage of its own or of the first argument."""
    if type(out) is not FakeTensor or out.fake_device != CPU:
        return None
    form = (out.shape, out.stride(), out.dtype)
    first = args[0] if args and type(args[0]) is FakeTensor else None
    if out is first:
        return ()
    storage = out.untyped_storage()
    if first is not None and storage._cdata == first.untyped_storage()._cdata:
        if out.dtype != first.dtype or torch.is_inference_mode_enabled():  # there a view cannot be made by hand
            return None
        return (*form, out.storage_offset() - first.storage_offset())
    lone = not any(storage._cdata == leaf.untyped_storage()._cdata for leaf in args if isinstance(leaf, torch.Tensor))
    return (*form, None) if lone and out.storage_offset() == 0 and storage.nbytes() == bytes_of(*form) else None


def bytes_of(shape: Iterable[int], strides: Iterable[int], dtype: torch.dtype) -> int:
    """Bytes of the smallest storage for a form."""
    sizes = list(shape)
    reach = 1 + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    return reach * dtype.itemsize if all(sizes) else 0


def made(mode: FakeTensorMode, form: tuple[Any, ...], args: Any) -> Any:
    """A fake of a form."""
    if not form:
        return args[0]
    shape, strides, dtype, distance = form
    if distance is None:
        inner = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
    else:
        inner = torch.empty(0, dtype=dtype, device="meta")
        inner.set_(args[0].untyped_storage(), args[0].storage_offset() + distance, shape, strides)
    return FakeTensor(mode, inner, CPU)
