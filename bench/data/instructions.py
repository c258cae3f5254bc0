"""Instruction rows: which of many candidates to train on, and why each of the others was left out.

Rows are dicts of texts with the keys `instruction`, `input` (may be empty) and `output`.

`sift` is the filter of Self-Instruct (Wang et al. 2023, section 2.2): an instruction is kept where its ROUGE-L F1 to
every one kept so far is below 0.7, it is neither too short nor too long, asks for nothing but text, and its output is
neither empty nor its input again. `choose` stands in for the choice by reading of "quality over quantity" (LIMA, Zhou
et al. 2023): rows by criteria that need no label and no model, and as many rows at random to compare them with.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.data.numbers import generator

KEYS = ("instruction", "input", "output")
NEAR = 0.7
"""ROUGE-L F1 from which on two instructions are the same one in other words (Self-Instruct's threshold)."""
INSTRUCTION_WORDS = (3, 150)
"""Fewest and most words of an instruction; the paper filters both ends without giving figures."""
RESPONSE_WORDS = (10, 300)
"""Fewest and most words of a chosen response: ours. LIMA takes 1,200 to 4,096 characters, of long forum answers."""
NOT_TEXT = frozenset({
    "image", "images", "picture", "pictures", "photo", "photos", "photograph", "photographs", "drawing", "drawings",
    "diagram", "diagrams", "graph", "graphs", "chart", "charts", "map", "maps", "video", "videos", "audio", "file",
    "files", "attachment", "attachments", "upload", "download",
})  # fmt: skip
"""An instruction with one of these words asks for what a text cannot hold, or mostly: "map out a plan" goes too."""
REFUSALS = (
    "as an ai", "as a language model", "as a large language model", "i cannot", "i can not", "i can't", "i am unable",
    "i'm unable", "i am not able", "i'm not able", "i won't", "i am sorry", "i'm sorry", "i apologize", "i apologise",
    "i do not have access", "i don't have access",
)  # fmt: skip
"""What refusals say; looked for in the first `REFUSAL_REACH` words of a response, whatever signs stand between."""
REFUSAL_REACH = 30

SIFTING = ("empty output", "output is the input", "too short", "too long", "not text", "near a kept one")
CHOOSING = ("short response", "long response", "refusal", "no full stop")


@dataclass(frozen=True)
class Dropped:
    """One row that was left out."""

    position: int
    reason: str
    """One sentence with what was got and what is allowed."""
    rule: str
    """One of `SIFTING` or `CHOOSING`: the first rule, in that order, that the row breaks."""
    nearest: int | None = None
    """Position of the kept row that it is too near to; the first of equally near ones."""
    similarity: float | None = None
    """ROUGE-L F1 to that row, 0..1."""


@dataclass(frozen=True)
class Sifted:
    """What a filter kept and dropped: every position is in exactly one of the two, both in rising order."""

    kept: list[int]
    dropped: list[Dropped]

    @property
    def counts(self) -> dict[str, int]:
        """Rows dropped by each rule, zeros included."""
        found = Counter(row.rule for row in self.dropped)
        return {rule: found[rule] for rule in SIFTING}


@dataclass(frozen=True)
class Chosen:
    """Two sets of rows of the same size to compare, by position."""

    chosen: list[int]
    """By the criteria, in the order chosen: each the farthest from all before it."""
    drawn: list[int]
    """At random from all rows, good or bad; may share rows with the chosen ones."""
    dropped: list[Dropped]
    """Rows that could not be chosen, and why."""

    @property
    def counts(self) -> dict[str, int]:
        """Rows that each criterion left out, zeros included."""
        found = Counter(row.rule for row in self.dropped)
        return {rule: found[rule] for rule in CHOOSING}


def sift(rows: Sequence[Mapping[str, str]], below: float = NEAR, words: tuple[int, int] = INSTRUCTION_WORDS) -> Sifted:
    """Self-Instruct's filter over candidates in their order: rows to keep whatever comes (seeds) belong first.

    A row dropped for its form is no neighbour to later ones. Raises `ValueError` for a row without the three texts, a
    threshold outside (0, 1] and bounds that admit nothing.
    """
    if not 0 < below <= 1:
        raise ValueError(f"below: got {below:g}; allowed: more than 0, at most 1")
    _check_bounds(words)
    _check_rows(rows)
    kept: list[int] = []
    dropped: list[Dropped] = []
    index = _Index()
    for position, row in enumerate(rows):
        fault = _form(row, words)
        if fault:
            dropped.append(Dropped(position, fault[1], fault[0]))
            continue
        mine = words_of(row["instruction"])
        near = index.nearest(mine, below)
        if near:
            at, similarity = kept[near[0]], near[1]
            reason = f"ROUGE-L {similarity:.2f} to the instruction of row {at}; allowed: below {below:g}"
            dropped.append(Dropped(position, reason, "near a kept one", at, similarity))
        else:
            kept.append(position)
            index.add(mine)
    return Sifted(kept, dropped)


def choose(rows: Sequence[Mapping[str, str]], n: int, seed: int, words: tuple[int, int] = RESPONSE_WORDS) -> Chosen:
    """`n` rows by quality and as many at random, the same ones for the same rows, n and seed.

    Quality: a response of `words` words at least and at most, without a refusal, that ends in a full stop; among these
    the most diverse ones: a first one at random, then always the row whose largest ROUGE-L to those chosen (instruction
    and input together) is smallest, the first in a random order where several are equal. Raises `ValueError` for faulty
    rows or bounds, and where fewer than `n` rows qualify.
    """
    _check_bounds(words)
    _check_rows(rows)
    faults = [_quality(row["output"], words) for row in rows]
    dropped = [Dropped(at, fault[1], fault[0]) for at, fault in enumerate(faults) if fault]
    good = [at for at, fault in enumerate(faults) if not fault]
    if not 1 <= n <= len(good):
        raise ValueError(
            f"n: got {n} rows to choose; allowed: 1 to {len(good)}, of {len(rows)} rows those that qualify"
        )
    drawn = generator(f"instructions drawn {seed}").permutation(len(rows))[:n]
    shuffled = [good[i] for i in generator(f"instructions chosen {seed}").permutation(len(good))]
    texts = [words_of(f"{rows[at]['instruction']} {rows[at]['input']}") for at in shuffled]
    return Chosen([shuffled[i] for i in farthest(texts, n)], sorted(int(at) for at in drawn), dropped)


def farthest(texts: Sequence[Sequence[str]], n: int) -> list[int]:
    """Positions of `n` texts: the first, then always the one whose largest ROUGE-L to those taken is smallest.

    That largest similarity only grows with each text taken, so one worked out earlier is a lower bound: a text is
    compared with those taken since only once it comes out on top, which leaves most comparisons undone. Ties go to the
    lower position.
    """
    taken: list[int] = []
    queue = [
        (0.0, at, 0) for at in range(len(texts))
    ]  # similarity so far, position, how many taken it was held against
    sides = [_Side(text) for text in texts]
    while queue and len(taken) < n:
        nearest, at, seen = heapq.heappop(queue)
        if seen < len(taken):
            for other in taken[seen:]:
                nearest = max(nearest, sides[other].similarity(texts[at]))
            heapq.heappush(queue, (nearest, at, len(taken)))
        else:
            taken.append(at)
    return taken


# ---- ROUGE-L


def words_of(text: str) -> list[str]:
    """Words as ROUGE counts them: small letters and digits, nothing else; no stemming, as in Self-Instruct's filter.

    On ASCII text these are rouge-score's words; that library drops every other letter, which here stays in its word.
    """
    return re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).lower())


