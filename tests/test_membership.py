"""Membership: the draw, matching, false alarms under regression to the mean, power, and every verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_rows import pool
from scipy import stats

from bench.probed import ContaminationFindings, ProbeRecord
from bench.probes.membership import Evidence, controls, draw_members, gold, judge, members
from bench.records import Outcome, Status
from bench.stats.contamination import holm_verdicts, matched, paired, sign_flip
from bench.stats.pairs import holm
from bench.store import read_probe, write_record

DRAWS = 499


def test_members_split_the_pool_at_random_by_the_seed():
    tests, candidates = members(1000, 200, 0)
    assert (len(tests), len(candidates)) == (200, 600) and not set(tests) & set(candidates)
    assert tests == sorted(tests) and members(1000, 200, 0) == (tests, candidates)
    assert members(1000, 200, 1)[0] != tests and members(1000, 200, -1)[0] != tests
    assert [len(part) for part in members(31, 200, 0)] == [15, 16]
    with pytest.raises(ValueError, match="a pool of 1 cannot be split into test items and controls"):
        members(1, 20, 0)


def test_no_control_has_the_text_of_a_test_item_or_of_another():
    rows = pool([f"text {i % 30}" for i in range(90)])
    tests, candidates = draw_members(rows, 20, 0)
    texts = [f["text"] for f in candidates.fields]
    assert len(set(texts)) == len(texts) and not {f["text"] for f in tests.fields} & set(texts)


def test_gold_is_the_log_probability_among_the_labels():
    scores = np.array([[0.0, 0.0], [1.0, 3.0]])
    assert gold(scores, [0, 1]) == pytest.approx([np.log(0.5), -np.log1p(np.exp(-2))])


def test_matching_takes_the_nearest_of_the_same_label_and_none_twice():
    assert matched([-1.0, -2.0], [-2.05, -1.02, -1.0], [0, 0], [0, 0, 1]) == [(0, 1), (1, 0)]
    assert matched([-1.0, -1.0], [-1.0, -5.0], [0, 0], [0, 0]) in ([(0, 0)], [(1, 0)]), "an unlike pair is none"
    assert matched([-1.0], [], [0], []) == [] == matched([-1.0], [-1.0], [0], [1])
    tests, others = pool(["a", "b", "c"], [0, 1, 1]), pool(list("defgh"), [1, 0, 1, 0, 1])
    pairs = controls(None, tests, others, 0)
    assert [i for i, _ in pairs] == [0, 1, 2] and [others.labels[j] for _, j in pairs] == tests.labels
    assert len({j for _, j in pairs}) == 3 and controls(None, tests, others, 0) == pairs
    tests, others = pool(["a", "b"], [0, 0]), pool(["c", "d", "e"], [0, 0, 0])
    base = np.array([-1.0, -3.0, -3.0, -9.0, -1.0])
    assert controls(base, tests, others, 0) == [(0, 2), (1, 0)]


def test_permutation_p_is_exact_and_never_0():
    assert sign_flip(np.ones(4), 0, 9999) == pytest.approx(1 / 16, abs=0.01)
    assert sign_flip(np.zeros(5), 0, 999) == 1.0
    assert sign_flip(np.ones(60), 0, 999) == 1 / 1000
    with pytest.raises(ValueError, match="finite differences, at least one, got 0"):
        paired([])
    with pytest.raises(ValueError, match="finite differences"):
        paired([1.0, float("nan")])


def test_interval_and_power_are_student_s():
    d = np.random.default_rng(0).normal(0.3, 1, 50)
    got = paired(d, draws=99)
    low, high = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((low, high))
    random = np.random.default_rng(1)
    sd = float(d.std(ddof=1))
    hits = [paired(random.normal(got.detectable, sd, 50), draws=DRAWS).p <= 0.05 for _ in range(400)]
    assert np.mean(hits) == pytest.approx(0.8, abs=0.06), "what is called detectable is found in four of five"


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]).size == 0 and holm([0.9, 0.8]).tolist() == [1.0, 1.0]


# ---- false alarms


def trainings(random: np.random.Generator, base: np.ndarray, times: int) -> np.ndarray:
    """Gains of clean cells, (times, items): the worse the base did on an item, the more any training gains there."""
    return -0.7 * base + random.normal(0, 0.3, (times, len(base)))


def base_scores(random: np.random.Generator, n: int) -> np.ndarray:
    return -np.abs(random.normal(0, 1, n)) - 0.05


def differences(base: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Gains of 80 test items less those of their controls among the rest."""
    pairs = matched(base[:80], base[80:], [0] * 80, [0] * (len(base) - 80))
    return np.array([gain[i] - gain[80 + j] for i, j in pairs])


