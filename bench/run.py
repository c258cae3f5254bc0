"""One run from request to rendered report: plan, fetch, run or resume every cell, render."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench import live, plan
from bench.config import Request
from bench.earlier import answered, earlier_seconds, finished, untried_first
from bench.errors import UserFault
from bench.identity import code_digest
from bench.job import Job, probing
from bench.launch import Launcher
from bench.locked import held, unwritable
from bench.measure.environment import machine
from bench.models.cache import ensure
from bench.outlook import foretold
from bench.plan import Planned
from bench.probed import ProbeRecord
from bench.records import PlanFile, Result, Status
from bench.refusals import unasked
from bench.report import Rendered
from bench.report import render as render_pages
from bench.room import set_aside
from bench.stopping import LEFT, Stop
from bench.store import is_newer, newer_records, probe_file, read_plan, read_probe, read_result, write_record
from bench.trackers import Hooks

if TYPE_CHECKING:
    from bench.cluster.crew import Crew

Say = Callable[[str], None]


def execute(request: Request, console: Console, stop: Stop | None = None) -> list[Result]:
    """Run a request; the records of its cells in order, without those that `stop` left (by default the rule of
    `run.max_hours`). Raises `UserFault`, `KeyboardInterrupt`."""
    stop = stop or Stop(request.settings.run.max_hours)
    can_be_executed(request)

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    hooks = Hooks(list(request.settings.trackers), request.run_name, say)
    planned = plan.make(request)
    if planned.source == "sample":
        say(SAMPLE_WARNING)
    for line in unasked(request.suite):
        say(line)
    pages_fit(Path(request.settings.reports_dir))
    run_dir = Path(request.settings.results_dir) / request.run_name
    local = request.settings.executor == "local"  # nodes of a cluster share no folder
    with (
        held(run_dir),
        shared(run_dir, request.settings.features and local) as features,
        executed(request, run_dir, say) as launcher,
    ):
        refuse_newer(planned, run_dir)
        write_plan(request, planned, run_dir)
        todo = unfinished(request, planned, say)
        say(f"{request.run_name}: {len(planned.jobs)} cells, {len(planned.jobs) - len(todo)} already have an outcome")
        if todo:
            for ref in planned.models.values():
                ensure(ref, say)
            orders = [sharing(job, features) for job in foretold(request, planned, todo, say)]
            run_all(request, orders, launcher, console, stop, hooks.tell)
        if not stop.cells:
            probe_all(request, planned, launcher, console, stop, features)
        results = [read_result(path) for job in planned.jobs if (path := Path(job.folder) / "result.json").is_file()]
    pages = render(request)
    say(pages.headline)
    say(f"report: {pages.html} and {pages.markdown}")
    if stop.stopped:
        say(stop.line(len(planned.jobs)))
    return results


SAMPLE_WARNING = (
    "data: the bundled sample, written for this project (no mirror named, no hub reached): "
    "its test items, 120 a task at most, cannot separate tuned methods"
)


def pages_fit(folder: Path) -> None:
    """Refuse a folder that cannot take the pages now, not after the last cell; makes nothing."""
    above = next(place for place in (folder, *folder.parents) if place.exists())
    if not above.is_dir():
        raise unwritable("reports_dir", folder, f"{above} is not a folder")
    if not os.access(above, os.W_OK):
        raise unwritable("reports_dir", folder, "Permission denied")


@contextmanager
def shared(run_dir: Path, wanted: bool) -> Iterator[Path | None]:
    """A folder for what cells of this one command share; gone with it, so that a later run measures anew."""
    folder = run_dir / ".features"
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    try:
        yield folder.resolve() if wanted else None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sharing(job: Job, features: Path | None) -> Job:
    """The order, to read by frozen models only what no other cell of the run has read."""
    return job if features is None else job.model_copy(update={"features": str(features)})


def refuse_newer(planned: Planned, run_dir: Path) -> None:
    """Refuse to write where a newer version wrote: its records would be lost. Raises `UserFault`."""
    plan_file = run_dir / "plan.json"
    found = [plan_file] if is_newer(plan_file) else []
    found += [path for job in planned.jobs for path in newer_records(Path(job.folder))]
    if found:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise UserFault(
            f"{found[0]}{more}: written by a newer version, which this one would overwrite; update adaptbench, or use "
            "run.name= for another folder"
        )


def write_plan(request: Request, planned: Planned, run_dir: Path) -> None:
    """`plan.json`: the cells asked for now."""
    record = PlanFile(
        run=request.run_name,
        suite=request.suite.name,
        description=request.suite.description,
        source=planned.source,
        cells=[job.cell for job in planned.jobs],
        code_digest=code_digest(),
        claims=request.suite.claims,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    try:
        write_record(run_dir / "plan.json", record)
    except OSError as error:
        raise unwritable("results_dir", run_dir, error.strerror) from None


def unfinished(request: Request, planned: Planned, say: Say) -> list[Job]:
    """Cells without a record that stands, in the order they begin in; damaged records are named and set aside."""
    todo = []
    for job in planned.jobs:
        done, damage = finished(job, request.settings, code_digest())
        if damage is not None:
            aside = set_aside(Path(job.folder))
            say(f"damaged record set aside as {aside.name}, its cell runs again: {damage}")
        if not done:
            todo.append(job)
    return in_turn(request, todo)


def in_turn(request: Request, orders: list[Job]) -> list[Job]:
    """In the plan's order, so that tables fill from the top; under `run.max_hours` what was never tried comes first."""
    return orders if request.settings.run.max_hours is None else untried_first(orders)


