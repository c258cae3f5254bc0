"""Preferences made by a judge: training on its labels, scoring against people's, and how far the two agree."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import cohen_kappa_score
from source_fixtures import fault

from bench import identity
from bench import plan as planning
from bench.config import DataSettings, load
from bench.config.schema import Task
from bench.data.rows import TaskRows, read
from bench.data.sources import locate, samples_folder
from bench.records import Status
from bench.report.judged import judge_table
from bench.run import execute
from bench.stats.agreement import agreement, judged, kappa
from bench.worker import rows_of

pytestmark = pytest.mark.usefixtures("forked")

COLUMNS = {"prompt": "q", "first": "a", "second": "b", "label": "judge", "human": "person", "principle": "why"}
FIRST, SECOND = 0, 1


def test_kappa_by_hand() -> None:
    """20 and 15 equal, 5 and 10 not: share 0.7; by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5, so kappa (0.7 - 0.5) / 0.5."""
    judge, human = [0] * 25 + [1] * 25, [0] * 20 + [1] * 5 + [0] * 10 + [1] * 15
    found = agreement(judge, human, "be kind")
    assert (found.n, found.share, found.principle) == (50, 0.7, "be kind")
    assert found.kappa == pytest.approx(0.4) == cohen_kappa_score(judge, human)
    assert (found.low, found.high) == pytest.approx((0.5625, 0.8090), abs=1e-4)  # Wilson's, 35 of 50
    # its standard error is about sqrt(0.7 * 0.3 / 50) / (1 - 0.5) = 0.1296 (Cohen 1960): 0.4 +- 1.96 of it
    assert found.kappa_low == pytest.approx(0.146, abs=0.03) and found.kappa_high == pytest.approx(0.654, abs=0.03)
    assert agreement(judge, human, "be kind") == found, "the bootstrap is drawn by a fixed seed"


def test_kappa_of_one_sided_labels() -> None:
    """Always equal and both labels: 1. A judge that always says one label: 0. One label on both sides: none."""
    same = agreement([0, 1, 0], [0, 1, 0])
    assert (same.share, same.kappa, same.kappa_high) == (1.0, 1.0, 1.0)
    assert agreement([0, 0, 0, 0], [0, 0, 0, 1]).kappa == 0.0
    alone = agreement([0, 0], [0, 0])
    assert (alone.share, alone.kappa, alone.kappa_low) == (1.0, None, None)
    assert np.isnan(kappa(np.array([[2.0, 0], [0, 0]])))
    with pytest.raises(ValueError, match="one length above 0"):
        agreement([], [])


def test_the_interval_of_kappa_holds() -> None:
    """150 rows of a true kappa of 0.4, 200 times: it holds the truth in 90% or more."""
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        human = random.integers(0, 2, 150)
        judge = np.where(random.random(150) < 0.7, human, 1 - human)
        found = agreement(judge.tolist(), human.tolist())
        assert found.kappa_low is not None and found.kappa_high is not None
        held += found.kappa_low <= 0.4 <= found.kappa_high
    assert 180 <= held <= 198


def test_agreement_is_told_by_principle() -> None:
    """All rows first, then each principle by name; rows no person judged are counted among the judge's only."""
    told = [(0, 0, "kind"), (1, 0, "kind"), (1, 1, "brief"), (0, None, "brief"), (1, 1, None)]
    found = judged(told, "me", True, 3)
    assert [(one.principle, one.n, one.share) for one in found.agreements] == [
        (None, 4, 0.75),
        ("brief", 1, 1.0),
        ("kind", 2, 0.5),
    ]
    assert (found.by, found.rows, found.scored_against, found.left_out) == ("me", 5, "people", 3)
    assert judged([(0, None, None)], None, False, 0).agreements == []


