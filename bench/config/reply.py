"""How a task's free answers are made and read (kinds generate and tag), and what is kept of each."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from bench.config.data import compiles
from bench.config.frozen import Frozen

OVERLAPS = ("rouge1", "rouge2", "rouge_l", "chrf")
"""Metrics of a free text, each a number 0..1 an item; all four are kept, the task's one decides."""
SPANS = ("hits", "found", "gold")
"""Kept of an item with entities: spans found and right, spans found, spans there are."""
KEPT: dict[str, tuple[str, ...]] = {**dict.fromkeys(OVERLAPS, OVERLAPS), "span_f1": SPANS}
"""Metric of written answers that are no labels -> numbers kept of every item, by name."""


class Reply(Frozen):
    """The model writes; what counts of it is a number, yes or no, or a short text, right or wrong; or how much of a
    longer text, or of a list of entities, is there."""

    reads: Literal["number", "yes_no", "text", "free", "spans"] = Field(
        "number", description="what is looked for in the reply, and compared exactly with the label's column; `free`: "
        "the whole reply, whose overlap with it is measured; `spans`: lines `type: text` (kind tag)"
    )  # fmt: skip
    finds: str | None = Field(
        None, description="regular expression whose group is the answer in the label's column; before it may stand "
        "reasoning"
    )  # fmt: skip
    source: str | None = Field(
        None, description="reads free: the field whose first sentence, cut to the answers' length, stands for chance; "
        "by default the only text"
    )  # fmt: skip
    offers: str | None = Field(
        None, description="regular expression with a match for each answer that a question offers: guessing among them "
        "stands for chance where it does better than the commonest answer"
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

    @field_validator("offers")
    @classmethod
    def finds_offers(cls, value: str | None) -> str | None:
        """Lines are looked at one by one: `^` and `$` are a line's."""
        compiles(value)
        return value

    @model_validator(mode="after")
    def offers_answers(self) -> Reply:
        """Among texts that are scored by what they share with a reference, none is guessed."""
        if self.offers is not None and self.long:
            raise ValueError(
                f"'offers' is for replies that are right or wrong (reads number, yes_no or text), got {self.reads}"
            )
        return self

    @property
    def long(self) -> bool:
        """Whether a reply may have several lines, so that only an empty one ends it."""
        return self.reads in ("free", "spans")
