"""The positive control of the contamination checks: which of them sees a leak of known size, and from which dose on."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from bench.probed import Check, ContaminationFindings
from bench.report import format as show
from bench.report.collect import CellView, Run
from bench.report.contaminated import POOL
from bench.report.tables import Column, Entry, Table
from bench.stats.contamination import LEVEL, against_twin
from bench.stats.pairs import holm

STRICT = 0.01
"""The level at which a large dose must be seen."""


@dataclass(frozen=True)
class Split:
    """One random split of the pool: what a cell of one dose gave there."""

    seed: int
    dose: int
    found: ContaminationFindings
    checks: list[Check]
    """The cell's own: those that a clean cell gets too, so what they miss and alarm at is what a user meets."""
    twins: list[Check]
    """Of a planted cell, its drops held against its clean twin's. The twin was trained otherwise in more than the
    leak, and two trainings are brittle in different ways: shown beside the rest, no evidence alone."""

    def p(self, family: str) -> float | None:
        """The smallest p among the checks of a family."""
        return min((c.p for c in self.checks if c.family == family and c.p is not None), default=None)

    def sees(self, family: str) -> bool:
        """Whether a check of the family says `seen`; a test does where it holds after Holm over the cell's checks.

        What the pool holds is no sight: the cell may have drawn none of it.
        """
        tested = [c for c in self.checks if c.p is not None]
        adjusted = dict(zip(map(id, tested), holm([c.p for c in tested if c.p is not None]), strict=True))
        return any(
            c.verdict == "seen" and adjusted.get(id(c), 0.0) <= LEVEL
            for c in self.checks
            if c.family == family and c.name != POOL
        )


@dataclass(frozen=True)
class Control:
    """One strategy on one task, clean and planted."""

    model: str
    task: str
    strategy: str
    readout: str
    budget: str
    """Its budget as JSON: a leaderboard has one."""
    splits: list[Split]

    @property
    def doses(self) -> list[int]:
        """Doses there are, 0 first."""
        return sorted({split.dose for split in self.splits})

    def at(self, dose: int) -> list[Split]:
        """The splits of a dose."""
        return [split for split in self.splits if split.dose == dose]

    @property
    def title(self) -> str:
        """Strategy and task in words."""
        return f"{self.strategy} on {self.task}"


def planted_controls(run: Run) -> list[Control]:
    """A control for every strategy and task that has a planted cell with findings."""
    found: dict[Key, dict[tuple[int, int], ContaminationFindings]] = {}
    for cell in [*run.planted, *run.cells]:
        record = cell.probes.get("contamination")
        if record is None or record.contamination is None:
            continue
        key = _key(cell)
        if cell.info.plant or key in found:
            found.setdefault(key, {})[cell.info.seed, cell.info.plant] = record.contamination
    return [Control(*key, _splits(by)) for key, by in found.items()]


Key = tuple[str, str, str, str, str]


def _key(cell: CellView) -> Key:
    info = cell.info
    return info.model, info.task, info.strategy, info.readout, json.dumps(info.budget, sort_keys=True)


def _splits(by: dict[tuple[int, int], ContaminationFindings]) -> list[Split]:
    splits = []
    for (seed, dose), found in sorted(by.items(), key=lambda item: (item[0][1], item[0][0])):
        clean = by.get((seed, 0))
        twins = against_twin(found, clean) if dose and clean is not None else []
        splits.append(Split(seed, dose, found, found.checks, twins))
    return splits


FAMILIES = ("membership", "overlap", "perturbation")


