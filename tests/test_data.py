"""Reading rows: slices of a split, labels, texts, files, and every fault's words."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_rows import both, fault, here, jsonl, make, plain
from pydantic import ValidationError

from bench.config import DataSettings, load
from bench.data.rows import Rows, read
from bench.data.sources import Located, locate

# ---- reading


def test_slices_of_one_split(tmp_path):
    rows = both(tmp_path, plain(50), train="train[:80%]", test="train[80%:]")
    assert (len(rows.train), len(rows.test)) == (40, 10)
    assert sorted(rows.train.index + rows.test.index) == list(range(50))
    assert rows.train.index == sorted(rows.train.index)
    assert all(f == {"text": f"text {i}"} for f, i in zip(rows.test.fields, rows.test.index, strict=True))


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "train"), ("train[:80%]", "train[79%:]"), ("train", "train[:1]"), ("train[:50%]", "train[10:30]")],
)
def test_fault_when_train_and_test_overlap(tmp_path, train, test):
    assert fault(both, tmp_path, plain(50), train=train, test=test) == (
        f"task 'a': train '{train}' and test '{test}' share rows of 'train'; allowed: two splits, or slices "
        "that do not overlap such as train[:80%] and train[80%:]"
    )


@pytest.mark.parametrize("part", ["train[50:]", "train[30:10]", "train[:0%]"])
def test_fault_for_a_slice_without_rows(tmp_path, part):
    text = f"task 'a': the slice '{part}' holds no row; 'train' has 50"
    assert fault(both, tmp_path, plain(50), train=part) == text


def test_fault_for_an_empty_split(tmp_path):
    empty = tmp_path / "train.jsonl"
    text = f"task 'a': the split 'train' is empty ({empty}); allowed: at least one row"
    assert fault(both, tmp_path, []) == text


def test_training_rows_can_be_chosen_by_a_pattern(tmp_path):
    rows = [{"sentence": text, "label": 0} for text in ("a phrase", "A sentence . ", "Is it?", "1.5 stars")]
    splits = {"train": "train", "test": "validation", "train_matches": "[.!?]$"}
    got = both(tmp_path, rows, splits=splits)
    assert got.train.index == [1, 2] and got.train_matches == "[.!?]$"
    assert len(got.test) == 4, "test rows are never left out"
    text = "task 'a': none of 4 training rows matches '^x' (splits.train_matches)"
    assert fault(both, tmp_path, rows, splits={**splits, "train_matches": "^x"}) == text
    sample = make(data={"sample": "sst2.jsonl"}, splits=splits)
    whole = read("a", sample, locate("a", sample, "sample", DataSettings(source="sample")))
    assert len(whole.train) == 128 and whole.train_matches is None


def test_fault_for_a_pattern_that_is_none():
    with pytest.raises(ValidationError, match="train_matches\n.*not a regular expression: unterminated character set"):
        make(splits={"train": "train", "test": "validation", "train_matches": "[.!?"})


def test_limit_is_a_fixed_subset_in_file_order(tmp_path):
    ten, twenty = (both(tmp_path, plain(60), train="validation", test="train", limit=n).test for n in (10, 20))
    assert len(ten) == 10 and set(ten.index) < set(twenty.index)
    assert ten.index == sorted(ten.index) != list(range(10))
    assert len(both(tmp_path, plain(5), train="validation", test="train", limit=10).test) == 5


def test_limit_is_exact_where_texts_repeat(tmp_path):
    rows = [{"sentence": "same", "label": 0}] * 9
    assert both(tmp_path, rows, train="validation", test="train", limit=4).test.index == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("values", "labels"),
    [([0, 1], [0, 1]), (["good", "bad"], [1, 0]), ([1.0, 0.0], [1, 0]), (["good", 0], [1, 0])],
)
def test_labels_are_positions_or_names(tmp_path, values, labels):
    rows = [{"sentence": "x", "label": value} for value in values]
    assert both(tmp_path, rows).train.labels == labels


@pytest.mark.parametrize(
    ("value", "got", "hint"),
    [
        (-1, "-1 (this split's labels are hidden)", ""),
        (2, "2", ""),
        (None, "null", ""),
        (0.5, "0.5", ""),
        (float("nan"), "nan", ""),
        (float("inf"), "inf", ""),
        (True, "True", ""),
        ("goood", "'goood'", "; did you mean 'good'?"),
        ("1", "'1'", ""),
        ("", "''", ""),
        ([1], "[1]", ""),
        ("z" * 99, "'" + "z" * 56 + "...", ""),
        (10**400, "1" + "0" * 56 + "...", ""),
    ],
)
def test_fault_for_a_label(tmp_path, value, got, hint):
    rows = [*plain(3), {"sentence": "x", "label": value}]
    assert fault(both, tmp_path, rows) == (
        f"task 'a': {tmp_path / 'train.jsonl'} row 3: column 'label' holds label {got}; "
        f"allowed: 0 to 1, or 'bad', 'good'{hint}"
    )


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("", "an empty text"),
        (" \n", "an empty text"),
        (None, "null"),
        (7, "int 7"),
        (["x"], "list ['x']"),
        ("\ud800x", "a text with half a surrogate pair '\\ud800x'"),
    ],
)
def test_fault_for_a_text(tmp_path, value, got):
    rows = [*plain(3), {"sentence": value, "label": 1}]
    assert fault(both, tmp_path, rows) == (
        f"task 'a': {tmp_path / 'train.jsonl'} row 3: column 'sentence' holds {got}; allowed: text that is not empty"
    )


def test_only_the_columns_needed_are_read(tmp_path):
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"sentence": ["x", "y"], "label": ["good", "bad"], "other": [None, None]}), path)
    rows = read("a", make(), here(train=path, validation=jsonl(tmp_path, "validation", plain(4))))
    assert rows.train == Rows([{"text": "x"}, {"text": "y"}], [1, 0], [0, 1])


def test_parquet_of_other_types(tmp_path):
    table = pa.table(
        {
            "sentence": pa.array(["x", "y"]).dictionary_encode(),
            "label": pa.array(["good", "bad"]).dictionary_encode(),
        }
    )
    path = tmp_path / "train.parquet"
    pq.write_table(table, path)
    assert read("a", make(), here(train=path, validation=path)).train.labels == [1, 0]


def test_two_text_fields_keep_the_suites_order(tmp_path):
    path = jsonl(tmp_path, "train", [{"s1": "a", "s2": "b", "label": 0}] * 2)
    task = make(columns={"second": "s2", "label": "label", "first": "s1"})
    rows = read("a", task, here(train=path, validation=path))
    assert list(rows.train.fields[0].items()) == [("second", "b"), ("first", "a")]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_fault_for_a_missing_column(tmp_path, kind):
    path = tmp_path / f"train.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"sentences": ["x"], "idx": [0]}), path)
    else:
        path.write_text("sentences,idx\nx,0\n" if kind == "csv" else '{"sentences": "x", "idx": 0}\n', encoding="utf-8")
    text = fault(read, "a", make(), here(train=path, validation=path))
    start = "line 1 of " if kind == "jsonl" else ""
    assert text == (
        f"{start}{path} has no column 'sentence', 'label'; columns there: sentences, idx; did you mean 'sentences'?"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"sentence": "x", "label": 0}\n{"sentence"\n', " line 2 is not JSON: "),
        (b'["x", 0]\n', " line 1 is list; allowed: one JSON object a line"),
    ],
)
def test_fault_for_bad_json_lines(tmp_path, content, words):
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    assert fault(read, "a", make(), here(train=path, validation=path)).startswith(f"{path}{words}")


def test_json_lines_with_a_mark_and_blank_lines(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"sentence": "x", "label": 0}\r\n\n{"sentence": "y\\u2028z", "label": 1}')
    assert read("a", make(), here(train=path, validation=path)).train.fields[1] == {"text": "y\u2028z"}


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_fault_for_bytes_that_are_not_utf8(tmp_path, kind):
    path = tmp_path / f"train.{kind}"
    path.write_bytes(b"caf\xe9,label\n")
    text = fault(read, "a", make(), here(train=path, validation=path))
    assert text.startswith(f"cannot read {path}: UnicodeDecodeError")


def test_fault_for_what_is_not_parquet(tmp_path):
    path = tmp_path / "train.parquet"
    path.write_text("version https://git-lfs.github.com/spec/v1", encoding="utf-8")
    assert fault(read, "a", make(), here(train=path, validation=path)).startswith(f"cannot read {path} as parquet: ")


def test_fault_for_a_file_that_vanished(tmp_path):
    path = tmp_path / "train.parquet"
    assert fault(read, "a", make(), here(train=path, validation=path)).startswith(f"cannot read {path}: FileNotFound")


def read_csv(tmp_path: Path, content: str, **task):
    path = tmp_path / "train.csv"
    path.write_text(content, encoding="utf-8")
    return read("a", make(**task), here(train=path, validation=path)).train


def test_csv_labels_may_be_names_or_positions(tmp_path):
    rows = read_csv(tmp_path, 'sentence,label\n"a, ""b""\nc",good\nd,0\n\n')
    assert rows == Rows([{"text": 'a, "b"\nc'}, {"text": "d"}], [1, 0], [0, 1])


def test_csv_labels_are_names_where_names_are_numbers(tmp_path):
    assert read_csv(tmp_path, "sentence,label\na,1\nb,2\n", labels=["1", "2"]).labels == [0, 1]
    assert "holds label '0'; allowed" in fault(read_csv, tmp_path, "sentence,label\na,0\n", labels=["1", "2"])


def test_faults_of_csv(tmp_path):
    path = tmp_path / "train.csv"
    assert fault(read_csv, tmp_path, "sentence,label\nok,1\na, b,1\n") == (
        f"{path} line 3 has 3 cells, the header has 2; allowed: as many (quote a text that holds a comma)"
    )
    twice = fault(read_csv, tmp_path, "sentence,label,label\na,1,0\n")
    assert twice == f"{path} has the column 'label' twice; allowed: each name once"
    assert fault(read_csv, tmp_path, 'sentence,label\n"a" b,1\n').startswith(f"cannot read {path}: Error: ")
    assert "has no column 'sentence', 'label'; columns there: none" in fault(read_csv, tmp_path, "")


def test_shards_are_joined_and_numbered(tmp_path):
    paths = tuple(tmp_path / f"train-{i}.parquet" for i in range(2))
    for i, path in enumerate(paths):
        pq.write_table(pa.table({"sentence": [f"a{i}", f"b{i}"], "label": [0, 1]}), path)
    rows = read("a", make(), here(train=paths, validation=paths[0])).train
    assert [f["text"] for f in rows.fields] == ["a0", "b0", "a1", "b1"] and rows.index == [0, 1, 2, 3]


def test_a_sample_tells_splits_apart_by_key(tmp_path):
    lines = [{**row, "split": "dev" if i % 3 else "train"} for i, row in enumerate(plain(9))]
    path = jsonl(tmp_path, "s", lines)
    located = Located("sample", {"train": (path,), "dev": (path,)}, "sha256:0")
    rows = read("a", make(test="dev"), located)
    assert (rows.train.index, rows.test.index) == ([0, 3, 6], [1, 2, 4, 5, 7, 8])
    assert fault(read, "a", make(test="dve"), Located("sample", {"train": (path,), "dve": (path,)}, "")) == (
        f"{path} has no split 'dve'; splits there: dev, train; did you mean 'dev'?"
    )


# ---- random rows


def test_random_rows_are_long_texts_of_short_words():
    task = load(["suite=memory-claims"]).suite.tasks["gpt2-small-seq128"]
    rows = read("a", task, locate("a", task, "random", DataSettings()))
    text = rows.train.fields[0]["text"]
    assert len(text) > 16_000
    assert max(map(len, text.split())) <= 8  # a WordPiece tokenizer makes one unknown token of a word of 100 letters
    assert text != rows.test.fields[0]["text"]
