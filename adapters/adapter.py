"""Bottleneck adapters: small residual networks after the sublayers of a frozen model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bench.space import Log
from bench.strategy import Options, Plan, Strategy, TaskContext

if TYPE_CHECKING:
    from torch import nn

    from bench.models.base import Base


class AdapterOptions(Options):
    """Options of `adapter`."""

    lr: float = Field(1e-3, gt=0)
    """Peak learning rate. Published: 3e-5 to 3e-3 (Houlsby et al. 2019, section 3.2), 1e-4 (Pfeiffer et al. 2021)."""
    placement: Literal["pfeiffer", "houlsby"] = "pfeiffer"
    """After every feed-forward sublayer (Pfeiffer et al. 2021), or after every sublayer (Houlsby et al. 2019)."""
    reduction_factor: int = Field(16, ge=1)
    """The model's width divided by the bottleneck's (Pfeiffer et al. 2021: 16)."""


class Adapter(Strategy):
    """Trains h + W_up GELU(W_down h) after sublayers: 2 m d + d + m numbers each (Houlsby et al. 2019, section 2.1)."""

    family = "additive"
    trains = "bottleneck networks after the sublayers"
    parameters = "2 m d + d + m an adapter, one (Pfeiffer) or two (Houlsby) a block"
    memory = "the weights once, 16 bytes a trained parameter in fp32; activations of every layer"
    paper = "Houlsby et al. 2019, Parameter-Efficient Transfer Learning for NLP; Pfeiffer et al. 2021, AdapterFusion"
    ranges = {"lr": Log(3e-5, 3e-3)}
    """3e-5 to 3e-3 (Houlsby et al. 2019, section 3.2)."""
    Options = AdapterOptions

    def prepare(self, base: Base, context: TaskContext, options: AdapterOptions) -> Plan:
        from bench.models.parts import count, freeze
        from bench.score.readers import make_reader
        from bench.train.plans import as_tensors, gradient_plan, target_of

        reader = make_reader(base, context)
        freeze(base.module)
        target = target_of(base, reader)
        added = insert(target, base.width, options)
        named = {f"{place}.{n}": p for place, module in added.items() for n, p in module.named_parameters()}

        parameters = list(named.values())
        stored = as_tensors("adapters.safetensors", named)
        return gradient_plan(base, context, target, reader, parameters, options.lr, stored, created=count(parameters))


def insert(target: nn.Module, width: int, options: AdapterOptions) -> dict[str, nn.Module]:
    """Put a bottleneck after each chosen sublayer; the new modules by the name of the layer they follow.

    A hook applies it, so that every layer keeps its class and the attributes its family reads.
    """
    from bench.models.bottleneck import bottleneck, places

    size = max(1, width // options.reduction_factor)
    added: dict[str, nn.Module] = {}
    for name in places(target, both=options.placement == "houlsby"):
        layer = target.get_submodule(name)
        added[name] = bottleneck(width, size, next(layer.parameters()))
        layer.add_module("bottleneck", added[name])
        layer.register_forward_hook(through)
    return added


def through(layer: Any, _: Any, output: Any) -> Any:
    """The sublayer's output plus what the bottleneck makes of it."""
    return output + layer.bottleneck(output)


strategy = Adapter()
