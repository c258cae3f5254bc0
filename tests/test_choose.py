"""Multiple choice, rows chosen by a column, ratings cut in two, made word problems, other wordings: rows and faults."""

from __future__ import annotations

import os
import re
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from data_rows import fault, here, jsonl, make, plain
from pydantic import ValidationError

from bench.config import DataSettings, load
from bench.config.schema import Task
from bench.data import arithmetic, numbers
from bench.data.prompts import fill
from bench.data.rows import TaskRows, read
from bench.data.sources import PAIRS, Located, locate
from bench.identity import task_digest

ABC = ["A", "B", "C"]
CHOOSE = {"question": "q", "options": "o", "label": "a"}
MIRROR = os.environ.get("BENCH_MIRROR")
real = pytest.mark.skipif(not MIRROR, reason="no mirror of real data (BENCH_MIRROR)")


def choose(**more) -> Task:
    return make(labels=ABC, columns=CHOOSE, kind="choose", **more)


def question(n: int = 0, **more) -> dict:
    return {"q": f"question {n}", "o": [f"x{n} ", "y", "z"], "a": n % 3, **more}


def rows(tmp_path: Path, task: Task, given: list[dict], other: list[dict] | None = None, **files) -> TaskRows:
    located = here(
        train=jsonl(tmp_path, "train", given), validation=jsonl(tmp_path, "validation", other or given), **files
    )
    return read("a", task, located)


# ---- options


def test_options_become_fields_named_by_the_labels(tmp_path):
    task = choose()
    got = rows(tmp_path, task, [question(n) for n in range(4)]).train
    assert task.fields == ["question", "A", "B", "C"] == list(got.fields[0])
    assert got.fields[3] == {"question": "question 3", "A": "x3", "B": "y", "C": "z"} and got.labels == [0, 1, 2, 0]
    template = task.templates[0].model_copy(update={"pattern": "{question} A. {A} B. {B} C. {C}"})
    assert fill(template, got.fields[0]) == "question 0 A. x0 B. y C. z"


def test_labels_of_a_choice_may_be_names(tmp_path):
    assert rows(tmp_path, choose(), [question(a="C")]).train.labels == [2]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["x", "y"], "lists 2 options; allowed: 3, one a label (A, B, C)"),
        ("x", "holds 'x', not a list of options"),
        (None, "holds null, not a list of options"),
        (["x", "", "z"], "holds an empty text; allowed: text that is not empty"),
        (["x", 7, "z"], "holds int 7; allowed: text that is not empty"),
    ],
)
def test_fault_for_options(tmp_path, options, text):
    given = [question(0), question(1, o=options)]
    assert fault(rows, tmp_path, choose(), given) == f"task 'a': {tmp_path / 'train.jsonl'} row 1: column 'o' {text}"


def test_fault_for_options_in_csv(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("q,o,a\nwhy,x,0\n")
    assert fault(read, "a", choose(), here(train=path, validation=path)) == (
        f"task 'a': {path} row 0: column 'o' holds 'x', not a list of options, and CSV has no lists: "
        "allowed: .parquet or .jsonl"
    )


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"kind": "choose"}, "kind choose needs one of columns.options, number or data.arithmetic for its options"),
        ({"kind": "choose", "columns": CHOOSE, "number": "(.)"}, "kind choose needs one of columns.options, number or"),
        (
            {"kind": "choose", "columns": CHOOSE, "labels": ["a b", "c"]},
            "names a field of its own in patterns, got 'a b'",
        ),
        ({"kind": "choose", "columns": CHOOSE, "labels": ["question", "c"]}, "of its own in patterns, got 'question'"),
        ({"number": "(.)"}, "number and data.arithmetic make options to choose from: give kind: choose"),
        ({"data": {"arithmetic": 20}}, "number and data.arithmetic make options to choose from: give kind: choose"),
        ({"label_cut": 0, "labels": ABC}, "label_cut cuts numbers into two labels, got classify with 3"),
        ({"kind": "choose", "columns": CHOOSE, "number": "x"}, "a pattern with one group, the number"),
        ({"kind": "choose", "columns": CHOOSE, "number": "("}, "not a regular expression: missing )"),
        (
            {"pairs": {"data": {"path": "x"}, "split": "t", "columns": {"txt": "c"}}},
            "pairs.columns names ['txt']; allowed: ['text']",
        ),
        (
            {"pairs": {"data": {"path": "x"}, "split": "t", "columns": {"text": "c"}, "finds": "x"}},
            "a pattern with one group, the wording",
        ),
    ],
)
def test_fault_for_what_a_kind_has_not(more, text):
    with pytest.raises(ValidationError, match=re.escape(text)):
        make(**more)


