"""In-context tuning: a model learns, on other tasks, to read demonstrations; a task of another type is the test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from bench.strategy import Needs, Plan, Strategy, TaskContext, Unsupported

from .few_shot import SaveRows
from .instruct import InstructionOptions

if TYPE_CHECKING:
    from bench.models.base import Base


class InContextOptions(InstructionOptions):
    """Options of `in_context_tuning`."""

    k: int = Field(4, ge=1)
    """Demonstrations before every instruction, in training and when the task is asked (MetaICL: 16, Min et al. 2022,
    section 4)."""


class InContextTuning(Strategy):
    """Cross-entropy of responses behind k demonstrations of the same task (Chen et al. 2022, section 2)."""

    family = "instruction tuning"
    trains = "low-rank factors, on tasks of other types, behind demonstrations"
    parameters = "r (in + out) a linear layer"
    memory = "as lora, for rows k + 1 times as long"
    paper = (
        "Chen et al. 2022, Meta-learning via Language Model In-context Tuning; Min et al. 2022, MetaICL: Learning to "
        "Learn In Context"
    )
    needs = Needs(kinds=frozenset(("causal",)), train_labels=1, labels=True, writes=True)
    readouts = ("verbalizer",)
    other_types = True
    Options = InContextOptions

    def prepare(self, base: Base, context: TaskContext, options: InContextOptions) -> Plan:
        from bench.data.draws import class_balanced
        from bench.score.demonstrations import Demonstrations
        from bench.score.replies import ReplyReader, Told
        from bench.train.instruction import instruction_plan

        if options.k > len(context.train):
            raise Unsupported(
                f"k={options.k} demonstrations, but {len(context.train)} labels: raise budget.labels or lower k"
            )
        rows = class_balanced(context.train, options.k, context.seed, context.classes)

        def answer(module: Any, reader: Any) -> Any:
            if isinstance(reader, ReplyReader):
                return Told(module, reader, rows)
            shown = Demonstrations(reader, module, context)
            shown.rows, shown.trained = rows, True
            return shown

        plan = instruction_plan(base, context, options, answer, shown=options.k, n=options.n)
        plan.labels_used = options.k
        weights, drawn = plan.save, SaveRows(rows)

        def save(folder: Any) -> None:
            weights(folder)
            drawn(folder)

        plan.save = save
        return plan


strategy = InContextTuning()
