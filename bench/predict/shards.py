"""What one of several processes holds: a rehearsal of its share of a batch, with the model in copies or in parts.

The rehearsal itself holds everything whole. Bytes of parameters, gradients and optimizer state are then those of one
process (Rajbhandari et al. 2020, sections 5.2 to 5.4), with what sharding adds: buckets, and what is gathered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from bench.predict.timeline import KINDS, Stage, Timeline
from bench.records import CellInfo
from bench.strategy import Plan
from bench.train.sharding import beside, shared_out

IN_FLIGHT = 2
"""Blocks that are whole at once: one that computes, and one more that is being gathered into a buffer (FSDP2's gathers
copy out of it) or whose gradients are being reduced out of one."""
PARAMETERS, GRADIENTS, OPTIMIZER = (KINDS.index(kind) for kind in ("parameters", "gradients", "optimizer"))
TEMPORARIES = KINDS.index("temporaries")


@dataclass(frozen=True)
class Split:
    """How a plan is spread; bytes of it whole."""

    sharding: Literal["ddp", "fsdp2"]
    devices: int
    module: float
    """Parameters of the module."""
    root: float
    """Of those, what lies outside of blocks: gathered from the beginning of a forward to the end of a backward pass."""
    block: float
    """Parameters of the largest block."""
    trained: float
    """Trained parameters, in the module and beside it: what their gradients take."""
    kept_whole: float
    """Of those, the ones beside the module."""
    root_trained: float
    block_trained: float
    largest: float
    """The largest trained parameter: DDP copies one gradient after another into its bucket."""

    @staticmethod
    def of(cell: CellInfo, plan: Plan) -> Split | None:
        """How the plan of a cell is spread; None for one process."""
        if cell.sharding is None or plan.module is None:
            return None
        assert cell.devices is not None
        ids = {id(p) for group in plan.groups for p in group.params}
        stack = [list(block.parameters()) for block in shared_out(plan.module)]
        inside = {id(p) for block in stack for p in block}
        root = [p for p in plan.module.parameters() if id(p) not in inside]
        all_trained = [p for group in plan.groups for p in group.params]
        return Split(
            cell.sharding,
            cell.devices,
            module=size_of(list(plan.module.parameters())),
            root=size_of(root),
            block=max(map(size_of, stack)),
            trained=size_of(all_trained),
            kept_whole=size_of(beside(plan)),
            root_trained=size_of([p for p in root if id(p) in ids]),
            block_trained=max(size_of([p for p in block if id(p) in ids]) for block in stack),
            largest=max((float(p.nbytes) for p in all_trained), default=0.0),
        )

    @property
    def share(self) -> float:
        """Of gradients and optimizer state, what one process holds."""
        if not self.trained:
            return 1.0
        return ((self.trained - self.kept_whole) / self.devices + self.kept_whole) / self.trained

    def applied(self, timeline: Timeline, stages: list[Stage]) -> Timeline:
        """The bytes of one process, from the first step to the last. Before it and where the cell answers, the first
        process holds everything whole."""
        alive = timeline.alive.copy()
        for stage in stages:
            phase, _, step = stage.name.partition(" ")
            if phase != "adapt" or step not in ("forward", "backward", "step"):
                continue
            span = slice(stage.begins + 1, stage.ends + 1)
            if self.sharding == "ddp":
                alive[GRADIENTS, span] = self.trained + (self.largest if step == "backward" else 0.0)
                continue
            alive[PARAMETERS, span] -= self.module * (1 - 1 / self.devices)
            alive[[GRADIENTS, OPTIMIZER], span] *= self.share
            if step == "step":
                alive[TEMPORARIES, span] *= self.share
            else:
                alive[PARAMETERS, span] += self.root + IN_FLIGHT * self.block
            if step == "backward":
                alive[GRADIENTS, span] += self.root_trained + IN_FLIGHT * self.block_trained
        return Timeline(alive)


def size_of(parameters: list[nn.Parameter]) -> float:
    """Bytes; a parameter listed twice counts once."""
    return float(sum({id(p): p.nbytes for p in parameters}.values()))