# ---- rows chosen by a column


def test_only_rows_where_a_column_holds_a_value(tmp_path):
    given = [row | {"kind": kind, "n": i} for i, (row, kind) in enumerate(zip(plain(6), "ababab", strict=True))]
    given[1]["label"] = 99  # a fault in a row that is not taken is none
    splits = {"train": "train", "test": "validation", "where": {"kind": "a"}}
    task = make(splits=splits)
    assert task.splits.where == {"kind": ["a"]}
    assert rows(tmp_path, task, given).train.index == [0, 2, 4]
    assert rows(tmp_path, make(splits={**splits, "where": {"kind": ["a"], "n": [2, 4]}}), given).test.index == [2, 4]
    path = tmp_path / "train.jsonl"
    assert fault(rows, tmp_path, make(splits={**splits, "where": {"kind": "aa"}}), given) == (
        f"task 'a': {path}: no row holds 'aa' in column 'kind' (splits.where); values there: a, b; did you mean 'a'?"
    )
    assert fault(rows, tmp_path, make(splits={**splits, "where": {"knd": "a"}}), given) == (
        f"line 1 of {path} has no column 'knd'; columns there: sentence, label, idx, kind, n; did you mean 'kind'?"
    )


# ---- ratings


def test_ratings_are_cut_into_two_labels(tmp_path):
    given = [{"sentence": f"s{i}", "label": value} for i, value in enumerate([-0.5, 0, 0.1, 3])]
    got = rows(tmp_path, make(label_cut=0), given).train
    assert (got.labels, got.index) == ([0, 1, 1], [0, 2, 3]), "a rating at the cut leans to neither side"
    path = tmp_path / "train.csv"
    path.write_text("sentence,label\nx,-1.5\ny,2\n")
    assert read("a", make(label_cut=0), here(train=path, validation=path)).train.labels == [0, 1]


@pytest.mark.parametrize(
    ("value", "got"), [("good", "'good'"), (None, "null"), (True, "True"), (float("nan"), "nan"), (10**400, "1000")]
)
def test_fault_for_a_rating(tmp_path, value, got):
    told = fault(rows, tmp_path, make(label_cut=0), [*plain(1), {"sentence": "x", "label": value}])
    assert told.startswith(f"task 'a': {tmp_path / 'train.jsonl'} row 1: column 'label' holds {got}")
    assert told.endswith("; allowed with label_cut: a number")


# ---- numbers


def test_wrong_numbers_are_near_and_never_the_right_one():
    for n in [*range(0, 200), 1250, Decimal("2.5"), -4]:
        number = Decimal(n)
        others = numbers.wrong(number)
        assert number not in others and len(set(others)) == len(others) >= 4
        assert all(other >= 0 for other in others) or number < 0
        made, right = numbers.options(number, ["q"], ["A", "B", "C", "D"])
        assert list(made.values())[right] == numbers.written(number) and len(set(made.values())) == 4
    places = Counter(numbers.options(Decimal(18), [f"q{i}"], ["A", "B", "C", "D"])[1] for i in range(400))
    assert min(places.values()) > 70, "the right one stands anywhere"
    with pytest.raises(ValueError, match="40 options asked for the number 5, at most"):
        numbers.options(Decimal(5), [], [str(i) for i in range(40)])


