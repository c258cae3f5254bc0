"""What other prompt formats do to the scores of a task: a table, the rows of its figure, and sentences."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from bench.probed import FormatFindings, ProbeRecord
from bench.report import format as show
from bench.report.collect import CellView
from bench.report.formats_chart import Dot, FormatRow
from bench.report.tables import Column, Entry, Table
from bench.stats.spread import (
    Key,
    Spread,
    by_key,
    degenerate,
    key_of,
    own_demonstrations,
    reversals,
    spread,
    summary,
)

MOST_PAIRS = 3
"""Pairs of strategies whose reversals are told."""


@dataclass(frozen=True)
class FormatsView:
    """One task in other formats."""

    title: str
    chance: float
    rows: list[FormatRow]
    table: Table
    sentences: list[str]
    medians: dict[str, float]
    """Strategy -> the median over all formats."""

    def caution(self, pick: str) -> str | None:
        """That strategies which are recommended less have a higher median than the `pick`; None where none has."""
        own = self.medians.get(pick)
        if own is None:
            return None
        above = sorted(((median, name) for name, median in self.medians.items() if median > own), reverse=True)
        others = show.listed([f"{name} ({show.score(median)})" for median, name in above])
        return f"{show.score(own)}, below {others}" if above else None


@dataclass(frozen=True)
class Asked:
    """One strategy, its seeds together: a format's score is the mean over them."""

    strategy: str
    found: list[FormatFindings]
    plain: dict[Key, float]
    calibrated: dict[Key, float]
    own: Key
    """The task's own format."""
    trained: set[Key]
    degenerate: set[Key]
    """Formats that make some seed give every item one label."""
    others: int = 0
    """Further cells, whose own format is another one (tuning chose another template): no mean is over both."""

    @property
    def every(self) -> Spread:
        """Scores over all formats."""
        every = spread(list(self.plain.values()))
        assert every is not None  # nobody is asked in no format
        return every

    def over(self, keys: Iterable[Key]) -> Spread | None:
        """Scores over these formats, as far as all seeds answered them; None of none."""
        return spread([self.plain[key] for key in keys if key in self.plain])

    @property
    def never(self) -> list[Key]:
        """Formats it was not trained on."""
        return [key for key in self.plain if key not in self.trained]

    @property
    def draws(self) -> float | None:
        """Median over seeds of how far draws of demonstrations lie apart in one format."""
        known = [s.draws for f in self.found if (s := summary(f)) is not None and s.draws is not None]
        return statistics.median(known) if known else None


def formats_view(task: str, metric: str, by_strategy: dict[str, list[CellView]]) -> FormatsView | None:
    """What the cells of a task said in other formats; None where none was asked."""
    records = {name: _records(cells) for name, cells in by_strategy.items()}
    # where a command that asks otherwise was stopped, some cells still have the answers to what was asked before
    counts = Counter(_options(one) for of in records.values() for one in of)
    usual = {options for options, _ in counts.most_common(1)}
    asked = [
        one
        for name, of in records.items()
        if (one := _asked(name, [r.formats for r in of if r.formats and _options(r) in usual])) is not None
    ]
    if not asked:
        return None
    left = _left(asked, sum(counts.values()) - max(counts.values()))
    number = max(len(one.plain) for one in asked)
    items = max(len(found.items) for one in asked for found in one.found)
    title = f"{task}: {metric} in {number} prompt formats"
    rows = [_row(one, f"c{1 + i % 7}") for i, one in enumerate(asked)]
    chance = max(found.chance for one in asked for found in one.found)
    medians = {one.strategy: one.every.median for one in asked}
    told = _sentences(asked, number) + left
    return FormatsView(title, chance, rows, _table(task, metric, items, asked), told, medians)


def _records(cells: list[CellView]) -> list[ProbeRecord]:
    return [r for c in cells if (r := c.probes.get("formats")) is not None and r.formats is not None]


def _options(record: ProbeRecord) -> str:
    return json.dumps(record.asked, sort_keys=True)


def _own(findings: FormatFindings) -> Key | None:
    return next((key_of(a) for a in own_demonstrations(findings) if a.number == 0), None)


def _left(asked: list[Asked], before: int) -> list[str]:
    """Which cells are not summed up here, and why."""
    said = [
        f"Left out: {show.count(one.others, 'cell')} of {one.strategy} whose tuning chose another template."
        for one in asked
        if one.others
    ]
    if before:
        said.append(f"Left out: {show.count(before, 'cell')} asked with other options; the same command asks anew.")
    return said


def _asked(strategy: str, every: list[FormatFindings]) -> Asked | None:
    templates = Counter(_own(one) for one in every)
    own = templates.most_common(1)[0][0] if every else None
    found = [one for one in every if _own(one) == own]
    plain = _means([by_key(one, calibrated=one.calibrates) for one in found]) if found else {}
    if own is None or own not in plain:
        return None
    answers = [(answer, one.calibrates) for one in found for answer in own_demonstrations(one)]
    return Asked(
        strategy,
        found,
        plain,
        _means([by_key(one, calibrated=True) for one in found]),
        own,
        {key_of(a) for a, _ in answers if a.trained_on},
        {key_of(a) for a, calibrates in answers if degenerate(a, calibrates)},
        len(every) - len(found),
    )


def _means(tables: list[dict[Key, float]]) -> dict[Key, float]:
    """The mean over seeds of every format that all of them answered."""
    shared = [key for key in tables[0] if all(key in table for table in tables)]
    return {key: statistics.fmean(table[key] for table in tables) for key in shared}


