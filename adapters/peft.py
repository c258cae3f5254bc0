"""Any other method PEFT has: its type by name, its configuration passed through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.errors import nearest
from bench.space import around
from bench.strategy import Options, Plan, Strategy, TaskContext, Unsupported

if TYPE_CHECKING:
    from bench.models.base import Base


OWN = {
    "ADALORA": "the strategy adalora, whose ranks follow the budget",
    "PROMPT_TUNING": "the strategy prompt_tuning",
    "P_TUNING": "the strategy p_tuning",
    "PREFIX_TUNING": "the strategy prefix_tuning",
    "MULTITASK_PROMPT_TUNING": "prompt_tuning with sources (PEFT's needs task ids in every forward)",
    "POLY": "lora with sources (PEFT's needs task ids in every forward)",
}
"""Types that a bare configuration cannot drive, and what to use in their place."""


class PeftOptions(Options):
    """Options of `peft`."""

    lr: float = Field(1e-3, gt=0)
    """Peak learning rate. No one rate is published for all of PEFT's methods: set the method's own."""
    peft_type: str = Field("OFT", min_length=1)
    """A name of PEFT's `PeftType`, such as OFT, VERA or FOURIERFT; a wrong one is answered with all of them."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Keys of that type's PEFT configuration, by PEFT's names: `strategies.peft.config.r=4`."""


class AnyPeft(Strategy):
    """Trains what the chosen method of PEFT trains (Mangrulkar et al. 2022, the library)."""

    family = "any other PEFT method"
    trains = "what the chosen PEFT method trains"
    parameters = "the chosen method's"
    memory = "the chosen method's"
    paper = "Mangrulkar et al. 2022, PEFT: State-of-the-art Parameter-Efficient Fine-Tuning methods"
    ranges = {"lr": around(1e-3)}
    """Half a decade around the default, since no one rate is published for all methods."""
    Options = PeftOptions

    def prepare(self, base: Base, context: TaskContext, options: PeftOptions) -> Plan:
        from bench.train.plans import peft_plan

        return peft_plan(base, context, configuration(options), options.lr, everywhere="target_modules")


def configuration(options: PeftOptions) -> Any:
    """PEFT's configuration of the type asked for. Raises `Unsupported` for a type or key that PEFT does not have."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

    known = {kind.value: kind for kind in PeftType if kind in PEFT_TYPE_TO_CONFIG_MAPPING}
    name = options.peft_type.upper()
    if name not in known:
        raise Unsupported(f"PEFT has no type '{options.peft_type}': choose one of {', '.join(sorted(known))}")
    if name in OWN:
        raise Unsupported(f"{name} needs more than PEFT's configuration here: use {OWN[name]}")
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[known[name]]
    fields = kind.__dataclass_fields__
    for key in options.config:
        if key not in fields:
            close = nearest(key, fields)
            hint = f"did you mean '{close}'? If not, " if close else ""
            raise Unsupported(f"{kind.__name__} has no key '{key}': {hint}choose one of {', '.join(sorted(fields))}")
    try:
        return kind(**options.config)
    except (ValueError, TypeError) as error:
        raise Unsupported(f"{kind.__name__} refuses these options: {error}; choose others") from None


strategy = AnyPeft()
