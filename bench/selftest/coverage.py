"""How often the report's intervals hold the truth, at the smallest size without a warning and at 200 and 1,000 items.

Wilson's is added up exactly; the others are simulated, each draw through the function that the report's
numbers come from.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.selftest.figures import Figure
from bench.stats.confusion import formula, leave_one_out
from bench.stats.intervals import bootstrap_bca, bootstrap_items, mean_of, wilson
from bench.stats.metrics import SMALLEST, SMALLEST_OVER_SEEDS, pearson, spearman, value
from bench.stats.pairs import paired_change
from bench.stats.seeds import BOUNDS, clustered_interval, seeds_ends, seeds_interval

LOW, HIGH = 0.93, 0.97
"""Where the coverage of a 95% interval must lie."""
ACCURACIES = (0.5, 0.8, 0.95)
SIZES = (200, 1000)
SEED_SDS = (0.0, 0.014, 0.033)
"""Standard deviations of a score over seeds: none, and the ends of what was seen (DESIGN 8)."""
POSITIVE = 0.68
"""Share of the positive label in simulated test sets: that of MRPC."""
ALIKE = 0.8
"""Share of an item's difficulty that all seeds of a strategy have in common (of the variance of a latent normal)."""
DRAWS = 1500
SEED_DRAWS = 3000
CORRELATION_DRAWS = 1000


def wilson_coverage(level: float) -> Figure:
    """Exact coverage for accuracy: the binomial probability of every count whose interval holds the true share."""
    values = {}
    for n in (SMALLEST["accuracy"], *SIZES):
        counts = np.arange(n + 1)
        ends = np.array([(found.low, found.high) for k in counts if (found := wilson(int(k), n, level))])
        for share in ACCURACIES:
            inside = (ends[:, 0] <= share) & (share <= ends[:, 1])
            values[f"{n} items, accuracy {share}"] = float(stats.binom.pmf(counts, n, share)[inside].sum())
    return Figure("coverage: accuracy (Wilson)", values, LOW, HIGH)


