"""Selective tuning: the parameters whose names match, and no other."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pydantic import Field

from bench.space import Log
from bench.strategy import Options, Plan, Strategy, TaskContext, Unsupported

if TYPE_CHECKING:
    from torch import nn

    from bench.models.base import Base


class SelectiveOptions(Options):
    """Options of `selective`."""

    lr: float = Field(5e-5, gt=0)
    """Peak learning rate. Published for attention only: 1e-5 to 1e-4 (Touvron et al. 2022, section 4)."""
    parameters: list[str] = Field(["*attn.*", "*attention.*", "*Attention.*"], min_length=1)
    """Globs of parameter names as transformers spells them; the default is attention only. `last_blocks` narrows it."""
    last_blocks: int | None = Field(None, ge=1)
    """Only in this many blocks at the top of the model; by default in all."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay, as in full fine-tuning."""


class Selective(Strategy):
    """Trains the parameters whose names match a glob (attention only: Touvron et al. 2022, section 4)."""

    family = "selective"
    trains = "parameters chosen by name, by default attention only"
    parameters = "those whose names match"
    memory = "the weights, 16 bytes a trained parameter in fp32; activations down to the lowest trained block"
    paper = "Touvron et al. 2022, Three things everyone should know about Vision Transformers; Lee et al. 2019"
    base_unchanged = False
    ranges = {"lr": Log(1e-5, 1e-4)}
    """1e-5 to 1e-4 (Touvron et al. 2022, section 4)."""
    Options = SelectiveOptions

    def prepare(self, base: Base, context: TaskContext, options: SelectiveOptions) -> Plan:
        from bench.train.plans import selected_plan

        def chosen(target: nn.Module) -> dict[str, nn.Parameter]:
            return matching(target, options)

        return selected_plan(base, context, chosen, options.lr, weight_decay=options.weight_decay)


def matching(target: nn.Module, options: SelectiveOptions) -> dict[str, nn.Parameter]:
    """The parameters chosen, by name. Raises `Unsupported` where a glob matches none."""
    from bench.models.parts import blocks

    named = dict(target.named_parameters())
    if options.last_blocks is not None:
        top = {id(p) for block in list(blocks(target, last=True))[-options.last_blocks :] for p in block.parameters()}
        named = {n: p for n, p in named.items() if id(p) in top}
    found = {n: p for n, p in named.items() if any(fnmatchcase(n, glob) for glob in options.parameters)}
    default = SelectiveOptions.model_fields["parameters"].get_default()
    # the default names attention in the words of every family, of which a model has one
    idle = [g for g in options.parameters if not any(fnmatchcase(n, g) for n in named)]
    if not found or (idle and options.parameters != default):
        example = next(iter(named), "none")
        raise Unsupported(f"no parameter matches {', '.join(idle)}: choose globs of names such as '{example}'")
    return found


strategy = Selective()