def rouge_l(a: Sequence[str], b: Sequence[str]) -> float:
    """F1 of the longest common subsequence of two lists of words (Lin 2004), 0..1; 0 where one is empty."""
    return _Side(a).similarity(b)


class _Side:
    """A list of words, ready to be compared with many: for each word the bits of the places where it stands."""

    def __init__(self, words: Sequence[str]) -> None:
        self.length = len(words)
        self.places: dict[str, int] = {}
        for at, word in enumerate(words):
            self.places[word] = self.places.get(word, 0) | 1 << at

    def common(self, words: Sequence[str]) -> int:
        """Length of the longest common subsequence, all places at once in the bits of one integer (Hyyro 2004)."""
        full = (1 << self.length) - 1
        left = full  # a bit is cleared where the subsequence up to this place grows by one
        for word in words:
            hit = left & self.places.get(word, 0)
            if hit:
                left = ((left + hit) | (left - hit)) & full
        return self.length - left.bit_count()

    def similarity(self, words: Sequence[str]) -> float:
        """ROUGE-L F1: 2 common / (words of both). One division, so 7 of 10 words is exactly the float 0.7."""
        common = self.common(words) if words and self.length else 0
        return 2 * common / (self.length + len(words)) if common else 0.0


class _Index:
    """The kept instructions, to be asked for the nearest one without comparing with each."""

    def __init__(self) -> None:
        self.sides: list[_Side] = []
        self.holding: dict[str, list[tuple[int, int]]] = {}  # word -> (which instruction, how often it stands there)

    def add(self, words: Sequence[str]) -> None:
        for word, times in Counter(words).items():
            self.holding.setdefault(word, []).append((len(self.sides), times))
        self.sides.append(_Side(words))

    def nearest(self, words: Sequence[str], least: float) -> tuple[int, float] | None:
        """The most similar of those at `least` that similar, the first of equals; None where none is.

        No subsequence is longer than the number of words in common, order aside: where even that is too few, nothing
        is compared.
        """
        shared: dict[int, int] = {}
        for word, times in Counter(words).items():
            for at, theirs in self.holding.get(word, ()):
                shared[at] = shared.get(at, 0) + (times if times < theirs else theirs)
        best: tuple[int, float] | None = None
        for at in sorted(shared):
            bound = 2 * shared[at] / (len(words) + self.sides[at].length)
            if bound < least or (best and bound <= best[1]):
                continue
            similarity = self.sides[at].similarity(words)
            if similarity >= least and (not best or similarity > best[1]):
                best = (at, similarity)
        return best


