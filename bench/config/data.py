"""Where a task's rows come from, which of them are taken, and the prompt they are put into."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from bench.config.frozen import Frozen, Word

MADE = ("random", "arithmetic")
"""Forms of data that no file holds."""
OPTIONS = "options"
"""The field whose column lists a row's options, where a task is to choose."""


class DataRef(Frozen):
    """Where a task's rows come from: a hub data set (or its mirror, or our sample), or the user's own folder."""

    hub: str | None = Field(None, description="`org/name` of a hub data set")
    config: str | None = Field(None, description="the hub data set's configuration, e.g. `sst2`")
    revision: str | None = Field(None, description="commit of the hub data set")
    sample: str | None = Field(
        None, description="file in suites/samples/ to use where neither mirror nor hub is at hand"
    )
    path: str | None = Field(None, description="folder holding <split>.parquet, .jsonl or .csv, instead of `hub`")
    random: int | None = Field(None, ge=4, description="so many rows of random letters, each as long as `sequence`")
    arithmetic: int | None = Field(None, ge=20, description="so many word problems made by us, their answers computed")
    lm_eval: str | None = Field(
        None, min_length=1, description="a task of lm-eval: its name, or a .yaml file or folder of one's own"
    )
    shots: int | None = Field(
        None, ge=0, description="with lm_eval: demonstrations that lm-eval itself puts before every question; by "
        "default as many as its file says"
    )  # fmt: skip

    @model_validator(mode="after")
    def one_source(self) -> DataRef:
        named = [k for k in ("path", *MADE, "lm_eval") if getattr(self, k) is not None]
        if len(named) > 1 or (named and (self.hub is not None or self.sample is not None)):
            raise ValueError(
                "a task's data names one of 'hub' (with an optional 'sample'), 'path', 'random', 'arithmetic' or "
                "'lm_eval'"
            )
        if not named and self.hub is None and self.sample is None:
            raise ValueError("a task's data needs 'hub', 'path', 'sample', 'random', 'arithmetic' or 'lm_eval'")
        if self.shots is not None and self.lm_eval is None:
            raise ValueError("shots are lm-eval's own demonstrations: give data.lm_eval, or use few_shot")
        return self

    @property
    def own(self) -> bool:
        """Whether the task is its own source, whatever the run's is."""
        return self.path is not None or self.made is not None or self.lm_eval is not None

    @property
    def made(self) -> str | None:
        """The form of rows that are made, not read; None where files hold them."""
        return next((form for form in MADE if getattr(self, form) is not None), None)


class Template(Frozen):
    """A prompt: `pattern` with `{field}` places, and for each label the word whose probability stands for it."""

    pattern: str = Field(description="text with {field} places; the label's word follows it directly")
    verbalizer: dict[Word, Word] = Field(
        default_factory=dict, description="label -> its word, leading space included; none where rows hold the answers"
    )
    chat: bool = Field(False, description="the pattern is the user's turn of the model's own chat template")

    @property
    def places(self) -> set[str]:
        """Fields that the pattern names."""
        return set(re.findall(r"\{(\w+)\}", self.pattern))


class Splits(Frozen):
    """Names of splits or slices of one: `train`, `train[:80%]`. Slices are disjoint by text."""

    train: str
    test: str
    train_matches: str | None = Field(
        None,
        description="regular expression found in every training text used; the sample is exempt",
    )

    where: dict[str, list[Word]] | None = Field(
        None, min_length=1, description="column -> values: only rows that hold one of them, in both splits"
    )

    @field_validator("train_matches")
    @classmethod
    def is_a_pattern(cls, value: str | None) -> str | None:
        """A pattern that does not compile is a fault of the suite, found before anything is read."""
        return compiles(value)

    @field_validator("where", mode="before")
    @classmethod
    def one_or_several(cls, value: Any) -> Any:
        """`{subject: anatomy}` is `{subject: [anatomy]}`, and a number is the word it is written as."""
        if not isinstance(value, dict):
            return value
        several = {column: given if isinstance(given, list) else [given] for column, given in value.items()}
        return {
            column: [str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in given]
            for column, given in several.items()
        }


def compiles(value: str | None) -> str | None:
    """A regular expression as it is; ValueError in words where it is none."""
    try:
        re.compile(value or "")
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


class HeldOut(Frozen):
    """Texts that no training row may hold: those of a whole split."""

    data: DataRef
    split: str
    columns: list[str] = Field(min_length=1, description="columns that hold its texts")

    @model_validator(mode="after")
    def of_files(self) -> HeldOut:
        if made := self.data.made or (self.data.lm_eval and "lm_eval"):
            raise ValueError(f"drop_overlap compares with texts of files, and data.{made} has none")
        if "[" in self.split:
            raise ValueError(f"drop_overlap compares with whole splits, got the slice '{self.split}'")
        return self

    def named(self, source: str) -> str:
        """What a reader calls it; of a user's own folder the last part."""
        of = self.data
        if of.path is not None:
            return f"path:{of.path.rstrip('/').rpartition('/')[2]} {self.split}"
        if source == "sample" or of.hub is None:
            return f"sample {of.sample} {self.split}"
        return " ".join(filter(None, (of.hub, of.config, self.split)))


class Pairs(Frozen):
    """Other wordings of the test split: row n of `split` says what row n of the test split's file says."""

    data: DataRef
    split: str
    columns: dict[str, str] = Field(min_length=1, description="field -> column that holds its other wording")
    finds: str | None = Field(None, description="regular expression whose first group is the wording; null: all of it")

    @field_validator("data")
    @classmethod
    def of_files(cls, value: DataRef) -> DataRef:
        """Prompts of lm-eval are no texts in other words."""
        if value.lm_eval is not None:
            raise ValueError("other wordings are read from files: give hub, path or sample")
        return value

    @field_validator("finds")
    @classmethod
    def is_a_pattern(cls, value: str | None) -> str | None:
        """One group, which is taken."""
        if compiles(value) is not None and re.compile(value or "").groups != 1:
            raise ValueError("a pattern with one group, the wording")
        return value
