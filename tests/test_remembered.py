"""Answers of the base are asked once, whatever cell asks; what is kept names no text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.budget import Meter
from bench.config.schema import Template
from bench.probes.remembered import Base, Remembered

TEMPLATE = Template(pattern="{text}", verbalizer={"a": "a", "b": "b"})
ROWS = [{"text": "one secret"}, {"text": "two"}, {"text": "one secret"}]


class Counting:
    """Scores an item by its length and remembers what it was asked."""

    truncated = 0

    def __init__(self) -> None:
        self.asked: list[str] = []

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        self.asked += [one["text"] for one in fields]
        return np.array([[len(one["text"]), -1.5] for one in fields], dtype=float)

    def through(self, template: Template) -> Counting:
        return self


def remembered(folder: Path, answer: Counting) -> Remembered:
    return Remembered(Base(lambda: answer), folder / "answers", TEMPLATE)


def test_an_item_is_asked_once(tmp_path: Path) -> None:
    """Within a question and over processes; the order of the answers is that of the question."""
    first, later = Counting(), Counting()
    scores = remembered(tmp_path, first).predict(ROWS, Meter())
    assert first.asked == ["one secret", "two"]
    assert scores.tolist() == [[10.0, -1.5], [3.0, -1.5], [10.0, -1.5]]
    again = remembered(tmp_path, later).predict([*ROWS[1:], {"text": "three"}], Meter())
    assert later.asked == ["three"] and again.tolist() == [[3.0, -1.5], [10.0, -1.5], [5.0, -1.5]]


def test_case_is_another_question(tmp_path: Path) -> None:
    """The perturbations `lower case` and `upper case` change nothing else: the plain answer would hide their drop."""

    class Cased(Counting):
        def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
            return np.array([[sum(map(str.isupper, one["text"])), 0.5] for one in fields], dtype=float)

    one = remembered(tmp_path, Cased())
    assert one.predict([{"text": "Good Film"}], Meter()).argmax(-1).tolist() == [0]
    assert one.predict([{"text": "good film"}, {"text": "GOOD FILM"}], Meter()).tolist() == [[0.0, 0.5], [8.0, 0.5]]


def test_the_base_is_not_built_where_all_is_known(tmp_path: Path) -> None:
    """A second base beside the adapted one costs memory: only where it is needed."""
    remembered(tmp_path, Counting()).predict(ROWS, Meter())

    def never() -> Counting:
        raise AssertionError("built")

    known = Remembered(Base(never), tmp_path / "answers", TEMPLATE)
    assert known.predict(ROWS, Meter()).shape == (3, 2)


def test_another_prompt_is_another_question(tmp_path: Path) -> None:
    """And has a file of its own."""
    answer = Counting()
    one = remembered(tmp_path, answer)
    one.predict(ROWS[:1], Meter())
    one.through(TEMPLATE.model_copy(update={"pattern": "Text: {text}"})).predict(ROWS[:1], Meter())
    assert len(answer.asked) == 2 and len(list((tmp_path / "answers").iterdir())) == 2


def test_no_text_is_kept_and_damage_is_asked_again(tmp_path: Path) -> None:
    """Digests and scores only."""
    answer = Counting()
    one = remembered(tmp_path, answer)
    one.predict(ROWS, Meter())
    assert "secret" not in one.file.read_text()
    for damage in ("{", "[]", ""):
        one.file.write_text(damage)
        assert one.predict(ROWS[:1], Meter()).tolist() == [[10.0, -1.5]]
