"""From records to a page: reads `plan.json`, results and predictions, never a model."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from bench.store import write_atomically


class Rendered(NamedTuple):
    """A report on disk and its answer in one line."""

    html: Path
    markdown: Path
    headline: str
    """The page's first answer as plain text."""


def render(run_dir: Path, reports_dir: Path, code_digest: str | None = None) -> Rendered:
    """Write `<run>.html` and `<run>.md` into `reports_dir` (made if missing).

    `code_digest` is the digest of the code as it is now; records of other code are counted and marked (without it
    the plan's own digest is taken). Raises `UserFault` where there is no readable plan or its run has no usable name,
    `OSError` where the pages cannot be written. Missing and damaged records are rows of the page.
    """
    # altair, jinja2 and scipy take over a second to import: a command that renders nothing must not pay for them
    from bench.errors import UserFault
    from bench.report.collect import collect
    from bench.report.html import to_html
    from bench.report.markdown import to_markdown
    from bench.report.page import build, headline

    run = collect(run_dir, code_digest)
    name = run.plan.run
    if Path(name).name != name or name in ("", ".", "..") or "\0" in name:
        raise UserFault(f"{run_dir / 'plan.json'} names the run {name!r}, which is no file name; run the suite again")
    page = build(run)
    reports_dir.mkdir(parents=True, exist_ok=True)
    paths = reports_dir / f"{name}.html", reports_dir / f"{name}.md"
    for path, text in zip(paths, (to_html(page), to_markdown(page)), strict=True):
        # a record may hold half a surrogate pair, which no file can
        write_atomically(path, text.encode("utf-8", "replace"))
    return Rendered(*paths, headline(page))
