"""The command line. A user's fault is one line and exit code 2; nothing here imports torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from bench.errors import UserFault

app = typer.Typer(
    name="bench",
    help="Which way of adapting a language model should I use for my task, my labels and my GPU?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
# unknown options become tokens, so that the fault for them is ours: one line, with what is allowed
LOOSE = {"ignore_unknown_options": True}
Tokens = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="suite=NAME, overrides, selections")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]


def out() -> Console:
    """Where results are printed."""
    return Console(file=sys.stdout)


@app.command(context_settings=LOOSE)
def run(tokens: Tokens = None) -> None:
    """Run or resume every cell of a suite and render its report."""
    from bench.config import load
    from bench.run import execute, exit_code, probed
    from bench.stopping import Stop

    request = load(tokens or [])
    stop = Stop(request.settings.run.max_hours)
    results = execute(request, out(), stop)
    raise typer.Exit(exit_code([*results, *probed(request)], stop))


@app.command(context_settings=LOOSE)
def plan(tokens: Tokens = None, as_json: Json = False) -> None:
    """Show the cells of a suite with predicted memory, FLOPs and time, and whether they fit; runs nothing."""
    from bench import outlook
    from bench import plan as planning
    from bench.claims import verdicts
    from bench.config import load
    from bench.planned import cells_table, claims_table

    request = load(tokens or [])
    planned = planning.make(request, on_target=True)
    with out_of_the_way(as_json) as tell:
        known = outlook.outlook(request, planned, tell)
    rows = [outlook.row(job.cell, known[job.cell.id]) for job in planned.jobs]
    claims = outlook.claims(request, planned, known)
    if as_json:
        told = {"claims": [outlook.claim_row(one) for one in claims]} if claims else {}
        print(json.dumps({"source": planned.source, "cells": rows, **told}, indent=1))
        return
    target = f", on {planned.target.name}" if planned.target else ""
    out().print(cells_table(request.run_name, rows, f"data from {planned.source}{target}"))
    for row in rows if planned.target else []:
        print(f"{row['task']} {row['strategy']} s{row['seed']}: {row['reason']}")
    for reason in [] if planned.target else dict.fromkeys(row["reason"] for row in rows if row["reason"]):
        print(reason)
    if claims:
        out().print(claims_table(claims))
        for says, holds in verdicts(claims).items():
            print(f"{says}: {holds}")


@contextmanager
def out_of_the_way(silent: bool) -> Iterator[Callable[[int, int], None]]:
    """A line on standard error that says how many predictions are made; nothing where it is no terminal."""
    console = Console(file=sys.stderr)
    if silent or not console.is_terminal:
        yield lambda done, of: None
        return
    with console.status("predicting") as status:
        yield lambda done, of: status.update(f"predicting memory: {done} of {of} cells")


@app.command(context_settings=LOOSE)
def report(tokens: Tokens = None) -> None:
    """Render the pages of a run again from its stored records."""
    from bench.config import load
    from bench.run import render

    pages = render(load(tokens or []))
    print(pages.headline)
    print(f"report: {pages.html} and {pages.markdown}")


@app.command("list")
def list_(
    kind: Annotated[str, typer.Argument(metavar="strategies|suites|models|gpus")],
    as_json: Json = False,
) -> None:
    """List strategies, suites, models or cards."""
    from bench.listing import SHOWN, rows

    found = rows(kind)
    if as_json:
        print(json.dumps(found, indent=1, default=str))
        return
    table = Table()
    for heading in SHOWN[kind]:
        table.add_column(heading, overflow="fold")
    for row in found:
        table.add_row(*(cell_text(row.get(heading)) for heading in SHOWN[kind]))
    out().print(table if found else f"no {kind} here")


def cell_text(value: Any) -> str:
    """A value in a printed table."""
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine can do, which sources are within reach, what is unsupported here and why."""
    from bench.doctor import examine

    found = examine()
    if as_json:
        print(json.dumps(found, indent=1))
        return
    machine = found["machine"]
    gpu = machine["gpu"]["name"] if machine["gpu"] else "no card"
    print(f"machine   {machine['cpu']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.1f} GiB, {gpu}")
    print("versions  " + ", ".join(f"{k} {v or 'missing'}" for k, v in found["versions"].items()))
    print(f"cache     {found['cache']['folder']}; ready: {', '.join(found['cache']['ready']) or 'none'}")
    print("sources   " + ", ".join(f"{k}: {v or 'no'}" for k, v in found["sources"].items()))
    for entry in found["unsupported"]:
        print(f"not here  {entry['what']}: {entry['why']}")


