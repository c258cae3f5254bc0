"""Instruction tuning: other tasks as instructions in many wordings; a task of a type never trained on is the test."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from bench.strategy import Needs, Options, Plan, Strategy, TaskContext

if TYPE_CHECKING:
    from bench.models.base import Base


class InstructionOptions(Options):
    """What the strategies that train on other tasks' instructions share. What trains is LoRA's."""

    lr: float = Field(2e-4, gt=0)
    """Peak learning rate. Published for factors on instructions: 1e-4 to 2e-4 (Dettmers et al. 2023, table 9)."""
    r: int = Field(8, ge=1)
    """Rank of the factors."""
    lora_alpha: int = Field(16, ge=1)
    """The update is scaled by lora_alpha / r."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get factors, as lora's."""
    n: int | None = Field(None, ge=1)
    """Rows of every source that are trained on; None: all that the label budget allows."""
    formats_in_training: int = Field(10, ge=1)
    """Prompt formats of every source, one drawn for each row: its templates first, then formats made of its material
    (FLAN has ten templates a data set, Wei et al. 2022, section 2.1)."""


class InstructOptions(InstructionOptions):
    """Options of `instruct`."""

    select: Literal["drawn", "chosen"] = "drawn"
    """Which n rows of an instruction file: as drawn, or those of best form that are most unlike each other, by rules
    that stand in for reading them (Zhou et al. 2023, LIMA, section 2). Rows of other tasks are always drawn."""
    sift: bool = False
    """Leave out instructions that are near another one (ROUGE-L from 0.7), too short, too long or not about text (Wang
    et al. 2023, Self-Instruct, section 2.2)."""
    rationales: bool = False
    """Train on the reasoning and then the answer, where a source has it (Mukherjee et al. 2023, Orca, section 3)."""


class Instruct(Strategy):
    """Cross-entropy of responses to instructions of other types of tasks (Wei et al. 2022, section 2)."""

    family = "instruction tuning"
    trains = "low-rank factors, on tasks of other types"
    parameters = "r (in + out) a linear layer"
    memory = "as lora"
    paper = (
        "Wei et al. 2022, Finetuned Language Models Are Zero-Shot Learners; Zhou et al. 2023, LIMA; Wang et al. 2023, "
        "Self-Instruct; Mukherjee et al. 2023, Orca"
    )
    needs = Needs(kinds=frozenset(("causal",)), train_labels=0)
    readouts = ("verbalizer",)
    other_types = True
    # no `ranges`: trials are judged by labels of the held-out task, and then it is held out no more
    Options = InstructOptions

    def prepare(self, base: Base, context: TaskContext, options: InstructOptions) -> Plan:
        from bench.train.instruction import instruction_plan

        return instruction_plan(
            base,
            context,
            options,
            partial(answer, options.rationales),
            rationales=options.rationales,
            sifted=options.sift,
            select=options.select,
            n=options.n,
        )


def answer(reasons: bool, module: Any, reader: Any) -> Any:
    """How the held-out task is answered: where answers are written and rationales were trained on, after reasoning."""
    from bench.score.replies import ReplyReader, Told, answering

    if reasons and isinstance(reader, ReplyReader):
        return Told(module, reader, reasons=True)
    return answering(module, reader)


strategy = Instruct()
