r"""The answer in a generated text: its final number, the label of an option, or yes and no.

How numbers are read, where more than one reading is possible:

- English only: the point is the decimal sign, a comma groups three digits. `1.234` is 1.234 and `1,234` is 1234 even
  if their writer meant otherwise; what English cannot write as one number (`1,5`, `1.234,56`, `1,2,3`) is no number.
- `50%` is 50. Units, `k` and `million` after a number change nothing; numbers, signs and powers in words are not read.
- `3/4` is a fraction, never a date; three parts (`3/4/2020`, `2020-03-04`), times, ratios (`3:45`), versions (`1.2.3`),
  ordinals (`3rd`) and digits inside names (`H2O`) are no numbers; of "March 4, 2020" the year is the last number.
- A hyphen is a minus only before a digit (or `$5`) and not after a letter or digit: `5-3` holds 5 and 3, `- 3` a 3.
- Powers are not worked out: `2^5` is no number, but `1.5 \times 10^3` is 1500. Sums neither: after a mark `3 + 4` is
  read as 3 and `3 + 4 = 7` as 7.

Marks of a final answer are `answer is`, `answer:` (`Final answer:` too), `####` right before a number, and `\boxed{}`.
Text that runs on into the next question is the caller's to cut: its marks would win.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

DIGITS = 1000
"""Longest number that is read, in characters; Python itself refuses integers of more than 4,300 digits."""
POWER = 400
"""Largest power of ten that is read: `1e999999999` would fill the memory."""

_VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_SIGNS = str.maketrans({"−": "-", "﹣": "-", "－": "-", "⁄": "/"})
_FRACTIONS = str.maketrans({c: unicodedata.normalize("NFKC", c).replace("⁄", "/") for c in _VULGAR})
_FRAC = re.compile(r"\\[dtc]?frac\s*(?:\{\s*([-+]?\d++)\s*\}|(\d))\s*(?:\{\s*(\d++)\s*\}|(\d))")

_LETTER = "A-Za-zÀ-ɏͰ-ϿЀ-ӿ"  # scripts that set spaces between words and numbers: others run into them
_WHOLE = r"(?:(?!0)\d{1,3}(?:,\d{3})++|\d++)"
_PLAIN = rf"(?:{_WHOLE}(?:\.\d++)?|(?<![\w.])\.\d++)"
_TOKEN = re.compile(
    rf"""
      [{_LETTER}][{_LETTER}\d_]*+(?:(?<=\d)(?:\.\d+)+|(?<=_)\{{\d++)?  # a word, with the digits inside it
    | \d++(?P<by>[-/.:])\d++(?:(?P=by)\d++)++ | \d++:\d++              # dates, versions, times
    | \^\s*+(?:\{{\s*+)?-?\d++(?:\.\d++)? | _\{{\d++                         # exponents and indices
    | (?P<number>
        (?P<minus>(?<![{_LETTER}\d)\]}}%-])[-+])?(?:\\?[$£€¥₹][ ]?(?P<minus2>[-+])?)?
        (?: (?P<whole>{_WHOLE})[ \t]++(?P<top>\d++)/(?P<bottom>\d++)(?![.,/]?\d)
          | (?P<over>{_PLAIN})[ \t]*+/[ \t]*+(?P<under>{_PLAIN})(?![.,/]?\d)
          | (?P<plain>{_PLAIN})(?![.,]?\d)
            (?: [eE](?P<power>[-+]?\d++)(?!\w)
              | [ ]?(?:[×x*·]|\\times|\\cdot)[ ]?10\^\{{?(?P<tens>[-+]?\d++)\}}? )?
        ))
    | \d[\d.,]*                                                        # digits that are no number in English
    """,
    re.VERBOSE,
)
_UNREAD = re.compile(r"\^\s*+(?:\{\s*+)?-?\d|[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]|\^?\{?(?:st|nd|rd|th)\b", re.IGNORECASE)
_STEP = re.compile(rf"[\s$()%]*+(?:[{_LETTER}]+[\s$()%]*+)?(?:[-+*/×÷·=x]|\\times|\\cdot|\\div)[\s$()%\\]*")
_MARK = re.compile(r"(?P<box>\\boxed\s*\{)|(?P<hash>(?<!#)#{4}(?!#))|\banswer[\s*_]*(?:is\b|:|=)", re.IGNORECASE)
_REACH = re.compile(r"\W*[^\n]*")
_HEADING = re.compile(r"[.)]\s+\w")


class Found(NamedTuple):
    """A number and where in the text it stands."""

    value: Fraction
    start: int
    end: int


def number(text: str) -> Fraction | None:
    """The final number of a text, exactly; None where there is none.

    The last marked answer wins, else the last number. A mark counts up to the end of its line (the next line where its
    own holds no word) and means the first number there, or the far side of the equation that this number begins. A
    mark without a number ("the answer is seven") is passed over.
    """
    plain = _prepared(text)
    for mark, stretch in _marked(plain):
        found = list(_numbers(stretch))
        if mark["hash"] and not _headed(stretch, found):
            continue
        if found:
            return _far_side(found, stretch)
    everything = list(_numbers(plain))
    return everything[-1].value if everything else None


def same(a: Fraction | int | None, b: Fraction | int | None) -> bool:
    """Whether two numbers are exactly equal; nothing equals None. Raises `TypeError` for floats: they are not exact."""
    for value in (a, b):
        if isinstance(value, float):
            raise TypeError(f"same: got the float {value!r}; allowed: Fraction, int or None")
    return a is not None and b is not None and a == b


def _prepared(text: str) -> str:
    """The text with signs, fractions and grouping signs of print and LaTeX as plain characters."""
    text = text.translate(_SIGNS).replace("{,}", ",").replace(r",\!", ",")
    text = re.sub(r"(?<=\d)(?:\\,|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))", "", text)
    text = re.sub(rf"(?<=\d)(?=[{_VULGAR}]|\\[dtc]?frac)", " ", text).translate(_FRACTIONS)
    return _FRAC.sub(lambda m: f"{m[1] or m[2]}/{m[3] or m[4]}", text)


def _numbers(text: str) -> Iterator[Found]:
    """The numbers of a prepared text from left to right."""
    for token in _TOKEN.finditer(text):
        if token["number"] is None or len(token[0]) > DIGITS or _UNREAD.match(text, token.end()):
            continue
        negative = (token["minus"] == "-") != (token["minus2"] == "-")
        if token["top"] and int(token["top"]) >= int(token["bottom"]):  # "5 12/3" is no mixed number but two
            yield Found(_signed(token["whole"], negative), token.start(), token.end("whole"))
            negative = False
        value = _value(token)
        if value is not None:
            yield Found(-value if negative else value, token.start(), token.end())


def _value(token: re.Match[str]) -> Fraction | None:
    """The absolute value of a token; None for a zero below the line and for powers beyond `POWER`."""
    if token["top"]:
        top, bottom = int(token["top"]), int(token["bottom"])
        if not bottom:
            return None
        return Fraction(top, bottom) + (_signed(token["whole"]) if top < bottom else 0)
    if token["over"]:
        under = _signed(token["under"])
        return _signed(token["over"]) / under if under else None
    power = int(token["power"] or token["tens"] or 0)
    return _signed(token["plain"]) * Fraction(10) ** power if abs(power) <= POWER else None


def _signed(digits: str, negative: bool = False) -> Fraction:
    value = Fraction(digits.replace(",", ""))
    return -value if negative else value


def _marked(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Each mark and what it marks, the last first. A mark ends where the next begins, so the time is linear."""
    marks = list(_MARK.finditer(text))
    ends = [*(mark.start() for mark in marks), len(text)][1:]
    for mark, end in zip(reversed(marks), reversed(ends), strict=True):
        after = text[mark.end() : end]
        if mark["box"]:
            yield mark, _boxed(after)
        elif reach := _REACH.match(after):
            yield mark, after.split("\n", 1)[0] if mark["hash"] else reach[0]


def _boxed(after: str) -> str:
    """What stands before the brace that closes the box; all of the line where the text was cut off before it."""
    depth = 1
    for at, sign in enumerate(after):
        depth += (sign == "{") - (sign == "}")
        if not depth:
            return after[:at]
    return after.split("\n", 1)[0]


def _headed(stretch: str, found: Sequence[Found]) -> bool:
    """Whether a number stands right after `####`; otherwise it is a heading ("#### Step 2", "#### 2. Add them")."""
    direct = bool(found) and not re.search(r"\w", stretch[: found[0].start])
    return direct and not _HEADING.match(stretch, found[0].end)


def _far_side(found: Sequence[Found], text: str) -> Fraction:
    """The first number, or where it begins an equation (`3 + 4 = 7`) the number after the last `=`."""
    value = found[0].value
    for before, after in pairwise(found):
        step = text[before.end : after.start]
        if not _STEP.fullmatch(step):
            break
        if "=" in step:
            value = after.value
    return value


# ---- labels and yes or no

_FILLER = re.compile(
    r"(?:\W|\b(?:the|option|choice|letter|answer|most|likely|probably|definitely|clearly|therefore|thus|text)\b)*+",
    re.IGNORECASE,
)
_SIGN = re.compile(r"\W*")
_PROSE = re.compile(r"\s+(?!(?:is|seems|because|since|as|and|or|but|over|not)\b)[a-z]")
_CORRECT = re.compile(r"\W*\s(?:is|seems)\s+(?:the\s+)?(?:correct|right|best)\b")
_WRONG = re.compile(r"\W*\s(?:is|was)(?:n['’]t|\s+(?:not|wrong|incorrect|false))\b")
_NAMED = re.compile(r"\b(?:option|choice|choose|pick|select)\W+$", re.IGNORECASE)
_NOT = re.compile(r"\bnot\W+(?:(?:the|option|choice|answer)\W+)*$", re.IGNORECASE)
_CLAUSE = re.compile(r"\s*(?:[^\w\s]|\n|$)")
_YES_NO = re.compile(r"(?<![\w'’-])(?:yes|no|true|false)(?![\w'’-])", re.IGNORECASE)
_NO_ONE = re.compile(r"\s+(?!(?:because|since|as|it|this|that|they|he|she|we|you|there)\b)\w", re.IGNORECASE)


def choice(text: str, labels: Sequence[str]) -> str | None:
    """The label a text chooses, as `labels` write it; None where it chooses none or several.

    The last marked one wins ("answer is B", "the dog (B)" after a mark, "B is correct"); then one that the text
    begins with, unless it repeats the list of options; then the only one named ("option C", "I pick (c)"); then the
    only one that stands alone anywhere. A small letter counts in brackets, before `)`, after a mark and at the start;
    "a dog", "A dog" and "I think" hold no label; "not B" and "B is wrong" choose nothing.
    Raises `ValueError` for no labels, empty ones, or two that differ in case only.
    """
    if not labels or not all(labels) or len({label.casefold() for label in labels}) < len(labels):
        raise ValueError(f"labels: got {list(labels)}; allowed: one or more texts that differ in more than their case")
    order = sorted(labels, key=len, reverse=True)  # of two labels that fit, the longer one is meant
    parts = "|".join(f"({re.escape(label)})" for label in order)
    whole = r"(?<!\w)(?<!\w['’-])(?:(?<!\d[.,])(?<![-−])|(?!\d))"  # no part of a word, nor the 5 of 1.5 or of -5
    label = re.compile(rf"{whole}(?:{parts})(?!\w|['’-]\w|[.,]\d)", re.IGNORECASE)
    found = next((m for _, stretch in _marked(text) if (m := _after_mark(label, stretch))), None)
    found = found or _unmarked(text, label, labels)
    return order[found.lastindex - 1] if found and found.lastindex else None


def _after_mark(label: re.Pattern[str], stretch: str) -> re.Match[str] | None:
    """A label right after a mark, else the first in brackets."""
    direct = _direct(label, stretch, _FILLER)
    if direct and _stands(direct, direct=True, capital=True):
        return direct
    return next((m for m in label.finditer(stretch) if _enclosed(m) and not _denied(m)), None)


def _unmarked(text: str, label: re.Pattern[str], labels: Sequence[str]) -> re.Match[str] | None:
    """The label of a text without a mark, by the later rules of `choice`."""
    found = [m for m in label.finditer(text) if not _denied(m)]
    right = [m for m in found if _CORRECT.match(text, m.end())]
    if right:
        return right[-1]
    leading = _direct(label, text, _SIGN)
    if leading and not _lists(text, labels) and _stands(leading, direct=True):
        return leading
    named = [m for m in found if _NAMED.search(text, max(0, m.start() - 20), m.start())]
    only = [m for m in named if _stands(m, direct=True, capital=True)] or [m for m in found if _stands(m)]
    return only[0] if len({m.lastindex for m in only}) == 1 else None


def _lists(text: str, labels: Sequence[str]) -> bool:
    """Whether a text repeats the options: its first two lines begin with the first two labels."""
    two = [rf"\W*{re.escape(label)}[).:][^\n]*" for label in labels[:2]]
    return len(two) == 2 and re.match(r"\n".join(two), text, re.IGNORECASE) is not None


def yes_no(text: str) -> bool | None:
    """Whether a text says yes (or true) or no (or false); None where it says neither or both.

    The last marked word wins, then the first of the text ("No, because"), then the only one that ends a clause
    anywhere. "No one" and "no evidence" are no answers, and "not true" is none either.
    """
    for _, stretch in [*_marked(text), (None, text)]:
        direct = _direct(_YES_NO, stretch, _FILLER)
        if direct and (direct[0].casefold() == "yes" or not _NO_ONE.match(stretch, direct.end())):
            return direct[0].casefold() in ("yes", "true")
    found = (m for m in _YES_NO.finditer(text) if _CLAUSE.match(text, m.end()) and not _denied(m))
    said = {m[0].casefold() in ("yes", "true") for m in found}
    return said.pop() if len(said) == 1 else None


def _direct(pattern: re.Pattern[str], text: str, before: re.Pattern[str]) -> re.Match[str] | None:
    """The pattern right at the start, after signs, or words such as "most likely option", that say nothing."""
    fill = before.match(text)
    found = pattern.match(text, fill.end() if fill else 0)
    return found if found and not _denied(found) else None


def _enclosed(found: re.Match[str]) -> bool:
    """Whether a label stands in brackets or quotes, or before a closing bracket: `(b)`, `**b**`, `b)`."""
    text, start, end = found.string, found.start(), found.end()
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    return after == ")" or (before != "" and after != "" and before in "([{\"'“‘*`" and after in ")]}\"'”’*`")


def _stands(found: re.Match[str], direct: bool = False, capital: bool = False) -> bool:
    """Whether a label is no word of a sentence. `capital`: a capital A opens no sentence here, so it is one."""
    written = found[0]
    if _enclosed(found) or len(written) > 1 or not written.isalpha():
        return True
    prose = written in "aAiI" and _PROSE.match(found.string, found.end()) is not None
    if written.isupper():
        return not prose or (capital and written == "A")
    return direct and not prose


def _denied(found: re.Match[str]) -> bool:
    """Whether "not" stands before it or "is wrong" after it."""
    text, start, end = found.string, found.start(), found.end()
    return _NOT.search(text, max(0, start - 30), start) is not None or _WRONG.match(text, end) is not None
