"""The bundled rows for instructions, preferences, ratings and worked answers: sizes, lengths, spelling, no repetition.

`suites/samples/README.md` promises this of every file alike; `test_samples_answers.py` holds what each promises beside it.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from sample_rows import FOLDER, HELD_OUT, column, load, words

SIZES = {
    "instructions": (96, 32),
    "preferences": (96, 48),
    "ratings": (120, 80),
    "word_problems": (32, 40),
    "commonsense": (24, 32),
    "yes_no": (24, 32),
    "summaries": (32, 24),
    "entities": (64, 40),
}
COLUMNS = {  # columns of running text, with the least and most words they may hold
    "instructions": {"instruction": (2, 20), "input": (0, 45), "output": (1, 35)},
    "preferences": {"prompt": (3, 30), "chosen": (1, 35), "rejected": (1, 35)},
    "ratings": {"text": (5, 30)},
    "word_problems": {"question": (15, 45), "rationale": (10, 40)},
    "commonsense": {"question": (8, 25), "rationale": (8, 25)},
    "yes_no": {"question": (8, 25), "rationale": (10, 40)},
    "summaries": {"text": (50, 120), "summary": (10, 25)},
    "entities": {"text": (5, 25)},
}
OTHER = {
    "instructions": {"kind"},
    "ratings": {"rating"},
    "word_problems": {"answer"},
    "commonsense": {"choices", "answer"},
    "yes_no": {"answer"},
    "entities": {"entities"},
}
TEXTS = [(name, of) for name, columns in COLUMNS.items() for of in columns]


def is_label(name: str, of: str, row: dict) -> bool:
    return name == "instructions" and of == "output" and row["kind"] in HELD_OUT


@pytest.mark.parametrize("name", SIZES)
def test_sizes_and_columns(name):
    rows = load(name)
    assert [row["split"] for row in rows] == ["train"] * SIZES[name][0] + ["test"] * SIZES[name][1]
    assert [row["idx"] for row in rows] == list(range(len(rows)))
    for row in rows:
        assert list(row)[:2] == ["split", "idx"], row
        assert set(row) == {"split", "idx", *COLUMNS[name], *OTHER.get(name, ())}, row


@pytest.mark.parametrize(("name", "of"), TEXTS)
def test_lengths(name, of):
    least, most = COLUMNS[name][of]
    bad = [row[of] for row in load(name) if not least <= len(row[of].split()) <= most]
    assert bad == []


@pytest.mark.parametrize(("name", "of"), TEXTS)
def test_lengths_vary(name, of):
    lengths = [len(text.split()) for text in column(name, of)]
    assert np.std(lengths) / np.mean(lengths) >= 0.15, (np.std(lengths), np.mean(lengths))


def test_no_text_twice_in_any_file_or_split():
    seen = Counter()
    for name, of in TEXTS:
        seen.update(" ".join(words(r[of])) for r in load(name) if r[of] and not is_label(name, of, r))
    assert [text for text, n in seen.items() if n > 1] == []


@pytest.mark.parametrize("name", SIZES)
def test_nothing_is_taken_from_the_older_samples(name):
    """No text of ten characters or more of these files stands in the sentences of the GLUE or MMLU sample."""
    older = [row for file in ("cola", "mmlu", "mrpc", "rte", "sst2") for row in load(file)]
    known = {" ".join(words(value)) for row in older for value in row.values() if isinstance(value, str)}
    ours = {" ".join(words(text)) for of in COLUMNS[name] for text in column(name, of)}
    assert {text for text in ours & known if len(text) >= 10} == set()


@pytest.mark.parametrize(("name", "of"), TEXTS)
def test_no_template(name, of):
    """No opening of three words, and no run of six words with its numbers masked, in more than 3 rows."""
    if name == "instructions" and of == "output":  # "C, B, D, A" and the labels have no wording
        texts = [row["output"] for row in load(name) if row["kind"] not in {*HELD_OUT, "reorder_steps"}]
    elif name == "instructions" and of == "instruction":  # the label sets are named in each, as they must be
        texts = [re.sub(r"angry,? .*amused|true (or|and) false", "_", text) for text in column(name, of)]
    else:
        texts = column(name, of)
    items = [["0" if w[0].isdigit() else w for w in words(text)] for text in texts]
    opening, count = Counter(" ".join(w[:3]) for w in items if len(w) > 3).most_common(1)[0]
    assert count <= 3, (opening, count)
    if (name, of) != ("word_problems", "rationale"):  # "0 x 0 0 that is" is arithmetic
        runs = Counter(run for w in items for run in {" ".join(w[i : i + 6]) for i in range(len(w) - 5)})
        assert [r for r, n in runs.items() if n > 3] == []


@pytest.mark.parametrize("name", SIZES)
def test_no_two_rows_ask_the_same(name):
    """No two rows share more than half of the word 5-grams of the shorter one."""
    of = next(iter(COLUMNS[name]))
    rows = [words(f"{row[of]} {row.get('input', '')}") for row in load(name)]
    grams = [{" ".join(w[i : i + 5]) for i in range(max(1, len(w) - 4))} for w in rows]
    bad = [(a, b) for a, b in itertools.combinations(grams, 2) if len(a & b) > 0.5 * min(len(a), len(b))]
    assert bad == []


@pytest.mark.parametrize("name", SIZES)
def test_no_near_duplicates(name):
    """Word-set Jaccard below 0.5 between any two rows, whichever split."""
    of = next(iter(COLUMNS[name]))
    sets = [set(words(f"{row[of]} {row.get('input', '')}")) for row in load(name)]
    bad = [(a, b) for a, b in itertools.combinations(sets, 2) if len(a & b) >= 0.5 * len(a | b)]
    assert bad == []


@pytest.mark.parametrize("name", SIZES)
def test_characters_and_spacing(name):
    """ASCII throughout, so straight quotes only; single spaces; no space before a comma or a full stop."""
    raw = (FOLDER / f"{name}.jsonl").read_bytes()
    assert raw.isascii() and b"\\u" not in raw and raw.endswith(b"\n") and b"\r" not in raw
    for row in load(name):
        strings = [v for v in row.values() if isinstance(v, str)] + row.get("choices", [])
        strings += [entity["text"] for entity in row.get("entities", [])]
        for text in strings:
            assert text == " ".join(text.split()), text
            assert not re.search(r"\s[,;:?!]|\s\.(?!\.)|,,|--", text), text
            assert text.count('"') % 2 == 0, text


@pytest.mark.parametrize("name", ["word_problems", "commonsense", "yes_no"])
def test_questions_end_as_questions(name):
    assert [q for q in column(name, "question") if not q.endswith("?")] == []
    assert [r for r in column(name, "rationale") if not r.endswith(".")] == []
