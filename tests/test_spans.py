"""Entity spans: tolerant lines, counts as multisets, BIO tags by conlleval's rule; all worked by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.spans import Counts, counts, counts_of_bio, f1, normalised, parse, spans_of_bio

LINES = """Here they are: all of the names
- PER: Mara Voss
* **LOC**: "Lake Ohrid"
2. org: Blue Kite Ltd.
Org : none
PER: Mara Voss
ANIMAL: otter
LOC:
Note: nothing else was named
MISC: 10:45 to Skopje
that is all"""


def test_lines_are_read_tolerantly():
    assert parse(LINES, ["PER", "LOC", "ORG"]) == [
        ("PER", "Mara Voss"), ("LOC", '"Lake Ohrid"'), ("ORG", "Blue Kite Ltd."), ("PER", "Mara Voss"),
        ("ANIMAL", "otter"), ("MISC", "10:45 to Skopje"),
    ]  # fmt: skip
    assert parse(LINES)[0] == ("PER", "Mara Voss") and ("ORG", "Blue Kite Ltd.") not in parse(LINES)
    assert parse("**PER:** Ann, Bob\r\n`loc`: `Bitola`", ["PER", "LOC"]) == [("PER", "Ann, Bob"), ("LOC", "Bitola")]
    assert parse("creative work: The Long Reed", ["creative work"]) == [("creative work", "The Long Reed")]
    assert parse("") == parse("no colon here") == parse("PER: N/A\nLOC: None.\nORG: -") == []


def test_texts_are_compared_without_case_spaces_and_signs_around():
    assert normalised(" “Blue  Kite Ltd.” ") == "blue kite ltd"
    assert normalised("U.S. Open") == "u.s. open", "only what stands around it"


def test_counts_are_those_of_multisets():
    gold = [("PER", "Mara Voss"), ("PER", "Mara Voss"), ("LOC", "Ohrid")]
    assert counts(gold, gold) == (3, 3, 3)
    assert counts([("per", "mara voss."), ("LOC", "Bitola")], gold) == (1, 2, 3)
    assert counts([("LOC", "ohrid")] * 3, gold) == (1, 3, 3), "said thrice, right once"
    assert counts([("ORG", "Ohrid")], gold) == (0, 1, 3), "the type counts too"
    assert counts([], []) == Counts(0, 0, 0)


def test_f1_is_of_the_sums():
    # items (1, 2, 3) and (1, 1, 1): 2 hits, 3 predicted, 4 gold; the mean of the items' own F1 would be 0.7
    assert f1([(1, 2, 3), (1, 1, 1)]) == pytest.approx(2 * 2 / 7)
    assert f1([(1, 2, 3), (1, 1, 1), (0, 0, 0)]) == pytest.approx(4 / 7), "nothing to find, nothing found"
    assert f1([(2, 2, 2)]) == 1.0
    assert f1([]) == f1([(0, 0, 0)]) == f1([(0, 4, 0)]) == 0.0
    with pytest.raises(ValueError) as fault:
        f1([(3, 2, 4)])
    assert str(fault.value) == "counts: got (3, 2, 4); allowed: hits from 0 to the fewer of predicted and gold"


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("O B-PER I-PER O", [("PER", 1, 3)]),
        ("B-PER B-PER", [("PER", 0, 1), ("PER", 1, 2)]),
        ("I-PER I-PER O I-LOC", [("PER", 0, 2), ("LOC", 3, 4)]),
        ("B-PER I-LOC I-LOC", [("PER", 0, 1), ("LOC", 1, 3)]),
        ("B-PER I-LOC I-PER", [("PER", 0, 1), ("LOC", 1, 2), ("PER", 2, 3)]),
        ("I-PER B-PER I-PER", [("PER", 0, 1), ("PER", 1, 3)]),
        ("B-creative-work I-creative-work", [("creative-work", 0, 2)]),
        ("O O", []),
        ("", []),
    ],
)
def test_bio_tags_by_hand(tags, spans):
    assert spans_of_bio(tags.split()) == spans


@given(st.lists(st.tuples(st.sampled_from(["PER", "LOC"]), st.integers(1, 3), st.integers(0, 2)), max_size=8))
def test_tags_written_from_spans_are_read_back(parts):
    tags, spans = [], []
    for kind, length, gap in parts:
        spans.append((kind, len(tags), len(tags) + length))
        tags += [f"B-{kind}", *[f"I-{kind}"] * (length - 1), *["O"] * gap]
    assert spans_of_bio(tags) == spans
    assert counts_of_bio(tags, tags) == (len(spans), len(spans), len(spans))


@given(st.lists(st.sampled_from(["O", "B-X", "I-X", "B-Y", "I-Y"]), max_size=12))
def test_any_tags_cover_the_same_tokens_and_begin_by_the_rule(tags):
    spans = spans_of_bio(tags)
    covered = [at for _, start, end in spans for at in range(start, end)]
    assert covered == [at for at, tag in enumerate(tags) if tag != "O"]
    begins = [
        at for at, tag in enumerate(tags)
        if tag[0] == "B" or (tag[0] == "I" and (at == 0 or tags[at - 1] == "O" or tags[at - 1][2:] != tag[2:]))
    ]  # fmt: skip
    assert [start for _, start, _ in spans] == begins


def test_counts_of_tags_need_the_type_and_both_ends():
    gold = ["B-PER", "I-PER", "O", "B-LOC", "O", "B-ORG"]
    assert counts_of_bio(["B-PER", "I-PER", "O", "B-LOC", "O", "O"], gold) == (2, 2, 3)
    assert counts_of_bio(["B-PER", "O", "O", "B-ORG", "O", "B-ORG"], gold) == (1, 3, 3)
    assert f1([counts_of_bio(["B-PER", "O", "O", "B-ORG", "O", "B-ORG"], gold)]) == pytest.approx(1 / 3)


def test_faults_are_one_line():
    for tag in ("E-PER", "B", "I-", "o", "PER"):
        with pytest.raises(ValueError) as fault:
            spans_of_bio(["O", tag])
        assert str(fault.value) == f"tags: got '{tag}' at token 1; allowed: O, B-TYPE, I-TYPE"
    with pytest.raises(ValueError) as fault:
        counts_of_bio(["O"], ["O", "O"])
    assert str(fault.value) == "tags: got 1 predicted for 2 tokens; allowed: one tag a token"
