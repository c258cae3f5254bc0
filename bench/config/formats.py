"""What a task's prompt may be written with: the material that `bench.data.formats` makes prompt formats of."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from bench.config.frozen import Frozen, Word


class Wording(Frozen):
    """Label words with the instructions and answer lead-ins they go with: `yes` answers one question, not another."""

    words: dict[Word, Word] = Field(description="label -> its word, without a leading space")
    instructions: list[str] = Field([""], min_length=1, description="ways to ask; an empty one: nothing is asked")
    leads: list[str] = Field(
        ["Answer"], min_length=1, description="what stands before the answer, without a separator: `Answer`"
    )

    @field_validator("leads")
    @classmethod
    def something(cls, value: list[str]) -> list[str]:
        """Without a lead-in nothing would say where the answer begins."""
        if not all(lead.strip() for lead in value):
            raise ValueError("a lead-in is a word or more, such as Answer; got an empty one")
        return value

    @field_validator("words")
    @classmethod
    def distinct(cls, value: dict[str, str]) -> dict[str, str]:
        """Words that are the same would make labels the same."""
        bare = [word.strip() for word in value.values()]
        if len(set(bare)) != len(bare) or "" in bare:
            raise ValueError("words must be different from each other and not empty")
        return value


class FormatMaterial(Frozen):
    """Names of the fields, whether they may change places, and wordings; what is left out follows from the task."""

    fields: dict[str, list[str]] = Field(
        default_factory=dict,
        description="text field -> names it may be called by; names at the same place of the lists go together",
    )
    reorder: bool | None = Field(
        None, description="whether fields may change places; by default where the prompt calls them by name"
    )
    wordings: list[Wording] = Field(
        default_factory=list, description="by default those of the task's templates, with a plain instruction"
    )

    @field_validator("fields")
    @classmethod
    def named(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        """A field listed without a name, or with an empty one, could not be called anything."""
        for field, names in value.items():
            if not names or not all(name.strip() for name in names):
                raise ValueError(f"fields.{field} lists one name or more, none of them empty, got {names}")
        return value

    def check(self, fields: list[str], labels: list[str]) -> None:
        """Raise `ValueError` for a field or a label the task does not have, a label left without a word, or braces."""
        if stray := set(self.fields) - set(fields):
            raise ValueError(f"formats.fields names {sorted(stray)}, columns has {sorted(fields)}")
        spoken = [name for names in self.fields.values() for name in names]
        spoken += [text for w in self.wordings for text in (*w.instructions, *w.leads)]
        if places := [text for text in spoken if re.search(r"\{\w+\}", text)]:
            raise ValueError(f"formats hold plain words; a row's text would be put into '{places[0]}': no braces there")
        for wording in self.wordings:
            if set(wording.words) != set(labels):
                raise ValueError(f"formats.wordings has words for {sorted(wording.words)}, labels has {sorted(labels)}")