def control_table(control: Control) -> Table:
    """A row a dose: how many splits each family of checks saw it in, and what the leak did to the score."""
    columns = [
        Column("dose", "times trained on its test items"),
        Column("splits"),
        *(Column(name, "splits that saw it") for name in FAMILIES),
        Column("drop beyond the clean twin's", "splits with one"),
        Column("membership", "p < 0.01"),
        Column("membership p", "median"),
        Column("accuracy", "leaked items"),
        Column("accuracy", "controls"),
    ]
    rows = []
    for dose in control.doses:
        splits = control.at(dose)
        ps = [p for split in splits if (p := split.p("membership")) is not None]
        middle = statistics.median(ps) if ps else None
        rows.append(
            [
                Entry("0 (clean)" if dose == 0 else str(dose), sort=dose),
                Entry(str(len(splits)), sort=len(splits)),
                *(_seen(splits, name) for name in FAMILIES),
                _twins(splits),
                Entry(f"{sum(p < STRICT for p in ps)} of {len(ps)}" if ps else show.ABSENT, sort=len(ps) or None),
                Entry(show.ABSENT if middle is None else show.p_value(middle), sort=middle),
                _mean([split.found.test_accuracy for split in splits]),
                _mean([split.found.control_accuracy for split in splits]),
            ]
        )
    return Table(f"A planted leak: {control.title}", columns, rows, notes(control))


def _seen(splits: list[Split], family: str) -> Entry:
    asked = [split for split in splits if any(c.family == family for c in split.checks)]
    seen = sum(split.sees(family) for split in asked)
    return Entry(f"{seen} of {len(asked)}" if asked else show.ABSENT, sort=seen if asked else None, faint=not asked)


def _twins(splits: list[Split]) -> Entry:
    known = [split for split in splits if split.twins]
    seen = sum(any(c.verdict == "seen" for c in split.twins) for split in known)
    return Entry(f"{seen} of {len(known)}" if known else "–", sort=seen if known else None, faint=not known)


def _mean(values: list[float | None]) -> Entry:
    known = [value for value in values if value is not None]
    mean = statistics.fmean(known) if known else None
    return Entry(show.score(mean), sort=mean, faint=mean is None)


def notes(control: Control) -> list[str]:
    """Under the table: what the numbers mean."""
    return [
        "Each split draws its test items and controls from one pool at random. A planted cell was trained on its test "
        "items before its normal training, outside the budget; the clean cell (dose 0) was not. A check sees a leak "
        "where its p holds at 0.05 after Holm over the cell's checks; overlap is no test, it finds texts or does not. "
        "The clean twin was trained otherwise in more than the leak: a drop beyond its own is a hint, no evidence.",
    ]


def sentences(control: Control) -> list[str]:
    """What the control says, in words: which checks saw the leak, from which dose on, and false alarms."""
    said = [_family(control, name, [dose for dose in control.doses if dose]) for name in FAMILIES]
    tests = ("membership", "perturbation")
    # overlap is no test: what it finds in a clean cell is there
    tested = [split for split in control.at(0) if any(c.family in tests for c in split.checks)]
    alarms = sum(split.sees(name) for split in tested for name in tests)
    clean = len(tested)
    if clean:
        told = f"{show.count(alarms, 'false alarm')} in {show.count(clean, 'clean cell')}"
        said.append(
            f"{told[0].upper()}{told[1:]}." if alarms else f"No false alarm in {show.count(clean, 'clean cell')}."
        )
    return [sentence for sentence in said if sentence]


def _family(control: Control, family: str, doses: Iterable[int]) -> str:
    def share(dose: int) -> float:
        asked = [s for s in control.at(dose) if any(c.family == family for c in s.checks)]
        return sum(s.sees(family) for s in asked) / len(asked) if asked else -1.0

    known = [dose for dose in doses if share(dose) >= 0]
    if not known:
        return ""
    name = f"{family[0].upper()}{family[1:]}"
    first = next((dose for dose in known if all(share(d) >= 0.8 for d in known if d >= dose)), None)
    if first is not None:
        seen = _counted(control, family, [dose for dose in known if dose >= first])
        return f"{name} sees the leak from dose {first} on ({seen})."
    seen = _counted(control, family, known)
    return f"{name} does not see it reliably at any dose ({seen}): its silence about a clean cell says nothing."


def _counted(control: Control, family: str, doses: Iterable[int]) -> str:
    """`dose 1: 0 of 5, dose 8: 3 of 5`."""
    seen = {dose: [split.sees(family) for split in control.at(dose)] for dose in doses}
    return ", ".join(f"dose {dose}: {sum(of)} of {len(of)}" for dose, of in seen.items())
