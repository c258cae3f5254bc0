"""Full fine-tuning: every weight trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.space import Log
from bench.strategy import Options, Plan, Strategy, TaskContext

if TYPE_CHECKING:
    from bench.models.base import Base


class FullOptions(Options):
    """Options of `full`."""

    lr: float = Field(2e-5, gt=0)
    """Peak learning rate. Published: 2e-5 to 5e-5 (Devlin et al. 2019, appendix A.3)."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay (Devlin et al. 2019: 0.01)."""
    from_scratch: bool = False
    """Start from random weights of the same architecture: the control that shows what pretraining gives."""


class Full(Strategy):
    """Trains the whole model; under the head readout the backbone and the head."""

    family = "full fine-tuning"
    trains = "every weight"
    parameters = "N"
    memory = "weights, gradients and two moments: 16 bytes a parameter in fp32; every activation"
    paper = "Devlin et al. 2019, BERT; Howard & Ruder 2018, Universal Language Model Fine-tuning"
    base_unchanged = False
    shards = True
    ranges = {"lr": Log(1e-5, 5e-5)}
    """1e-5 to 5e-5 (Devlin et al. 2019, appendix A.3; Liu et al. 2019, table 10)."""
    Options = FullOptions

    def prepare(self, base: Base, context: TaskContext, options: FullOptions) -> Plan:
        from bench.models.parts import freeze
        from bench.score.readers import make_reader
        from bench.train.plans import Stored, gradient_plan, target_of

        if options.from_scratch:
            forget(base.module)
        reader = make_reader(base, context)
        freeze(base.module)
        target: Any = target_of(base, reader)

        def save(folder: Path) -> None:
            target.save_pretrained(str(folder))  # transformers' own, of a model or its backbone

        def load(folder: Path) -> None:
            stored = type(target).from_pretrained(str(folder)).state_dict()
            lost = target.load_state_dict(stored, strict=False).missing_keys  # BERT's comes with a pooler we do not use
            assert not lost, lost

        parameters = list(target.parameters())
        stored, decay = Stored(save, load), options.weight_decay
        plan = gradient_plan(base, context, target, reader, parameters, options.lr, stored, weight_decay=decay)
        if options.from_scratch:
            plan.notes.append("the pretrained weights were replaced by random ones: this cell is a control")
        return plan


def forget(module: Any) -> None:
    """Replace the weights by fresh ones, as the architecture initialises them, from the cell's seed."""
    module.load_state_dict(type(module)(module.config).state_dict())


strategy = Full()