def make(tmp_path: Path, train: list[dict[str, Any]], test: list[dict[str, Any]], **more: Any) -> Task:
    """A folder of judgements."""
    for split, rows in (("train", train), ("test", test)):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Task.model_validate(
        {"data": {"path": str(tmp_path)}, "splits": {"train": "train", "test": "test"}, "kind": "prefer",
         "columns": COLUMNS, "templates": [{"pattern": "{prompt}\n"}]} | more
    )  # fmt: skip


def row(number: int, judge: Any, person: Any, **more: Any) -> dict[str, Any]:
    return {
        "q": f"q{number}",
        "a": f"yes {number}",
        "b": f"no {number}",
        "judge": judge,
        "person": person,
        "why": " be kind ",
    } | more


def rows(task: Task) -> TaskRows:
    return read("t", task, locate("t", task, "path", DataSettings()))


def test_trained_on_the_judge_and_scored_against_people(tmp_path: Path) -> None:
    """By name or place; where people judged some test rows, only those are scored, with people's labels."""
    task = make(
        tmp_path,
        [row(1, "first", "second"), row(2, "second", None), row(3, 0, "first")],
        [row(4, "first", "second"), row(5, "first", None), row(6, "second", 1), row(7, "second", "")],
        judged_by="someone",
    )
    assert task.judged and task.fields == ["prompt", "first", "second"]
    found = rows(task)
    assert found.train.labels == [FIRST, SECOND, FIRST]
    assert (found.test.index, found.test.labels, found.unasked) == ([0, 2], [SECOND, SECOND], 2)
    assert found.judgements is not None and len(found.judgements) == 7
    assert found.judgements[0] == (FIRST, SECOND, "be kind") and found.judgements[4] == (FIRST, None, "be kind")
    assert all("why" not in fields and "human" not in fields for fields in found.train.fields)


def test_without_people_it_is_scored_against_the_judge(tmp_path: Path) -> None:
    found = rows(make(tmp_path, [row(1, 0, None)], [row(2, 1, None), row(3, 0, None)]))
    assert found.test.labels == [SECOND, FIRST] and found.unasked == 0
    assert judged(found.judgements or [], None, False, 0).scored_against == "judge"


def test_who_judged_is_no_part_of_a_cell(tmp_path: Path) -> None:
    """A name changes no number, people's labels do; a task without a judge is digested as before."""
    plain = make(tmp_path, [row(1, 0, 1)], [row(2, 1, 0)])
    named = plain.model_copy(update={"judged_by": "someone"})
    alone = make(
        tmp_path,
        [row(1, 0, 1)],
        [row(2, 1, 0)],
        columns={k: v for k, v in COLUMNS.items() if k not in ("human", "principle")},
    )
    assert identity.task_digest(plain) == identity.task_digest(named) != identity.task_digest(alone)


def test_faults_are_worded(tmp_path: Path) -> None:
    bad = make(tmp_path, [row(1, 0, "neither")], [row(2, 1, 0)])
    assert fault(rows, bad).endswith("column 'person' holds label 'neither'; allowed: 0 to 1, or 'first', 'second'")
    bad = make(tmp_path, [row(1, "x", 0)], [row(2, 1, 0)])
    assert "column 'judge' holds label 'x'" in fault(rows, bad)
    bad = make(tmp_path, [row(1, 0, 0, why=None)], [row(2, 1, 0)])
    assert "row 0: column 'why' holds null; allowed: text that is not empty" in fault(rows, bad)
    lone = {k: v for k, v in COLUMNS.items() if k != "human"}
    with pytest.raises(ValueError, match="shown beside the agreement of judge and people: name a column 'human' too"):
        make(tmp_path, [], [], columns=lone)
    with pytest.raises(ValueError, match="judged_by names the judge of pairs of answers: give kind: prefer"):
        Task.model_validate(load(["suite=smoke"]).suite.tasks["sst2"].model_dump() | {"judged_by": "me"})


