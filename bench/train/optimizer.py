"""The optimizer of every plan: AdamW on a schedule over the budget, with whole copies of half-precision weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from bench.strategy import Plan

WARM_UP = 0.06
"""Share of the budget over which the learning rate rises linearly; it falls linearly to zero after (LoRA, 4.1)."""
CLIP = 1.0
"""Gradient norm above which gradients are scaled down."""


def schedule(progress: float, begins: float = 0.0, ends: float = 1.0) -> float:
    """Factor on the learning rate at this share of the budget: linear warm-up, then linear decay to zero.

    Over the part from `begins` to `ends`; zero outside of it, and everywhere where that part is empty.
    """
    if progress < begins or ends <= begins:
        return 0.0
    progress = (progress - begins) / (ends - begins)
    if progress < WARM_UP:
        return progress / WARM_UP
    return max(0.0, (1.0 - progress) / (1.0 - WARM_UP))


def fuses(device: torch.device) -> bool:
    """Whether AdamW runs there as one kernel, which reads and writes every number once and needs no room beside."""
    return device.type in ("cuda", "cpu")


class Optimizer:
    """AdamW (Loshchilov & Hutter 2019) over a plan's groups, each at its own peak rate.

    A weight in 16 bits is updated in a 32-bit copy and rounded back: next to 1.0 bf16 has steps of 0.004 to 0.008, so
    that updates at usual rates would vanish (Micikevicius et al. 2018, section 3.1). A paged one's state moves to the
    host when the card is full (Dettmers et al. 2023, section 3).
    """

    def __init__(self, plan: Plan, foreach: bool = False) -> None:
        """`foreach`: on all weights at once; else fused where that is a gain, one weight after another elsewhere."""
        self.params = [p for g in plan.groups for p in g.params]
        self.clip: Callable[[list[nn.Parameter]], object] = partial(nn.utils.clip_grad_norm_, max_norm=CLIP)
        """Scales gradients down together; those that lie in parts on several processes have one norm, too."""
        self.whole = {id(p): p.detach().float() for p in self.params if p.dtype in (torch.bfloat16, torch.float16)}
        for copy in self.whole.values():
            copy.requires_grad_(True)
        self.spans = [[(g.lr, g.begins, g.ends), *g.later] for g in plan.groups]
        groups = [
            {"params": [self.whole.get(id(p), p) for p in g.params], "lr": g.lr, "weight_decay": g.weight_decay}
            for g in plan.groups
        ]
        if plan.paged:
            from bitsandbytes.optim import PagedAdamW32bit

            self.inner: torch.optim.Optimizer = PagedAdamW32bit(groups)
        else:
            fused = not foreach and all(fuses(p.device) for p in self.params)
            # None: as torch does on the device
            self.inner = torch.optim.AdamW(groups, foreach=foreach or None, fused=fused or None)

    @property
    def counts_on_device(self) -> bool:
        """Whether AdamW's count of steps lies beside the weights: a fused kernel reads it there."""
        return bool(self.inner.defaults.get("fused"))

    @property
    def held(self) -> list[torch.Tensor]:
        """What the optimizer itself updates, in the order of `params`: each parameter, or its 32-bit copy."""
        return [self.whole.get(id(p), p) for p in self.params]

    def step(self, progress: float) -> None:
        """One update at the rates of this share of the budget, gradients clipped together."""
        for group, spans in zip(self.inner.param_groups, self.spans, strict=True):
            group["lr"] = sum(lr * schedule(progress, begins, ends) for lr, begins, ends in spans)
        self.clip(self.params)
        copied = [(p, copy) for p in self.params if (copy := self.whole.get(id(p))) is not None] if self.whole else []
        for parameter, copy in copied:
            copy.grad = None if parameter.grad is None else parameter.grad.float()
        self.inner.step()
        with torch.no_grad():
            for parameter, copy in copied:
                parameter.copy_(copy)

    def restart(self) -> None:
        """Forget the moments of a stage that is over: another loss has gradients of another size."""
        self.inner.state.clear()

    def zero_grad(self) -> None:
        """Forget the gradients of weights and copies."""
        for parameter in self.params:
            parameter.grad = None
        for copy in self.whole.values():
            copy.grad = None
