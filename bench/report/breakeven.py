"""Training cost + k x cost of an answer: from how many answers on is a tuned model cheaper than prompting?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from bench.records import Phase, Result
from bench.report import format as show
from bench.report.collect import CellView
from bench.report.curve import PROMPTING
from bench.report.format import finite
from bench.report.scores import TaskScore, task_score
from bench.report.summary import differing
from bench.report.tables import Column, Entry, Table, scored

PREPARING = ("tune", "adapt")
"""Phases a model costs before its first answer: trials of configurations, and adapting."""
APART = 1.25
"""Factor by which the seconds of an answer must differ: equal work on one machine has been seen to vary that much."""
SAME_WORK = 1.05
"""FLOPs of an answer within this factor are the same work; where its seconds differ, it was the machine."""
MOST_SENTENCES = 2
"""Prompting strategies that are spoken of."""
MOST_REFERENCES = 4
"""Prompting strategies that tuned ones are held against in the table, best scores first."""
ROUNDING = 1e-9
"""Relative difference of looked-up FLOPs that is rounding."""
Kind = Literal["from", "up to", "never", "not told apart"]


@dataclass(frozen=True)
class Cost:
    """What a strategy costs before its first answer and for each one, in FLOPs or seconds; ends over seeds."""

    training: float
    answer: float
    low: float
    """Cost of an answer under the cheapest seed."""
    high: float

    def total(self, answers: float) -> float:
        """Training and so many answers."""
        return self.training + answers * self.answer


@dataclass(frozen=True)
class Crossing:
    """Where the lines of a tuned and a prompted strategy cross: tuned is cheaper `from` `at` answers on, `up to` it,
    `never`; or times that lie too near."""

    kind: Kind
    at: float = math.nan

    @property
    def words(self) -> str:
        """As a table says it."""
        if self.kind == "from":
            return "the first answer" if self.at <= 1 else f"{answers(self.at)} answers"
        return f"only up to {answers(self.at)} answers" if self.kind == "up to" else self.kind


@dataclass(frozen=True)
class Setting:
    """One strategy under one budget on one task."""

    name: str
    strategy: str
    prompting: bool
    control: bool
    score: TaskScore
    flops: Cost | None
    seconds: Cost | None


@dataclass(frozen=True)
class BreakEven:
    """All settings of one model on one task: prompted ones to hold tuned ones against, best scores first."""

    model: str
    task: str
    metric: str
    settings: list[Setting]
    references: list[Setting]
    sentences: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Of which task and model."""
        return f"Cost against the number of answers: {self.task}, {self.model}"

    @property
    def tuned(self) -> list[Setting]:
        """What is not prompting, best scores first."""
        return sorted((s for s in self.settings if not s.prompting), key=_value, reverse=True)

    @property
    def best(self) -> list[Setting]:
        """Of every tuned strategy the best-scoring setting."""
        return best_of(self.tuned)


def break_evens(cells: Iterable[CellView]) -> list[BreakEven]:
    """A view for every model and task that has costs of prompting and of another kind."""
    groups: dict[tuple[str, str], list[CellView]] = {}
    for cell in cells:
        groups.setdefault((cell.info.model, cell.info.task), []).append(cell)
    found = (_view(model, task, members) for (model, task), members in groups.items())
    return [view for view in found if view is not None]


def _view(model: str, task: str, cells: list[CellView]) -> BreakEven | None:
    settings = [s for s in _settings(cells) if s.flops is not None or s.seconds is not None]
    prompted = sorted((s for s in settings if s.prompting and not s.control), key=_value, reverse=True)
    references = best_of(prompted)[:MOST_REFERENCES]
    view = BreakEven(model, task, cells[0].info.metric, settings, references)
    if not references or not view.tuned:
        return None
    view.sentences.extend(sentences(view))
    return view