def _row(one: Asked, colour: str) -> FormatRow:
    learns = bool(one.trained)
    dots = [
        Dot(value, trained_on=key in one.trained or not learns, degenerate=key in one.degenerate)
        for key, value in one.plain.items()
    ]
    return FormatRow(one.strategy, colour, dots)


def _table(task: str, metric: str, items: int, asked: list[Asked]) -> Table:
    columns = [
        Column("strategy", "seeds × formats", False),
        Column("median", metric),
        Column("half of the formats", "quartiles"),
        Column("all formats", "lowest to highest"),
        Column("calibrated", "median, lowest to highest"),
        Column("trained on", "median"),
        Column("never trained on", "median"),
        Column("demonstrations", "range over draws"),
        Column("one label for all", "formats"),
    ]
    notes = [
        f"{items} items in every format; a format's score is the mean over seeds. Medians and quartiles lead, because "
        "the range is ruled by the worst format, often one in which every item gets the same label. Calibrated: each "
        "label's probability divided by what the same prompt gives it without content (Zhao et al. 2021)."
    ]
    return Table(f"{task} in other prompt formats", columns, [_entries(one) for one in asked], notes)


def _entries(one: Asked) -> list[Entry]:
    every, calibrated = one.every, spread(list(one.calibrated.values()))
    trained, never = (one.over(keys) if one.trained else None for keys in (sorted(one.trained), one.never))
    return [
        Entry(one.strategy, f"{len(one.found)} × {len(one.plain)}", one.strategy),
        _number(every.median),
        _ends(every.q1, every.q3),
        _ends(every.low, every.high),
        _median(calibrated),
        _number(None if trained is None else trained.median),
        _number(None if never is None else never.median),
        _number(one.draws),
        Entry(f"{len(one.degenerate)} of {len(one.plain)}", sort=len(one.degenerate)),
    ]


def _number(value: float | None) -> Entry:
    return Entry("–" if value is None else show.score(value), sort=value, faint=value is None)


def _ends(low: float, high: float) -> Entry:
    return Entry(f"{show.score(low)}–{show.score(high)}", sort=high - low)


def _median(over: Spread | None) -> Entry:
    """With the range in small print."""
    if over is None:
        return Entry("–", faint=True)
    return Entry(show.score(over.median), f"{show.score(over.low)}–{show.score(over.high)}", over.median)


def _sentences(asked: list[Asked], number: int) -> list[str]:
    """Medians first, then what tuning, calibration and single formats do to them."""
    told = [(one.strategy, one.every) for one in sorted(asked, key=lambda one: -one.every.median)]
    medians = show.listed(
        [f"{name} {show.score(s.median)} ({show.score(s.q1)}–{show.score(s.q3)})" for name, s in told], 12
    )
    found = [f"Asked in {number} formats, the median is (half of the formats in brackets): {medians}."]
    found += [sentence for one in asked if (sentence := _transfer(one))]
    said = (_calibration(asked), _turned(asked, False), _turned(asked, True), _one_label(asked))
    found += [sentence for sentence in said if sentence]
    return found


def _transfer(one: Asked) -> str | None:
    """What a strategy keeps of its score where it is asked otherwise than it was trained, or than the suite asks."""
    known = one.trained or {one.own}
    here, others = one.over(sorted(known)), one.over([key for key in one.plain if key not in known])
    if here is None or others is None:
        return None
    where = "the suite's own format"
    if one.trained:
        where = "the format it was trained on" if here.number == 1 else f"the {here.number} it was trained on"
    return (
        f"{one.strategy} has {show.score(here.median)} in {where} and {show.score(others.median)} in the median of "
        f"{others.number} others."
    )


def _calibration(asked: list[Asked]) -> str | None:
    """Whether calibration narrowed the spread over formats, strategy by strategy."""
    parts = []
    for one in asked:
        before, after = one.over(one.calibrated), spread(list(one.calibrated.values()))
        if before is not None and after is not None:
            widths = [show.score(s.q3 - s.q1) for s in (before, after)]
            medians = [show.score(s.median) for s in (before, after)]
            parts.append(f"{one.strategy} {' → '.join(widths)} (median {' → '.join(medians)})")
    return f"Contextual calibration changed the width of that half: {show.listed(parts, 12)}." if parts else None


def _turned(asked: list[Asked], calibrated: bool) -> str | None:
    """In how many formats the order of two strategies is not that of their median difference."""
    parts = []
    for first, second in combinations(asked, 2):
        both = (first.calibrated, second.calibrated) if calibrated else (first.plain, second.plain)
        turned = reversals(*both)
        if turned is not None and turned.reversed:
            parts.append(
                (turned.reversed, f"{first.strategy} and {second.strategy} in {turned.reversed} of {turned.compared}")
            )
    parts.sort(key=lambda part: -part[0])
    told = [words for _, words in parts[:MOST_PAIRS]]
    after = ", calibrated," if calibrated else ""
    return f"Which format is asked{after} turns the order of {show.listed(told)}." if told else None


def _one_label(asked: list[Asked]) -> str | None:
    """Formats that make a strategy answer one label, whatever the item."""
    parts = [f"{one.strategy} in {len(one.degenerate)}" for one in asked if one.degenerate]
    return f"Every item got one and the same label from {show.listed(parts)} of these formats." if parts else None
