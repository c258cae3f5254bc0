"""Instruction files: Alpaca's columns and chats as tasks, tasks that only train, and which of their rows are taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from data_rows import fault, here, jsonl
from pydantic import ValidationError

from bench.config.schema import Task
from bench.data.curation import curate
from bench.data.formats import instructions
from bench.data.rows import Rows, read
from bench.identity import task_digest

ALPACA = {"instruction": "instruction", "input": "input", "label": "output"}
PATTERNS = ["{instruction}\nInput: {input}\nResponse:", "{instruction}\nResponse:"]


def file_task(columns: dict[str, str] | None = None, patterns: list[str] | None = None, **more: Any) -> Task:
    raw = {
        "data": {"path": "x"},
        "splits": {"train": "train"},
        "role": "train",
        "kind": "generate",
        "columns": columns or ALPACA,
        "reply": {"reads": "text"},
        "templates": [{"pattern": pattern} for pattern in patterns or PATTERNS],
    }
    return Task.model_validate(raw | more)


def chats(patterns: list[str] | None = None, **more: Any) -> Task:
    return file_task({"messages": "messages"}, patterns or PATTERNS[1:], **more)


def rows_of(tmp_path: Path, task: Task, given: list[dict[str, Any]]) -> Rows:
    return read("file", task, here(train=jsonl(tmp_path, "train", given))).train


def said(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


# ---- rows


def test_alpaca_rows_may_have_no_input(tmp_path: Path) -> None:
    given = [
        {"instruction": "Name a colour.", "input": "", "output": "Red."},
        {"instruction": "Name it.", "input": None, "output": " Blue. "},
        {"instruction": "Count the words.", "input": "one two", "output": "2"},
    ]
    rows = rows_of(tmp_path, file_task(), given)
    assert rows.fields == [
        {"instruction": "Name a colour.", "input": "", "target": "Red."},
        {"instruction": "Name it.", "input": "", "target": "Blue."},
        {"instruction": "Count the words.", "input": "one two", "target": "2"},
    ]
    assert read("file", file_task(), here(train=tmp_path / "train.jsonl")).test == Rows([], [], [])


def test_an_instruction_itself_is_never_empty(tmp_path: Path) -> None:
    words = fault(rows_of, tmp_path, file_task(), [{"instruction": " ", "input": "x", "output": "y"}])
    assert words.endswith("row 0: column 'instruction' holds an empty text; allowed: text that is not empty")
    words = fault(rows_of, tmp_path, file_task(), [{"instruction": "Go.", "input": 3, "output": "y"}])
    assert words.endswith("row 0: column 'input' holds int 3; allowed: text")


def test_an_empty_answer_is_a_fault_only_where_it_is_scored(tmp_path: Path) -> None:
    given = [{"instruction": "Go.", "input": "", "output": ""}]
    assert rows_of(tmp_path, file_task(), given).fields[0]["target"] == ""
    scored = file_task(role="both", splits={"train": "train", "test": "test"})
    located = here(train=jsonl(tmp_path, "train", given), test=jsonl(tmp_path, "test", given))
    assert "column 'output' holds ''; allowed: a text" in fault(read, "file", scored, located)


def test_a_chat_ends_with_its_response(tmp_path: Path) -> None:
    given = [
        said(("user", "Name a colour."), ("assistant", "Red.")),
        said(("system", "Be brief."), ("user", "Name two."), ("assistant", "Red, blue.")),
        said(("user", "Name one."), ("assistant", "Red."), ("user", "Another."), ("assistant", "Blue.")),
    ]
    rows = rows_of(tmp_path, chats(), given)
    assert [fields["target"] for fields in rows.fields] == ["Red.", "Red, blue.", "Blue."]
    assert [fields["instruction"] for fields in rows.fields] == [
        "Name a colour.",
        "Be brief.\n\nName two.",
        "User: Name one.\nAssistant: Red.\nUser: Another.",
    ]


@pytest.mark.parametrize(
    ("chat", "words"),
    [
        (None, "null"),
        ("hello", "str, not a list"),
        ([{"role": "user"}], "message 1 without role and content"),
        ([{"role": "human", "content": "x"}], "message 1 of role 'human'"),
        ([{"role": "user", "content": None}], "message 1 whose content is NoneType"),
        ([{"role": "assistant", "content": "x"}], "no message of the user"),
        ([{"role": "user", "content": "x"}], "a last message of role 'user'"),
        ([], "no message of the user"),
    ],
)
def test_what_is_no_chat_is_told(chat: Any, words: str, tmp_path: Path) -> None:
    told = fault(rows_of, tmp_path, chats(), [said(("user", "a"), ("assistant", "b")), {"messages": chat}])
    assert f"row 1: column 'messages' holds {words}; allowed: a list of messages, each with a role" in told


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: file_task(patterns=PATTERNS[:1]), "give a pattern that names {input} and one that does not"),
        (lambda: file_task(patterns=PATTERNS[1:]), "give a pattern that names {input} and one that does not"),
        (lambda: file_task({"messages": "m", "label": "x"}, PATTERNS[1:]), "and no other column, got generate with"),
        (lambda: chats(kind="classify", reply=None, labels=["a", "b"]), "give kind: generate and no other column"),
        (lambda: chats(["{messages}:"]), r"pattern names ['messages']; allowed with kind generate: ['instruction']"),
        (lambda: file_task(role="teach"), "'both', 'train' or 'test'"),
        (lambda: file_task(role="both"), "splits.test"),
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_is_told(make: Any, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        make()
    assert words in str(caught.value).replace("splits\n", "splits.").replace("splits.test\n", "splits.test")


def test_type_and_role_are_no_part_of_what_a_task_is() -> None:
    """They decide what a cell trains on, and that is told by its sources."""
    plain = file_task(role="both", splits={"train": "train", "test": "train[:1]"})
    assert task_digest(plain) == task_digest(plain.model_copy(update={"type": "chat", "role": "test"}))


# ---- which rows


def candidates() -> Rows:
    """Six rows: the second nearly the first, the third without an answer, the others apart and of good form."""
    good = "This is an answer of more than ten words, so that it may be chosen."
    asked = [
        ("Write a short poem about the sea at night.", good),
        ("Write a short poem about the sea at noon.", good),
        ("Tell me how a bicycle keeps its balance.", ""),
        ("List three old bridges of the north.", good),
        ("Explain why bread rises in the oven.", good),
        ("Give me a good reason to learn chess.", "No."),
    ]
    fields = [{"instruction": i, "input": "", "target": o} for i, o in asked]
    return Rows(fields, [1] * 6, [10, 11, 12, 13, 14, 15])


def test_the_filter_says_what_it_left_out() -> None:
    """ROUGE-L of the first two: 8 of 9 words in order, so F1 = 16 / 18."""
    rows, how = curate("file", file_task(), candidates(), 0, sifted=True, select="drawn", n=None)
    assert how is not None and rows.index == how.kept == [10, 13, 14, 15] and how.candidates == 6
    near, empty = sorted(how.left_out, key=lambda one: one.row)
    assert (near.row, near.rule, near.nearest) == (11, "near a kept one", 10)
    assert near.similarity == pytest.approx(16 / 18)
    assert (empty.row, empty.rule, empty.nearest) == (12, "empty output", None)
    assert how.how == "file: of 6 rows 4 kept (left out: 1 empty output, 1 near a kept one)"


def test_an_empty_answer_is_never_trained_on() -> None:
    rows, how = curate("file", file_task(), candidates(), 0, sifted=False, select="drawn", n=None)
    assert rows.index == [10, 11, 13, 14, 15] and how is not None and [one.row for one in how.left_out] == [12]
    whole = candidates().take([0, 1, 3])
    assert curate("file", file_task(), whole, 0, sifted=False, select="drawn", n=None) == (whole, None)


def test_chosen_rows_are_of_good_form_and_drawn_ones_are_the_first() -> None:
    drawn, _ = curate("file", file_task(), candidates(), 0, sifted=False, select="drawn", n=2)
    assert drawn.index == [10, 11]
    rows, how = curate("file", file_task(), candidates(), 0, sifted=True, select="chosen", n=3)
    assert how is not None and sorted(rows.index) == [10, 13, 14]
    assert {one.row: one.rule for one in how.left_out} == {
        11: "near a kept one", 12: "empty output", 15: "short response",
    }  # fmt: skip
    assert how.how.endswith("3 of them chosen by quality (left out: 1 short response)")
    with pytest.raises(ValueError, match="got 4 rows to choose; allowed: 1 to 3"):
        curate("file", file_task(), candidates(), 0, sifted=True, select="chosen", n=4)


def test_rows_of_other_tasks_are_only_counted() -> None:
    """A filter for instructions would throw away every item of a task but one: they share their instruction."""
    task = file_task({"question": "q", "label": "a"}, ["{question}\nA:"])
    given = candidates()
    assert curate("x", task, given, 0, sifted=True, select="chosen", n=None) == (given, None)
    rows, how = curate("x", task, given, 0, sifted=True, select="chosen", n=4)
    assert rows.index == [10, 11, 12, 13] and how is None


# ---- wordings


def classify(**more: Any) -> Task:
    raw = {
        "data": {"path": "x"},
        "splits": {"train": "train", "test": "test"},
        "columns": {"text": "sentence", "label": "label"},
        "labels": ["bad", "good"],
        "templates": [{"pattern": f"{{text}}\n{ask}", "verbalizer": {"bad": " bad", "good": " good"}} for ask in "AB"],
    }
    return Task.model_validate(raw | more)


def test_a_task_is_asked_through_its_templates_and_what_its_material_makes() -> None:
    plain = classify()
    assert instructions(plain, 10, 0) == list(plain.templates) and instructions(plain, 1, 0) == plain.templates[:1]
    rich = classify(formats={"fields": {"text": ["Review", "Text"]}})
    ten = instructions(rich, 10, 0)
    assert ten[:2] == rich.templates and len({(t.pattern, *t.verbalizer.values()) for t in ten}) == 10
    assert not any(t.chat for t in ten) and instructions(rich, 4, 0) == ten[:4]
