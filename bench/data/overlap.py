"""Which texts occur in which others: 13-grams and longest runs of words in common, exactly.

Words are compared, not characters: lower case, without punctuation, contractions split the same way whether the
data writes "isn't" or "is n't" (SST-2's files do the second, their sources the first). Where a script puts no spaces
between words (Chinese, Japanese, Thai, ...) each character counts as a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

GRAM = 13
"""Words in a row that count as found (Brown et al. 2020, appendix C)."""
SHORT = 8
"""Fewest words for which a run inside a longer text counts (their smallest N; shorter runs meet by chance)."""
TOO_SHORT = 4
"""Texts of fewer words are everybody's ("bad ."): they count as found nowhere."""
LONG_SHARE = 0.5
"""Share of a text's words in one run from which it is a long common substring."""


@dataclass(frozen=True)
class Overlap:
    """What was found of each tested text, in the order given; lengths in words."""

    words: list[int]
    longest: list[int]
    """Longest run of its words that stands in some trained text too."""
    equal: list[bool]
    """It is a trained text, spaces and punctuation aside, however short."""
    whole: list[bool]
    """All of it stands in a trained text: equal to one (spaces aside), or a run of 8 words or more."""
    gram: list[bool]
    """13 of its words in a row stand in a trained text; never where texts are made of common sentences."""

    @property
    def found(self) -> list[bool]:
        """Whole or by a 13-gram: what counts."""
        return [whole or gram for whole, gram in zip(self.whole, self.gram, strict=True)]

    @property
    def share(self) -> list[float]:
        """Longest run as a share of the text's words."""
        return [run / n if n else 0.0 for run, n in zip(self.longest, self.words, strict=True)]

    @property
    def long(self) -> list[bool]:
        """At least half of the words, and eight, in one run."""
        return [run >= max(SHORT, LONG_SHARE * n) for run, n in zip(self.longest, self.words, strict=True)]


def row_text(fields: Mapping[str, str]) -> str:
    """A row's fields as one text."""
    return " ".join(fields.values())


def words_of(text: str) -> list[str]:
    """The words of a text as far as overlap goes; numbers are words."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return re.findall(r"[^\W_]+", re.sub(r"n't\b", " nt", plain))


UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Thai, Lao, Myanmar, Khmer, kana and Han as a class of a regular expression."""


@cache
def _unit() -> re.Pattern[str]:
    """A word, or a character of a script without spaces; either with the marks that are written on it."""
    marks = "".join(c for c in map(chr, range(0x300, 0x20000)) if unicodedata.category(c) in ("Mn", "Mc"))
    marks = re.escape(re.sub("[\ufe00-\ufe0f]", "", marks))  # variation selectors dress emoji
    spaced = rf"(?![{UNSPACED}])[^\W_]"
    return re.compile(rf"(?=[^\W_])[{UNSPACED}][{marks}]*|{spaced}(?:{spaced}|[{marks}])*")


def units_of(text: str) -> list[str]:
    """What is compared of a text: its words (`words_of`), of scripts without spaces its characters.

    A vowel sign or accent belongs to its letter: a Hindi word is one unit, not a unit for every run of bare consonants.
    """
    if text.isascii():
        return words_of(text)
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return _unit().findall(re.sub(r"n't\b", " nt", plain))


Split = Callable[[str], list[str]]


