"""What prompt formats do to a score: its spread over formats, and how often they turn the order of two strategies.

Medians and quartiles lead: the range of a few formats is ruled by the worst of them, often one that makes the model
give every item the same label (Sclar et al. 2024, section 4, report the range; Zhao et al. 2021, section 3, standard
deviations over prompts and demonstrations).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.probed import FormatAnswer, FormatFindings

Key = tuple[tuple[str, str], ...]
"""What a format is made of, sorted: the same for every cell that was asked so."""


@dataclass(frozen=True)
class Spread:
    """Scores over formats."""

    number: int
    low: float
    q1: float
    median: float
    q3: float
    high: float

    @property
    def range(self) -> float:
        """Best less worst."""
        return self.high - self.low


@dataclass(frozen=True)
class Formats:
    """One cell's answers in the formats it was asked in, in one metric."""

    metric: str
    calibrated: bool
    every: Spread
    """Over formats, each with the cell's own demonstrations: what other strategies are held against."""
    trained_on: Spread | None
    """Over the formats it was trained on; None where there are none."""
    never: Spread | None
    """Over the others."""
    own: float
    """In the task's own format."""
    degenerate: list[int]
    """Numbers of formats in which every item got one label (with the cell's own demonstrations)."""
    draws: float | None
    """Median over formats of best less worst draw of demonstrations; None with fewer than two draws."""
    with_draws: Spread | None
    """Over all formats and draws; None with fewer than two draws."""


@dataclass(frozen=True)
class Reversals:
    """How two strategies compare over the formats both were asked in."""

    compared: int
    """Formats both answered."""
    ties: int
    """Of them those in which they score the same."""
    reversed: int
    """Of them those whose difference has the other sign than the median difference."""
    median: float
    """Median difference, first less second."""

    @property
    def share(self) -> float | None:
        """Reversed formats among those without a tie; None where all tie or the median difference has no sign."""
        decided = self.compared - self.ties
        return None if decided == 0 or self.median == 0 else self.reversed / decided


def spread(values: Sequence[float]) -> Spread | None:
    """Range, quartiles (linear interpolation) and median of some scores; None of none."""
    if not values:
        return None
    low, q1, median, q3, high = (float(v) for v in np.quantile(np.asarray(values, float), [0, 0.25, 0.5, 0.75, 1]))
    return Spread(len(values), low, q1, median, q3, high)


def score_of(answer: FormatAnswer, metric: str, calibrated: bool = False) -> float | None:
    """The answer's score; None where it has none that is calibrated, or none in this metric."""
    scores = answer.calibrated if calibrated else answer.scores
    return None if scores is None else scores.get(metric)


def degenerate(answer: FormatAnswer, calibrated: bool = False) -> bool:
    """Whether every item got the same label."""
    counts = answer.calibrated_answers if calibrated else answer.answers
    return counts is not None and max(counts) == sum(counts)


def own_demonstrations(findings: FormatFindings) -> list[FormatAnswer]:
    """The answers that differ in format only, in order."""
    return [a for a in findings.answers if not a.demonstrations]


def summary(findings: FormatFindings, metric: str | None = None, calibrated: bool = False) -> Formats | None:
    """A cell's formats in one metric, by default the task's; None where it has no such scores."""
    name = metric or findings.metric
    told = [(a, s) for a in findings.answers if (s := score_of(a, name, calibrated)) is not None]
    plain = [(a, s) for a, s in told if not a.demonstrations]
    every = spread([s for _, s in plain])
    first = next((s for a, s in plain if a.number == 0), None)
    if every is None or first is None:
        return None
    by_format: dict[int, list[float]] = {}
    for answer, score in told:
        by_format.setdefault(answer.number, []).append(score)
    apart = [max(scores) - min(scores) for scores in by_format.values() if len(scores) > 1]
    return Formats(
        metric=name,
        calibrated=calibrated,
        every=every,
        trained_on=spread([s for a, s in plain if a.trained_on]),
        never=spread([s for a, s in plain if not a.trained_on]),
        own=first,
        degenerate=[a.number for a, _ in plain if degenerate(a, calibrated)],
        draws=float(np.median(apart)) if apart else None,
        with_draws=spread([s for _, s in told]) if apart else None,
    )


def key_of(answer: FormatAnswer) -> Key:
    """Format 12 of one model may be format 11 of another, which has no chat template: what it is made of tells."""
    return tuple(sorted(answer.described.items()))


def by_key(findings: FormatFindings, metric: str | None = None, calibrated: bool = False) -> dict[Key, float]:
    """Format -> score with the cell's own demonstrations."""
    name = metric or findings.metric
    told = ((key_of(a), score_of(a, name, calibrated)) for a in own_demonstrations(findings))
    return {key: score for key, score in told if score is not None}


def reversals(first: Mapping[Key, float], second: Mapping[Key, float]) -> Reversals | None:
    """How often the order of two strategies is another than that of their median difference; None where they share no
    format."""
    shared = [key for key in first if key in second]
    if not shared:
        return None
    differences = np.array([first[key] - second[key] for key in shared])
    differences[np.abs(differences) < 1e-12] = 0.0  # scores of the same items: what differs less is the same count
    median = float(np.median(differences))
    turned = int((np.sign(differences) == -np.sign(median)).sum()) if median else 0
    return Reversals(len(shared), int((differences == 0).sum()), turned, median)