def test_numbers_are_read_as_people_write_them():
    assert [numbers.parse(text) for text in ("1,250", "$18.", "-3.50", "x", "")] == [
        1250,
        18,
        Decimal("-3.5"),
        None,
        None,
    ]
    assert [numbers.written(Decimal(text)) for text in ("18", "2.50", "1E+3", "100")] == ["18", "2.5", "1000", "100"]


def test_a_question_with_a_number_for_its_answer(tmp_path):
    task = make(labels=ABC, columns={"question": "q", "label": "a"}, kind="choose", number="#### (.+)$")
    got = rows(tmp_path, task, [{"q": "how many?", "a": "so\n#### 1,008"}]).train
    assert (
        got.fields[0][ABC[got.labels[0]]] == "1008"
        and got.fields == rows(tmp_path, task, [{"q": "how many?", "a": "#### 1008"}]).train.fields
    )
    for bad, shown in (("none", "'none'"), ("#### x", "'#### x'"), (7, "7"), (None, "null")):
        assert fault(rows, tmp_path, task, [{"q": "how many?", "a": bad}]) == (
            f"task 'a': {tmp_path / 'train.jsonl'} row 0: column 'a' holds {shown}; allowed: a text in which "
            "'#### (.+)$' finds a number"
        )


def test_word_problems_are_made_and_their_answers_computed():
    told = [arithmetic.problem(n, "test") for n in range(400)]
    assert told == [arithmetic.problem(n, "test") for n in range(400)]
    assert len({text for text, _ in told}) > 395 and not any("{" in text for text, _ in told)
    assert all(answer > 0 for _, answer in told)
    text, answer = told[4]
    price, meal, tickets = (int(n) for n in re.findall(r"\d+", text))
    assert answer == price * tickets + meal
    for n in range(200):
        (first, answer), (other, changed) = arithmetic.problem(n, "test"), arithmetic.problem(n, "test", 1)
        assert answer != changed and re.sub(r"\d+", "#", first) == re.sub(r"\d+", "#", other)


def test_every_story_s_condition_holds():
    for number in range(800):
        story = arithmetic.STORIES[number % len(arithmetic.STORIES)]
        assert story.holds(arithmetic._numbers(story, f"x {number}"))


def test_a_task_of_made_problems():
    task = make(data={"arithmetic": 40}, labels=ABC, columns={"question": "q", "label": "a"}, kind="choose", limit=10)
    got = read("a", task, locate("a", task, "arithmetic", DataSettings()))
    assert (len(got.train), len(got.test), len(got.pool)) == (40, 10, 40)
    assert not {f["question"] for f in got.train.fields} & {f["question"] for f in got.pool.fields}
    assert locate("a", task, "", DataSettings()).fingerprint == "arithmetic:40:v1"


# ---- the pool, other wordings


def test_the_pool_is_the_test_split_before_its_limit(tmp_path):
    got = rows(tmp_path, make(limit=3), plain(9))
    assert len(got.test) == 3 and len(got.pool) == 9 and set(got.test.index) < set(got.pool.index)


def wordings(tmp_path: Path, other: list[dict], **more) -> TaskRows:
    pairs = {"data": {"path": str(tmp_path)}, "split": "said", "columns": {"text": "other"}, **more}
    task = make(pairs=pairs, data={"path": str(tmp_path)}, limit=2)
    for split, given in (("train", plain(4)), ("validation", plain(4)), ("said", other)):
        jsonl(tmp_path, split, given)
    located = locate("a", task, "path", DataSettings())
    assert (
        PAIRS in located.files
        and located.fingerprint == locate("a", make(data={"path": str(tmp_path)}), "path", DataSettings()).fingerprint
    )
    return read("a", task, located)


