"""Questions that offer their answers: guessing among them is chance."""

from __future__ import annotations

from typing import Any

import pytest
from written_tasks import generate

from bench.config.load import load
from bench.data.rows import Rows
from bench.errors import UserFault
from bench.identity import task_digest
from bench.recording import by_chance

LISTED = {"reads": "text", "offers": "^- .+$"}


def questions(*asked: tuple[str, str]) -> Rows:
    """Questions with their targets; a rationale that lists something too is no offer."""
    fields = [{"question": q, "rationale": "- a\n- b\n- c", "target": target} for q, target in asked]
    return Rows(fields, [1] * len(fields), list(range(len(fields))))


FOUR = "Which?\nOptions:\n- red\n- blue\n- green\n- grey"
TWO = "Is it?\n- so\n- not so"


def test_guessing_among_offered_answers_is_chance() -> None:
    rows = questions((FOUR, "red"), (FOUR, "blue"), (TWO, "so"), (TWO, "not so"), ("What then?", "a lot"))
    assert by_chance(rows, generate(LISTED)) == {
        "chance": pytest.approx((1 / 4 + 1 / 4 + 1 / 2 + 1 / 2 + 0) / 5),
        "chance_is": "guessing among the answers offered",
    }


def test_the_commonest_answer_is_chance_where_it_does_better_or_nothing_is_offered() -> None:
    rows = questions((FOUR, "red"), (FOUR, "Red"), (FOUR, "blue"), (FOUR, "grey"))
    assert by_chance(rows, generate(LISTED)) == {"chance": 0.5}
    assert by_chance(questions((FOUR, "red"), (FOUR, "blue")), generate({"reads": "text"})) == {"chance": 0.5}


def test_offers_are_part_of_a_task_and_leave_earlier_tasks_as_they_were() -> None:
    assert task_digest(generate(LISTED)) != task_digest(generate({"reads": "text"}))
    assert task_digest(generate({"reads": "text", "offers": None})) == task_digest(generate({"reads": "text"}))


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({"reads": "free", "offers": "^- .+$"}, "'offers' is for replies that are right or wrong"),
        ({"reads": "text", "offers": "("}, "not a regular expression"),
    ],
)
def test_what_offers_nothing(reply: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        generate(reply, metric="rouge_l" if reply["reads"] == "free" else "accuracy")


def test_fault_for_offers_of_the_suite() -> None:
    with pytest.raises(UserFault, match=r"tasks.ecqa.reply.*: not a regular expression"):
        load(["suite=reasoning-small", "tasks.ecqa.reply.offers='('"])


def test_the_bundled_suite_says_how_answers_are_listed() -> None:
    reply = load(["suite=reasoning-small"]).suite.tasks["ecqa"].reply
    assert reply is not None and reply.offers == "^- .+$"
