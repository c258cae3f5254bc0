"""Metrics, intervals and tests against hand-worked values, scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from bench.errors import UserFault
from bench.stats.confusion import MOST_LABELS, confusion, leave_one_out
from bench.stats.intervals import bootstrap_bca, mean_of, wilson
from bench.stats.metrics import METRICS, chance, score, value
from bench.stats.pairs import benjamini_hochberg, jackknife_variance, mcnemar, seed_test

ORACLE = {"accuracy": accuracy_score, "f1": lambda y, p: f1_score(y, p, zero_division=0), "matthews": matthews_corrcoef}


def answers(n: int, labels: int = 2, skill: float = 0.6, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions that are right with `skill` and else random."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, labels, n)
    return truth, np.where(rng.random(n) < skill, truth, rng.integers(0, labels, n))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_scikit_learn(metric: str, seed: int) -> None:
    truth, guess = answers(97, seed=seed)
    assert value(metric, truth, guess) == pytest.approx(ORACLE[metric](truth, guess), abs=1e-12)


@pytest.mark.parametrize("metric", ["accuracy", "matthews"])
def test_many_labels(metric: str) -> None:
    truth, guess = answers(300, labels=5)
    found = score(metric, truth, guess)
    assert found.value == pytest.approx(ORACLE[metric](truth, guess), abs=1e-12)
    assert found.low is not None and found.high is not None and found.low < found.value < found.high


def test_f1_of_the_first_label() -> None:
    truth, guess = answers(80)
    assert value("f1", truth, guess, positive=0) == pytest.approx(f1_score(truth, guess, pos_label=0))


@pytest.mark.parametrize("metric", METRICS)
def test_constant_answers_do_not_fail(metric: str) -> None:
    assert value(metric, [0, 1, 1], [0, 0, 0]) == pytest.approx({"accuracy": 1 / 3}.get(metric, 0.0))


def test_an_answer_that_could_not_be_read_is_wrong() -> None:
    assert value("accuracy", [0, 1, 1, 0], [-1, 1, 1, -1]) == 0.5


def test_chance_is_the_best_constant_answer() -> None:
    truth = [0] * 32 + [1] * 68
    assert chance("accuracy", truth) == pytest.approx(0.68)
    assert chance("f1", truth) == pytest.approx(2 * 0.68 / 1.68)  # MRPC's 0.81
    assert chance("matthews", truth) == 0
    for metric in METRICS:
        best = max(value(metric, truth, [answer] * 100) for answer in (0, 1))
        assert chance(metric, truth) == pytest.approx(best)


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UserFault, match="unknown metric 'acuracy'; did you mean 'accuracy'"):
        score("acuracy", [0, 1], [0, 1])


@pytest.mark.parametrize(
    ("labels", "predictions", "words"),
    [
        ([], [], "one length above 0"),
        ([0, 1], [0], "one length above 0"),
        ([-1, 1], [0, 1], "must not be negative"),
        ([0, MOST_LABELS], [0, 1], "must be below"),
    ],
)
def test_unusable_input_is_said(labels: list[int], predictions: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        confusion(labels, predictions)


def test_f1_of_three_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="two labels"):
        score("f1", [0, 1, 2], [0, 1, 2])


def test_wilson_by_hand() -> None:
    # 8 of 10 at z = 1.959964: (0.8 + 0.192073) / 1.384146 = 0.716739, half 0.226578
    found = wilson(8, 10)
    assert (found.low, found.high) == (pytest.approx(0.490162, abs=1e-5), pytest.approx(0.943318, abs=1e-5))


@pytest.mark.parametrize(("correct", "n"), [(0, 20), (20, 20), (1, 20), (437, 872)])
def test_wilson_agrees_with_scipy(correct: int, n: int) -> None:
    oracle = stats.binomtest(correct, n).proportion_ci(method="wilson")
    found = wilson(correct, n)
    assert (found.low, found.high) == (pytest.approx(oracle.low, abs=1e-12), pytest.approx(oracle.high, abs=1e-12))
    assert found.low <= correct / n <= found.high


@pytest.mark.parametrize("arguments", [(1, 0), (3, 2), (-1, 2), (1, 2, 1.0)])
def test_wilson_refuses_nonsense(arguments: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="wilson needs"):
        wilson(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_bca_agrees_with_scipy(metric: str) -> None:
    truth, guess = answers(150, seed=3)
    oracle = stats.bootstrap(
        (truth, guess),
        ORACLE[metric],
        paired=True,
        vectorized=False,
        n_resamples=1500,
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    found = bootstrap_bca(metric, truth, guess, seed=1, resamples=20_000)
    assert found.method == "bca"
    assert (found.low, found.high) == (pytest.approx(oracle.low, abs=0.012), pytest.approx(oracle.high, abs=0.012))


def test_bootstrap_repeats_with_its_seed() -> None:
    truth, guess = answers(60)
    assert bootstrap_bca("f1", truth, guess, seed=4) == bootstrap_bca("f1", truth, guess, seed=4)
    assert bootstrap_bca("f1", truth, guess, seed=4) != bootstrap_bca("f1", truth, guess, seed=5)


@pytest.mark.parametrize("metric", ["f1", "matthews"])
def test_bca_falls_back_and_says_so(metric: str) -> None:
    found = score(metric, [0, 1] * 20, [0, 1] * 20)
    assert (found.interval, found.low, found.high) == ("percentile", 1.0, 1.0)


def test_bca_of_one_item_is_percentile() -> None:
    assert bootstrap_bca("matthews", [1], [1], seed=0).method == "percentile"


@pytest.mark.parametrize("metric", METRICS)
def test_leave_one_out_is_that(metric: str) -> None:
    truth, guess = answers(30, seed=2)
    slow = [value(metric, np.delete(truth, i), np.delete(guess, i)) for i in range(30)]
    assert leave_one_out(metric, truth, guess) == pytest.approx(slow)


def test_coverage_of_the_intervals() -> None:
    """95% intervals of F1 hold the true value about as often as they say (300 draws: 95% +- 3)."""
    rng = np.random.default_rng(7)
    right, hits = np.array([0.7, 0.85]), 0
    precision = 0.5 * 0.85 / (0.5 * 0.85 + 0.5 * 0.3)
    true = 2 * precision * 0.85 / (precision + 0.85)
    for seed in range(300):
        truth = rng.integers(0, 2, 150)
        guess = np.where(rng.random(150) < right[truth], truth, 1 - truth)
        found = bootstrap_bca("f1", truth, guess, seed, resamples=400)
        hits += found.low <= true <= found.high
    assert 0.91 <= hits / 300 <= 0.98


def test_mean_of_independent_intervals() -> None:
    assert mean_of([(0.8, 0.7, 0.86)]) == pytest.approx((0.8, 0.7, 0.86))
    # distances 0.1 and 0.1 down, 0.06 and 0.08 up: sqrt(0.02) / 2 and 0.1 / 2
    assert mean_of([(0.8, 0.7, 0.86), (0.6, 0.5, 0.68)]) == pytest.approx((0.7, 0.7 - 0.02**0.5 / 2, 0.75))
    with pytest.raises(ValueError, match="at least one"):
        mean_of([])


def test_mcnemar_by_hand() -> None:
    # 4 against 1: 2 * (1 + 5) / 32
    found = mcnemar([1, 1, 1, 1, 0, 1], [0, 0, 0, 0, 1, 1])
    assert (found.first_only, found.second_only, found.p) == (4, 1, pytest.approx(0.375))
    assert found.p == pytest.approx(stats.binomtest(4, 5).pvalue)
    assert mcnemar([1, 0], [1, 0]).p == 1
    with pytest.raises(ValueError, match="one length"):
        mcnemar([1], [1, 0])


def test_benjamini_hochberg_by_hand_and_scipy() -> None:
    p = [0.005, 0.009, 0.05, 0.5, 0.04]
    assert benjamini_hochberg(p) == pytest.approx([0.0225, 0.0225, 0.0625, 0.5, 0.0625])
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    assert benjamini_hochberg([]).size == 0


def test_jackknife_of_a_mean_is_its_variance() -> None:
    values = np.random.default_rng(0).random(40)
    left_out = (values.sum() - values) / 39
    assert jackknife_variance(left_out) == pytest.approx(values.var(ddof=1) / 40)


def test_seed_test_without_item_variance_is_the_paired_t_test() -> None:
    differences = [0.01, 0.03, 0.022]
    assert seed_test(differences, 0.0, 100).p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)


def test_equal_differences_are_no_certainty() -> None:
    # one item of 400 in each of three seeds: seeds alone would say p = 0
    assert seed_test([1 / 400] * 3, 1 / 400**2, 400).p == pytest.approx(2 * stats.t.sf(1, 399))
    assert seed_test([0.0] * 3, 0.0, 400).p == 1
    with pytest.raises(ValueError, match="at least one"):
        seed_test([], 0.1, 10)


def test_few_items_that_agree_are_no_certainty() -> None:
    """All k items (or clusters) for one side: the sign test's 2 / 2^k; one of them tells nothing of others."""
    assert seed_test([1.0] * 3, jackknife_variance([-1.0, -1.0]), 2).p == 0.5
    assert seed_test([1.0], jackknife_variance([-1.0] * 6), 6).p == pytest.approx(2 / 2**6)
    left_out = -np.tile([1, 1, 0, 0, 0], 2) / 9
    pair = jackknife_variance(left_out, np.repeat([0, 1], 5))  # two passages, two of five items each
    assert pair == pytest.approx(0, abs=1e-20) and seed_test([0.4], pair, 2).p == 0.5
    assert seed_test([0.4], jackknife_variance(left_out, np.zeros(10)), 1).p == 1
    assert seed_test([0.1, 0.101, 0.102], jackknife_variance(left_out, np.zeros(10)), 1).p == 1


@pytest.mark.parametrize("sd", [0.0, 0.014, 0.033])
def test_seed_test_holds_its_level_where_mcnemar_does_not(sd: float) -> None:
    """A/A at three seeds: two arms of one strategy on one test set, each seed with a score of its own."""
    rng, wrong, naive = np.random.default_rng(11), 0, 0
    for _ in range(300):
        ease = np.clip(0.88 + 0.25 * rng.standard_normal(872), 0.02, 0.98)
        arms = [
            [rng.random(872) < np.clip(ease + sd * rng.standard_normal(), 0, 1) for _ in range(3)] for _ in range(2)
        ]
        a, b = (np.array(arm, dtype=float) for arm in arms)
        items = (a - b).mean(axis=0)
        wrong += seed_test((a - b).mean(axis=1), items.var(ddof=1) / 872, 872).p < 0.05
        naive += mcnemar(a[0], b[0]).p < 0.05
    assert wrong / 300 <= 0.08
    assert naive / 300 > 0.2 if sd == 0.033 else True