def best_of(ordered: list[Setting]) -> list[Setting]:
    """The first setting of every strategy: of one under several budgets the best-scoring one."""
    first = {one.strategy: one for one in reversed(ordered)}
    return [one for one in ordered if first[one.strategy] is one]


def _settings(cells: list[CellView]) -> list[Setting]:
    """Strategies under each of their budgets, in the plan's order."""
    told_apart = differing([cell.info.budget for cell in cells])
    groups: dict[tuple[str, str | None], list[CellView]] = {}
    for cell in cells:
        groups.setdefault((cell.info.strategy, told_apart(cell.info.budget)), []).append(cell)
    found = []
    for (strategy, under), members in groups.items():
        info = members[0].info
        results = [cell.result for cell in members if cell.status == "ok" and cell.result is not None]
        control = info.options.get("demonstration_labels") == "random"
        name = strategy if under is None else f"{strategy} ({under})"
        costs = flops_of(results), seconds_of(results)
        found.append(Setting(name, strategy, info.family == PROMPTING, control, task_score(members), *costs))
    return found


def flops_of(results: list[Result]) -> Cost | None:
    """Median FLOPs over seeds, repeated forward passes included; None where one was not measured."""
    return _cost(results, _work)


def seconds_of(results: list[Result]) -> Cost | None:
    """Median wall time of the phases over seeds."""
    return _cost(results, lambda phase: finite(phase.seconds))


def _work(phase: Phase) -> float | None:
    """FLOPs of a phase: none where it took no step, as when nothing trains."""
    flops = finite(phase.flops)
    if flops is None:
        return None if phase.steps else 0.0
    return flops + (finite(phase.recomputed_flops) or 0.0)


def _cost(results: list[Result], of: Callable[[Phase], float | None]) -> Cost | None:
    """Medians over results; None where a seed lacks a figure or answered nothing. Steps that cost 0 ran no model (a
    bag of words)."""
    training: list[float] = []
    answer: list[float] = []
    for result in results:
        phases, items = result.phases, result.data.test_rows
        before = [of(phases[name]) for name in PREPARING if name in phases]
        predict = phases.get("predict", Phase(seconds=0.0))
        known = of(predict)
        if known is None or not (known or predict.steps) or not items or not before or None in before:
            return None
        training.append(sum(cost for cost in before if cost is not None))
        answer.append(known / items)
    if not answer:
        return None
    return Cost(statistics.median(training), statistics.median(answer), min(answer), max(answer))


def by_flops(one: Setting, reference: Setting) -> Crossing | None:
    """The crossing in FLOPs; None where they were not measured."""
    return None if one.flops is None or reference.flops is None else crossing(one.flops, reference.flops)


def by_seconds(one: Setting, reference: Setting) -> Crossing | None:
    """The crossing in seconds, where those of an answer differ by more than the machine's own unrest."""
    mine, other = one.seconds, reference.seconds
    if mine is None or other is None:
        return None
    work = [cost.answer for cost in (one.flops, reference.flops) if cost is not None]
    same = len(work) == 2 and max(work) < SAME_WORK * min(work)
    if same or not (mine.high * APART < other.low or other.high * APART < mine.low):
        return Crossing("not told apart")
    return crossing(mine, other)


def crossing(tuned: Cost, prompted: Cost) -> Crossing:
    """From how many answers k on training + k x answer of the tuned strategy is below the prompted one's."""
    saved, ahead = prompted.answer - tuned.answer, tuned.training - prompted.training
    if abs(saved) <= ROUNDING * prompted.answer:
        return Crossing("from", 1) if ahead < 0 else Crossing("never")
    if saved > 0:
        return Crossing("from", max(1, math.floor(ahead / saved) + 1))
    last = math.ceil(ahead / saved) - 1
    return Crossing("up to", last) if last >= 1 else Crossing("never")


