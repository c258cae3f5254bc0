"""What a task that is answered in writing must say, and must not (kinds generate and tag)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.config.reply import OVERLAPS
from bench.errors import nearest

if TYPE_CHECKING:
    from bench.config.task import Task

RIGHT = ("wrong", "right")
"""The labels of kind generate."""
TARGET, RATIONALE = "target", "rationale"
"""Fields of written answers that no pattern may name: the answer from the label's column, and reasoning before it."""
INSTRUCTION, INPUT, MESSAGES = "instruction", "input", "messages"
"""Fields of instruction rows: what is asked, a text it is asked about (may be empty), and a chat that holds an
instruction and its answer."""


def check_written(task: Task) -> None:
    """Raise ValueError where right and wrong, or an overlap, would mean something else, or a row have no prompt."""
    if task.kind == "generate" and tuple(task.labels) != RIGHT:
        raise ValueError(f"with kind generate labels are {list(RIGHT)}, got {task.labels}")
    _metric(task)
    if TARGET in task.columns:
        raise ValueError(f"'{TARGET}' is what the label's column holds: name the column 'label'")
    if task.kind == "tag":
        _types(task)
    _source(task)
    if task.instructs:
        _input(task)


def check_chat(task: Task) -> None:
    """Raise ValueError where a chat is not all that a row holds."""
    if task.kind != "generate" or len(task.columns) > 1:
        raise ValueError(
            f"'{MESSAGES}' holds a chat, instruction and answer in one: give kind: generate and no other column, "
            f"got {task.kind} with {sorted(task.columns)}"
        )


def _metric(task: Task) -> None:
    """Each way of reading has metrics of its own."""
    assert task.reply is not None
    reads = task.reply.reads
    allowed: tuple[str, ...] = ("accuracy",)
    if (reads == "spans") != (task.kind == "tag"):
        raise ValueError(f"kind tag and reply.reads: spans go together, got kind {task.kind} with reads: {reads}")
    if reads == "free":
        allowed, means = OVERLAPS, "reads: free has metric rouge1, rouge2, rouge_l or chrf (how much a reply shares)"
    elif reads == "spans":
        allowed, means = ("span_f1",), "kind tag has metric span_f1 (of entities, over all items)"
    else:
        means = "kind generate has metric accuracy (the share of right replies)"
    if task.metric not in allowed or task.objective != "labels":
        raise ValueError(f"{means} and no other objective, got {task.metric}")


def _types(task: Task) -> None:
    """Types of entities are written before a colon and compared without case."""
    assert task.reply is not None
    if task.reply.finds is not None:
        raise ValueError("reply.finds looks into a text; with kind tag the label's column lists entities")
    if bad := [name for name in task.labels if not name[:1].isalnum() or not 0 < len(name) <= 40 or ":" in name]:
        raise ValueError(f"with kind tag a label is the type written before a colon, got '{bad[0]}'")
    if len({name.casefold() for name in task.labels}) < len(task.labels):
        raise ValueError(f"with kind tag labels are compared without case, got {task.labels}")


def _source(task: Task) -> None:
    """The field that is the baseline's must be one."""
    assert task.reply is not None
    given = task.reply.source
    if task.reply.reads != "free":
        if given is not None:
            raise ValueError("reply.source is for reads: free, whose baseline copies its first sentence")
        return
    if given is None and len(task.prompt_fields) != 1:
        raise ValueError(f"reads: free with several texts needs reply.source, one of {task.prompt_fields}")
    if given is not None and given not in task.prompt_fields:
        close = nearest(given, task.prompt_fields)
        hint = f"; did you mean '{close}'?" if close else ""
        raise ValueError(f"reply.source is '{given}', not one of {task.prompt_fields}{hint}")


def _input(task: Task) -> None:
    """A row without an input must have a prompt too."""
    if INPUT in task.columns and len({INPUT in one.places for one in task.templates}) == 1:
        raise ValueError(
            "the input of an instruction may be empty: give a pattern that names {input} and one that does not"
        )
