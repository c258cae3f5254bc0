"""Entities (kind tag) and texts scored by what they share (reads: free): rows, tasks, and what a reply is counted as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_rows import fault, here, jsonl
from pydantic import ValidationError
from written_tasks import task

from bench.config import load
from bench.config.schema import Task
from bench.data.rows import Rows
from bench.data.rows import read as read_rows
from bench.identity import task_digest
from bench.score.marks import baseline, capitals, lead, marked, marks

ANN = {"type": "person", "text": "Ann Lee"}
ROWS = [
    {"t": "Then Ann Lee left Rome.", "e": [ANN, {"type": "place", "text": "Rome"}]},
    {"t": "Nothing at all.", "e": []},
]


def rows_of(tmp_path: Path, one: Task, given: list[dict]) -> Rows:
    located = here(train=jsonl(tmp_path, "train", given), validation=jsonl(tmp_path, "validation", given))
    return read_rows("a", one, located).train


# ---- rows and tasks


def test_entities_become_lines(tmp_path: Path) -> None:
    one = task()
    got = rows_of(tmp_path, one, ROWS)
    assert got.fields[0] == {"text": "Then Ann Lee left Rome.", "target": "person: Ann Lee\nplace: Rome"}
    assert got.fields[1]["target"] == "none" and one.kept == ("hits", "found", "gold")
    assert (one.metric, one.reply and one.reply.reads, one.prompt_fields) == ("span_f1", "spans", ["text"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "row 0: column 'e' holds null; allowed: a list of entities such as"),
        ("Ann", "row 0: column 'e' holds 'Ann'; allowed: a list of entities such as"),
        (["Ann"], "column 'e' lists 'Ann'; allowed: an entity with 'type' and 'text', both texts"),
        ([{"type": "person", "text": " "}], "allowed: an entity with 'type' and 'text', both texts"),
        ([{"type": "peson", "text": "Ann"}], "has the type 'peson'; allowed: person, place; did you mean 'person'?"),
        ([{"type": "place", "text": "Paris"}], "has the entity 'Paris', which stands in none of the row's texts"),
        ([{"type": "person", "text": "None"}], "holds entities that cannot be read back from lines: 'person: None'"),
    ],
)
def test_what_is_no_list_of_entities_is_told(tmp_path: Path, given: Any, words: str) -> None:
    assert words in fault(rows_of, tmp_path, task(), [{"t": "Ann met None", "e": given}])


def test_a_reference_without_words_or_with_an_empty_line_is_told(tmp_path: Path) -> None:
    for text in ("…", "one\n \ntwo"):
        said = fault(rows_of, tmp_path, task("generate"), [{"t": "a", "e": text}])
        assert said.endswith(
            "allowed: a text with a letter a-z or a digit and without an empty line, which ends a reply"
        )
    assert rows_of(tmp_path, task("generate"), [{"t": "a", "e": "one\ntwo"}]).fields[0]["target"] == "one\ntwo"


TWO = {"text": "t", "more": "m", "label": "e"}


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("tag", {"metric": "accuracy"}, "kind tag has metric span_f1 (of entities, over all items) and no other"),
        (
            "tag",
            {"reply": {"reads": "free"}},
            "kind tag and reply.reads: spans go together, got kind tag with reads: free",
        ),
        ("tag", {"reply": {"finds": "(x)"}}, "with kind tag the label's column lists entities"),
        ("tag", {"labels": ["a: b"]}, "a label is the type written before a colon, got 'a: b'"),
        ("tag", {"labels": ["A", "a"]}, "labels are compared without case, got ['A', 'a']"),
        ("tag", {"reply": {"source": "text"}}, "reply.source is for reads: free"),
        ("tag", {"pattern": "List:"}, "pattern has no {field} place"),
        ("generate", {"metric": "accuracy"}, "reads: free has metric rouge1, rouge2, rouge_l or chrf"),
        ("generate", {"reply": {"reads": "spans"}}, "kind tag and reply.reads: spans go together, got kind generate"),
        ("generate", {"reply": {"reads": "text"}}, "kind generate has metric accuracy"),
        ("generate", {"columns": TWO}, "several texts needs reply.source, one of ['text', 'more']"),
        (
            "generate",
            {"columns": TWO, "reply": {"reads": "free", "source": "mor"}},
            "reply.source is 'mor', not one of",
        ),
        ("classify", {"labels": ["a", "b"], "metric": "chrf", "reply": None}, "metric chrf is for kind generate with"),
        ("classify", {"labels": ["a", "b"], "metric": "span_f1", "reply": None}, "metric span_f1 is for kind tag"),
        ("classify", {"labels": ["a"], "metric": "accuracy", "reply": None}, "list should have at least 2 items"),
    ],
)
def test_what_is_no_such_task(kind: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as error:
        task(kind, **more)
    assert words in str(error.value)


def test_one_type_of_entity_is_enough() -> None:
    assert task(labels=["disease"]).labels == ["disease"]


def test_the_identity_of_older_tasks_stands() -> None:
    """Digests as they were before replies had a source and labels could be entities."""
    known = {
        "reasoning-small": {"gsm8k": "9fa146255cfa610b", "strategyqa": "7de9945779840c3f"},
        "glue-small": {"sst2": "cdd89cfa796b12e0", "mrpc": "78f49cd5b9a94279"},
    }
    for suite, tasks in known.items():
        found = load([f"suite={suite}"]).suite.tasks
        assert {name: task_digest(found[name]) for name in tasks} == tasks
    several = {"columns": TWO, "pattern": "{text}"}
    first, second = (task("generate", **several, reply={"reads": "free", "source": s}) for s in ("text", "more"))
    assert task_digest(first) != task_digest(second) != task_digest(task("generate"))


# ---- marks


def test_marks_are_those_of_the_libraries() -> None:
    scorer, chrf = pytest.importorskip("rouge_score.rouge_scorer"), pytest.importorskip("sacrebleu.metrics")
    reply, target = "The cats sat on a mat.", "A cat sat quietly on the mat"
    words = scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(target, reply)
    assert marks(reply, target, task("generate")) == pytest.approx(
        (*(one.fmeasure for one in words.values()), chrf.CHRF().sentence_score(reply, [target]).score / 100)
    )
    assert marks("", target, task("generate")) == (0, 0, 0, 0)


def test_marks_of_entities_by_hand() -> None:
    target = "person: Ann Lee\nplace: Rome"
    reply = "- Person: ann lee\n- Person: Rome\nplace: Rome\nplace: none\nHere it ends."
    assert marks(reply, target, task()) == (2, 3, 2)
    assert marks("none", target, task()) == (0, 0, 2) and marks("none", "none", task()) == (0, 0, 0)


def test_the_first_sentence_is_the_baseline_of_texts() -> None:
    assert lead("It is 5 p.m. now! And then?", 20) == "It is 5 p.m."
    assert lead("No stop at all", 2) == "No stop" and lead("One. Two.", 9) == "One."
    fields = [{"text": "The boat sails far. It rains.", "target": "the boat"}, {"text": "A b c", "target": "x y z v"}]
    found, told = baseline(Rows(fields, [1, 1], [0, 1]), task("generate"))
    assert told == "the first sentence of the text, at most 3 words of it"  # the median of 2 and 4
    assert found[0] == pytest.approx(marks("The boat sails", "the boat", task("generate"))) and found[1, 0] == 0


def test_capitalised_words_are_the_baseline_of_entities() -> None:
    assert capitals("Then Ann Lee of New York, Bob and I met. Nobody left Rome") == [
        "Then Ann Lee",
        "New York",
        "Bob",
        "I",
        "Rome",
    ]
    assert capitals("Ann Lee saw it.") == ["Ann Lee"] and capitals("Rome fell") == [] and capitals("") == []
    fields = [
        {"text": "In May we saw Ann Lee", "target": "person: Ann Lee"},
        {"text": "She left Rome and Bath", "target": "place: Rome\nplace: Bath"},
    ]
    found, told = baseline(Rows(fields, [1, 1], [0, 1]), task())
    assert told == "every run of capitalised words, each called place"
    assert found.tolist() == [[0, 2, 1], [2, 2, 2]], "called person it would hit once"


def test_scores_hold_their_baseline() -> None:
    fields = [{"text": "We met Ann Lee", "target": "person: Ann Lee"}, {"text": "so", "target": "none"}]
    found = marked(np.array([[1.0, 2, 1], [0, 1, 0]]), Rows(fields, [1, 1], [0, 1]), task(), None)
    assert list(found) == ["span_f1", "span_precision", "span_recall"]
    assert found["span_f1"].value == pytest.approx(2 / 4) and found["span_f1"].chance == 1
    assert found["span_f1"].chance_is == "every run of capitalised words, each called person"
    assert found["span_precision"].value == pytest.approx(1 / 3) and found["span_recall"].value == 1