def test_false_alarms_stay_at_five_per_cent():
    random, alarms, times = np.random.default_rng(0), 0, 1000
    for _ in range(times):
        base = base_scores(random, 320)
        gain = trainings(random, base, 1)[0]
        alarms += sign_flip(differences(base, gain), 0, DRAWS) <= 0.05
    assert alarms / times <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / times), alarms


def test_without_balancing_an_unlucky_draw_alarms_in_every_cell_of_a_seed():
    """A draw whose test items are harder by 1.5 standard errors, one in 15, and 40 clean cells trained on it."""
    random = np.random.default_rng(1)
    unbalanced, balanced = [], []
    while len(balanced) < 15 * 40:
        base = base_scores(random, 320)
        if base[:80].mean() - base[80:160].mean() > -1.5 * base.std() * np.sqrt(2 / 80):
            continue
        for gain in trainings(random, base, 40):
            unbalanced.append(sign_flip(gain[:80] - gain[80:160], 0, DRAWS) <= 0.05)
            balanced.append(sign_flip(differences(base, gain), 0, DRAWS) <= 0.05)
    assert np.mean(unbalanced) > 0.3, np.mean(unbalanced)
    assert np.mean(balanced) <= 0.07, np.mean(balanced)


# ---- verdicts


def evidence(shift: float, sd: float = 0.2, n: int = 100, correct: float = 0.9, **more) -> Evidence:
    random = np.random.default_rng(3)
    noise = random.normal(0, sd, n)
    noise -= noise.mean()  # the verdict is tested here, not the draw
    return Evidence(shift + noise, np.zeros(n), round(correct * 2 * n), 0.5, **more)


def test_a_leak_is_seen():
    got = judge(evidence(0.3), draws=DRAWS)
    assert (got.verdict, got.n, got.reference) == ("seen", 100, "controls")
    assert got.statistic == pytest.approx(0.3) and got.p == pytest.approx(1 / 500)
    assert got.says.startswith(
        "Right labels of 100 test items gained more than those of as many matched controls by +0.3"
    )
    assert got.says.endswith("p 0.002. The test items were learnt as such.")


def test_not_seen_is_said_only_with_power():
    assert judge(evidence(0.0), draws=DRAWS).verdict == "not seen"
    wide = judge(evidence(0.0, sd=2.0), draws=DRAWS)
    assert wide.verdict == "no power"
    assert "It could tell 0.54 nats, and 0.10 would matter: nothing follows." in wide.says
    chance = judge(evidence(0.0, correct=0.52), draws=DRAWS)
    assert chance.verdict == "no power" and "The cell answers at chance" in chance.says


def test_under_a_head_the_labels_alone_are_matched():
    got = judge(evidence(0.0, head=True), draws=DRAWS)
    assert "are likelier than" in got.says and got.says.endswith("the controls are matched on the label only.")


def test_one_pair_has_a_verdict_that_can_be_written(tmp_path: Path) -> None:
    """A test split of two rows: an interval from minus to plus infinity is no JSON, and the probe had no record."""
    check = judge(Evidence(np.array([0.2]), np.array([0.1]), 2, 0.5))
    assert (check.verdict, check.p, check.n) == ("no power", None, 1) and check.says.endswith("nothing follows.")
    found = ContaminationFindings(checks=holm_verdicts([check]))
    ok = Outcome(status=Status.ok)
    record = ProbeRecord(cell="x", probe="contamination", asked={}, outcome=ok, contamination=found)
    write_record(tmp_path / "contamination.json", record)
    assert read_probe(tmp_path / "contamination.json").contamination == found
