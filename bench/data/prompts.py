"""A row's texts into a prompt. The texts are foreign: whatever they hold, they are copied, never interpreted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bench.config.schema import Template
from bench.errors import unknown

PLACE = re.compile(r"\{(\w+)\}")


def fill(template: Template, fields: Mapping[str, str]) -> str:
    """The template's pattern with each `{field}` replaced by that field's text, literally and in one pass.

    A text that holds `{label}`, braces or backslashes arrives as it is: it is never expanded again. Braces around
    anything but a plain name stay as they are.

    Raises:
        UserFault: the pattern names a field the row does not have.
    """

    def text(match: re.Match[str]) -> str:
        if match[1] not in fields:
            raise unknown("field in a pattern:", match[1], fields)
        return fields[match[1]]

    return PLACE.sub(text, template.pattern)


def words(template: Template, labels: Sequence[str]) -> list[str]:
    """The verbalizer's words in the order of `labels` (leading spaces included)."""
    return [template.verbalizer[label] for label in labels]
