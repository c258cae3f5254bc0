"""What policies write: an independent scorer, responses before and after, what is shown of them, and how it is told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from cli_runs import ROOT
from data_rows import jsonl
from rich.console import Console

from bench.config import load
from bench.data.rows import Rows
from bench.errors import UserFault
from bench.probed import WritingFindings
from bench.probes.scorer import topic_words
from bench.probes.writing import distinct, shown
from bench.records import Status
from bench.report.writing import Written, over_seeds, writing_sentences, writing_tables
from bench.run import execute
from bench.store import probe_file, read_probe

pytestmark = pytest.mark.usefixtures("forked")

FRUIT = ["apple", "banana", "cherry", "damson", "elder", "fig", "grape", "hazel", "lemon", "melon"]


def suite(folder: Path, **more: Any) -> Path:
    """Pairs of nice and nasty texts; the scorer has a split of its own."""
    data = folder / "pairs"
    data.mkdir()
    for split, n in (("train", 80), ("test", 24)):
        rows = [
            {"q": f"q {i}", "good": f"nice {FRUIT[i % 10]} {split} {i}", "bad": f"nasty {FRUIT[i % 10]} {split} {i}"}
            for i in range(n)
        ]
        jsonl(data, split, rows)
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    task = {"data": {"path": str(data)}, "splits": {"train": "train[:50%]", "test": "test"}, "kind": "prefer",
            "columns": columns, "templates": [{"pattern": "{prompt}\n"}], "metric": "accuracy", "scorer": "train[50%:]"}  # fmt: skip
    small = {"responses": 8, "tokens": 6, "r": 2}
    found = {"name": "pairs", "model": "random:tiny-llama", "tasks": {"pairs": task | more.pop("task", {})}, "batch": 4,
             "strategies": {"zero_shot": {}, "sft": {"base": "lora", "r": 2}, "reward_model": {"r": 2},
                            "dpo": {"r": 2}, "ppo": small, "best_of_n": {"n": 2, "r": 2}},
             "sequence": 48, "budget": {"labels": 16, "train_examples": 40}, **more}  # fmt: skip
    path = folder / "pairs.yaml"
    path.write_text(json.dumps(found))
    return path


def run(folder: Path, path: Path, *more: str) -> list[Any]:
    where = [f"results_dir={folder / 'results'}", f"reports_dir={folder / 'reports'}", "threads=1", "device=cpu"]
    with (folder / "output.txt").open("a") as out:
        return execute(load([f"suite={path}", *where, *more]), Console(file=out, width=200))


def test_policies_of_a_run_are_asked_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One scorer for all; what writes nothing or was not trained says so; the page tells it; nothing is asked twice."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    path = suite(tmp_path)
    asked = ["probes=writing", "probes.writing.responses=20", "probes.writing.tokens=6", "probes.writing.examples=80"]
    done = run(tmp_path, path, *asked)
    records = {}
    for result in done:
        assert result.outcome.status == Status.ok, (result.cell.strategy, result.outcome.reason)
        assert result.predicted.peak_bytes, (result.cell.strategy, result.predicted.reason)
        folder = tmp_path / "results" / "pairs" / result.cell.id
        records[result.cell.strategy] = read_probe(probe_file(folder, "writing"))
    assert len(list((tmp_path / "cache" / "scorers").iterdir())) == 1
    reasons = {name: r.outcome.reason for name, r in records.items() if r.outcome.status != Status.ok}
    assert set(reasons) == {"zero_shot", "reward_model"}, reasons
    assert "writes nothing" in reasons["reward_model"] and "its base cannot be had beside it" in reasons["zero_shot"]
    for name in ("sft", "dpo", "ppo", "best_of_n"):
        found = records[name].writing
        assert found is not None and len(found.before) == len(found.after) == len(found.tokens_after) == 20
        assert all(1 <= n <= 6 for n in found.tokens_after) and len(found.texts) == 6
        assert found.scorer_pairs == 40 and 0 <= found.scorer_accuracy <= 1 and found.topic_data == 1.0
        assert found.against == ("the base" if name == "sft" else "where its preference stage began")
        if name == "best_of_n":
            assert found.kl is None and found.kl_bound == pytest.approx(math.log(2) - 0.5)
        else:
            assert found.kl is not None and len(found.kl) == 20 and any(abs(one) > 1e-6 for one in found.kl)
    page = (tmp_path / "reports" / "pairs.md").read_text()
    for told in (
        "What became of what it writes?",
        "what policies write",
        "ppo: what it writes",
        "The scorer itself is",
    ):
        assert told in page
    assert "ppo ends at" in (tmp_path / "reports" / "pairs.html").read_text(), "the curves of its rounds"
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "results").rglob("writing.json")}
    run(tmp_path, path, *asked)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "results").rglob("writing.json")}


@pytest.mark.parametrize(
    ("task", "match"),
    [
        ({"scorer": "train[40%:]"}, r"train\[40%:\] shares rows with splits.train, train\[:50%\]; a scorer of what is"),
        (
            {"scorer": "test"},
            r"tasks.pairs.scorer: test is no slice of the split trained on; allowed: one like train\[",
        ),
    ],
)
def test_a_scorer_that_is_not_independent_is_refused(tmp_path: Path, task: dict[str, Any], match: str) -> None:
    with pytest.raises(UserFault, match=match):
        run(tmp_path, suite(tmp_path, task=task), "probes=writing")


def test_a_scorer_is_for_pairs() -> None:
    with pytest.raises(UserFault, match="scorer learns from pairs of answers: for kind prefer only, got kind classify"):
        load(["suite=smoke", "tasks.sst2.scorer=train[:10%]"])


def test_the_topic_is_what_both_kinds_of_text_speak_of() -> None:
    texts = [("great phone battery", "awful phone battery"), ("great phone", "awful phone charger"),
             ("a great battery", "the awful battery"), ("rare", "words")]  # fmt: skip
    rows = Rows([{"first": a, "second": b} for a, b in texts], [0] * 4, [0, 1, 2, 3])
    assert topic_words(rows) == {"phone", "battery"}, "judging words stand on one side, the others are rare"
    swapped = Rows([{"first": b, "second": a} for a, b in texts], [1] * 4, [0, 1, 2, 3])
    assert topic_words(swapped) == {"phone", "battery"}


def test_different_word_pairs_by_hand() -> None:
    """a b, b c, a b, b d: three of four differ."""
    assert distinct(["a b c", "A b d!"]) == 0.75 and distinct(["one", ""]) is None


def test_texts_of_the_data_are_withheld() -> None:
    data = ["It broke after two days of careful use and nobody answered."]
    before = ["it broke after two days of rain", "Fine."]
    after = ["It broke after two days", "another text that nobody has ever written here"]
    found = shown(before, after, 5, data)
    assert [(one.before, one.after) for one in found] == [
        (None, "It broke after two days"),
        ("Fine.", "another text that nobody has ever written here"),
    ]
    assert len(shown(before, after, 1, data)) == 1


def findings(shift: float, **more: Any) -> WritingFindings:
    """Four responses; the rewards before have mean 0 and SD 1.2910 (of 5 / 3)."""
    before = [-1.5, -0.5, 0.5, 1.5]
    given = {"against": "the base", "scorer_accuracy": 0.9, "scorer_pairs": 10, "before": before,
             "after": [one + shift for one in before], "kl": [4.0, 8.0, 6.0, 6.0], "tokens_before": [2, 2, 2, 2],
             "tokens_after": [3, 3, 3, 3], "topic_before": [True] * 4, "topic_after": [True, False, False, False],
             "topic_data": 0.8, "distinct_before": 0.9, "distinct_after": 0.7, "texts": []}  # fmt: skip
    return WritingFindings.model_validate(given | more)


def test_gains_are_told_in_standard_deviations_with_intervals_over_seeds() -> None:
    sd = math.sqrt(5 / 3)
    assert findings(1.0).gain == pytest.approx(1 / sd) and findings(1.0).wins == [1.0] * 4
    assert findings(0.0).wins == [0.5] * 4 and findings(-1.0).wins == [0.0] * 4
    three = Written("ppo", [findings(1.0), findings(2.0), findings(3.0)])
    half = 4.302653 * (1 / sd) / math.sqrt(3)  # t of two degrees; the seeds' gains lie 1 / sd apart
    assert (three.gain.value, three.gain.low) == pytest.approx((2 / sd, 2 / sd - half), abs=1e-5)
    assert three.kl is not None and three.kl.value == pytest.approx(6.0) and three.kl_per_token == pytest.approx(2.0)
    one = Written("dpo", [findings(1.0)])
    assert one.gain.high - one.gain.value == pytest.approx(1.959964 * math.sqrt(2 * (5 / 3) / 4) / sd, abs=1e-5)
    assert over_seeds([(1.0, 0.1), (2.0, 0.3)]).wide


def test_what_was_gained_and_what_it_cost_is_said() -> None:
    bound = findings(2.0, kl=None, kl_bound=1.2)
    said = writing_sentences(
        [Written("ppo", [findings(9.0)]), Written("dpo", [findings(0.1)]), Written("best", [bound])]
    )
    assert said[0].startswith("ppo raised the independent scorer's reward against the base: +6.971 SD")
    assert "KL 6.0 nats a response; fewer of its texts name anything of the topic (100% before, 25% after)" in said[0]
    assert said[0].endswith("; its texts grow alike (different word pairs 0.90 before, 0.70 after).")
    assert said[1].startswith("dpo did not clearly change") and "KL at most 1.2 nats a response" in said[2]
    assert said[-1] == "The scorer itself is right on 90% of the test pairs."
    table = writing_tables("pairs", [Written("best", [bound])])[0]
    assert [entry.text for entry in table.rows[0]][3:5] == ["at most 1.20", "not measured"]
    assert writing_sentences([]) == [] and writing_tables("pairs", []) == []


def test_the_bundled_suite_keeps_a_scorer_apart() -> None:
    task = load([f"suite={ROOT / 'suites' / 'preference-small.yaml'}"]).suite.tasks["reviews"]
    assert (task.splits.train, task.scorer, task.splits.test) == ("train[:40%]", "train[40%:80%]", "train[80%:]")
