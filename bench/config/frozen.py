"""What all configuration has in common: frozen, unknown keys refused, words that stay words."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
LONGEST_NAME = 100
"""Letters of a name: a cell's folder is named by two of them, and file systems end at 255 bytes."""

WORD_AS_BOOLEAN = "a word was read as a boolean: put it in quotes, or give a number (YAML 1.1 does so with yes and no)"


class Frozen(BaseModel):
    """Base of all configuration: immutable, unknown keys refused, no infinite numbers, no booleans for numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def no_stray_boolean(cls, value: Any, info: ValidationInfo) -> Any:
        """`labels=yes` would be read as 1."""
        wanted = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (wanted, *get_args(wanted)):
            raise ValueError(WORD_AS_BOOLEAN)
        return value


def safe_name(value: str) -> str:
    """A name that becomes part of a file name: letters, digits, `_`, `.`, `-`, not starting with a dot."""
    if not NAME.fullmatch(value) or ".." in value:
        raise ValueError("a name holds letters, digits, '_', '.' and '-' only and starts with a letter or digit")
    if len(value) > LONGEST_NAME:
        raise ValueError(f"a name has {LONGEST_NAME} letters at most, got {len(value)}")
    return value


def quoted(value: Any) -> Any:
    """Refuse what YAML 1.1 made of an unquoted word: `no` and `yes` arrive here as booleans."""
    if isinstance(value, bool):
        raise ValueError(WORD_AS_BOOLEAN)
    return value


Word = Annotated[str, BeforeValidator(quoted)]
Whole = Annotated[int, BeforeValidator(quoted)]
