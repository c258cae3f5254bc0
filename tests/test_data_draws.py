"""Names of splits, slices by text, draws by seed, and prompts."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from data_rows import fault, pool
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.config.schema import Template
from bench.data.draws import class_balanced, draw_labels
from bench.data.prompts import fill, words
from bench.data.rows import Rows
from bench.data.splits import cut, normalise, parse, text_key

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