def can_be_executed(request: Request) -> None:
    """Refuse an executor that is not installed. Raises `UserFault`."""
    if request.settings.executor == "ray":
        from bench.cluster.connect import check

        check()


@contextmanager
def launched(request: Request, run_dir: Path) -> Iterator[Launcher]:
    """One launcher for cells and probes: its warm process has imported the stack once."""
    launcher = Launcher(run_dir, request.settings.run.cell_seconds)
    try:
        yield launcher
    finally:
        launcher.stop()


@contextmanager
def executed(request: Request, run_dir: Path, say: Say) -> Iterator[Launcher | Crew]:
    """Who carries out cells and probes: the launcher of this machine, or a cluster."""
    if request.settings.executor == "local":
        with launched(request, run_dir) as launcher:
            yield launcher
        return
    from bench.cluster.crew import Crew

    crew = Crew(run_dir, request.settings, say)
    try:
        yield crew
    finally:
        crew.stop()


def run_all(
    request: Request,
    todo: list[Job],
    launcher: Launcher | Crew,
    console: Console,
    stop: Stop | None = None,
    tell: Callable[[Result], None] = lambda result: None,
) -> None:
    """Run the cells in order until `stop` says so.

    `tell` (trackers) hears of every record as soon as it is on disk: here between two cells, while nothing is being
    measured, on a cluster beside the cells at work, of which the process of the command measures none. The report is
    rendered whenever a task is complete, on a cluster when all cells have ended."""
    stop = stop or Stop(None)
    where = machine()["id"] if request.settings.executor == "local" else None
    earlier = earlier_seconds(Path(request.settings.results_dir), where)
    if not isinstance(launcher, Launcher):
        stop.cells = launcher.carry_out(todo, lambda jobs, slots: live.make(console, jobs, earlier, slots), stop, tell)
        return
    with live.make(console, todo, earlier) as launcher.show:
        for i, job in enumerate(todo):
            if not stop.begins():
                stop.cells = len(todo) - i
                break
            tell(launcher.run(job))
            if i + 1 < len(todo) and todo[i + 1].cell.task != job.cell.task:
                if job.features is not None:
                    shutil.rmtree(job.features, ignore_errors=True)  # another task has other texts
                render(request)


def probe_all(
    request: Request, planned: Planned, launcher: Launcher | Crew, console: Console, stop: Stop, features: Path | None
) -> None:
    """Ask every finished cell what was asked for and has no answer yet, each on what it has stored, until `stop` says
    so."""
    orders = [
        sharing(order, features)
        for job in planned.jobs
        if (asked := probing(job)) and read_result(Path(job.folder) / "result.json").outcome.status == Status.ok
        for order in asked
        if not answered(order, request.settings, code_digest())
    ]
    if not orders:
        return
    orders = in_turn(request, orders)
    for ref in planned.models.values():
        ensure(ref)  # all cells may be finished long ago, and the cache empty since
    if not isinstance(launcher, Launcher):
        stop.probes = launcher.carry_out(orders, lambda jobs, slots: live.make(console, jobs, {}, slots), stop)
        return
    with live.make(console, orders, {}) as launcher.show:
        for i, order in enumerate(orders):
            if not stop.begins():
                stop.probes = len(orders) - i
                break
            launcher.probe(order)
            if i + 1 < len(orders) and orders[i + 1].cell.task != order.cell.task:
                render(request)


def render(request: Request) -> Rendered:
    """The HTML and Markdown pages of a run."""
    settings = request.settings
    try:
        return render_pages(
            Path(settings.results_dir) / request.run_name, Path(settings.reports_dir), code_digest=code_digest()
        )
    except OSError as error:
        raise unwritable("reports_dir", Path(settings.reports_dir), error.strerror) from None


def probed(request: Request) -> list[ProbeRecord]:
    """The readable records of the probes that were asked for, of the cells last asked for."""
    run_dir, found = Path(request.settings.results_dir) / request.run_name, []
    for cell in read_plan(run_dir / "plan.json").cells:
        for name in request.suite.probes.asked:
            with suppress(ValueError, OSError):
                found.append(read_probe(probe_file(run_dir / cell.id, name)))
    return found


def exit_code(results: Iterable[Result | ProbeRecord], stop: Stop | None = None) -> int:
    """0: every cell and probe has a recorded outcome; 1: some is `error`; 75: `stop` left some, which comes first."""
    if stop is not None and stop.stopped:
        return LEFT
    return int(any(result.outcome.status == Status.error for result in results))
