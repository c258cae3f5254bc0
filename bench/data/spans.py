"""Entity spans: written as lines, read from generated lines or from BIO tags, and counted against the right ones.

Counts are summed over items before F1 is taken (micro-average), as conlleval does (Tjong Kim Sang & De Meulder 2003).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

Span = tuple[str, str]
"""A type and the text of an entity."""
TokenSpan = tuple[str, int, int]
"""A type, the first token and the token after the last."""

NOTHING = frozenset({"", "-", "none", "n/a", "null", "nothing"})
"""What models write after a type of which they found no entity."""

NONE = "none"
"""What is written where a text holds no entity."""

_LINE = re.compile(r"\s*(?:[-*•]\s+|\d+[.)]\s+)?[*_`]{0,3}([^:\n]{1,60}?)[*_`]{0,3}\s*:\s*(.*)")
_TYPE = re.compile(r"[A-Z][A-Z0-9_-]*")
_AROUND = "\"'“”‘’`*.,; \t"


class Counts(NamedTuple):
    """Spans of one item or of several: found and right, found, and there to be found."""

    hits: int
    predicted: int
    gold: int


def parse(text: str, types: Sequence[str] = ()) -> list[Span]:
    """The spans of a text of lines `TYPE: text`, in order; a span written twice counts twice.

    Bullets, numbering, bold and quotes around either part are taken off. A line counts where its type is one of
    `types` in any case (and is then written as there) or one word of capitals: "ANIMAL: dog" is a wrong answer even if
    nobody asked for animals, "Here they are: ..." is none. `PER: none` is no span. The text goes to the end of the
    line: "PER: Ann, Bob" is one span, since names hold commas too.
    """
    known = {name.casefold(): name for name in types}
    spans = []
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if not found:
            continue
        written, entity = found[1].strip(), found[2].strip().strip("*`").strip()
        kind = known.get(written.casefold()) or (written if _TYPE.fullmatch(written) else None)
        if kind and entity.casefold().rstrip(".") not in NOTHING:
            spans.append((kind, entity))
    return spans


def lines(spans: Sequence[Span]) -> str:
    """Spans as `parse` reads them, one `type: text` a line in their order; `none` where there is none."""
    return "\n".join(f"{kind}: {text}" for kind, text in spans) or NONE


def normalised(text: str) -> str:
    """An entity's text as it is compared: no case, runs of spaces as one, no quotes, stops or commas around it."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_AROUND)


def counts(predicted: Iterable[Span], gold: Iterable[Span]) -> Counts:
    """One item's counts: exact matches of (type, normalised text) as multisets, so a span said twice can hit twice
    only where it is twice in the gold ones. Types are compared without case."""
    sides = ([(kind.casefold(), normalised(text)) for kind, text in side] for side in (predicted, gold))
    return _counted(*sides)


def counts_of_bio(predicted: Sequence[str], gold: Sequence[str]) -> Counts:
    """One item's counts from two lists of BIO tags, one a token: spans must agree in type and in both ends.

    Raises `ValueError` for lists of different lengths and for tags that are none (see `spans_of_bio`).
    """
    if len(predicted) != len(gold):
        raise ValueError(f"tags: got {len(predicted)} predicted for {len(gold)} tokens; allowed: one tag a token")
    return _counted(spans_of_bio(predicted), spans_of_bio(gold))


def _counted(predicted: Iterable[Hashable], gold: Iterable[Hashable]) -> Counts:
    """Matches of two multisets, and the size of each."""
    mine, right = Counter(predicted), Counter(gold)
    return Counts((mine & right).total(), mine.total(), right.total())


def f1(items: Iterable[tuple[int, int, int]]) -> float:
    """F1 of the summed counts of all items, 0..1: 2 hits / (predicted + gold).

    Without any hit it is 0, as in conlleval, even where there was nothing to find: an item without entities whose
    answer names none changes nothing in the sum. Raises `ValueError` for more hits than either side has spans.
    """
    hits = predicted = gold = 0
    for item in items:
        if not 0 <= item[0] <= min(item[1:]):
            raise ValueError(f"counts: got {tuple(item)}; allowed: hits from 0 to the fewer of predicted and gold")
        hits, predicted, gold = hits + item[0], predicted + item[1], gold + item[2]
    return 2 * hits / (predicted + gold) if hits else 0.0


def spans_of_bio(tags: Sequence[str]) -> list[TokenSpan]:
    """The spans of one sentence's tags (IOB2: `B-PER`, `I-PER`, `O`), in order; ends are exclusive.

    As in conlleval an `I-` that continues nothing begins a span: after `O`, at the start, or after another type. So
    every sequence has a reading, and IOB1 is read rightly too. Raises `ValueError` for any other tag.
    """
    spans: list[TokenSpan] = []
    kind, start = "", -1  # the open span; start is -1 where none is
    for at, tag in enumerate([*tags, "O"]):
        letter, dash, name = tag.partition("-")
        if tag != "O" and not (letter in ("B", "I") and dash and name):
            raise ValueError(f"tags: got '{tag}' at token {at}; allowed: O, B-TYPE, I-TYPE")
        if start >= 0 and not (letter == "I" and name == kind):
            spans.append((kind, start, at))
            start = -1
        if tag != "O" and start < 0:
            kind, start = name, at
    return spans
