"""How often the intervals of written answers hold the truth: a mean of what items scored, and span F1.

Simulated, each draw through the function that the report's numbers come from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.selftest.coverage import ALIKE, HIGH, LOW, SEED_SDS, seed_accuracies
from bench.selftest.figures import Figure
from bench.stats.metrics import SMALLEST, SMALLEST_OVER_SEEDS
from bench.stats.ratios import bootstrap_ratio, ratio_left_out, ratio_value
from bench.stats.seeds import seeds_interval

SIZES = (SMALLEST["span_f1"], 200)
METRICS = ("rouge_l", "span_f1")
MEANS = (0.2, 0.5, 0.9)
"""What texts score on average; an item has a beta distribution of this mean, a and b together `SPREAD`."""
SPREAD = 4.0
SELDOM = 0.3
"""Share of texts that score anything in one more setting, as with ROUGE-2: those that do are beta(2, 6)."""
RECALLS = (0.3, 0.6, 0.9)
"""Share of the spans there are that is found."""
DRAWS, SPAN_DRAWS = 1000, 2000
SLOTS, FILLED, FALSE = 4, 0.45, 0.6
"""Most spans an item has, the share of them it has, and wrong spans found an item (Poisson)."""


def texts_coverage(n: int, level: float) -> Figure:
    """Simulated coverage of the bootstrap of a mean over `n` texts."""
    values, random = {}, np.random.default_rng([8, n])
    for mean in (*MEANS, None):
        hits = 0
        for draw in range(DRAWS):
            if mean is None:
                scores, truth = random.beta(2, 6, n) * (random.random(n) < SELDOM), SELDOM * 2 / 8
            else:
                scores, truth = random.beta(mean * SPREAD, (1 - mean) * SPREAD, n), mean
            found = bootstrap_ratio("rouge_l", {"rouge_l": scores}, seed=draw, level=level)
            hits += found.low <= truth <= found.high
        values[f"{n} texts, {'most score nothing' if mean is None else f'mean {mean}'}"] = hits / DRAWS
    return Figure(f"coverage: mean of texts' scores (BCa), {n} items", values, LOW, HIGH)


def spans_coverage(n: int, level: float) -> Figure:
    """Simulated coverage of the bootstrap of span F1 on `n` items."""
    values, random = {}, np.random.default_rng([9, n])
    for recall in RECALLS:
        hits, truth = 0, float(true_f1(np.array(recall)))
        for draw in range(SPAN_DRAWS):
            found = bootstrap_ratio("span_f1", spans(np.array([recall]), n, random)[0], seed=draw, level=level)
            hits += found.low <= truth <= found.high
        values[f"{n} items, recall {recall}"] = hits / SPAN_DRAWS
    return Figure(f"coverage: span F1 (BCa), {n} items", values, LOW, HIGH)


def seeds_coverage(metric: str, level: float, seeds: int = 3, sd: float = SEED_SDS[-1]) -> Figure:
    """Simulated coverage of the interval of a mean over three seeds whose scores spread most."""
    values, random = {}, np.random.default_rng([10, len(metric)])
    for n in (SMALLEST_OVER_SEEDS, SIZES[-1]):
        for share in RECALLS:
            many = seed_accuracies(share, sd, (200_000,), random)
            truth, hits = share if metric == "rouge_l" else float(true_f1(many).mean()), 0
            for _ in range(DRAWS):
                skill = seed_accuracies(share, sd, (seeds,), random)
                made = spans(skill, n, random) if metric == "span_f1" else texts(skill, n, random)
                found = [ratio_value(metric, one) for one in made]
                ends = seeds_interval(found, [ratio_left_out(metric, one) for one in made], level=level)
                hits += ends.low <= truth <= ends.high
            values[f"{seeds} seeds, {n} items, {share}, seed SD {100 * sd:g} points"] = hits / DRAWS
    return Figure(f"coverage: mean {metric} over {seeds} seeds", values, LOW, HIGH)


def texts(means: NDArray[np.floating], n: int, random: np.random.Generator) -> list[dict[str, NDArray[np.floating]]]:
    """What each of S models, whose texts score `means` (S,) on average, scores on the same `n` items."""
    latent = ALIKE**0.5 * random.standard_normal(n) + (1 - ALIKE) ** 0.5 * random.standard_normal((means.size, n))
    ranks = stats.norm.cdf(latent)
    return [{"rouge_l": stats.beta.ppf(r, m * SPREAD, (1 - m) * SPREAD)} for r, m in zip(ranks, means, strict=True)]


def spans(recalls: NDArray[np.floating], n: int, random: np.random.Generator) -> list[dict[str, NDArray[np.floating]]]:
    """What each of S models that finds `recalls` (S,) of the spans there are keeps of the same `n` items.

    Whether a span is found hangs in equal parts on its item and on itself, and both mostly not on the model.
    """
    there = random.random((n, SLOTS)) < FILLED
    shared = (random.standard_normal((n, 1)) + random.standard_normal((n, SLOTS))) / 2**0.5
    made = []
    for limit in stats.norm.ppf(recalls):
        latent = ALIKE**0.5 * shared + (1 - ALIKE) ** 0.5 * random.standard_normal((n, SLOTS))
        hits = (there & (latent < limit)).sum(axis=1)
        found = hits + random.poisson(FALSE, n)
        made.append({"hits": hits.astype(float), "found": found.astype(float), "gold": there.sum(axis=1).astype(float)})
    return made


def true_f1(recalls: NDArray[np.floating]) -> NDArray[np.floating]:
    """Span F1 on endlessly many such items."""
    gold = SLOTS * FILLED
    f1: NDArray[np.floating] = 2 * recalls * gold / (recalls * gold + FALSE + gold)
    return f1
