"""One prompt of a chain: what it asks, what its output is called, and where the output ends."""

from __future__ import annotations

from pydantic import Field

from bench.config.frozen import Frozen

TASK_PROMPT = "task_prompt"
"""The field that holds the task's own prompt of a row."""


class Step(Frozen):
    """A prompt whose written output becomes a field of the prompts after it."""

    name: str = Field(pattern=r"^\w+$", description="field that holds the output: letters, digits and underscores")
    pattern: str = Field(description="text with {field} places: the task's fields, task_prompt and earlier outputs")
    tokens: int = Field(32, ge=1, le=1024, description="most tokens of the output")
    ends: str = Field("\n", min_length=1, description="what the output ends before, where it is written")
