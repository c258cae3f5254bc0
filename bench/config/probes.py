"""What is probed after scoring: nothing here changes a cell's training, but `plant`, which makes cells of its own."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from bench.config.frozen import Frozen, Whole, Word

CheckFamily = Literal["overlap", "membership", "perturbation"]
CHECKS: tuple[CheckFamily, ...] = ("overlap", "membership", "perturbation")
"""Families of contamination checks, the cheapest first."""


class FormatProbe(Frozen):
    """How far a score depends on how the prompt is written (Sclar et al. 2024; Lu et al. 2022; Zhao et al. 2021)."""

    number: int = Field(10, ge=2, description="prompt formats asked; the first is the task's own")
    items: int | None = Field(100, ge=1, description="test items asked in every format, first in hash order; null: all")
    demonstrations: int = Field(4, ge=1, description="draws of demonstrations, each in an order of its own (few_shot)")
    seed: int = Field(0, description="draws the formats; the same for every strategy of a run")


class ContaminationProbe(Frozen):
    """Whether a cell has seen its test items: perturbation, overlap and membership, with a planted leak as control."""

    plant: list[Whole] = Field(
        default_factory=list,
        description="doses: for each, a cell trained on the test items so many times before its normal training",
    )
    strategies: list[Word] | None = Field(None, description="strategies that are planted; by default all that train")
    checks: list[CheckFamily] = Field(
        default_factory=lambda: list(CHECKS), min_length=1, description="`overlap`, `membership`, `perturbation`"
    )
    items: int = Field(200, ge=20, description="test items drawn by the cell's seed, and as many controls beside them")
    permutations: int = Field(10_000, ge=999, description="random permutations of a test")

    @field_validator("plant", mode="before")
    @classmethod
    def one_or_several(cls, value: Any) -> Any:
        """`plant: 8` is `[8]`."""
        return [value] if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("strategies", "checks", mode="before")
    @classmethod
    def comma_separated(cls, value: Any) -> Any:
        """`lora,full` is a list of two."""
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def doses(self) -> ContaminationProbe:
        if (self.plant and min(self.plant) < 1) or len(set(self.plant)) != len(self.plant):
            raise ValueError(f"plant holds doses of 1 or more, each once (the clean cell is dose 0), got {self.plant}")
        return self


class RetentionProbe(Frozen):
    """What tuning on one task did to others: the alignment tax, and forgetting."""

    items: int = Field(100, ge=20, description="test items of every other task, first in hash order")
    tasks: list[Word] | None = Field(None, description="other tasks that are asked; by default all of the run")

    @field_validator("tasks", mode="before")
    @classmethod
    def comma_separated(cls, value: Any) -> Any:
        """`cola,rte` is a list of two."""
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


class WritingProbe(Frozen):
    """What a policy writes, before and after its preferences were trained, by a scorer of its own (kind prefer, tasks
    with a `scorer` slice)."""

    responses: int = Field(128, ge=20, description="responses drawn from the policy, and from what it was before")
    tokens: int = Field(48, ge=4, le=1024, description="most tokens of a response")
    examples: int = Field(1024, ge=1, description="pairs the scorer is trained on, repeated where there are fewer")
    shown: int = Field(6, ge=0, le=50, description="responses of either that the report shows")
    seed: int = Field(0, ge=0, description="draws the responses; the same for every strategy of a run")


class Probes(Frozen):
    """Which probes run on every cell that is ok."""

    formats: FormatProbe | None = Field(None, description="prompt-format variance")
    contamination: ContaminationProbe | None = Field(None, description="has the cell seen its test items?")
    retention: RetentionProbe | None = Field(None, description="what became of tasks the cell was not tuned for")
    writing: WritingProbe | None = Field(None, description="what a policy writes, judged by an independent scorer")

    @model_validator(mode="before")
    @classmethod
    def named(cls, raw: Any) -> Any:
        """`probes=formats,contamination` asks for both with their defaults; so does `true` or nothing for a value."""
        if isinstance(raw, str):
            raw = {name.strip(): {} for name in raw.split(",") if name.strip()}
        if not isinstance(raw, dict):
            return raw
        return {key: {} if value is True else None if value is False else value for key, value in raw.items()}

    @property
    def asked(self) -> list[str]:
        """Names of the probes asked for, in the order they run."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]
