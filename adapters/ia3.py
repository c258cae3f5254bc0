"""(IA)3: learned vectors rescale keys, values and the feed-forward's inner activations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.space import around
from bench.strategy import Options, Plan, Strategy, TaskContext

if TYPE_CHECKING:
    from bench.models.base import Base


BERT = (r".*\.(key|value)|.*layer\.\d+\.output\.dense", r".*layer\.\d+\.output\.dense")
DEFAULTS: dict[str, Any] = {"bert": BERT, "roberta": BERT, "xlm-roberta": BERT}
"""Where PEFT's own list of names takes in more than the paper: `output.dense` ends attention as well. (GPT-2 has one
layer for queries, keys and values, so all three are rescaled there.)"""


class IA3Options(Options):
    """Options of `ia3`; those PEFT has carry PEFT's names."""

    lr: float = Field(3e-3, gt=0)
    """Peak learning rate. Published: 3e-3 (Liu et al. 2022, T-Few, section 3.3)."""
    target_modules: list[str] | None = None
    """Layers to rescale by name; by default keys, values and the feed-forward's second layer of the family."""
    feedforward_modules: list[str] | None = None
    """Those of them whose input is rescaled, not the output."""


class IA3(Strategy):
    """Trains one vector for keys, values and inner activations of each block (Liu et al. 2022, section 3.3)."""

    family = "additive"
    trains = "vectors that rescale keys, values and inner activations"
    parameters = "keys + values + f a block (GPT-2: queries too)"
    memory = "the weights once, next to nothing for the vectors; activations of every layer"
    paper = "Liu et al. 2022, Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning"
    ranges = {"lr": around(3e-3)}
    """Half a decade around the one published, 3e-3 (Liu et al. 2022, section 3.3)."""
    Options = IA3Options

    def prepare(self, base: Base, context: TaskContext, options: IA3Options) -> Plan:
        from peft import IA3Config

        from bench.train.plans import peft_plan

        targets, inner = options.target_modules, options.feedforward_modules
        if targets is None:
            known: Any = base.module.config
            targets, inner = DEFAULTS.get(known.model_type, (targets, inner))
        config = IA3Config(target_modules=targets, feedforward_modules=inner)
        return peft_plan(base, context, config, options.lr)


strategy = IA3()
