"""Changes of wording that leave the meaning: typing slips, case, and a paraphrase by rule. All drawn by seed."""

from __future__ import annotations

import re

import numpy as np

SLIPS = 0.05
"""Share of letters that slip; about one word in four."""
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
NEIGHBOURS = {
    letter: "".join(row[j] for j in (i - 1, i + 1) if 0 <= j < len(row)) for row in ROWS for i, letter in enumerate(row)
}
CONTRACTIONS = (
    ("do not", "don't"), ("does not", "doesn't"), ("did not", "didn't"), ("is not", "isn't"), ("are not", "aren't"),
    ("was not", "wasn't"), ("were not", "weren't"), ("cannot", "can't"), ("could not", "couldn't"),
    ("would not", "wouldn't"), ("should not", "shouldn't"), ("has not", "hasn't"), ("have not", "haven't"),
    ("it is", "it's"), ("that is", "that's"), ("there is", "there's"), ("they are", "they're"), ("we are", "we're"),
)  # fmt: skip
"""Full form and contraction; either becomes the other."""
SYNONYMS = (
    ("film", "movie"), ("films", "movies"), ("movie", "film"), ("movies", "films"), ("begin", "start"),
    ("begins", "starts"), ("quick", "fast"), ("quickly", "rapidly"), ("almost", "nearly"),
    ("nearly", "almost"), ("often", "frequently"), ("buy", "purchase"), ("buys", "purchases"), ("bought", "purchased"),
    ("entire", "whole"), ("maybe", "perhaps"), ("perhaps", "maybe"), ("kid", "child"), ("kids", "children"),
    ("totally", "completely"), ("completely", "totally"), ("smart", "clever"), ("clever", "smart"), ("sad", "unhappy"),
    ("story", "tale"), ("stories", "tales"), ("wrong", "incorrect"), ("currently", "at present"),
    ("stated", "said"), ("funny", "amusing"), ("dull", "boring"), ("boring", "dull"), ("tedious", "tiresome"),
    ("picture", "film"), ("although", "though"), ("therefore", "so"),
    ("for example", "for instance"), ("for instance", "for example"), ("such as", "like"), ("in order to", "to"),
)  # fmt: skip
"""Word and what stands for it in nearly every sentence, written for this project; one way."""


def slips(text: str, random: np.random.Generator, rate: float = SLIPS) -> str:
    """Typing slips: a letter becomes its neighbour on the keyboard, or changes place with the next one.

    `rate` is the share of letters that slip. First letters, digits and words of under four letters stay, so every word
    is still told; spaces stay, so the words are as many as before.
    """
    return re.sub(r"[^\W\d_]{4,}", lambda match: _slipped(match[0], random, rate), text)


def _slipped(word: str, random: np.random.Generator, rate: float) -> str:
    letters, i = list(word), 1
    # the letters that stay must not lower the share: the others slip the more often
    chance = rate * len(word) / (len(word) - 1)
    while i < len(letters):
        if random.random() < chance:
            near = NEIGHBOURS.get(letters[i].lower(), "")
            if i + 1 < len(letters) and letters[i] != letters[i + 1] and random.random() < 0.5:
                letters[i], letters[i + 1] = letters[i + 1], letters[i]
                i += 1
            elif near:
                slip = near[int(random.integers(len(near)))]
                letters[i] = slip.upper() if letters[i].isupper() else slip
        i += 1
    return "".join(letters)


def paraphrase(text: str) -> str:
    """Contractions written out or drawn together, and words exchanged for synonyms; unchanged where no rule meets.

    Contractions written apart ("is n't", as SST-2 has them) are read as one word.
    """
    joined = re.sub(r"(\w) n't\b", r"\1n't", text)
    joined = re.sub(r"(\w) '(s|re)\b", r"\1'\2", joined)
    changed = TABLE_PATTERN.sub(_exchanged, joined)
    return text if changed == joined else changed


def _exchanged(match: re.Match[str]) -> str:
    # without case the pattern also meets letters that have no plain lower one: a dotted capital I, a long s
    new = TABLE.get(match[0].lower())
    return match[0] if new is None else _like(match[0], new)


def _like(old: str, new: str) -> str:
    """The new words with the old ones' capital."""
    return new[0].upper() + new[1:] if old[0].isupper() else new


TABLE = {a: b for pair in CONTRACTIONS for a, b in (pair, pair[::-1])} | dict(SYNONYMS)
LONGEST_FIRST = "|".join(sorted(map(re.escape, TABLE), key=len, reverse=True))
# not a part of a compound ("big-screen"), and "it's been" is no "it is"
TABLE_PATTERN = re.compile(rf"(?<![\w-])({LONGEST_FIRST})(?![\w-])(?!\s+(?:been|got)\b)", re.I)
