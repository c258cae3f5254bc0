"""Rows and prompts: slices, draws, labels, texts, files, and every fault's words."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.config.schema import Task, Template
from bench.data.prompts import fill, words
from bench.data.rows import Rows, class_balanced, draw_labels, read
from bench.data.sources import Located
from bench.data.splits import cut, normalise, parse, text_key
from bench.errors import UserFault

NAMES = ["bad", "good"]


def make(train="train", test="validation", labels=NAMES, columns=None, **more) -> Task:
    columns = columns or {"text": "sentence", "label": "label"}
    field = next(f for f in columns if f != "label")
    template = {"pattern": f"{{{field}}}:", "verbalizer": {label: f" {label}" for label in labels}}
    raw = {"data": {"path": "x"}, "splits": {"train": train, "test": test}, "columns": columns, "labels": labels}
    return Task.model_validate({**raw, "templates": [template], **more})


def fault(call, *args, **kwargs) -> str:
    with pytest.raises(UserFault) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def jsonl(folder: Path, split: str, rows: list[dict]) -> Path:
    path = folder / f"{split}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def plain(n: int, classes: int = 2) -> list[dict]:
    return [{"sentence": f"text {i}", "label": i % classes, "idx": i} for i in range(n)]


def here(**files: Path | tuple[Path, ...]) -> Located:
    return Located("path", {k: v if isinstance(v, tuple) else (v,) for k, v in files.items()}, "sha256:0")


def both(tmp_path: Path, rows: list[dict], **task):
    """`rows` as the train split beside a sound validation split, read."""
    located = here(train=jsonl(tmp_path, "train", rows), validation=jsonl(tmp_path, "validation", plain(4)))
    return read("a", make(**task), located)


def pool(texts: list[str], labels: list[int] | None = None) -> Rows:
    labels = labels or [0] * len(texts)
    return Rows([{"text": t} for t in texts], labels, list(range(len(texts))))


# ---- names of splits


@pytest.mark.parametrize(
    ("text", "base", "low", "high", "bounds"),
    [
        ("train", "train", None, None, (0, 7)),
        (" validation_matched ", "validation_matched", None, None, (0, 7)),
        ("train[:]", "train", None, None, (0, 7)),
        ("train[:80%]", "train", None, "80%", (0, 5)),
        ("train[80%:]", "train", "80%", None, (5, 7)),
        ("train[12.5%:100%]", "train", "12.5%", "100%", (0, 7)),
        ("validation[:200]", "validation", None, "200", (0, 7)),
        ("train[1 : 3]", "train", "1", "3", (1, 3)),
    ],
)
def test_split_names(text, base, low, high, bounds):
    part = parse(text)
    assert (part.base, part.low, part.high, part.bounds(7)) == (base, low, high, bounds)
    assert part.whole == (low is None and high is None)


@pytest.mark.parametrize(
    "text", ["", "train[", "train[80%]", "train[1:2:3]", "../train", "a..b", "a/b", "train[:2][1:]"]
)
def test_fault_for_a_bad_split(text):
    assert fault(parse, text) == (
        f"cannot read the split '{text}'; allowed: a split's name, or a slice like train[:80%], train[80%:], "
        "validation[:200], train[100:300]"
    )


@pytest.mark.parametrize("edge", ["-5", "x", "1e3", "80 %", "%", "0.5"])
def test_fault_for_a_bad_edge(edge):
    assert fault(parse, f"train[:{edge}]").startswith(
        f"cannot read '{edge}' in the split 'train[:{edge}]'; allowed: a split"
    )


def test_fault_for_more_than_everything():
    assert fault(parse, "train[:120%]") == "the split 'train[:120%]' goes to 120%; allowed: 0% to 100%"


# ---- slices

texts = st.lists(st.text(alphabet="abAB é", min_size=1, max_size=3).filter(str.strip), min_size=1, max_size=40)


@given(texts, st.lists(st.integers(0, 40), max_size=4))
def test_slices_are_disjoint_by_text_and_cover(values, edges):
    keys = [text_key({"text": value}) for value in values]
    edges = [0, *sorted(edges), len(values)]
    parts = [cut(keys, low, high) for low, high in itertools.pairwise(edges) if low <= high]
    assert sorted(itertools.chain(*parts)) == list(range(len(values)))
    for one, other in itertools.combinations(parts, 2):
        assert not {normalise(values[i]) for i in one} & {normalise(values[i]) for i in other}
    assert all(part == sorted(part) for part in parts)


@given(texts, st.integers(0, 100), st.randoms())
def test_a_slice_depends_on_texts_not_on_their_order(values, percent, random):
    low, high = parse(f"train[{percent}%:]").bounds(len(values))
    shuffled = random.sample(values, len(values))
    one, other = ([v[i] for i in cut([text_key({"t": t}) for t in v], low, high)] for v in (values, shuffled))
    assert Counter(map(normalise, one)) == Counter(map(normalise, other))


@given(st.integers(0, 10**6), st.decimals(0, 100, places=2))
def test_equal_shares_meet(n, share):
    assert parse(f"train[:{share}%]").bounds(n)[1] == parse(f"train[{share}%:]").bounds(n)[0]


def test_a_slice_of_distinct_texts_has_its_exact_size():
    keys = [text_key({"text": str(i)}) for i in range(1000)]
    assert [len(cut(keys, *parse(f"t[{s}]").bounds(1000))) for s in (":80%", "80%:", ":200", "100:300")] == [
        800,
        200,
        200,
        200,
    ]


def test_the_cut_is_pinned():
    """Records compare across versions only while a slice keeps its rows: this fails when the order changes."""
    assert cut([text_key({"text": f"text {i}"}) for i in range(10)], 0, 3) == PINNED_CUT


PINNED_CUT = [3, 6, 7]


def test_texts_are_the_same_whatever_case_space_and_form():
    same = ["Caf\u00e9  au lait", "cafe\u0301 AU\tlait ", "\ufb01".replace("\ufb01", "caf\u00e9 au\u00a0lait")]
    assert len({text_key({"text": t}) for t in same}) == 1
    assert text_key({"a": "x y", "b": "z"}) != text_key({"a": "x", "b": "y z"})
    assert text_key({"a": "x\x1fy", "b": "z"}) != text_key({"a": "x", "b": "y\x1fz"})


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


# ---- draws

pools = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), max_size=40).map(
    lambda pairs: pool([f"Text {t}" if c else f"text  {t}" for t, c in pairs], [c for _, c in pairs])
)
seeds = st.integers(-(2**70), 2**70)


@settings(max_examples=200)
@given(pools, st.integers(0, 15), st.integers(0, 15), seeds)
def test_draws_are_nested_distinct_and_hold_every_class(rows, n, more, seed):
    small, large = draw_labels(rows, n, seed, 4), draw_labels(rows, n + more, seed, 4)
    assert large.take(range(len(small))) == small
    keys = [text_key(f) for f in large.fields]
    available = {text_key(f) for f in rows.fields}
    assert len(set(keys)) == len(keys) == min(n + more, len(available))
    for fields, label, i in zip(large.fields, large.labels, large.index, strict=True):
        assert (rows.fields[i], rows.labels[i]) == (fields, label)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(4, 10), seeds)
def test_a_draw_holds_every_class_there_is(labels, n, seed):
    rows = pool([str(i) for i in range(len(labels))], labels)
    assert set(draw_labels(rows, n, seed, 4).labels) == set(labels)


def test_draws_follow_the_natural_distribution():
    rows = pool([str(i) for i in range(5000)], [int(i % 10 == 0) for i in range(5000)])
    assert 0.07 < sum(draw_labels(rows, 2000, 0, 2).labels) / 2000 < 0.13


def test_draws_differ_by_seed_and_repeat():
    rows = pool([str(i) for i in range(100)])
    assert draw_labels(rows, 10, 1, 1) == draw_labels(rows, 10, 1, 1) != draw_labels(rows, 10, 2, 1)
    assert draw_labels(rows, 0, 1, 1) == Rows([], [], [])
    assert len(draw_labels(rows, 1000, 1, 1)) == 100


def test_a_rare_class_is_drawn():
    rows = pool([str(i) for i in range(3000)], [0] * 2999 + [1])
    assert all(2999 in draw_labels(rows, 2, seed, 2).index for seed in range(5))


@settings(max_examples=200)
@given(st.lists(st.integers(0, 3), max_size=30), st.integers(0, 40), seeds)
def test_class_balance(labels, k, seed):
    rows = pool([str(i) for i in range(len(labels))], labels)
    chosen = class_balanced(rows, k, seed, 4)
    assert chosen == class_balanced(rows, k, seed, 4)
    assert len(set(chosen.index)) == len(chosen) == min(k, len(rows))
    have, want = Counter(labels), Counter(chosen.labels)
    for c, d in itertools.permutations(range(4), 2):  # one class exceeds another by two only where that ran out
        assert want[c] - want[d] <= 1 or want[d] == have[d]


def test_class_balance_varies_order_and_surplus():
    rows = pool([str(i) for i in range(40)], [i % 2 for i in range(40)])
    draws = [class_balanced(rows, 3, seed, 2).labels for seed in range(40)]
    assert {sum(d) for d in draws} == {1, 2} and len({tuple(d) for d in draws}) == 6


@pytest.mark.parametrize("draw", [draw_labels, class_balanced])
def test_a_negative_draw_is_a_bug(draw):
    with pytest.raises(ValueError, match="cannot"):
        draw(pool(["x"]), -1, 0, 2)


# ---- prompts


def template(pattern: str) -> Template:
    return Template(pattern=pattern, verbalizer={"bad": " no", "good": " yes"})


def test_fill_and_words():
    two = template("{a} and {b}, {a}\n=> ")
    assert fill(two, {"a": "x", "b": "y"}) == "x and y, x\n=> "
    assert words(two, ["good", "bad"]) == [" yes", " no"]
    assert words(two, ["bad", "good"]) == [" no", " yes"]


@pytest.mark.parametrize(
    "text",
    ["{b}", "{label}", "{0}", "{a.__class__}", "{a!r:>9}", "{{b}}", r"\1 \g<0> \n", "$a ${HOME} %s %(a)s", "{", "\0"],
)
def test_hostile_text_arrives_as_it_is(text):
    assert fill(template("<{a}|{b}>"), {"a": text, "b": "y"}) == f"<{text}|y>"
    assert fill(template("<{b}|{a}>"), {"a": text, "b": "{a}"}) == f"<{{a}}|{text}>"


@given(st.text(), st.text())
def test_any_text_arrives_as_it_is(one, other):
    assert fill(template("<{a}|{b}>"), {"a": one, "b": other}) == f"<{one}|{other}>"


def test_braces_of_the_pattern_stay():
    assert fill(template('{"key": {a}} {} {a.b} {{a}}'), {"a": "x"}) == '{"key": x} {} {a.b} {x}'


def test_fault_for_a_field_that_is_not_there():
    assert fault(fill, template("{txet}"), {"text": "x"}) == "unknown field in a pattern: 'txet'; did you mean 'text'?"