def overlap(trained: Sequence[str], tested: Sequence[str], made: bool = False, split: Split = units_of) -> Overlap:
    """13-grams (Brown et al. 2020, appendix C) and longest common runs of words between two sets of texts.

    A tested text of fewer than 13 words must be found whole: as a run inside a trained text from 8 words on, below
    that as a whole trained text of its own; below 4 words it is not looked for. No hash is trusted: equal runs get
    equal names (Karp, Miller & Rosenberg 1972), grown word by word over the positions still alive, so the time
    depends on what is shared and hardly on the lengths: 10,000 by 900 sentences take about a second.

    Texts that were `made` from a few stories share long runs whoever reads them: of them only whole ones count.
    """
    mine, theirs = [split(text) for text in tested], [split(text) for text in trained]
    letters = {"".join(words) for words in theirs}
    longest = longest_runs(theirs, mine)
    lengths = [len(words) for words in mine]
    equal = ["".join(words) in letters for words in mine]
    whole = [
        n >= TOO_SHORT and (same or (run == n and n >= SHORT))
        for same, run, n in zip(equal, longest, lengths, strict=True)
    ]
    if made:
        whole = [n >= TOO_SHORT and same for same, n in zip(equal, lengths, strict=True)]
    return Overlap(lengths, longest, equal, whole, [run >= GRAM and not made for run in longest])


def longest_runs(trained: Sequence[Sequence[str]], tested: Sequence[Sequence[str]]) -> list[int]:
    """For each tested text the longest run of its words that some trained text holds; 0 where no word is shared."""
    names: dict[str, int] = {}
    source, source_end, _ = _laid_out(trained, names)
    target, target_end, owner = _laid_out(tested, names)
    longest = np.zeros(len(tested), dtype=np.int64)
    source_at, target_at = np.arange(len(source)), np.arange(len(target))
    source_name, target_name = np.zeros(len(source), np.int64), np.zeros(len(target), np.int64)
    length = 0
    while target_at.size and source_at.size:
        # a run of `length` words has a name; one word more makes it a pair of that name and the word
        source_key = source_name * len(names) + source[source_at + length]
        target_key = target_name * len(names) + target[target_at + length]
        shared = np.intersect1d(source_key, target_key)
        length += 1
        source_at, source_name = _alive(source_at, source_key, shared)
        target_at, target_name = _alive(target_at, target_key, shared)
        longest[owner[target_at]] = length
        longer = source_at + length < source_end[source_at]
        source_at, source_name = source_at[longer], source_name[longer]
        longer = target_at + length < target_end[target_at]
        target_at, target_name = target_at[longer], target_name[longer]
    return [int(n) for n in longest]


Numbers = NDArray[np.int64]


def _laid_out(texts: Sequence[Sequence[str]], names: dict[str, int]) -> tuple[Numbers, Numbers, Numbers]:
    """All words as numbers, and for each the position after the end of its text and the text's number."""
    words = np.array([names.setdefault(word, len(names)) for text in texts for word in text], dtype=np.int64)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    return words, np.repeat(np.cumsum(lengths), lengths), np.repeat(np.arange(len(texts)), lengths)


def _alive(at: Numbers, key: Numbers, shared: Numbers) -> tuple[Numbers, Numbers]:
    """The positions whose key is shared, and the key's place among the shared ones as its new, small name."""
    kept = np.isin(key, shared)
    return at[kept], np.searchsorted(shared, key[kept])


def standing(rows: Sequence[Sequence[str]], held_out: Sequence[str]) -> list[bool]:
    """Whether a text of each row stands in a held-out one, whole or by 13 words in a row, or a held-out one in it.

    Whole is whole as in `overlap`: texts of fewer than 4 words count nowhere, below 8 words they must be equal.
    """
    flat = [text for row in rows for text in row]
    # by words only, as ever: what is dropped decides what a recorded cell was trained on
    found = overlap(held_out, flat, split=words_of).found
    short: dict[int, set[tuple[str, ...]]] = {}
    for words in map(words_of, held_out):
        if SHORT <= len(words) < GRAM:  # longer ones share 13 words in a row anyway
            short.setdefault(len(words), set()).add(tuple(words))
    each = iter([one or _holds(words_of(text), short) for one, text in zip(found, flat, strict=True)])
    return [sum(next(each) for _ in row) > 0 for row in rows]


def _holds(words: Sequence[str], short: Mapping[int, set[tuple[str, ...]]]) -> bool:
    """Whether one of the runs, given by their lengths, stands in a text."""
    return any(
        tuple(words[start : start + n]) in runs for n, runs in short.items() for start in range(len(words) - n + 1)
    )
