"""Training rows that share a text with a test set are dropped, counted, and said in record and report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from source_fixtures import fault

from bench import identity
from bench import plan as planning
from bench.config import DataSettings, load
from bench.config.schema import Task
from bench.data.apart import OWN, Apart
from bench.data.overlap import overlap, row_text, standing
from bench.data.rows import read
from bench.data.sources import HELD_OUT, locate
from bench.errors import UserFault
from bench.records import Apart as Recorded
from bench.report.provenance import apart
from bench.worker import rows_of

MIRROR = os.environ.get("BENCH_MIRROR")
THIRTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen"
EIGHT = "the cat sat on the very old mat"


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    ("row", "held_out", "found"),
    [
        ("The CAT, sat on the very old mat!", EIGHT, True),  # equal but for case and punctuation
        (f"I say: {EIGHT} again", EIGHT, True),  # eight words of a test set, whole, in a longer text
        (EIGHT, f"I say: {EIGHT} again", True),  # and the other way round
        ("the cat sat on the very old", f"I say: {EIGHT} again", False),  # a run of seven words
        ("a bad old film", "a bad old film.", True),  # below eight words only where equal
        ("a bad old film", "it is a bad old film.", False),
        ("bad film", "Bad film!", False),  # below four words: everybody's
        (f"before {THIRTEEN} after", f"so {THIRTEEN} and no more", True),  # 13 in a row, whole in neither
        (f"before {THIRTEEN[:-9]} after", f"so {THIRTEEN[:-9]} and no more", False),  # 12
    ],
)
def test_what_counts_as_standing_in_a_test_set(row: str, held_out: str, found: bool) -> None:
    """By hand: whole or 13 words in a row, in either direction; a row goes for any one of its texts."""
    assert standing([[row]], [held_out]) == [found]
    assert standing([["something else", row], ["nothing at all of it"]], ["no text", held_out]) == [found, False]


def test_after_dropping_no_test_text_is_found() -> None:
    """What the contamination check looks for is gone."""
    train = [[f"{EIGHT} number {i}"] if i % 3 else [f"text {i} is quite another one here"] for i in range(30)]
    found = standing(train, [EIGHT])
    kept = [row[0] for row, one in zip(train, found, strict=True) if not one]
    assert sum(found) == 20 and any(overlap([row[0] for row in train], [EIGHT]).found)
    assert not any(overlap(kept, [EIGHT]).found)


def task(tmp_path: Path, **more: Any) -> Task:
    """Pairs of answers in a folder of one's own, five to train on and one to be scored on."""
    pairs = [("q1", f"{EIGHT} one", "poor"), ("q2", "a good answer to it", "poor"), ("q3", "fine", f"- {THIRTEEN}"),
             ("q4", "all of this is new", "poor"), ("what was asked in a test", "fine", "poor")]  # fmt: skip
    jsonl(tmp_path / "own" / "train.jsonl", [{"q": q, "good": g, "bad": b} for q, g, b in pairs])
    jsonl(tmp_path / "own" / "test.jsonl", [{"q": "What was asked in a test?", "good": "a reply", "bad": "none"}])
    jsonl(tmp_path / "other" / "dev.jsonl", [{"s": EIGHT, "t": f"x {THIRTEEN} y"}, {"s": "one", "t": "two"}])
    return Task.model_validate(
        {"data": {"path": str(tmp_path / "own")}, "splits": {"train": "train", "test": "test"}, "kind": "prefer",
         "columns": {"prompt": "q", "chosen": "good", "rejected": "bad"}, "templates": [{"pattern": "{prompt}\n"}]} | more
    )  # fmt: skip


def held(tmp_path: Path, **more: Any) -> dict[str, Any]:
    """The other test set."""
    return {"data": {"path": str(tmp_path / "other")}, "split": "dev", "columns": ["s", "t"], **more}


def test_rows_are_dropped_and_counted(tmp_path: Path) -> None:
    """Two for the other set, one for the task's own test split; an empty list compares with its own alone."""
    local = DataSettings()
    plain = task(tmp_path)
    assert len(read("t", plain, locate("t", plain, "path", local)).train) == 5
    for sets, dropped, compared in (
        ([], [4], {OWN: 3}),
        ([held(tmp_path)], [0, 2, 4], {OWN: 3, "path:other dev": 4}),
        ([held(tmp_path, columns=["s"])], [0, 4], {OWN: 3, "path:other dev": 2}),
    ):
        one = task(tmp_path, drop_overlap=sets)
        rows = read("t", one, locate("t", one, "path", local))
        assert rows.train.index == [i for i in range(5) if i not in dropped]
        assert rows.apart == Apart(len(dropped), 5, compared, []) and len(rows.test) == 1


def test_it_is_part_of_what_a_cell_is(tmp_path: Path) -> None:
    """The sets and their bytes, not where they lie; without any, digest and fingerprint are what they were."""
    local, plain, one = DataSettings(), task(tmp_path), task(tmp_path, drop_overlap=[held(tmp_path)])
    elsewhere = held(tmp_path, data={"path": str(tmp_path / "own" / ".." / "other")})
    digests = [
        identity.task_digest(t)
        for t in (plain, one, task(tmp_path, drop_overlap=[]), task(tmp_path, drop_overlap=[elsewhere]))
    ]
    assert len(set(digests)) == 3 and digests[1] == digests[3]
    before = locate("t", one, "path", local)
    assert before.files[f"{HELD_OUT}0"] == (tmp_path / "other" / "dev.jsonl",)
    assert before.fingerprint != locate("t", plain, "path", local).fingerprint
    jsonl(tmp_path / "other" / "dev.jsonl", [{"s": "changed", "t": "as well"}])
    assert locate("t", one, "path", local).fingerprint != before.fingerprint


