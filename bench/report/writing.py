"""What policies write, before and after: the scorer's reward, wins, KL, length and topic, strategy by strategy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy import stats

from bench.probed import WritingFindings
from bench.report import format as show
from bench.report.collect import CellView
from bench.report.scores import FEWEST_SEEDS
from bench.report.tables import WIDE, Column, Entry, Table

WITHHELD = "not shown: it shares six words in a row with a text of the data"


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its 95% interval."""

    value: float
    low: float
    high: float
    wide: bool = False
    """Whether the interval is the mean of two seeds' own."""

    @property
    def ends(self) -> str:
        """As it is printed."""
        words = show.interval(self.low, self.high)
        return f"{words} {WIDE}" if self.wide else words


def over_seeds(values: list[tuple[float, float]]) -> Mean:
    """Mean of a number and its standard error a seed. From three seeds on t over the seeds: each drew responses of its
    own, so their spread holds both; with fewer the normal interval over responses."""
    mean = statistics.fmean(value for value, _ in values)
    if len(values) >= FEWEST_SEEDS:
        spread = statistics.stdev(value for value, _ in values) / math.sqrt(len(values))
        half = float(stats.t.ppf(0.975, len(values) - 1)) * spread
    else:
        half = 1.959964 * statistics.fmean(error for _, error in values)
    return Mean(mean, mean - half, mean + half, len(values) == 2)


def gain(found: WritingFindings) -> tuple[float, float]:
    """Reward after less before, in SDs before, and its standard error (two independent samples)."""
    before, after = statistics.variance(found.before), statistics.variance(found.after)
    unit = math.sqrt(before) or 1.0
    return found.gain, math.sqrt(before / len(found.before) + after / len(found.after)) / unit


def mean_of(values: Callable[[WritingFindings], list[float]]) -> Callable[[WritingFindings], tuple[float, float]]:
    """A list's mean with its standard error."""

    def measured(found: WritingFindings) -> tuple[float, float]:
        listed = values(found)
        return statistics.fmean(listed), statistics.stdev(listed) / math.sqrt(len(listed))

    return measured


@dataclass(frozen=True)
class Written:
    """One strategy's seeds."""

    strategy: str
    seeds: list[WritingFindings]

    @property
    def gain(self) -> Mean:
        """In SDs of the rewards before."""
        return over_seeds([gain(one) for one in self.seeds])

    @property
    def wins(self) -> Mean:
        """Share of responses that beat the earlier one, ties half."""
        found = over_seeds([mean_of(lambda one: one.wins)(one) for one in self.seeds])
        return Mean(found.value, max(0.0, found.low), min(1.0, found.high), found.wide)

    @property
    def kl(self) -> Mean | None:
        """Nats a response; None where it is known by a bound only."""
        if any(one.kl is None for one in self.seeds):
            return None
        found = over_seeds([mean_of(lambda one: one.kl or [])(one) for one in self.seeds])
        return Mean(found.value, max(0.0, found.low), found.high, found.wide)  # no KL is below 0, an estimate's end is

    @property
    def kl_per_token(self) -> float | None:
        """Nats a token."""
        if any(one.kl is None for one in self.seeds):
            return None
        return sum(sum(one.kl or []) for one in self.seeds) / sum(sum(one.tokens_after) for one in self.seeds)

    def mean(self, of: Callable[[WritingFindings], float | None]) -> float | None:
        """Of a number a seed; None where any has none."""
        values = [value for one in self.seeds if (value := of(one)) is not None]
        return statistics.fmean(values) if len(values) == len(self.seeds) else None


def written(by_strategy: dict[str, list[CellView]]) -> list[Written]:
    """Every strategy that was asked to write."""
    found = []
    for strategy, cells in by_strategy.items():
        asked = [w for cell in cells if (r := cell.probes.get("writing")) and (w := r.writing)]
        if asked:
            found.append(Written(strategy, asked))
    return found


def writing_sentences(found: list[Written]) -> list[str]:
    """What each gained by the scorer, and what it cost."""
    said = []
    for one in found:
        first, kl = one.seeds[0], one.kl
        moved = f"KL {kl.value:.1f} nats a response" if kl else f"KL at most {first.kl_bound or 0:.1f} nats a response"
        before = statistics.fmean(statistics.fmean(w.topic_before) for w in one.seeds)
        after = statistics.fmean(statistics.fmean(w.topic_after) for w in one.seeds)
        drift = ""
        if before - after > 0.1:
            drift = f"; fewer of its texts name anything of the topic ({_share(before)} before, {_share(after)} after)"
        pairs = [one.mean(lambda w: w.distinct_before), one.mean(lambda w: w.distinct_after)]
        if pairs[0] is not None and pairs[1] is not None and pairs[0] - pairs[1] > 0.1:
            drift += f"; its texts grow alike (different word pairs {pairs[0]:.2f} before, {pairs[1]:.2f} after)"
        verdict = "raised" if one.gain.low > 0 else "lowered" if one.gain.high < 0 else "did not clearly change"
        said.append(
            f"{one.strategy} {verdict} the independent scorer's reward against {first.against}: "
            f"{show.signed(one.gain.value)} SD {one.gain.ends}, {moved}{drift}."
        )
    if found:
        accuracy = statistics.fmean(one.scorer_accuracy for of in found for one in of.seeds)
        said.append(f"The scorer itself is right on {_share(accuracy)} of the test pairs.")
    return said


