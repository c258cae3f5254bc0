"""Full fine-tuning: every weight trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from bench.strategy import Plan, Strategy, TaskContext
from bench.strategy import Options as Base_

if TYPE_CHECKING:
    from bench.models.base import Base


class Options(Base_):
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
    Options = Options

    def prepare(self, base: Base, context: TaskContext, options: Options) -> Plan:
        from bench.models.parts import freeze
        from bench.score.readers import make_reader
        from bench.train.plans import gradient_plan, target_of

        reader = make_reader(base, context)
        freeze(base.module)
        target = target_of(base, reader)

        def save(folder: Path) -> None:
            target.save_pretrained(str(folder))

        parameters = list(target.parameters())
        return gradient_plan(
            base, context, target, reader, parameters, options.lr, save, weight_decay=options.weight_decay
        )


strategy = Full()