@app.command(context_settings=LOOSE)
def selftest(tokens: Tokens = None, as_json: Json = False) -> None:
    """Measure the harness itself: coverage of its intervals, false claims, an engine that repeats itself."""
    from bench.selftest.run import gather, options, verdict

    asked = options(tokens or [])
    with working(as_json, "measuring the harness: about two minutes"):
        figures = list(gather(asked))
    code, lines = verdict(figures)
    if as_json:
        print(json.dumps({"figures": [one.as_json() for one in figures], "ok": code == 0}, indent=1))
        raise typer.Exit(code)
    table = Table(title="the harness's own figures", title_justify="left")
    for heading in ("figure", "measured", "bounds", "ok"):
        table.add_column(heading, overflow="fold")
    for one in figures:
        table.add_row(one.name, one.measured(), one.bounds(), "yes" if one.ok else "NO")
    out().print(table)
    for line in lines:
        print(line)
    raise typer.Exit(code)


@app.command(context_settings=LOOSE)
def compare(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="BASE NEW | base_code=DIR new_code=DIR [KEY=VALUE]...", help="runs, or two checkouts"),
    ] = None,
    as_json: Json = False,
    markdown: Annotated[str | None, typer.Option("--markdown", metavar="FILE", help="also for a pull request")] = None,
) -> None:
    """Gate a change: counts exactly, scores by a test, speed in pairs; exit code 1 where something got worse."""
    from bench.compare import command, show
    from bench.compare.asked import read

    asked = read(words or [])
    if not asked.code and (asked.get("keep") or asked.get("learn")):
        print(command.kept(asked) if asked.get("keep") else command.learned(asked))
        return
    if asked.code:
        from bench.paired.measure import measured

        with saying(as_json) as say:
            found = measured(asked, say)
    else:
        found = command.recorded(asked)
    if markdown is not None:
        command.written(markdown, show.markdown(found))
    if as_json:
        print(json.dumps(show.as_json(found), indent=1, default=str))
        raise typer.Exit(found.code)
    for table in show.tables(found):
        out().print(table)
    for line in show.lines(found):
        print(line)
    raise typer.Exit(found.code)


@app.command(context_settings=LOOSE)
def results(
    words: Annotated[list[str] | None, typer.Argument(metavar="[RUN ...] [KEY=VALUE]...")] = None,
    as_json: Json = False,
    fsck: Annotated[bool, typer.Option("--fsck", help="check every record; exit code 1 where one is damaged")] = False,
    migrate: Annotated[bool, typer.Option("--migrate", help="rewrite records of older schema versions")] = False,
    force: Annotated[bool, typer.Option("--force", help="let export=FILE replace a file")] = False,
) -> None:
    """List, filter and export recorded cells; check records, or bring them to the present schema."""
    from bench.shelf import asked, command

    raise typer.Exit(command.answer(asked.read(words or [], fsck, migrate, force), as_json, out()))


@contextmanager
def saying(silent: bool) -> Iterator[Callable[[str], None]]:
    """A line on standard error that says what is being done; nothing where it is no terminal."""
    console = Console(file=sys.stderr)
    if silent or not console.is_terminal:
        yield lambda line: None
        return
    with console.status("starting both checkouts") as status:
        yield lambda line: status.update(line)


@contextmanager
def working(silent: bool, words: str) -> Iterator[None]:
    """A line on standard error while something takes long; nothing where it is no terminal."""
    console = Console(file=sys.stderr)
    if silent or not console.is_terminal:
        yield
        return
    with console.status(words):
        yield


INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        code = app(args=arguments, standalone_mode=False)
        if code == INTERRUPTED:  # newer typer turns Ctrl-C into this code, older ones let it through or abort
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except UserFault as fault:
        print(f"error: {fault}", file=sys.stderr)
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted: finished cells are kept, the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except typer.Exit as ended:
        return ended.exit_code
    except Exception as error:
        # usage errors come from click, or in newer typer from its private copy of it: told apart by what they offer
        if not hasattr(error, "format_message"):
            raise
        print(f"error: {' '.join(error.format_message().split())}", file=sys.stderr)
    return 2