def test_other_wordings_are_found_by_row_number(tmp_path):
    got = wordings(tmp_path, [{"other": f"Q: say {i}\nA: x"} for i in range(5)], finds="Q: (.*)")
    assert got.wordings == {i: {"text": f"say {i}"} for i in range(4)}


def test_fault_for_other_wordings(tmp_path):
    path = tmp_path / "said.jsonl"
    assert fault(wordings, tmp_path, [{"other": "x"}]) == (
        f"task 'a': {path} has 1 rows, and row 3 of the test split has no other wording there; "
        "allowed: as many rows (pairs)"
    )
    assert fault(wordings, tmp_path, [{"other": "x"}] * 4, finds="(y)") == (
        f"task 'a': '(y)' finds no wording in {path} (pairs.finds)"
    )
    assert fault(wordings, tmp_path, [{"other": ""}] * 4).startswith(
        f"task 'a': {path} row 0: column 'other' holds an empty"
    )


# ---- identity


def test_new_fields_leave_old_digests_as_they_were_and_count_when_given():
    plain_digest = task_digest(make())
    assert plain_digest == task_digest(make(judges="form"))
    changed = [make(label_cut=0), make(splits={"train": "train", "test": "validation", "where": {"a": "b"}})]
    assert len({plain_digest, *map(task_digest, changed)}) == 3
    assert task_digest(load(["suite=glue-small"]).suite.tasks["sst2"]) == "cdd89cfa796b12e0", (
        "that of the first records"
    )


# ---- suites


def test_the_sample_of_questions_keeps_its_promises():
    task = load(["suite=mmlu-small"]).suite.tasks
    right: Counter[int] = Counter()
    for name, one in task.items():
        got = read(name, one, locate(name, one, "sample", DataSettings(source="sample")))
        assert (len(got.train), len(got.test)) == (2, 8)
        assert all(len(set(f.values())) == 5 for f in [*got.train.fields, *got.test.fields])
        right.update(got.test.labels)
    assert set(right.values()) == {8}


def mirrored(suite: str, name: str) -> tuple[Task, TaskRows]:
    task = load([f"suite={suite}"]).suite.tasks[name]
    located: Located = locate(name, task, "mirror", DataSettings(mirror=MIRROR))
    return task, read(name, task, located)


@real
def test_four_subjects_of_the_real_data():
    sizes = {name: len(mirrored("mmlu-small", name)[1].test) for name in load(["suite=mmlu-small"]).suite.tasks}
    assert set(sizes.values()) == {75} and len(sizes) == 4


@real
def test_movie_reviews_have_two_labels():
    _, got = mirrored("leak", "moviereview")
    share = sum(got.train.labels) / len(got.train)
    assert 0.4 < share < 0.65 and len(got.train) > 10_000


@real
def test_gsm8k_has_a_second_wording():
    raw = {
        "data": {"hub": "openai/gsm8k", "config": "main"}, "splits": {"train": "train", "test": "test"}, "kind": "choose",
        "columns": {"question": "question", "label": "answer"}, "labels": ["A", "B", "C", "D"], "number": "#### (.+)$",
        "templates": [{"pattern": "{question} {A} {B} {C} {D}", "verbalizer": {k: f" {k}" for k in "ABCD"}}],
        "pairs": {"data": {"hub": "local/rephrased_gsm8k"}, "split": "test", "columns": {"question": "text"},
                  "finds": r"(?s)^Question: (.+?)\nAnswer:"},
    }  # fmt: skip
    task = Task.model_validate(raw)
    got = read("a", task, locate("a", task, "mirror", DataSettings(mirror=MIRROR)))
    assert len(got.wordings) == len(got.pool) - 4 == 1315
    same = sum(
        set(re.findall(r"\d+", got.wordings.get(i, f)["question"])) == set(re.findall(r"\d+", f["question"]))
        for i, f in zip(got.pool.index, got.pool.fields, strict=True)
    )
    assert same > 900, "the rows are aligned: most wordings hold the same numbers"
