"""Instructions in front of a task's prompt: how one is asked for, and how a model answers under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.budget import Meter
from bench.config.schema import Task, Template
from bench.config.task import TARGET
from bench.data.prompts import words
from bench.data.rows import Rows
from bench.score.adapted import Adapted
from bench.score.answers import VerbalizerReader
from bench.score.replies import Told

BETWEEN = "\n\n"
"""What stands between an instruction and the task's own prompt."""


def asking(task: Task, template: Template, shown: Rows) -> str:
    """The prompt that asks which instruction these rows with their answers followed (Zhou et al. 2023, section 3.1:
    forward generation, the instruction being what stands last)."""
    parts = [f"Input: {told(task, fields)}\nOutput: {answer_of(task, template, fields, label)}"
             for fields, label in zip(shown.fields, shown.labels, strict=True)]  # fmt: skip
    return (
        "All of these outputs follow from their inputs by one and the same instruction.\n\n"
        + "\n\n".join(parts)
        + "\n\nThe instruction, in one sentence:"
    )


def told(task: Task, fields: dict[str, str]) -> str:
    """A row as an input: its one text, or each by its field's name."""
    names = task.prompt_fields
    return fields[names[0]] if len(names) == 1 else "; ".join(f"{name}: {fields[name]}" for name in names)


def answer_of(task: Task, template: Template, fields: dict[str, str], label: int) -> str:
    """A row's output: what would be right."""
    return fields[TARGET] if task.kind == "generate" else words(template, task.labels)[label].strip()


def cleaned(text: str) -> str:
    """A written instruction in one line without quotes around it; a brace would ask for a field's text."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.split()).strip("\"'` ").replace("{", "(").replace("}", ")")


@dataclass
class Instructed:
    """Answers the task's prompt with an instruction above it, or with none as it is."""

    plain: Adapted | Told
    """Without one."""
    template: Template
    """The task's own prompt."""
    instruction: str = ""

    def __post_init__(self) -> None:
        self.inner = self.under(self.instruction)

    def under(self, instruction: str) -> Adapted | Told:
        """The same model under another instruction, with a count of truncated inputs of its own.

        What the instruction adds comes on top of `sequence`, as demonstrations do: the row's own text is cut as it is
        without.
        """
        front = f"{instruction}{BETWEEN}" if instruction else ""
        asked = self.plain.through(self.template.model_copy(update={"pattern": front + self.template.pattern}))
        reader = asked.reader
        assert isinstance(reader, VerbalizerReader)
        reader.sequence += len(reader.tokens(front)) if front else 0
        return asked

    def follow(self, instruction: str) -> None:
        """Answer under this instruction from now on."""
        self.instruction, self.inner = instruction, self.under(instruction)

    @property
    def truncated(self) -> int:
        return self.inner.truncated

    def through(self, template: Template) -> Instructed:
        """The same instruction above another prompt."""
        return replace(self, template=template)

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Float64 scores (rows, labels) in the order given."""
        return self.inner.predict(fields, meter)