def writing_tables(task: str, found: list[Written]) -> list[Table]:
    """What was measured, a row a strategy, and some of what was written; nothing where nobody was asked."""
    if not found:
        return []
    columns = [
        Column("strategy", "against", False),
        Column("reward", "SD before, 95%"),
        Column("wins", "95%"),
        Column("KL", "nats a response, 95%"),
        Column("KL a token", "nats"),
        Column("tokens", "before"),
        Column("on topic", "before"),
        Column("different word pairs", "before"),
    ]
    notes = [
        "Responses drawn at temperature 1 from the policy and from what it was before. Reward: mean by a reward model "
        "that learned from pairs no cell sees. Wins: share of responses with a higher reward than the earlier policy's "
        "to the same prompt, ties half. KL: mean of the log-ratio over the policy's own responses. On topic: share of "
        "texts with a word that stands in at least three texts of the task and is as common in preferred ones as in "
        f"others; {_share(statistics.fmean(w.topic_data for of in found for w in of.seeds))} of the task's own test "
        "texts have one. Different word pairs: distinct-2 (Li et al. 2016), lower where texts grow alike.",
        "From three seeds on t over seeds, each of which drew its own responses; with fewer the interval is over "
        "responses of these training runs only.",
    ]
    return [
        Table(f"{task}: what policies write", columns, [_row(one) for one in found], notes),
        *[table for one in found if (table := _samples(one))],
    ]


def _row(one: Written) -> list[Entry]:
    kl, per_token, first = one.kl, one.kl_per_token, one.seeds[0]
    tokens = [_over(one, lambda w: w.tokens_after), _over(one, lambda w: w.tokens_before)]
    topic = [_over(one, lambda w: w.topic_after), _over(one, lambda w: w.topic_before)]
    distinct = [one.mean(lambda w: w.distinct_after), one.mean(lambda w: w.distinct_before)]
    bound = "" if first.kl_bound is None else f"at most {first.kl_bound:.2f}"
    return [
        Entry(one.strategy, f"{first.against}, {show.count(len(one.seeds), 'seed')}", one.strategy),
        Entry(show.signed(one.gain.value), one.gain.ends, one.gain.value),
        Entry(show.score(one.wins.value), one.wins.ends, one.wins.value),
        Entry(f"{kl.value:.2f}", kl.ends, kl.value) if kl else Entry(bound, sort=first.kl_bound),
        Entry(show.ABSENT, faint=True) if per_token is None else Entry(f"{per_token:.3f}", sort=per_token),
        Entry(f"{tokens[0]:.1f}", f"{tokens[1]:.1f}", tokens[0]),
        Entry(_share(topic[0]), _share(topic[1]), topic[0]),
        _both(distinct),
    ]


def _over(one: Written, of: Callable[[WritingFindings], Sequence[float]]) -> float:
    """Mean over responses, then over seeds."""
    return statistics.fmean(statistics.fmean(of(w)) for w in one.seeds)


def _both(values: list[float | None]) -> Entry:
    after, before = values
    if after is None:
        return Entry(show.ABSENT, faint=True)
    return Entry(f"{after:.2f}", "" if before is None else f"{before:.2f}", after)


def _samples(one: Written) -> Table | None:
    """Texts of the first seed, before and after."""
    texts = one.seeds[0].texts
    if not texts:
        return None
    columns = [Column("", "", False), Column("before", "", False), Column("after", "", False)]
    rows = [
        [Entry(str(i + 1), sort=i), *(Entry(WITHHELD, faint=True) if t is None else Entry(t or "(nothing)") for t in (
            text.before, text.after))]
        for i, text in enumerate(texts)
    ]  # fmt: skip
    note = "The first responses drawn, not chosen. Written by the model; they may be wrong or unkind."
    return Table(f"{one.strategy}: what it writes", columns, rows, [note])


def _share(value: float) -> str:
    return f"{100 * value:.0f}%"
