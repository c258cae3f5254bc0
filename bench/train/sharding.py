"""What several processes hold of a plan: each a copy (DDP), or each a part (FSDP2).

Both average gradients over the processes, so a plan's loss is multiplied by their number: weighted by each one's share
of the rows it then adds up to the mean over the whole batch. Sources: Li et al. 2020, PyTorch Distributed (DDP);
Rajbhandari et al. 2020, ZeRO, sections 5.3 and 5.4 (what FSDP2 does with parameters, gradients and optimizer state).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from bench.models.parts import blocks
from bench.strategy import Plan
from bench.train.optimizer import CLIP

Total = Callable[[Sequence[float]], list[float]]
"""Sums of numbers over all processes."""
Mean = Callable[[torch.Tensor], torch.Tensor]
"""Mean of a tensor over all processes."""


class Loss(nn.Module):
    """A plan's loss as a module's forward, which DDP can go around; its parameters are all that the plan trains."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        assert plan.module is not None and plan.loss is not None
        self.module, self.beside = plan.module, nn.ParameterList(beside(plan))
        self.fit = plan.loss

    def forward(self, batch: Any, labels: torch.Tensor) -> torch.Tensor:
        """The scalar loss, mean over the batch's rows."""
        return self.fit(batch, labels)


class Replicas:
    """Every process holds all of the plan; gradients are averaged in buckets while the backward pass goes on."""

    def __init__(self, plan: Plan, size: int) -> None:
        from torch.nn.parallel import DistributedDataParallel

        assert plan.loss is not None
        self.alone = plan.loss
        # one of several heads has no gradient in a step of another task: DDP must look which ones have
        options: dict[str, Any] = {
            "find_unused_parameters": True,
            "gradient_as_bucket_view": True,
            "broadcast_buffers": False,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # 2.13 has another name for the last one, 2.8 has not
            self.wrapped = DistributedDataParallel(Loss(plan), **options)
        plan.loss = lambda batch, labels: self.wrapped(batch, labels) * size

    def passing(self, last: bool) -> AbstractContextManager[Any]:
        """The context of a forward and backward pass: only the last one of a step averages gradients."""
        return nullcontext() if last else self.wrapped.no_sync()

    def finish_gradients(self, mean: Mean) -> None:
        """What is left to do once all passes are over: nothing."""

    def holds_gradient(self, params: list[nn.Parameter]) -> bool:
        """Whether any gradient of these is not zero."""
        return any(p.grad is not None and bool(p.grad.any()) for p in params)

    def whole(self, plan: Plan, first: bool) -> dict[str, torch.Tensor] | None:
        """Take the wrapper off: the plan answers as it is, so nothing is gathered."""
        plan.loss = self.alone
        del self.wrapped
        return None


class Shards:
    """Every process holds a part of each parameter, of its gradient and of its optimizer state.

    A block of the model is whole on a process only while it computes; what lies outside of blocks (embeddings, LM head)
    from the beginning of a forward pass to the end of its backward pass. A head beside the model stays whole.
    """

    def __init__(self, plan: Plan, size: int, device: str) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        assert plan.module is not None and plan.loss is not None
        module, mesh, fit = plan.module, init_device_mesh(device, (size,)), plan.loss
        self.beside = beside(plan)
        names = {id(p): name for name, p in module.named_parameters()}
        places = [[names.get(id(p)) or p for p in group.params] for group in plan.groups]
        for group in plan.groups:
            group.params.clear()  # whoever holds a whole parameter keeps its memory
        for block in shared_out(module):
            fully_shard(block, mesh=mesh)
        fully_shard(module, mesh=mesh)
        parts = dict(module.named_parameters())
        for group, of in zip(plan.groups, places, strict=True):
            group.params.extend(parts[one] if isinstance(one, str) else one for one in of)
        plan.loss = lambda batch, labels: fit(batch, labels) * size

    def passing(self, last: bool) -> AbstractContextManager[Any]:
        """The context of a forward and backward pass: every one averages, or whole gradients would be held."""
        return nullcontext()

    def finish_gradients(self, mean: Mean) -> None:
        """Average the gradients of what lies beside the model."""
        for parameter in self.beside:
            if parameter.grad is not None:
                parameter.grad = mean(parameter.grad)

    @torch.no_grad()
    def holds_gradient(self, params: list[nn.Parameter]) -> bool:
        """Whether the part of any gradient that lies here is not zero."""
        return any(p.grad is not None and bool(local(p.grad).any()) for p in params)

    @torch.no_grad()
    def clip(self, params: list[nn.Parameter], total: Total) -> None:
        """Scale gradients down to norm `CLIP` together, as `nn.utils.clip_grad_norm_` does with whole ones."""
        grads = [p.grad for p in params if p.grad is not None]
        parts, whole = [g for g in grads if local(g) is not g], [g for g in grads if local(g) is g]
        square = total([square_of(map(local, parts))])[0] + square_of(whole)
        factor = CLIP / (square**0.5 + 1e-6)
        if factor < 1:
            for grad in grads:
                local(grad).mul_(factor)

    @torch.no_grad()
    def whole(self, plan: Plan, first: bool) -> dict[str, torch.Tensor] | None:
        """All that training has changed, whole and on the CPU, for the first process; every one must ask."""
        found = {}
        for name, tensor in changed(plan):
            gathered = gather(tensor)
            if first:
                found[name] = gathered.detach().cpu().clone()
        return found


def beside(plan: Plan) -> list[nn.Parameter]:
    """Trained parameters outside of the plan's module, such as fresh heads."""
    assert plan.module is not None
    inside = {id(p) for p in plan.module.parameters()}
    return [p for group in plan.groups for p in group.params if id(p) not in inside]


def shared_out(module: nn.Module) -> list[nn.Module]:
    """The transformer blocks of a model, of both stacks where it has two."""
    return list(dict.fromkeys([*blocks(module), *blocks(module, last=True)]))


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that lies on this process; itself, where it lies whole on each."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gather(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor whole."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def square_of(grads: Any) -> float:
    """Sum of the squares of all numbers in some gradients."""
    squares = [torch.linalg.vector_norm(g.detach(), dtype=torch.float32) ** 2 for g in grads if g.numel()]
    return float(torch.stack(squares).sum()) if squares else 0.0


def changed(plan: Plan) -> Iterator[tuple[str, torch.Tensor]]:
    """What training has changed, by name: trained parameters in order, and what the method itself keeps."""
    for i, parameter in enumerate(p for group in plan.groups for p in group.params):
        yield f"weight.{i}", parameter
    for name, tensor in (plan.own_state() if plan.own_state is not None else {}).items():
        yield f"own.{name}", tensor


def take_over(plan: Plan, trained: dict[str, torch.Tensor]) -> None:
    """Bring a freshly prepared plan to where one is that was trained in parts."""
    with torch.no_grad():
        for i, parameter in enumerate(p for group in plan.groups for p in group.params):
            parameter.copy_(trained[f"weight.{i}"])
    if plan.restore is not None:
        plan.restore({name.removeprefix("own."): t for name, t in trained.items() if name.startswith("own.")})
