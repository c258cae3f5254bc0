"""LayerNorm tuning: only the gains and biases of the normalisation layers train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from bench.space import Log
from bench.strategy import Options, Plan, Strategy, TaskContext

if TYPE_CHECKING:
    from bench.models.base import Base


class LayerNormOptions(Options):
    """Options of `layernorm`."""

    lr: float = Field(9e-4, gt=0)
    """Peak learning rate. As BitFit's, the nearest relative with a published range: 1e-4 to 9e-4 with thousands of
    steps (Ben Zaken et al. 2022, appendix A.1)."""


class LayerNorm(Strategy):
    """Trains gain and bias of every LayerNorm or RMSNorm (Qi et al. 2022)."""

    family = "selective"
    trains = "gains and biases of the normalisation layers"
    parameters = "2 d a LayerNorm, d an RMSNorm"
    memory = "the weights once, 16 bytes a trained parameter in fp32; activations of every layer"
    paper = "Qi et al. 2022, Parameter-Efficient Tuning on Layer Normalization for Pre-trained Language Models"
    base_unchanged = False
    ranges = {"lr": Log(1e-4, 9e-4)}
    """1e-4 to 9e-4, as BitFit's (Ben Zaken et al. 2022, appendix A.1)."""
    Options = LayerNormOptions

    def prepare(self, base: Base, context: TaskContext, options: LayerNormOptions) -> Plan:
        from bench.models.parts import norm_parameters
        from bench.train.plans import selected_plan

        return selected_plan(base, context, norm_parameters, options.lr)


strategy = LayerNorm()
