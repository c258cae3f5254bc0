"""What is shown while cells run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict

from rich.console import Console
from rich.live import Live
from rich.table import Table

from bench.earlier import like
from bench.job import Job
from bench.probed import ProbeRecord
from bench.records import Result, Status
from bench.report.format import plain

STYLES = {Status.ok: "green", Status.unsupported: "yellow", Status.diverged: "yellow", Status.error: "red"}


def clock(seconds: float | None) -> str:
    """`3:07` or `1:02:07`; `?` for None."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def answer(record: ProbeRecord) -> str:
    """A probe's end in a few words."""
    if record.formats is not None:
        values = sorted(one.scores[record.formats.metric] for one in record.formats.answers)
        middle = statistics.median(values)
        return f"{record.formats.metric} {middle:.3f} in the median of {len(values)} ({values[0]:.3f}–{values[-1]:.3f})"
    if record.contamination is not None:
        seen = [check.name for check in record.contamination.checks if check.verdict == "seen"]
        # a check without power acquits nobody, so silence is told by its kinds
        kinds = Counter(check.verdict for check in record.contamination.checks)
        silent = ", ".join(
            f"{kinds[kind]} {kind}" for kind in ("not seen", "no power", "not applicable") if kinds[kind]
        )
        return f"a leak is seen by {', '.join(seen)}" if seen else f"no leak seen ({silent})"
    if record.retention is not None:
        changes = [f"{one.task} {one.change:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" for one in record.retention.tasks]
        return f"accuracy on {', '.join(changes)}"
    if (found := record.writing) is not None:
        return f"reward {found.gain:+.2f} SD, wins {statistics.fmean(found.wins):.2f} against {found.against}"
    return plain(f"{record.outcome.status}: {record.outcome.reason}")


def verdict(result: Result | ProbeRecord) -> str:
    """A cell's end in a few words: its score with interval, or what happened."""
    if isinstance(result, ProbeRecord):
        return answer(result)
    if result.outcome.status != Status.ok or not result.scores:
        return plain(f"{result.outcome.status}: {result.outcome.reason}")
    score = result.scores[result.cell.metric]
    spread = f" [{score.low:.3f}, {score.high:.3f}]" if score.low is not None and score.high is not None else ""
    return f"{result.cell.metric} {score.value:.3f}{spread}"


def several(jobs: list[Job]) -> tuple[bool, bool]:
    """Whether a run has several models, and several label counts."""
    return len({job.cell.model for job in jobs}) > 1, len({job.cell.budget.get("labels") for job in jobs}) > 1


def name_of(job: Job, with_model: bool, with_labels: bool = False) -> str:
    """Task, strategy and seed; the model in front and the labels behind where a run has several."""
    model = f"{job.cell.model} " if with_model else ""
    labels = f" n{job.cell.budget.get('labels')}" if with_labels else ""
    dose = f" planted {job.cell.plant}x" if job.cell.plant else ""
    probe = f" {job.probe}" if job.probe else ""
    return f"{model}{job.cell.task} {job.cell.strategy} s{job.cell.seed}{labels}{dose}{probe}"


def key(job: Job) -> tuple[str, str | None]:
    """What tells the orders of a run apart."""
    return job.cell.id, job.probe


def kind(job: Job) -> str:
    """Orders of one kind are expected to take about as long."""
    return f"{job.cell.strategy} {job.cell.plant} {job.probe}"


SHARED = ("plant", "adapt", "tune", "default", "probe")
"""Phases that tell how far they are."""


class Clock:
    """How long the rest will take: earlier cells of the same kind first, then this run's mean."""

    def __init__(self, jobs: list[Job], earlier: dict[tuple[str, ...], float], slots: int = 1) -> None:
        self.waiting, self.earlier, self.slots = list(jobs), dict(earlier), slots
        self.by_strategy: dict[str, list[float]] = defaultdict(list)
        self.seconds: list[float] = []
        self.begun: dict[tuple[str, str | None], float] = {}

    def begin(self, job: Job) -> None:
        """A cell starts, maybe for the second time."""
        self.begun[key(job)] = time.monotonic()

    def since(self, job: Job) -> float:
        """Seconds a cell has been running."""
        now = time.monotonic()
        return now - self.begun.get(key(job), now)

    def end(self, job: Job) -> float:
        """A cell ended; its seconds."""
        seconds = self.since(job)
        self.waiting = [j for j in self.waiting if key(j) != key(job)]
        self.by_strategy[kind(job)].append(seconds)
        self.seconds.append(seconds)
        return seconds

    def left(self) -> float | None:
        """Seconds left, as many cells at a time as there are slots; None while nothing is known."""
        total = 0.0
        for job in self.waiting:
            known = self.by_strategy.get(kind(job))
            expected = statistics.mean(known) if known else self.earlier.get(like(job.cell))
            if expected is None and not self.seconds:
                return None
            total += expected if expected is not None else statistics.mean(self.seconds)
        return total / max(1, min(self.slots, len(self.waiting)))