def bca_coverage(metric: str, n: int, level: float) -> Figure:
    """Simulated coverage of the bootstrap for F1 or Matthews on `n` items."""
    values, random = {}, np.random.default_rng([n, len(metric)])
    for accuracy in ACCURACIES:
        rates = label_rates(np.array(accuracy))
        truth, hits = float(formula(metric)(rates, 1)), 0
        # items matter by their table only, and small test sets have few tables: each is resampled once
        tables, times = np.unique(random.multinomial(n, rates.reshape(-1), DRAWS), axis=0, return_counts=True)
        for draw, (cells, count) in enumerate(zip(tables, times.tolist(), strict=True)):
            items = np.repeat(np.arange(4), cells)
            found = bootstrap_bca(metric, items // 2, items % 2, seed=draw, level=level)
            hits += count * (found.low <= truth <= found.high)
        values[f"{n} items, accuracy {accuracy}"] = hits / DRAWS
    return Figure(f"coverage: {metric} (BCa), {n} items", values, LOW, HIGH)


def label_rates(accuracy: NDArray[np.floating]) -> NDArray[np.floating]:
    """Confusion shares (..., 2, 2) where both labels are answered rightly in `accuracy` (...) of cases."""
    share = np.array([1 - POSITIVE, POSITIVE])[:, None]
    right = np.asarray(accuracy, dtype=float)[..., None, None]
    rates: NDArray[np.floating] = share * np.where(np.eye(2, dtype=bool), right, 1 - right)
    return rates


def answers(
    accuracy: float, sd: float, shape: tuple[int, int, int], random: np.random.Generator
) -> Iterator[NDArray[np.bool_]]:
    """Which of n items each of S seeds gets right, in blocks of shape (m, S, n) of at most four million answers.

    A seed's own accuracy is drawn from the beta distribution with that mean and `sd`; an item is answered rightly where
    a normal variable, `ALIKE` of whose variance the seeds share, lies below that accuracy's quantile.
    """
    draws, seeds, n = shape
    block = max(1, 4_000_000 // (seeds * n))
    for start in range(0, draws, block):
        m = min(block, draws - start)
        limits = stats.norm.ppf(seed_accuracies(accuracy, sd, (m, seeds), random))[..., None]
        shared, own = random.standard_normal((m, 1, n)), random.standard_normal((m, seeds, n))
        yield ALIKE**0.5 * shared + (1 - ALIKE) ** 0.5 * own < limits


def seed_accuracies(
    accuracy: float, sd: float, shape: tuple[int, ...], random: np.random.Generator
) -> NDArray[np.floating]:
    """What endless items would give each seed: the mean is `accuracy`, the standard deviation `sd`."""
    if sd == 0:
        return np.full(shape, accuracy)
    total = accuracy * (1 - accuracy) / sd**2 - 1
    return random.beta(accuracy * total, (1 - accuracy) * total, shape)


def seeds_coverage(seeds: int, n: int, level: float) -> Figure:
    """Simulated coverage of the interval of a mean accuracy over seeds and items."""
    values, random = {}, np.random.default_rng([seeds, n])
    for accuracy in ACCURACIES:
        for sd in SEED_SDS:
            hits = 0
            for right in answers(accuracy, sd, (SEED_DRAWS, seeds, n), random):
                scores = right.mean(axis=2)
                left_out = (n * scores[..., None] - right) / (n - 1)
                low, high = seeds_ends(scores, left_out, level=level)
                hits += int(((low <= accuracy) & (accuracy <= high)).sum())
            values[f"{seeds} seeds, {n} items, accuracy {accuracy}, seed SD {100 * sd:g} points"] = hits / SEED_DRAWS
    return Figure(f"coverage: mean over {seeds} seeds and {n} items", values, LOW, HIGH)


def metric_seeds_coverage(metric: str, level: float, seeds: int = 3, sd: float = SEED_SDS[-1]) -> Figure:
    """Simulated coverage of the interval of a mean F1 or Matthews over three seeds whose scores spread most."""
    values, random = {}, np.random.default_rng([seeds, len(metric)])
    for n in (SMALLEST_OVER_SEEDS, SIZES[0]):
        for accuracy in ACCURACIES[1:]:
            rates = label_rates(seed_accuracies(accuracy, sd, (200_000,), random))
            truth, hits = float(formula(metric)(rates, 1).mean()), 0
            for block in answers(accuracy, sd, (DRAWS, seeds, n), random):
                for right in block:
                    labels, guesses = guessed(right, random)
                    found = [value(metric, labels, guess) for guess in guesses]
                    left_out = [leave_one_out(metric, labels, guess) for guess in guesses]
                    ends = seeds_interval(found, left_out, BOUNDS[metric], level=level)
                    hits += ends.low <= truth <= ends.high
            values[f"{seeds} seeds, {n} items, accuracy {accuracy}, seed SD {100 * sd:g} points"] = hits / DRAWS
    return Figure(f"coverage: mean {metric} over {seeds} seeds", values, LOW, HIGH)


def tasks_coverage(level: float) -> Figure:
    """Simulated coverage of the leaderboard's mean over two tasks, whose intervals' distances add in squares."""
    values, random = {}, np.random.default_rng(2)
    for n in (SMALLEST["accuracy"], *SIZES):
        ends = [(k / n, found.low, found.high) for k in range(n + 1) if (found := wilson(k, n, level))]
        truth, hits = (0.8 + 0.95) / 2, 0
        for pair in random.binomial(n, (0.8, 0.95), (SEED_DRAWS, 2)).tolist():
            _, low, high = mean_of([ends[k] for k in pair])
            hits += low <= truth <= high
        values[f"two tasks of {n} items"] = hits / SEED_DRAWS
    return Figure("coverage: mean over two tasks", values, LOW, HIGH)


def clusters_coverage(metric: str, level: float, size: int = 4) -> Figure:
    """Simulated coverage of a metric where `size` items share a passage, half of whose difficulty is the passage's."""
    values, random = {}, np.random.default_rng([3, len(metric)])
    for number in (SMALLEST["accuracy"], *SIZES[:1]):
        clusters = np.repeat(np.arange(number), size)
        for accuracy in ACCURACIES:
            truth, hits = float(formula(metric)(label_rates(np.array(accuracy)), 1)), 0
            for _ in range(DRAWS):
                latent = random.standard_normal(number)[clusters] + random.standard_normal(clusters.size)
                labels, guesses = guessed(latent < 2**0.5 * stats.norm.ppf(accuracy), random)
                left_out = leave_one_out(metric, labels, guesses)
                found = clustered_interval(
                    value(metric, labels, guesses), left_out, clusters, BOUNDS[metric], level=level
                )
                hits += found.low <= truth <= found.high
            values[f"{number} passages of {size} items, accuracy {accuracy}"] = hits / DRAWS
    return Figure(f"coverage: {metric} over clusters", values, LOW, HIGH)


def clusters_seeds_coverage(level: float, size: int = 4, seeds: int = 3) -> Figure:
    """Simulated coverage of the mean accuracy over three seeds where `size` items share a passage."""
    values, random = {}, np.random.default_rng(4)
    for number in (SMALLEST_OVER_SEEDS, *SIZES[:1]):
        clusters = np.repeat(np.arange(number), size)
        for accuracy in ACCURACIES:
            for sd in SEED_SDS:
                hits = 0
                for _ in range(DRAWS):
                    limits = stats.norm.ppf(seed_accuracies(accuracy, sd, (seeds, 1), random))
                    shared = random.standard_normal(number)[clusters] + random.standard_normal(clusters.size)
                    own = random.standard_normal((seeds, clusters.size))
                    right = (ALIKE / 2) ** 0.5 * shared + (1 - ALIKE) ** 0.5 * own < limits
                    scores = right.mean(axis=1)
                    left_out = (clusters.size * scores[:, None] - right) / (clusters.size - 1)
                    found = seeds_interval(scores, left_out, clusters=clusters, level=level)
                    hits += found.low <= accuracy <= found.high
                place = f"{seeds} seeds, {number} passages of {size} items, accuracy {accuracy}"
                values[f"{place}, seed SD {100 * sd:g} points"] = hits / DRAWS
    return Figure(f"coverage: mean over {seeds} seeds and clusters", values, LOW, HIGH)


def guessed(right: NDArray[np.bool_], random: np.random.Generator) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Labels, `POSITIVE` of them 1, and the guesses that are right where `right` (n,) says so."""
    labels = np.where(random.random(right.shape[-1]) < POSITIVE, 1, 0)
    return labels, np.where(right, labels, 1 - labels)


def two_seeds_coverage(level: float) -> Figure:
    """Simulated coverage, for other items, of two trained models' mean: the mean of their own intervals, stated only.

    The report marks these intervals as wide, for two runs miss different items.
    """
    values, random = {}, np.random.default_rng(5)
    for n in (SMALLEST["accuracy"], *SIZES):
        ends = np.array([(found.low, found.high) for k in range(n + 1) if (found := wilson(k, n, level))])
        for accuracy in ACCURACIES:
            hits = 0
            for right in answers(accuracy, 0.0, (SEED_DRAWS, 2, n), random):
                low, high = ends[right.sum(axis=2)].mean(axis=1).T
                hits += int(((low <= accuracy) & (accuracy <= high)).sum())
            values[f"{n} items, accuracy {accuracy}"] = hits / SEED_DRAWS
    return Figure("coverage: mean over two seeds", values)


def change_coverage(level: float) -> Figure:
    """Simulated coverage of the change of an accuracy on the same items, by which retention is told (Newcombe's)."""
    values, random = {}, np.random.default_rng(7)
    for n in (SMALLEST["accuracy"], *SIZES):
        for before, after in ((0.5, 0.5), (0.8, 0.6), (0.8, 0.78), (0.95, 0.9)):
            limits, hits = stats.norm.ppf([before, after]), 0
            for _ in range(DRAWS):
                latent = ALIKE**0.5 * random.standard_normal(n) + (1 - ALIKE) ** 0.5 * random.standard_normal((2, n))
                found = paired_change(latent[0] < limits[0], latent[1] < limits[1], level)
                hits += found.low <= after - before <= found.high
            values[f"{n} items, accuracy {before} to {after}"] = hits / DRAWS
    return Figure("coverage: change on the same items (Newcombe)", values, LOW, HIGH)


def correlation_coverage(metric: str, n: int, level: float) -> Figure:
    """Simulated coverage of the bootstrap of a correlation over `n` pairs of a bivariate normal."""
    statistic = {"pearson": pearson, "spearman": spearman}[metric]
    values, random = {}, np.random.default_rng([6, n, len(metric)])
    for rho in ACCURACIES:
        # Spearman's of a bivariate normal: Pearson 1907
        truth = rho if metric == "pearson" else 6 / np.pi * np.arcsin(rho / 2)
        hits = 0
        for draw in range(CORRELATION_DRAWS):
            x, noise = random.standard_normal((2, n))
            y = rho * x + (1 - rho**2) ** 0.5 * noise
            found = bootstrap_items(statistic, (x, y), seed=draw, level=level)
            hits += found.low <= truth <= found.high
        values[f"{n} items, correlation {rho}"] = hits / CORRELATION_DRAWS
    return Figure(f"coverage: {metric} (BCa), {n} items", values, LOW, HIGH)


def sizes(metric: str) -> tuple[int, ...]:
    """The sizes at which a metric's interval is tried."""
    return (SMALLEST[metric], *SIZES)


SEED_SIZES = (SMALLEST_OVER_SEEDS, *SIZES)