def test_the_table_says_what_agrees() -> None:
    """Shares with Wilson's intervals, kappas with theirs, a row a principle, and what the score is of."""
    told = [(0, 0, "kind")] * 20 + [(0, 1, "kind")] * 5 + [(1, 0, "brief")] * 10 + [(1, 1, "brief")] * 15
    table = judge_table("judged", judged(told, "a toy", True, 1))
    assert [[entry.text for entry in line] for line in table.rows] == [
        ["all", "50", "0.700", "0.400"],
        ["brief", "25", "0.600", "0.000"],
        ["kind", "25", "0.800", "0.000"],
    ]
    assert table.notes[0] == (
        "Judge: a toy; 50 rows. Trained on the judge's labels, scored against people's. 1 test row without a person's "
        "label left out."
    )
    blind = judge_table("judged", judged([(0, None, None)], None, False, 0))
    assert blind.rows == [] and "Judge: not named; 1 rows." in blind.notes[0] and "not quality" in blind.notes[0]
    assert "is not measured" in blind.notes[1]


MORE = "Prefer the answer that says more."
CAREFUL = "Prefer the answer that names its conditions and claims nothing absolute."
CONDITIONS = (
    "if unless when while until before after once though but roughly about usually often may might could should please "
    "ask check see"
)
ABSOLUTES = "always never only every everybody nobody everyone all any anything nothing none best whole entirely no"


def points(principle: str, text: str) -> int:
    """What the toy rule counts."""
    words = re.findall(r"[a-z0-9']+", text.lower())
    if principle == MORE:
        return len(words)
    return sum(word in CONDITIONS.split() for word in words) - sum(word in ABSOLUTES.split() for word in words)


def test_the_bundled_judgements_are_the_toy_rule() -> None:
    """Every label is the rule's, every person's that of `preferences.jsonl`; no tie, places by the prompt's hash."""
    folder = samples_folder()
    given = [json.loads(line) for line in (folder / "judgements.jsonl").read_text().splitlines()]
    chosen = {one["prompt"]: one for one in map(json.loads, (folder / "preferences.jsonl").read_text().splitlines())}
    assert [one["idx"] for one in given] == list(range(len(given))) and 90 <= len(given) <= 120
    assert {one["principle"] for one in given} == {MORE, CAREFUL}
    for one in given:
        source = chosen[one["prompt"]]
        at = "second" if hashlib.sha256(one["prompt"].encode()).digest()[0] % 2 else "first"
        assert one[at] == source["chosen"] and one["split"] == source["split"]
        assert one["human"] == (None if one["split"] == "train" and source["idx"] % 4 == 3 else at)
        ahead = points(one["principle"], one["first"]) - points(one["principle"], one["second"])
        assert ahead != 0 and one["label"] == ("first" if ahead > 0 else "second")


def test_a_run_tells_how_far_judge_and_people_agree(tmp_path: Path) -> None:
    """Through the command: the record holds the agreement by principle, the pages show it."""
    where = [f"results_dir={tmp_path / 'results'}", f"reports_dir={tmp_path / 'reports'}", "threads=1", "device=cpu"]
    tokens = ["suite=judged-small", "model=random:tiny-llama", "strategies=bag_of_words", "predict=false", *where]
    with (tmp_path / "output.txt").open("w") as out:
        [done] = execute(load(tokens), Console(file=out, width=200))
    assert done.outcome.status is Status.ok, done.outcome.reason
    told = done.data.judged
    assert told is not None and told.by is not None and "toy rule" in told.by and told.scored_against == "people"
    assert [one.principle for one in told.agreements] == [None, CAREFUL, MORE]
    [job] = planning.make(load(tokens)).jobs
    both = [
        (judge, human)
        for judge, human, _ in rows_of("judged", job.task, job.located).judgements or []
        if human is not None
    ]
    assert told.agreements[0].n == len(both)
    assert told.agreements[0].share == pytest.approx(np.mean([j == h for j, h in both]))
    assert told.agreements[0].kappa == pytest.approx(cohen_kappa_score(*zip(*both, strict=True)))
    for page in ("judged-small.md", "judged-small.html"):
        text = (tmp_path / "reports" / page).read_text()
        assert "judge and people" in text and MORE in text and "scored against people" in text