class Plain:
    """A line when a cell ends."""

    def __init__(
        self, console: Console, jobs: list[Job], earlier: dict[tuple[str, ...], float], slots: int = 1
    ) -> None:
        self.console, self.total, self.clock = console, len(jobs), Clock(jobs, earlier, slots)
        self.done, self.several = 0, several(jobs)

    def __enter__(self) -> Plain:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def begin(self, job: Job) -> None:
        self.clock.begin(job)

    def progress(self, job: Job, phase: str, share: float) -> None:
        pass

    def end(self, job: Job, result: Result | ProbeRecord) -> None:
        seconds = self.clock.end(job)
        self.done += 1
        left = f", {clock(self.clock.left())} left" if self.done < self.total else ""
        line = f"[{self.done}/{self.total}] {name_of(job, *self.several)}: {verdict(result)} ({clock(seconds)}{left})"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


class Table_:
    """The live table: the last finished cells, those that run with their progress, the next ones, time left."""

    def __init__(
        self, console: Console, jobs: list[Job], earlier: dict[tuple[str, ...], float], slots: int = 1
    ) -> None:
        self.jobs, self.clock = jobs, Clock(jobs, earlier, slots)
        self.results: dict[tuple[str, str | None], tuple[Result | ProbeRecord, float]] = {}
        self.running: dict[tuple[str, str | None], tuple[str, float]] = {}
        """Phase and share of it by order."""
        self.live = Live(console=console, refresh_per_second=4, get_renderable=self.table)

    def __enter__(self) -> Table_:
        self.live.__enter__()
        return self

    def __exit__(self, *arguments: object) -> None:
        self.running.clear()
        self.live.__exit__(*arguments)  # type: ignore[arg-type]

    def begin(self, job: Job) -> None:
        self.clock.begin(job)
        self.running[key(job)] = ("load", 0.0)

    def progress(self, job: Job, phase: str, share: float) -> None:
        self.running[key(job)] = (phase, share)

    def end(self, job: Job, result: Result | ProbeRecord) -> None:
        self.results[key(job)] = (result, self.clock.end(job))
        self.running.pop(key(job), None)

    def shown(self) -> list[Job]:
        """The last finished cells and the next ones, as many as fit a screen, below earlier ones that still run."""
        first = max(0, min(len(self.results) - 12, len(self.jobs) - 18))
        return [job for job in self.jobs[:first] if key(job) in self.running] + self.jobs[first : first + 18]

    def table(self) -> Table:
        title = f"{len(self.results)} of {len(self.jobs)} cells, {clock(self.clock.left())} left"
        table = Table(title=title, title_justify="left", expand=False)
        for heading in ("model", "task", "strategy", "labels", "seed", "outcome", "time"):
            table.add_column(heading, overflow="fold")
        for job in self.shown():
            cell = job.cell
            state, style, took = "waiting", "dim", ""
            if key(job) in self.results:
                result, seconds = self.results[key(job)]
                state, style, took = verdict(result), STYLES.get(result.outcome.status, "red"), clock(seconds)
            elif key(job) in self.running:
                phase, share = self.running[key(job)]
                state, style = (
                    f"{phase} {share:.0%}" if phase in ("plant", "adapt", "tune", "default", "probe") else phase,
                    "bold",
                )
                took = clock(self.clock.since(job))
            labels = str(cell.budget.get("labels"))
            name = " ".join(filter(None, [cell.strategy, f"planted {cell.plant}x" if cell.plant else None, job.probe]))
            table.add_row(cell.model, cell.task, name, labels, str(cell.seed), state, took, style=style)
        return table


def make(console: Console, jobs: list[Job], earlier: dict[tuple[str, ...], float], slots: int = 1) -> Plain | Table_:
    """The live table on a terminal, lines elsewhere; `slots` orders run at a time."""
    return (Table_ if console.is_terminal else Plain)(console, jobs, earlier, slots)