def sentences(view: BreakEven) -> list[str]:
    """Against the best-scoring prompting strategies, in FLOPs: who pays off when, and who never."""
    counted = [one for one in view.references if one.flops is not None][:MOST_SENTENCES]
    return [_against(view, one) for one in counted] or ["FLOPs were not measured: only seconds can be compared."]


def _against(view: BreakEven, reference: Setting) -> str:
    pays, never, unknown = [], [], []
    for one in view.best:
        met = by_flops(one, reference)
        if met is None:
            unknown.append(one.name)
        elif met.kind == "never":
            never.append(one.name)
        else:
            pays.append(f"{one.name} {met.words}" if met.kind == "up to" else f"{one.name} from {met.words} on")
    chance = "" if reference.score.beats_chance else ", not above chance"
    name = f"{reference.name} ({view.metric} {show.score(reference.score.value)}{chance})"
    left = [f"FLOPs of {show.listed(unknown)} were not measured"] if unknown else []
    if left and not pays and not never:
        return f"Not compared in FLOPs with {name}: {left[0]}."
    if not pays and not left:
        return f"Counted in FLOPs, no tuning is ever cheaper than {name}: its answers cost as much or more."
    no = [f"never {show.listed(never)}, whose answers cost as much or more"] if never else []
    return f"Counted in FLOPs, cheaper than {name}: {'; '.join([*filter(None, [show.listed(pays)]), *no, *left])}."


def break_even_table(view: BreakEven) -> Table:
    """Settings down; costs, and the crossing with each prompted reference, across."""
    columns = [
        Column("strategy", "", False),
        Column(view.metric, "95% interval"),
        Column("training", "FLOPs; seconds"),
        Column("an answer", "FLOPs; seconds"),
        *[Column(f"cheaper than {one.name} from", "by FLOPs; by seconds") for one in view.references],
    ]
    ordered = [*view.references, *[s for s in view.settings if s.prompting and s not in view.references], *view.tuned]
    rows = [
        [
            Entry(one.name, "prompting" if one.prompting else "", one.name),
            scored(one.score),
            _amount(one, "training"),
            _amount(one, "answer"),
            *[_met(one, reference) for reference in view.references],
        ]
        for one in ordered
    ]
    notes = [
        "An answer costs what scoring a test item cost, in batches; prompting with demonstrations reads them once a "
        "batch or run where the model can. Over several seeds these are medians.",
        f"Seconds of an answer that differ by less than a factor of {APART:g}, or for the same work (FLOPs within "
        f"{SAME_WORK - 1:.0%}), are not told apart. Cheaper is not better: the score stands beside.",
    ]
    return Table("Cost of training and of an answer, and where tuning becomes cheaper", columns, rows, notes)


def _met(one: Setting, reference: Setting) -> Entry:
    if one.prompting:
        return Entry("–", faint=True)
    flops, seconds = by_flops(one, reference), by_seconds(one, reference)
    at = flops.at if flops is not None and flops.kind == "from" else None
    texts = [show.ABSENT if met is None else met.words for met in (flops, seconds)]
    return Entry(texts[0], texts[1], at, faint=flops is None or flops.kind == "never")


def _amount(one: Setting, name: Literal["training", "answer"]) -> Entry:
    flops, seconds = (None if cost is None else float(getattr(cost, name)) for cost in (one.flops, one.seconds))
    return Entry(show.large(flops), _short(seconds), flops, faint=flops is None)


def _short(seconds: float | None) -> str:
    """Seconds, and below a second milliseconds: an answer takes hardly ever longer."""
    if seconds is None or seconds >= 1:
        return show.seconds(seconds)
    return f"{seconds * 1000:.3g} ms"


def answers(number: float) -> str:
    """A number of answers, whole and with thousands apart; beyond ten million with a prefix."""
    return f"{number:,.0f}" if number < 1e7 else show.large(number)


def _value(setting: Setting) -> float:
    """What settings are ordered by: the score, none last."""
    value = setting.score.value
    return -math.inf if value is None else value
