"""AdapterFusion: several adapters are trained apart, then an attention over them is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.space import Log
from bench.strategy import Needs, Options, ParamGroup, Plan, Strategy, TaskContext, Unsupported

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bench.models.base import Base
    from bench.train.plans import Reader, Taught


NEVER_FUSED = "the attention over the adapters took no step before the budget ended: it is as it was made"


class AdapterFusionOptions(Options):
    """Options of `adapter_fusion`."""

    lr: float = Field(1e-3, gt=0)
    """Peak learning rate of the adapters. Published: 1e-4 (Pfeiffer et al. 2021, section 4.2), 3e-5 to 3e-3 (Houlsby
    et al. 2019, section 3.2)."""
    fusion_lr: float = Field(5e-5, gt=0)
    """Peak learning rate of the attention over them (Pfeiffer et al. 2021, section 4.2: 5e-5)."""
    reduction_factor: int = Field(16, ge=1)
    """The model's width divided by a bottleneck's (Pfeiffer et al. 2021: 16)."""
    value_penalty: float = Field(0.01, ge=0)
    """Weight of the squared distance of the value matrices from the identity, which keeps the attention from becoming
    a layer of its own (0.01 in the authors' AdapterHub)."""
    adapter_share: float = Field(0.5, gt=0, lt=1)
    """Share of the budget that trains adapters; the rest trains the attention. Each has a schedule of its own."""
    parts: int = Field(3, ge=2)
    """Without `sources`: disjoint parts of the labels, an adapter each. With sources there is one a task."""


class AdapterFusion(Strategy):
    """Stage one: an adapter a task. Stage two: softmax(Q h K z) V z over their outputs z, adapters frozen
    (Pfeiffer et al. 2021, section 3.2). Without other tasks the adapters are trained on parts of the labels."""

    family = "additive"
    trains = "a bottleneck network a task, then an attention over them"
    parameters = "n (2 m d + d + m) + 3 d^2 + d a block, n adapters"
    memory = "the weights, 16 bytes a trained parameter in fp32 (the attention is as large as a quarter of a block)"
    paper = "Pfeiffer et al. 2021, AdapterFusion: Non-Destructive Task Composition for Transfer Learning"
    needs = Needs(train_labels=2)
    ranges = {"lr": Log(3e-5, 3e-3)}
    """The adapters' learning rate: 3e-5 to 3e-3 (Houlsby et al. 2019, section 3.2)."""
    Options = AdapterFusionOptions

    def prepare(self, base: Base, context: TaskContext, options: AdapterFusionOptions) -> Plan:
        from bench.models.parts import count, freeze
        from bench.score.readers import make_reader
        from bench.train.plans import as_tensors, gradient_plan, target_of

        reader = make_reader(base, context)
        freeze(base.module)
        target = target_of(base, reader)
        taught = stages(base, context, reader, options)
        fused = len(taught.contexts) - 1
        stack = Stack(target, base.width, fused, options)
        stored = as_tensors("fusion.safetensors", stack.named())
        adapters, attention = stack.adapters, stack.attention
        plan = gradient_plan(
            base, context, target, reader, adapters, options.lr, stored, created=count(stack.all), taught=taught
        )
        for parameter in attention:
            parameter.requires_grad_(True)
        plan.groups[0].ends = options.adapter_share
        plan.groups.append(ParamGroup(attention, options.fusion_lr, begins=options.adapter_share))
        plan.wants = lambda group, progress: (group == fused) == (progress >= options.adapter_share)
        plan.loss = staged(plan, stack, fused, options.value_penalty)
        over = [c.name for c in taught.contexts[:-1]] if context.sources else f"{fused} parts of the labels"
        plan.notes.append(f"adapters trained on {over}, then an attention over them")
        plan.finish = lambda: finished(plan, stack)
        plan.pause = stack.fuse
        plan.own_state, plan.restore = stack.state, stack.restore
        return plan


def finished(plan: Plan, stack: Stack) -> None:
    """From here on all adapters are fused; say so where the attention never trained."""
    stack.fuse()
    if not stack.fusions:
        plan.notes.append(NEVER_FUSED)


def staged(plan: Plan, stack: Stack, fused: int, penalty: float) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """The loss of the group's own adapter, or of the attention with its values held near the identity."""
    assert plan.loss is not None
    fit = plan.loss

    def loss(batch: Any, labels: torch.Tensor) -> torch.Tensor:
        stack.use(batch.group)
        value = fit(batch, labels)
        return value + penalty * stack.departure() if batch.group == fused else value

    return loss


def stages(base: Base, context: TaskContext, reader: Reader, options: AdapterFusionOptions) -> Taught:
    """A group of examples for each adapter, and the task's own labels once more, last, for the attention."""
    from bench.train.plans import Taught

    own = replace(context, sources=(), formats=())  # a group is an adapter, never a format
    if context.sources:
        plain = tuple(replace(source, formats=()) for source in context.sources)
        tasks = Taught.of(base, replace(context, sources=plain, formats=()), reader)
        return Taught([*tasks.contexts, own], [*tasks.readers, reader])
    parts = min(options.parts, len(context.train))
    if parts < 2:
        raise Unsupported("adapters are fused from two or more parts of the labels: raise budget.labels")
    shares = [context.train.take(range(part, len(context.train), parts)) for part in range(parts)]
    return Taught([*(replace(own, train=share) for share in shares), own], [reader] * (parts + 1))


class Stack:
    """Adapters and attention at every place of a model, one adapter active or all of them fused."""

    def __init__(self, target: nn.Module, width: int, number: int, options: AdapterFusionOptions) -> None:
        from torch import nn

        from bench.models.bottleneck import bottleneck, places

        self.number = number
        self.active: int | None = None
        self.fusions = 0
        """Forwards in which the attention trained."""
        self.added: dict[str, nn.ModuleDict] = {}
        size = max(1, width // options.reduction_factor)
        for name in places(target, both=False):
            layer = target.get_submodule(name)
            like = next(layer.parameters())
            experts = nn.ModuleList([bottleneck(width, size, like) for _ in range(number)])
            self.added[name] = nn.ModuleDict({"experts": experts, "fusion": attention_over(width, like)})
            layer.add_module("fused", self.added[name])
            layer.register_forward_hook(self.through)

    def through(self, layer: Any, _: Any, output: torch.Tensor) -> torch.Tensor:
        """The sublayer's output plus the active adapter's, or plus the attention over all of them."""
        import torch

        experts, fusion = layer.fused["experts"], layer.fused["fusion"]
        if self.active is not None:
            added: torch.Tensor = experts[self.active](output)
            return output + added
        z = torch.stack([expert(output) for expert in experts], dim=-2)
        match = (fusion["query"](output).unsqueeze(-2) * fusion["key"](z)).sum(-1)
        weights = torch.softmax(match, dim=-1)
        return output + (weights.unsqueeze(-1) * fusion["value"](z)).sum(-2)

    def use(self, group: int) -> None:
        """A group's own adapter trains; in the last group all are fused and stay as they are.

        It holds until the next call: checkpointing runs the blocks again in the backward pass.
        """
        fused = group == self.number
        for parameter in self.adapters:
            parameter.requires_grad_(not fused)
        self.active = None if fused else group
        self.fusions += fused

    def fuse(self) -> None:
        """All adapters answer, through the attention over them, until the next batch says otherwise."""
        self.active = None

    def state(self) -> dict[str, torch.Tensor]:
        """How often the attention trained."""
        import torch

        return {"fusions": torch.tensor(self.fusions)}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from `state`."""
        self.fusions = int(state["fusions"])

    def departure(self) -> torch.Tensor:
        """Squared distance of the value matrices from the identity, summed over the places."""
        import torch

        values = [p for name, p in self.named().items() if name.endswith("fusion.value.weight")]
        return torch.stack(
            [(v - torch.eye(len(v), dtype=v.dtype, device=v.device)).square().sum() for v in values]
        ).sum()

    def named(self) -> dict[str, nn.Parameter]:
        """All parameters by place."""
        return {f"{place}.{n}": p for place, module in self.added.items() for n, p in module.named_parameters()}

    @property
    def all(self) -> list[nn.Parameter]:
        """Adapters and attention."""
        return [*self.adapters, *self.attention]

    @property
    def adapters(self) -> list[nn.Parameter]:
        """Parameters of the first stage."""
        return [p for name, p in self.named().items() if ".experts." in name]

    @property
    def attention(self) -> list[nn.Parameter]:
        """Parameters of the second stage."""
        return [p for name, p in self.named().items() if ".fusion." in name]


def attention_over(width: int, like: nn.Parameter) -> nn.Module:
    """Query, key and value; the value starts as nearly the identity (Pfeiffer et al. 2021, section 3.2)."""
    import torch
    from torch import nn

    value = nn.Linear(width, width, bias=False)
    with torch.no_grad():
        value.weight.copy_(torch.eye(width) + 1e-6 * torch.randn(width, width))
    # keys have no bias: what all of them share changes no softmax over them, so it would be counted and never learn
    parts = {"query": nn.Linear(width, width), "key": nn.Linear(width, width, bias=False), "value": value}
    return nn.ModuleDict(parts).to(device=like.device, dtype=like.dtype)


strategy = AdapterFusion()