# ---- rules for one row


def _form(row: Mapping[str, str], words: tuple[int, int]) -> tuple[str, str] | None:
    """Rule and reason against a row by itself, before it is compared with others."""
    if not row["output"].strip():
        return "empty output", "the output is empty; allowed: any text"
    if row["output"].casefold().split() == row["input"].casefold().split():
        return "output is the input", "the output is the input again, case and spaces aside; allowed: another text"
    mine = words_of(row["instruction"])
    if not words[0] <= len(mine) <= words[1]:
        rule = "too short" if len(mine) < words[0] else "too long"
        return rule, f"an instruction of {len(mine)} words; allowed: {words[0]} to {words[1]}"
    asked = next((word for word in mine if word in NOT_TEXT), None)
    return ("not text", f"the instruction says '{asked}'; allowed: what a text can hold") if asked else None


def _quality(output: str, words: tuple[int, int]) -> tuple[str, str] | None:
    """Rule and reason against choosing a response."""
    length = len(words_of(output))
    if not words[0] <= length <= words[1]:
        rule = "short response" if length < words[0] else "long response"
        return rule, f"a response of {length} words; allowed: {words[0]} to {words[1]}"
    opening = re.findall(r"[^\W_]+(?:'[^\W_]+)*", output.replace("’", "'").lower())[:REFUSAL_REACH]
    said = next((phrase for phrase in REFUSALS if f" {phrase} " in f" {' '.join(opening)} "), None)
    if said:
        return "refusal", f"the response begins with a refusal: '{said}'"
    if not re.search(r"(?<!\.)[.。][\"'”’)\]*]*$", output.rstrip()):
        return "no full stop", f"the response ends in '{output.rstrip()[-10:]}'; allowed: a full stop"
    return None


def _check_bounds(words: tuple[int, int]) -> None:
    if not 1 <= words[0] <= words[1]:
        raise ValueError(f"words: got {words[0]} to {words[1]}; allowed: from 1 on, the larger number last")


def _check_rows(rows: Sequence[Mapping[str, str]]) -> None:
    """Raise `ValueError` for a row that lacks a text."""
    for position, row in enumerate(rows):
        for key in KEYS:
            if not isinstance(row.get(key), str):
                got = f"row {position}: got {row.get(key)!r} for '{key}'"
                raise ValueError(f"{got}; allowed: a text each for {', '.join(KEYS)}")