def test_what_cannot_be_compared_is_a_worded_fault(tmp_path: Path) -> None:
    local = DataSettings()

    def got(**more: Any) -> str:
        one = task(tmp_path, drop_overlap=[held(tmp_path, **more)])
        return fault(lambda: read("t", one, locate("t", one, "path", local)))

    assert "has no column 'u'; columns there: s, t" in got(columns=["u"])
    assert got(split="dve").startswith("task 't.drop_overlap': no dve.parquet")
    jsonl(tmp_path / "other" / "none.jsonl", [])
    assert "the split 'none' of drop_overlap is empty" in got(split="none")
    whole = task(tmp_path, drop_overlap=[{**held(tmp_path), "split": "all"}])
    jsonl(tmp_path / "other" / "all.jsonl", [{"s": row["q"] + " " + row["good"], "t": row["bad"]} for row in map(
        json.loads, (tmp_path / "own" / "train.jsonl").read_text().splitlines())])  # fmt: skip
    jsonl(tmp_path / "own" / "train.jsonl", [{"q": "what was asked in a test", "good": "a", "bad": "b"}])
    assert fault(lambda: read("t", whole, locate("t", whole, "path", local))) == (
        "task 't': each of 1 training rows shares a text with its own test split or path:other all (drop_overlap); "
        "allowed: at least one that does not"
    )


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"split": "dev[:10]"}, "whole splits, got the slice 'dev[:10]'"),
        ({"data": {"random": 8}}, "texts of files, and data.random has none"),
        ({"columns": []}, "at least 1"),
    ],
)
def test_a_set_that_is_none_is_a_fault(tmp_path: Path, update: dict[str, Any], message: str) -> None:
    tokens = ["suite=smoke", f"tasks.sst2.drop_overlap={json.dumps([held(tmp_path, **update)])}"]
    with pytest.raises(UserFault, match=message.replace("[", r"\[").replace("]", r"\]").replace(".", r"\.")):
        load(tokens)


def test_made_rows_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="drop_overlap drops rows of files, and data.random makes them"):
        task(tmp_path, data={"random": 8}, drop_overlap=[])


def test_the_report_says_what_was_compared() -> None:
    found = Recorded(dropped=3, of=412, compared={OWN: 370, "org/set dev": 1000}, missing=["org/other dev"])
    assert apart(found) == (
        " (3 of 412 dropped because a text of theirs stands in its own test split (370 texts) and org/set dev (1,000 "
        "texts); not compared, for the sample has no such file: org/other dev)"
    )


def small(*tokens: str) -> Any:
    """The reviews of the suite, read."""
    [job] = planning.make(
        load(["suite=preference-small", "strategies=zero_shot", "model=random:tiny-gpt2", "device=cpu", *tokens])
    ).jobs
    return rows_of("reviews", job.task, job.located)


def test_on_the_sample_it_compares_with_what_the_sample_has() -> None:
    """All four files are bundled; a set without one is told."""
    found = small("data.source=sample")
    assert found.apart is not None and found.apart.missing == []
    assert list(found.apart.compared)[:2] == [OWN, "sample sst2.jsonl validation"]
    assert found.apart.dropped == 0 and found.apart.of == len(found.train)
    extra = "tasks.reviews.drop_overlap=[{data: {hub: org/set}, split: dev, columns: [text]}]"
    assert small("data.source=sample", extra).apart.missing == ["org/set dev"]


@pytest.mark.skipif(MIRROR is None, reason="needs the data mirror (BENCH_MIRROR)")
def test_movie_reviews_lose_what_stands_in_sst2() -> None:
    """A real positive: most of SST-2's validation sentences stand among the movie reviews, and none is left."""
    mirror = ["data.source=mirror", f"data.mirror={MIRROR}"]
    movies = small(*mirror, "tasks.reviews.data.config=moviereview")
    assert movies.apart is not None and movies.apart.compared["nyu-mll/glue sst2 validation"] == 872
    assert 275 < movies.apart.dropped < 350, "two fifths of the 732 sentences of SST-2 that stand among them"
    plan = planning.make(
        load(["suite=leak", "tasks=sst2", "strategies=alone", "model=random:tiny-gpt2", "device=cpu", *mirror])
    )
    sst2 = rows_of("sst2", plan.jobs[0].task, plan.jobs[0].located)
    assert not any(overlap([row_text(f) for f in movies.train.fields], [f["text"] for f in sst2.pool.fields]).whole)


@pytest.mark.skipif(MIRROR is None, reason="needs the data mirror (BENCH_MIRROR)")
def test_product_reviews_are_apart_from_every_set() -> None:
    """What the suite trains on shares nothing with the five sets afterwards, pair halves included."""
    found = small("data.source=mirror", f"data.mirror={MIRROR}")
    assert found.apart is not None and len(found.apart.compared) == 5
    assert found.apart.of - found.apart.dropped == len(found.train) > 700 and found.apart.dropped == 0
    tests = [text for f in found.pool.fields for text in f.values()]
    assert not any(standing([[*f.values()] for f in found.train.fields], tests))
