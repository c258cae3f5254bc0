"""FLOPs of whatever runs inside a block, by operator shapes. A multiply and an add are two.

torch's counter knows matrix products, convolutions and the CUDA attention kernels; the CPU's fused attention is
missing there and gets the same formula (verified against the unfused kernel in the tests).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def cpu_attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Forward of `_scaled_dot_product_flash_attention_for_cpu`; arguments are shapes (batch, heads, length, dim)."""
    return sdpa_flop_count(query, key, value)


def cpu_attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Its backward, which recomputes the scores: 2.5 times the forward (Dao et al. 2022, section 3.1)."""
    return sdpa_backward_flop_count(grad, query, key, value)


def formulas() -> dict[Any, Callable[..., int]]:
    """Formulas for the operators torch's counter does not know."""
    aten = torch.ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: cpu_attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: cpu_attention_backward,
    }


class Count:
    """FLOPs counted so far by `counting`."""

    flops: int = 0


@contextmanager
def counting() -> Iterator[Count]:
    """Count FLOPs of the block; costs a few times the dispatch time, so it is used once a shape."""
    count = Count()
    with FlopCounterMode(display=False, custom_mapping=formulas()) as mode:
        yield count
    count.flops = int(mode.get_total_flops())
