"""Kind generate: what is read, rows with their targets and replies as right or wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_rows import fault, here, jsonl
from pydantic import ValidationError
from written_tasks import COLUMNS, generate, question

from bench.config.reply import Reply
from bench.config.schema import Task
from bench.data.rows import TaskRows
from bench.data.rows import read as read_rows
from bench.identity import task_digest
from bench.score.replies import majority, read, right


def rows_of(tmp_path: Path, task: Task, given: list[dict]) -> TaskRows:
    located = here(train=jsonl(tmp_path, "train", given), validation=jsonl(tmp_path, "validation", given))
    return read_rows("a", task, located)


# ---- rows


def test_a_row_holds_its_target_and_reasoning(tmp_path: Path) -> None:
    task = generate()
    got = rows_of(tmp_path, task, [question(n) for n in range(3)]).train
    assert task.fields == ["question", "rationale", "target"] == list(got.fields[0])
    assert task.prompt_fields == ["question"] and task.labels == ["wrong", "right"] and got.labels == [1, 1, 1]
    assert got.fields[2] == {"question": "What is 2 and one?", "rationale": "One more than 2 is 3.", "target": "3"}


def test_an_answer_is_cut_out_of_a_longer_text(tmp_path: Path) -> None:
    """As in GSM8K, whose one column holds reasoning, calculator input and answer."""
    task = generate({"finds": "#### (.+)$"}, columns={"question": "q", "label": "a", "rationale": "a"})
    told = "Two and two make 2+2=<<2+2=4>>4.\n#### 1,004"
    [one] = rows_of(tmp_path, task, [{"q": "How many?", "a": told}]).train.fields
    assert one == {"question": "How many?", "rationale": "Two and two make 2+2=4.", "target": "1,004"}


@pytest.mark.parametrize(
    ("reply", "label", "words"),
    [
        ({}, "many", "row 0: column 'a' holds 'many'; allowed: a number"),
        ({}, None, "row 0: column 'a' holds ''; allowed: a number"),
        ({"reads": "yes_no"}, "maybe", "row 0: column 'a' holds 'maybe'; allowed: yes or no"),
        (
            {"finds": "#### (.+)$"},
            "4",
            "row 0: column 'a' holds '4'; allowed: a text in which '#### (.+)$' finds a number",
        ),
    ],
)
def test_a_label_without_an_answer_is_told(tmp_path: Path, reply: dict, label: Any, words: str) -> None:
    assert fault(rows_of, tmp_path, generate(reply), [question(0, a=label)]).endswith(words)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"reply": None}, "kind generate and 'reply' (how a reply is read) go together"),
        ({"labels": ["a", "b"]}, "with kind generate labels are ['wrong', 'right'], got ['a', 'b']"),
        ({"metric": "f1"}, "kind generate has metric accuracy"),
        ({"pattern": "{rationale}"}, "pattern names ['rationale']; allowed with kind generate: ['question']"),
        ({"pattern": "Say something:"}, "pattern has no {field} place"),
        ({"columns": {**COLUMNS, "target": "t"}}, "'target' is what the label's column holds: name the column 'label'"),
        ({"reply": {"finds": "####"}}, "a pattern with one group, the answer"),
    ],
)
def test_what_is_no_question(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as error:
        if "reply" in more and more["reply"] is None:
            Task.model_validate(generate().model_dump(mode="json") | {"reply": None})
        generate(**more)
    assert words in str(error.value)


def test_how_a_reply_is_read_is_part_of_a_task() -> None:
    assert task_digest(generate()) != task_digest(generate({"tokens": 8}))


# ---- reading


@pytest.mark.parametrize(
    ("reads", "text", "target", "is_right"),
    [
        ("number", "We add. The answer is 1,234.", "1234", True),
        ("number", "It costs $5.00 in all", "5", True),
        ("number", "It is 7 or rather 8", "7", False),
        ("number", "no idea", "7", False),
        ("yes_no", "Yes, it is.", "yes", True),
        ("yes_no", "The answer is no.", "No", True),
        ("yes_no", "perhaps", "no", False),
        ("text", " A bloody mess.\nWhy not", "a bloody mess", True),
        ("text", "Because of this, the answer is 'Cake'.", "cake", True),
        ("text", "cake or pie", "cake", False),
    ],
)
def test_a_reply_is_right_or_wrong(reads: Any, text: str, target: str, is_right: bool) -> None:
    reply = Reply(reads=reads)
    assert right(read(text, reply), target, reply) is is_right


def test_the_commonest_answer_wins_and_silence_does_not_vote() -> None:
    assert majority(["2", None, "3", "3", None]) == "3" and majority(["2", "3"]) == "2"
    assert majority([None, None]) is None and majority([]) is None
