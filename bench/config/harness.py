"""A task of lm-eval (EleutherAI's evaluation harness): what a suite may say of it, and what lm-eval says."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from bench.config.data import OPTIONS
from bench.config.frozen import Frozen

OPENING, QUESTION = "opening", "question"
"""Fields of a row: what lm-eval puts before every question (a description, demonstrations), and the question itself."""
COLUMNS = {OPENING: OPENING, QUESTION: QUESTION, OPTIONS: OPTIONS, "label": "label"}
FILLED: dict[str, Any] = {
    "kind": "choose",
    "columns": COLUMNS,
    "labels": ["A", "B"],  # until lm-eval was asked
    "templates": [{"pattern": f"{{{OPENING}}}{{{QUESTION}}}"}],
    "splits": {"train": "train", "test": "test"},
}
"""What a suite need not say."""
FREE = ("data", "splits", "type", "role", "metric", "positive", "limit", "model", "strategies", "batch", "sequence",
        "precision", "harness")  # fmt: skip
"""What a suite may say: how much of it is used, and how it is run."""


class Harness(Frozen):
    """What lm-eval says of a task beside its rows."""

    task: str = Field(description="lm-eval's name for it")
    version: str = Field(description="lm-eval's version")
    task_version: str | None = Field(None, description="the task's own version, where its file says one")
    shots: int = Field(ge=0, description="demonstrations that lm-eval itself puts before every question")
    delimiter: str = Field(description="what every option begins with, and its length leaves out")
    between: str | None = Field(
        description="what follows a demonstration; null where it is written otherwise than a question and its answer"
    )
    shared: bool = Field(description="whether all rows have the same options")
    measures: list[str] = Field(description="lm-eval's metrics of the task that are measured")
    left_out: list[str] = Field(default_factory=list, description="those that are not")


def completed(raw: Any, defaults: dict[str, Any]) -> Any:
    """A task's raw values with what lm-eval says in its place, until it is asked. Raises `ValueError` for a key that
    lm-eval's own task decides; `defaults`: key -> value that says nothing."""
    data = raw.get("data") if isinstance(raw, dict) else None
    named = data.get("lm_eval") if isinstance(data, dict) else getattr(data, "lm_eval", None)
    if named is None or raw.get("harness") is not None:
        return raw
    for key, value in raw.items():
        if key not in FREE and key in defaults and value not in (defaults[key], FILLED.get(key)):
            raise ValueError(
                f"{key} of a task of lm-eval is what lm-eval's own file says: leave it out; allowed beside data: "
                f"{', '.join(key for key in FREE[1:-1])}"
            )
    return {**raw, **{key: value for key, value in FILLED.items() if key != "splits" or "splits" not in raw}}
