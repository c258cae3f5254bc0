"""What a report says of ranks, the front, best seeds, few items and clusters."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from records_factory import Fake, write_run

from bench.report import render
from bench.report.claims import conclude
from bench.report.collect import collect
from bench.report.compare import compared
from bench.report.evidence import Evidence
from bench.report.predictions import read_predictions
from bench.report.scores import task_score
from bench.report.summary import boards
from bench.stats.confusion import leave_one_out
from bench.stats.metrics import value
from bench.stats.seeds import clustered_interval, seeds_interval

FEW = ("zero_shot", "few_shot", "lora", "full")


def markdown(tmp_path: Path, fake: Fake) -> str:
    return render(write_run(tmp_path / "results", fake), tmp_path / "reports")[1].read_text(encoding="utf-8")


def row(text: str, section: str, strategy: str) -> list[str]:
    part = text.split(f"## {section}")[1].split("\n## ")[0]
    line = next(line for line in part.splitlines() if re.match(rf"\| (\*\*)?{strategy} ", line))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> str:
    return markdown(tmp_path_factory.mktemp("three"), Fake(tasks=("sst2",), strategies=FEW, seeds=(0, 1, 2)))


def test_ranks_have_intervals_and_groups(three: str) -> None:
    assert "rank (95%, group)" in three and "share a letter cannot be told apart" in three
    best = row(three, "Leaderboard", "lora")
    assert re.fullmatch(r"[12] \(rank 1–\d, ab?\)", best[1])
    assert re.search(r"rank 3–4, b|rank 3, b|rank 2–", row(three, "Leaderboard", "few_shot")[1])


def test_one_run_has_no_rank_intervals(tmp_path: Path) -> None:
    text = markdown(tmp_path, Fake(tasks=("sst2",), strategies=FEW))
    assert "Ranks have intervals from 3 training runs on." in text and "95%, group" not in text
    assert row(text, "Leaderboard", "lora")[1] in ("1", "2")
    assert "best seed" not in text
    assert re.search(r"in the share of items right that a comparison here finds in 80% of cases: 0\.0\d\d", text)


def test_the_best_seed_stands_apart_from_the_mean(three: str) -> None:
    cells = row(three, "Tasks", "lora")
    assert "best of 3 seeds" in cells[3] and float(cells[3].split()[0]) > float(cells[1].split()[0])
    assert row(three, "Tasks", "zero_shot")[3] == "–"
    assert "not comparable with a mean" in three


def test_the_front_has_a_probability(three: str) -> None:
    assert "on the front (score, memory, time)" in three
    shares = [row(three, "Leaderboard", name)[-2] for name in FEW]
    assert all(re.fullmatch(r"\d+%", share) for share in shares)
    # nothing is as small and as fast as zero_shot; full is larger and slower than lora and hardly better
    assert shares[0] == "100%" and int(shares[3][:-1]) < 90
    assert "retraining is not in it" not in three


def test_milliseconds_put_nothing_on_the_front(tmp_path: Path) -> None:
    """Prompting trains nothing: a few milliseconds less do not make up for a worse score and more memory."""
    run_dir = write_run(tmp_path / "results", Fake(tasks=("sst2",), strategies=("zero_shot", "lora"), seeds=(0, 1, 2)))
    for path in run_dir.glob("*/result.json"):
        record = json.loads(path.read_text())
        better = record["cell"]["strategy"] == "lora"
        record["phases"]["adapt"]["seconds"] = 0.08 if better else 0.01
        for phase in record["phases"].values():
            phase["peak_rss_bytes"] = 10**9 if better else 2 * 10**9
        path.write_text(json.dumps(record))
    text = render(run_dir, tmp_path / "reports")[1].read_text(encoding="utf-8")
    assert row(text, "Leaderboard", "lora")[-2] == "100%" and int(row(text, "Leaderboard", "zero_shot")[-2][:-1]) < 50


def test_the_smallest_difference_is_printed(three: str) -> None:
    found = re.search(r"finds in 80% of cases: (0\.\d+), from 872 items, 3 training runs and their spread", three)
    assert found and 0.01 < float(found.group(1)) < 0.2


def test_an_interval_over_seeds_is_one_that_knows_retraining(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, Fake(tasks=("sst2",), strategies=("lora",), seeds=(0, 1, 2)))
    cells = collect(run_dir, None).cells
    found = task_score(cells)
    assert found.over_seeds and found.low is not None and found.low < (found.value or 0) < (found.high or 0)
    alone = task_score(cells[:2])
    assert not alone.over_seeds and alone.best == max(cell.score.value for cell in cells[:2] if cell.score)
    # without predictions the seeds' own intervals are all there is
    (cells[1].folder / "predictions.parquet").unlink()
    fallen = task_score(cells)
    assert not fallen.over_seeds and fallen.low == pytest.approx(np.mean([c.score.low for c in cells if c.score]))


def test_too_few_items_are_said(tmp_path: Path) -> None:
    text = markdown(tmp_path, Fake(tasks=("sst2",), strategies=("lora",), items=60))
    assert "too few items" in row(text, "Leaderboard", "lora")[3]
    assert "Too few items: below 111 an interval was not seen to hold in 93% to 97% of cases." in text
    enough = markdown(tmp_path / "enough", Fake(tasks=("sst2",), strategies=("lora",), items=111))
    assert "too few items" not in enough.split("## How to read this")[0].lower()


def test_two_seeds_intervals_are_marked_as_wide(tmp_path: Path, three: str) -> None:
    text = markdown(tmp_path, Fake(tasks=("sst2",), strategies=("lora", "zero_shot"), seeds=(0, 1)))
    lora = row(text, "Leaderboard", "lora")
    assert lora[2].endswith("] wide") and lora[3].endswith("] wide"), "the mean's and the task's"
    assert "wide" not in " ".join(row(text, "Leaderboard", "zero_shot")), "no seed changes it: one run"
    assert "Wide: the mean of several trained models' own intervals" in text
    assert "Wide:" not in three


def clustered(run_dir: Path, size: int) -> None:
    """Give every prediction of a run the cluster of its row."""
    for path in run_dir.glob("*/predictions.parquet"):
        table = pq.read_table(path)
        pq.write_table(table.append_column("cluster", [np.arange(table.num_rows) // size]), path)


def test_clusters_are_read_and_widen_what_is_said(tmp_path: Path) -> None:
    found = {}
    for size in (1, 40):
        run_dir = write_run(tmp_path / str(size), Fake(tasks=("sst2",), strategies=("lora", "frozen"), seeds=(0, 1, 2)))
        clustered(run_dir, size)
        [board] = boards(collect(run_dir, None).cells)
        conclusion = conclude(board)
        [pair] = [pair for pair in conclusion.pairs if pair.task == "sst2"]
        assert pair.clustered and any("over clusters" in note for note in conclusion.notes)
        found[size] = pair
    items = read_predictions(next(run_dir.glob("*/predictions.parquet")))
    assert items.clusters is not None and items.clusters.max() == 871 // 40
    assert (found[1].items, found[40].items) == (872, 22)
    assert found[40].over is not None and found[1].over is not None
    assert found[40].over.freedom != found[1].over.freedom


def test_one_run_over_clusters_is_no_mcnemar(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, Fake(tasks=("sst2",), strategies=("lora", "frozen")))
    clustered(run_dir, 4)
    [board] = boards(collect(run_dir, None).cells)
    [pair] = [pair for pair in conclude(board).pairs if pair.task == "sst2"]
    assert pair.only is None and pair.clustered and not pair.claimable


def test_mcnemar_speaks_of_right_items_only() -> None:
    """400 items, 272 positive. Always "same": F1 544 / 672 = 0.810, 272 right. The other, all negatives and 184 positives:
    F1 368 / 456 = 0.807, 312 right. McNemar's 88 against 128 has p 0.008, for the other."""
    labels = np.repeat([1, 0], [272, 128])
    always, other = np.ones(400, dtype=int), np.where(np.arange(400) < 184, 1, 0)
    found = {}
    for metric in ("f1", "accuracy"):
        both = [
            Evidence({0: value(metric, labels, told)}, leave_one_out(metric, labels, told), labels == told)
            for told in (always, other)
        ]
        rows = SimpleNamespace(seeded=False), SimpleNamespace(seeded=False)
        found[metric] = compared(("mrpc", metric), ("always", "other"), *both, rows, [-1], 0)  # type: ignore[arg-type]
    assert found["accuracy"].only == (88, 128) and found["accuracy"].p < 0.01 and found["accuracy"].difference < 0
    assert found["f1"].difference == pytest.approx(544 / 672 - 368 / 456) and found["f1"].difference > 0
    assert found["f1"].only is None and found["f1"].p > 0.5, "it does not have the higher F1 for sure"


