"""BitFit: only bias terms train."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from pydantic import Field

from bench.space import Log
from bench.strategy import Options, Plan, Strategy, TaskContext, Unsupported

if TYPE_CHECKING:
    from torch import nn

    from bench.models.base import Base


class BitFitOptions(Options):
    """Options of `bitfit`."""

    lr: float = Field(9e-4, gt=0)
    """Peak learning rate. Published: 1e-4 to 9e-4 with thousands of steps (Ben Zaken et al. 2022, appendix A.1)."""
    create: bool = False
    """Add zero biases to the linear layers of a model that has none (Llama-style). No longer the paper's method on
    such a model: the record says so."""


class BitFit(Strategy):
    """Trains every bias of the model it is given (Ben Zaken et al. 2022, section 3)."""

    family = "selective"
    trains = "bias terms"
    parameters = "the bias terms, or one a linear output where they are created"
    memory = "the weights once; a bias needs no stored input, so fewer activations than LoRA"
    paper = "Ben Zaken et al. 2022, BitFit: Simple Parameter-efficient Fine-tuning"
    base_unchanged = False
    ranges = {"lr": Log(1e-4, 9e-4)}
    """1e-4 to 9e-4 (Ben Zaken et al. 2022, appendix A.1)."""
    Options = BitFitOptions

    def prepare(self, base: Base, context: TaskContext, options: BitFitOptions) -> Plan:
        from bench.train.plans import selected_plan

        created: list[nn.Parameter] = []

        def biases(target: nn.Module) -> dict[str, nn.Parameter]:
            created.extend(create_biases(target) if options.create else [])
            return {name: p for name, p in target.named_parameters() if name.split(".")[-1] == "bias"} or refuse()

        plan = selected_plan(base, context, biases, options.lr)
        if created:
            numbers = sum(p.numel() for p in created)
            plan.notes.append(
                f"{len(created)} zero biases ({numbers:,} parameters) were added: the model has none there"
            )
        return plan


def refuse() -> NoReturn:
    """Llama-style models have no bias terms."""
    raise Unsupported(
        "this model has no bias terms: use create=true, which adds zero biases to its linear layers, or lora"
    )


def create_biases(target: nn.Module) -> list[nn.Parameter]:
    """A zero bias for every linear layer of the blocks that has none; the new parameters."""
    import torch
    from torch import nn

    from bench.models.parts import linear_layers

    created: list[nn.Parameter] = []
    for layer in linear_layers(target).values():
        if isinstance(layer, nn.Linear) and layer.bias is None:
            weight = layer.weight
            layer.bias = nn.Parameter(torch.zeros(layer.out_features, dtype=weight.dtype, device=weight.device))
            created.append(layer.bias)
    return created


strategy = BitFit()
