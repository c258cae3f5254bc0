"""Full fine-tuning: every weight trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.strategy import Options, Plan, Strategy, TaskContext

if TYPE_CHECKING:
    from bench.models.base import Base


class FullOptions(Options):
    """Options of `full`."""

    lr: float = Field(2e-5, gt=0)
    """Peak learning rate. Published: 2e-5 to 5e-5 (Devlin et al. 2019, appendix A.3)."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay (Devlin et al. 2019: 0.01)."""


class Full(Strategy):
    """Trains the whole model; under the head readout the backbone and the head."""

    family = "full fine-tuning"
    trains = "every weight"
    paper = "Devlin et al. 2019, BERT; Howard & Ruder 2018, Universal Language Model Fine-tuning"
    base_unchanged = False
    Options = FullOptions

    def prepare(self, base: Base, context: TaskContext, options: FullOptions) -> Plan:
        from bench.models.parts import freeze
        from bench.score.readers import make_reader
        from bench.train.plans import gradient_plan, target_of

        reader = make_reader(base, context)
        freeze(base.module)
        target = target_of(base, reader)

        def save(folder: Path) -> None:
            save_pretrained: Any = target.save_pretrained  # transformers' own, on a model or its backbone
            save_pretrained(str(folder))

        parameters = list(target.parameters())
        return gradient_plan(
            base, context, target, reader, parameters, options.lr, save, weight_decay=options.weight_decay
        )


strategy = Full()
