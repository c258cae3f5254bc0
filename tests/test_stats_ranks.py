"""Ranks and letters, the front, and the smallest difference found: by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.stats.front import item_draws, on_front, seed_draws
from bench.stats.power import detectable, detectable_over_seeds, detectable_share
from bench.stats.ranks import letters, rank_intervals


def table(size: int, *pairs: tuple[int, int]) -> np.ndarray:
    found = np.zeros((size, size), dtype=bool)
    for i, j in pairs:
        found[i, j] = True
    return found


def test_rank_intervals_by_hand() -> None:
    assert rank_intervals(table(3)).tolist() == [[1, 3]] * 3
    assert rank_intervals(table(3, (0, 2))).tolist() == [[1, 2], [1, 3], [2, 3]]
    assert rank_intervals(table(3, (0, 1), (0, 2), (1, 2))).tolist() == [[1, 1], [2, 2], [3, 3]]
    with pytest.raises(ValueError, match="no two are each better"):
        rank_intervals(table(2, (0, 1), (1, 0)))
    with pytest.raises(ValueError, match="square"):
        rank_intervals(np.zeros((2, 3)))


def test_letters_by_hand() -> None:
    def of(size: int, *pairs: tuple[int, int]) -> list[str]:
        better = table(size, *pairs)
        return letters(better | better.T)

    assert of(3) == ["a", "a", "a"]
    assert of(3, (0, 2)) == ["a", "ab", "b"]
    assert of(3, (0, 1), (0, 2), (1, 2)) == ["a", "b", "c"]
    assert of(4, (0, 2), (0, 3), (1, 3)) == ["a", "ab", "bc", "c"]
    with pytest.raises(ValueError, match="symmetric"):
        letters(table(2, (0, 1)))


@given(st.integers(1, 7).flatmap(lambda k: st.lists(st.booleans(), min_size=k * k, max_size=k * k)))
def test_letters_are_shared_exactly_where_nothing_differs(flags: list[bool]) -> None:
    k = round(len(flags) ** 0.5)
    upper = np.triu(np.array(flags).reshape(k, k), 1)
    different = upper | upper.T
    found = [set(word) for word in letters(different)]
    for i in range(k):
        assert found[i]
        for j in range(i + 1, k):
            assert bool(found[i] & found[j]) != different[i, j]


def test_more_groups_than_letters() -> None:
    found = letters(~np.eye(28, dtype=bool))
    assert found[0] == "a" and found[26] == "a1" and len(set(found)) == 28


def test_the_front_by_hand() -> None:
    scores = np.array([[0.9, 0.8, 0.7], [0.7, 0.8, 0.9]])
    assert on_front(scores, [[2, 1], [1, 1], [3, 3]]).tolist() == [0.5, 1.0, 0.5]
    # equal scores: the cheaper is on it, and of equals in everything both
    assert on_front([[0.5, 0.5]], [[1, 2], [1, 1]]).tolist() == [0.0, 1.0]
    assert on_front([[0.5, 0.5]], [[1, 1], [1, 1]]).tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="costs"):
        on_front(scores, [[1, 1]])


def test_draws_have_the_error_of_what_they_resample() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((300, 2))
    moved = item_draws(values, 4000, np.random.default_rng(1))
    assert moved.shape == (4000, 2)
    assert moved.std(axis=0) == pytest.approx(values.std(axis=0) / 300**0.5, rel=0.06)
    assert np.corrcoef(moved.T)[0, 1] == pytest.approx(np.corrcoef(values.T)[0, 1], abs=0.06)
    copies = item_draws(np.repeat(values, 4, axis=0), 4000, np.random.default_rng(1), np.repeat(np.arange(300), 4))
    assert copies.std(axis=0) == pytest.approx(values.std(axis=0) / 300**0.5, rel=0.06)
    seeds = np.array([0.7, 0.8, 0.84])
    assert seed_draws(seeds, 20_000, np.random.default_rng(2)).std() == pytest.approx(
        seeds.std(ddof=1) / 3**0.5, rel=0.03
    )
    assert not seed_draws([0.7], 5, np.random.default_rng(0)).any()


def test_detectable_is_found_in_four_of_five_cases() -> None:
    assert detectable(1.0, 1e9) == pytest.approx(stats.norm.ppf(0.975) + stats.norm.ppf(0.8), abs=1e-3)
    shift, rng = detectable(1 / 5, 4), np.random.default_rng(0)
    draws = shift + rng.standard_normal((20_000, 5))
    assert (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.015)
    assert detectable(0.0, 3) == 0
    with pytest.raises(ValueError, match="variance >= 0"):
        detectable(-1.0, 3)


def test_detectable_over_seeds_alone_is_that_of_the_t_test() -> None:
    assert detectable_over_seeds(1 / 5, 0.0, 5) == pytest.approx(detectable(1 / 5, 4), rel=0.02)
    assert detectable_over_seeds(0.0, 1.0, 3) == pytest.approx(detectable(1.0, 1e9), rel=0.01)
    assert detectable_over_seeds(0.0, 0.0, 3) == 0
    with pytest.raises(ValueError, match="two seeds or more"):
        detectable_over_seeds(1.0, 1.0, 1)


def test_detectable_share_is_found_in_four_of_five_cases() -> None:
    items, discordance = 800, 0.2
    found = detectable_share(discordance, items)
    rng = np.random.default_rng(0)
    cells = rng.multinomial(items, [(discordance + found) / 2, (discordance - found) / 2, 1 - discordance], 4000)
    b, c = cells[:, 0], cells[:, 1]
    p = np.minimum(1, 2 * stats.binom.cdf(np.minimum(b, c), b + c, 0.5))
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.04)
    assert detectable_share(0.0, 10) == 0 and detectable_share(0.01, 10) == 0.01
    with pytest.raises(ValueError, match="discordance in 0..1"):
        detectable_share(2.0, 10)