def test_a_cluster_that_holds_half_is_worth_few() -> None:
    """Sizes 190 and 19 times 10: 380^2 / (190^2 + 19 * 100) = 3.8 clusters, so 2.8 degrees of freedom, not 19."""
    clusters = np.repeat(np.arange(20), [190] + [10] * 19)
    right = np.random.default_rng(0).random((2, 380)) < 0.8
    both = [Evidence({0: r.mean()}, (380 * r.mean() - r) / 379, r, clusters) for r in right]
    rows = SimpleNamespace(seeded=True), SimpleNamespace(seeded=True)
    pair = compared(("squad", "accuracy"), ("a", "b"), *both, rows, [0], 1)  # type: ignore[arg-type]
    assert both[0].effective == pytest.approx(3.8) and pair.items == 20
    assert pair.over is not None and pair.over.freedom == pytest.approx(2.8)
    assert Evidence({}, np.zeros(380)).effective == 380
    assert Evidence({}, np.zeros(40), None, np.arange(40) // 4).effective == 10


def test_one_cluster_knows_no_other() -> None:
    """Three seeds of one passage: the interval is as wide as one item's."""
    right = np.array([[1] * 8 + [0] * 2] * 3)
    left_out = (10 * right.mean(axis=1, keepdims=True) - right) / 9
    found = seeds_interval(right.mean(axis=1), left_out, clusters=np.zeros(10))
    lone = clustered_interval(0.8, left_out[0], np.zeros(10))
    assert (found.low, found.high) == pytest.approx((lone.low, lone.high)) and found.low < 0.2


def test_other_clusters_are_other_items(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path, Fake(tasks=("sst2",), strategies=("lora", "frozen")))
    path = next(path for path in run_dir.glob("*/predictions.parquet") if "-frozen-" in str(path))
    table = pq.read_table(path)
    pq.write_table(table.append_column("cluster", [np.zeros(table.num_rows, dtype=int)]), path)
    [board] = boards(collect(run_dir, None).cells)
    assert any("frozen on sst2: its test items are not those of the other" in note for note in conclude(board).notes)
