"""Word problems written for this project, as many as asked for, their answers computed.

A problem is a story (one of `STORIES`), names and numbers. The same story with the same names and other numbers has
another answer, which is computed too: so a model that has learnt the first answer by heart is told from one that
reckons (the perturbation `numbers`; Mirzadeh et al. 2024, GSM-Symbolic, section 3, change benchmark problems so).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from bench.data.numbers import generator, options

Numbers = dict[str, int]
VERSION = 1
"""Raised when the problems change: it is part of the data's fingerprint."""
PEOPLE = ("Ada", "Boris", "Chidi", "Dora", "Emil", "Farah", "Goran", "Hana", "Ines", "Jonas", "Keiko", "Lars")
THINGS = ("apples", "stamps", "pencils", "marbles", "postcards", "shells", "buttons", "tickets", "coins", "books")
DRAWN = 50
"""Draws of numbers until a story's condition holds; each story's holds for most."""


@dataclass(frozen=True)
class Story:
    """A text with places, the range of each number, the answer as a function of them and what must hold of them."""

    text: str
    ranges: dict[str, tuple[int, int]]
    answer: Callable[[Numbers], int]
    holds: Callable[[Numbers], bool] = lambda n: True


STORIES = (
    Story(
        "{p} has {a} {t}. {q} gives {p} {b} more, and {p} loses {c} of them. How many {t} does {p} have now?",
        {"a": (12, 80), "b": (5, 40), "c": (2, 30)},
        lambda n: n["a"] + n["b"] - n["c"],
        lambda n: n["c"] < n["a"] + n["b"],
    ),
    Story(
        "{p} packs {a} boxes with {b} {t} in each and keeps {c} {t} back. How many {t} did {p} have at the start?",
        {"a": (3, 19), "b": (4, 24), "c": (2, 20)},
        lambda n: n["a"] * n["b"] + n["c"],
    ),
    Story(
        "{p} shares {a} bags of {b} {t} equally among {c} friends. How many {t} does each friend get?",
        {"a": (2, 18), "b": (4, 30), "c": (2, 9)},
        lambda n: n["a"] * n["b"] // n["c"],
        lambda n: n["a"] * n["b"] % n["c"] == 0,
    ),
    Story(
        "{p} walks {a} kilometres a day for {b} days; {q} walks {c} kilometres less in all. How far does {q} walk?",
        {"a": (3, 25), "b": (3, 14), "c": (2, 8)},
        lambda n: n["a"] * n["b"] - n["c"],
    ),
    Story(
        "A ticket costs {a} crowns and a meal {b} crowns. {p} buys {c} tickets and one meal. What does {p} pay?",
        {"a": (6, 45), "b": (5, 60), "c": (2, 12)},
        lambda n: n["a"] * n["c"] + n["b"],
    ),
    Story(
        "{p} and {q} have {a} {t} together. {p} has {b} more than {q}. How many {t} does {p} have?",
        {"a": (20, 150), "b": (2, 18)},
        lambda n: (n["a"] + n["b"]) // 2,
        lambda n: (n["a"] + n["b"]) % 2 == 0,
    ),
    Story(
        "{p} saves {a} crowns a week for {b} weeks and then spends {c} crowns. How many crowns are left?",
        {"a": (7, 40), "b": (4, 20), "c": (5, 27)},
        lambda n: n["a"] * n["b"] - n["c"],
    ),
    Story(
        "A shelf holds {a} rows of {b} {t}. {p} takes {c} from every row. How many {t} stay on the shelf?",
        {"a": (3, 16), "b": (10, 30), "c": (1, 8)},
        lambda n: n["a"] * (n["b"] - n["c"]),
    ),
)


def problem(number: int, split: str, version: int = 0) -> tuple[str, int]:
    """Problem `number` of a split: its text and its answer. Another `version` has the same story, names and things,
    and other numbers, among them at least one that is new, and another answer."""
    story = STORIES[number % len(STORIES)]
    cast = generator(f"cast {split} {number}")
    first, second = cast.choice(len(PEOPLE), 2, replace=False)
    words = {"p": PEOPLE[first], "q": PEOPLE[second], "t": THINGS[int(cast.integers(len(THINGS)))]}
    numbers = _numbers(story, f"{split} {number} 0")
    if version:
        before = story.answer(numbers)
        tries = (_numbers(story, f"{split} {number} {version} {turn}") for turn in range(DRAWN))
        numbers = next(other for other in tries if story.answer(other) != before)
    return story.text.format(**words, **numbers), story.answer(numbers)


def _numbers(story: Story, key: str) -> Numbers:
    for turn in range(DRAWN):
        drawn = generator(f"numbers {key} {turn}")
        numbers = {name: int(drawn.integers(low, high + 1)) for name, (low, high) in story.ranges.items()}
        if story.holds(numbers):
            break
    return numbers


def choice(field: str, labels: list[str], number: int, split: str, version: int = 0) -> tuple[dict[str, str], int]:
    """A problem as the fields of a task to choose from, and the position of the right label."""
    text, answer = problem(number, split, version)
    numbers, right = options(Decimal(answer), [text], labels)
    return {field: text, **numbers}, right
