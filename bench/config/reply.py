"""How a task's free answers are made and read (kind generate)."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from bench.config.data import compiles
from bench.config.frozen import Frozen


class Reply(Frozen):
    """The model writes; what counts of it is a number, yes or no, or a short text, and it is right or wrong."""

    reads: Literal["number", "yes_no", "text"] = Field(
        "number", description="what is looked for in the reply, and compared exactly with the label's column"
    )
    finds: str | None = Field(
        None, description="regular expression whose group is the answer in the label's column; before it may stand "
        "reasoning"
    )  # fmt: skip
    tokens: int = Field(32, ge=1, le=1024, description="most tokens of a reply that gives the answer at once")
    rationale_tokens: int = Field(192, ge=1, le=2048, description="most tokens of a reply that reasons first")

    @field_validator("finds")
    @classmethod
    def is_a_pattern(cls, value: str | None) -> str | None:
        """One group, which is the answer."""
        if compiles(value) is not None and re.compile(value or "").groups != 1:
            raise ValueError("a pattern with one group, the answer")
        return value
