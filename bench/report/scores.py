"""One strategy on one task: its seeds in one score, with the interval that fits their number."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from bench.records import Score
from bench.report.collect import CellView
from bench.report.format import finite
from bench.report.predictions import over_seeds
from bench.stats.metrics import too_few
from bench.stats.ratios import RATIOS, family
from bench.stats.seeds import BOUNDS, flat_interval

FEWEST_SEEDS = 3
"""Training runs from which on a mean has an interval over seeds and differences may be claimed (DESIGN 8)."""


@dataclass(frozen=True)
class TaskScore:
    """One strategy on one task: the mean over its seeds with an interval.

    From three seeds of a seeded strategy on the interval holds for other seeds and other items (`over_seeds`); with
    fewer it is the mean of the seeds' intervals over items, never narrower than the interval of their mean.
    """

    cells: list[CellView]
    value: float | None
    low: float | None
    high: float | None
    chance: float | None
    seed_sd: float | None
    n: int | None
    over_seeds: bool = False
    best: float | None = None
    """The best seed's score, from two seeds on."""
    independent: int | None = None
    """Items, or as many even clusters as theirs are worth: what the interval's coverage hangs on."""
    chance_is: str | None = None
    """The baseline that stands for chance; None: the best constant answer."""

    @property
    def ok(self) -> int:
        """Seeds that have a score."""
        return sum(cell.score is not None for cell in self.cells)

    @property
    def complete(self) -> bool:
        """Whether every planned seed has a score: only then it is ranked."""
        return self.ok == len(self.cells)

    @property
    def beats_chance(self) -> bool:
        """Whether the low end of the interval lies above the best constant answer, or what stands for it."""
        return self.complete and self.low is not None and self.chance is not None and self.low > self.chance

    @property
    def too_few(self) -> bool:
        """Whether the interval is over fewer items than its coverage is known for."""
        return self.low is not None and too_few(self.independent, self.cells[0].info.metric, self.over_seeds)

    @property
    def wide(self) -> bool:
        """Whether the interval is the mean of several training runs' own: it holds more often than it says."""
        return self.low is not None and self.ok > 1 and not self.over_seeds


def task_score(cells: list[CellView]) -> TaskScore:
    """Average the seeds of one strategy on one task; ends of the interval are None where any seed lacks them.

    Reads the predictions where there are seeds enough for an interval over them.
    """
    scores = [cell.score for cell in cells if cell.score is not None]
    if not scores:
        return TaskScore(cells, None, None, None, None, None, None)
    values = [score.value for score in scores]
    wide = over_seeds(cells, cells[0].info.metric) if retrained(cells) else None
    counts = [independent(score) for score in scores]
    own = [ends(score, cells[0].info.metric) for score in scores]
    return TaskScore(
        cells,
        statistics.fmean(values),
        wide.low if wide else mean([low for low, _ in own]),
        wide.high if wide else mean([high for _, high in own]),
        max(score.chance for score in scores),
        statistics.stdev(values) if len(values) > 1 else None,
        max(score.n for score in scores),
        wide is not None,
        max(values) if len(values) > 1 else None,
        min(counts),
        next((score.chance_is for score in scores if score.chance_is), None),
    )


def retrained(cells: list[CellView]) -> bool:
    """Whether these are three training runs or more, all with a score, in which the seed could matter."""
    return len(cells) >= FEWEST_SEEDS and cells[0].info.seeded and all(cell.score is not None for cell in cells)


def beside(metric: str) -> list[str]:
    """Metrics shown beside a task's own: accuracy, or what else the same written answers give."""
    others = family(metric) if metric in RATIOS else [metric, "accuracy"]
    return [other for other in dict.fromkeys(others) if other != metric]


def score_of(cells: list[CellView], metric: str) -> tuple[float | None, float | None, float | None]:
    """A metric beside the task's own, seeds averaged, with the interval that `task_score` would give it."""
    found = [
        cell.result.scores[metric]
        for cell in cells
        if cell.status == "ok" and cell.result and cell.result.scores and metric in cell.result.scores
    ]
    own = [(score.value, *ends(score, metric)) for score in found]
    value, low, high = (mean([one[part] for one in own]) for part in range(3))
    wide = over_seeds(cells, metric) if retrained(cells) and len(found) == len(cells) else None
    return (value, wide.low, wide.high) if wide else (value, low, high)


def independent(score: Score) -> int:
    """Items, or as many even clusters as theirs are worth; older records hold only how many there are."""
    return int(score.clusters_worth or score.clusters or score.n)


def ends(score: Score, metric: str) -> tuple[float | None, float | None]:
    """A trained model's own interval; one without width, which a bootstrap of items that are all alike gives, is that
    of a proportion of as many items."""
    if metric in BOUNDS and score.low is not None and score.low == score.high == score.value:
        flat = flat_interval(score.value, independent(score), BOUNDS[metric])
        return flat.low, flat.high
    return score.low, score.high


def mean(values: Iterable[float | None]) -> float | None:
    """Mean, or None where any value was not measured or there is none."""
    listed = list(values)
    known = [number for value in listed if (number := finite(value)) is not None]
    return statistics.fmean(known) if known and len(known) == len(listed) else None
