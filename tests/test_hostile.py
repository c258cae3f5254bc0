"""Texts that would be code: in every text field of records, on both pages, in a real browser. None of them runs.

The browser sees each page twice: as it is, where its policy would also stop a script, and without the policy, where
nothing but escaping stands between a payload and the browser. A page with one raw payload shows that it would be seen.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from page_checks import Wellformed, check_markdown
from probe_records import findings, formats
from records_factory import Fake, write_run
from test_report_browser import BROWSER, browse

from bench.compare.finding import Finding
from bench.compare.show import markdown
from bench.compare.whole import Comparison
from bench.errors import UserFault
from bench.live import answer, verdict
from bench.probed import ProbeRecord, Retained, RetentionFindings, Text, WritingFindings
from bench.records import (
    Agreement,
    Apart,
    Curated,
    DataInfo,
    Halt,
    Judged,
    LeftOut,
    Outcome,
    Result,
    Status,
    Trial,
    Tuning,
)  # fmt: skip
from bench.report import render
from bench.store import probe_file, read_plan, write_record

RUNS = "document.title='HIT'"
PAYLOADS = (
    f"<script>{RUNS}</script>",
    f"</script><script>{RUNS}</script>",
    f"</style></title></textarea><script>{RUNS}</script>",
    f'<img src=x onerror="{RUNS}">',
    f'"><img src=x onerror="{RUNS}">',
    f"'><img src=x onerror={RUNS}>",
    f'<svg onload="{RUNS}">',
    f"<svg><script>{RUNS}</script></svg>",
    f'<svg><animate onbegin="{RUNS}" attributeName=x dur=1s>',
    f'</svg><svg/onload="{RUNS}">',
    f'<body onload="{RUNS}">',
    f'<details open ontoggle="{RUNS}">',
    f'<input autofocus onfocus="{RUNS}">',
    f'" autofocus tabindex=1 onfocus="{RUNS}" x="',
    f"' onmouseover={RUNS} x='",
    f'<iframe srcdoc="<script>parent.{RUNS}</script>"></iframe>',
    f'<iframe src="javascript:parent.{RUNS}"></iframe>',
    f'<object data="javascript:{RUNS}"></object>',
    f'<a href="javascript:{RUNS}">x</a>',
    f"[x](javascript:{RUNS}) ![x](javascript:{RUNS})",
    f"<javascript:{RUNS}>",
    "<meta http-equiv=refresh content=\"0;url=data:text/html,<title>HIT</title>\">",
    "<base href=https://x.invalid/><link rel=stylesheet href=//x.invalid/x.css>",
    f"<!--><script>{RUNS}</script>-->",
    f"<![CDATA[<script>{RUNS}</script>]]>",
    f"<scr\x00ipt>{RUNS}</scr\x00ipt><\u2028script>{RUNS}</script>",
    f"&lt;script&gt;{RUNS}&lt;/script&gt; &#60;script&#62;",
    f"{{{{ 7*'7' }}}} {{% raw %}} ${{7*7}} <%= 7 %> {{{{ ''.__class__ }}}}<x onclick={RUNS}>",
    f"|\n\n<script>{RUNS}</script>\n\n| --- |\n`` ``` ~~~ <script>{RUNS}</script>",
    f"\\<script>{RUNS}\\</script> \\`<img src=x onerror={RUNS}>",
)  # fmt: skip


class Poison:
    """Gives the payloads in turn, so that every one of them stands in many fields."""

    def __init__(self) -> None:
        self.turn = 0
        self.kept: set[str] = set()

    def next(self) -> str:
        self.turn += 1
        return PAYLOADS[self.turn % len(PAYLOADS)]

    def tree(self, value: Any, path: str = "") -> Any:
        """The same tree with every text replaced, but those that select something by their value."""
        if isinstance(value, str):
            return value if path in self.kept else self.next()
        if isinstance(value, list):
            return [self.tree(one, path) for one in value]
        if isinstance(value, dict):
            free = path in ("cell.options", "environment.versions", "tuning.trials.values", "formats.answers.described")
            return {
                (self.next() if free else key): self.tree(one, f"{path}.{key}".lstrip("."))
                for key, one in value.items()
            }
        return value


def more(result: Result) -> Result:
    """With all the parts that a record may have, so that each is shown."""
    trial = Trial(values={"lr": 1.0}, halts=[Halt(share=1.0, log_likelihood=-0.5)], failed="x", seconds=1.0, flops=1.0)
    tuning = Tuning(
        search="grid",
        folds=2,
        items=8,
        space={"lr": ["a", "b"]},
        trials=[trial, trial],
        chosen=1,
        edges=["lr"],
        remark="x",
    )
    kappa = {"kappa": 0.5, "kappa_low": 0.4, "kappa_high": 0.6}
    judged = Judged(
        by="x",
        rows=9,
        agreements=[Agreement(principle=p, n=9, share=0.5, low=0.4, high=0.6, **kappa) for p in (None, "x")],
        scored_against="people",
    )
    data = DataInfo(
        source="x",
        fingerprint="x",
        labels=["x", "y"],
        train_matches="x",
        test_rows=872,
        judged=judged,
        apart=Apart(dropped=1, of=2, compared={"x": 3}, missing=["x"]),
    )
    curated = [Curated(source="x", candidates=2, kept=[1], left_out=[LeftOut(row=1, rule="x")], how="x")]
    return result.model_copy(update={"tuning": tuning, "data": data, "curated": curated, "notes": ["x", "x"]})  # fmt: skip


def hostile(root: Path) -> Path:
    """A run whose every text is a payload, probes and all; its cells and the page keep names that are found."""
    poison = Poison()
    poison.kept = {
        "cell.id",
        "cell.metric",
        "cell.readout",
        "outcome.status",
        "tuning.search",
        "data.judged.scored_against",
    }

    def edit(result: Result) -> Result:
        return Result.model_validate(poison.tree(more(result).model_dump(mode="json")))

    names = [poison.next() for _ in range(6)]
    fake = Fake(
        name="hostile", tasks=("sst2", "cola"), strategies=("lora", "zero_shot", *names), seeds=(0, 1), models=tuple(PAYLOADS[3:5]),
        source=poison.next(), description=" ".join(PAYLOADS), code_digest=poison.next(), edit=edit,
        statuses={("cola", "zero_shot", 0): Status.error, ("cola", names[0], 0): Status.timeout},
    )  # fmt: skip
    run = write_run(root, fake)
    for info in read_plan(run / "plan.json").cells:
        for name, found in probed(poison).items():
            path = probe_file(run / info.id, name)
            path.parent.mkdir(exist_ok=True)
            outcome = Outcome(status=Status.ok, reason=poison.next())
            write_record(path, ProbeRecord(cell=info.id, probe=name, asked={}, outcome=outcome, **{name: found}))  # type: ignore[arg-type]
    return run


def probed(poison: Poison) -> dict[str, Any]:
    """What each probe found, in payloads."""
    asked = formats([0.8, 0.5, 0.6, 0.7], True)
    answers = [one.model_copy(update={"described": {poison.next(): poison.next()}}) for one in asked.answers]
    leak = findings(0.001, 0)
    checks = [one.model_copy(update={"says": poison.next(), "reference": poison.next()}) for one in leak.checks]
    many = {"before": [0.1] * 30, "after": [0.3] * 15 + [0.2] * 15, "kl": [0.1] * 30}
    flags = {name: [True] * 30 for name in ("topic_before", "topic_after")}
    tokens = {name: [5] * 30 for name in ("tokens_before", "tokens_after")}
    writing = WritingFindings(
        against=poison.next(), scorer_accuracy=0.8, scorer_pairs=9, **many, **flags, **tokens, topic_data=0.5,
        distinct_before=0.5, distinct_after=0.4, texts=[Text(before=one, after=one) for one in PAYLOADS],
    )  # fmt: skip
    kept = Retained(
        task=poison.next(), items=[1, 2], before=[True, False], after=[False, False], chance=0.5, low=-0.9, high=0.1
    )
    return {
        "formats": asked.model_copy(update={"answers": answers, "notes": list(PAYLOADS)}),
        "contamination": leak.model_copy(update={"checks": checks, "notes": list(PAYLOADS)}),
        "retention": RetentionFindings(tasks=[kept], notes=list(PAYLOADS)),
        "writing": writing,
    }  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The rendered pages."""
    root = tmp_path_factory.mktemp("hostile")
    made = render(hostile(root), root / "reports")
    return made.html, made.markdown


def test_every_payload_is_shown_as_text(pages: tuple[Path, Path]) -> None:
    """Nothing is left out, so nothing escapes the check by being absent."""
    page = pages[0].read_text(encoding="utf-8")
    seen = Wellformed(page)
    assert seen.tags.count("script") == 1 and seen.tags.count("style") == 1
    assert not set(seen.tags) & {"img", "iframe", "object", "embed", "a", "base", "link", "form", "input", "math"}
    assert not [name for _, name, _ in seen.attributes if name.startswith("on") or name in ("href", "src", "style")]
    text = html.unescape(page)
    for payload in PAYLOADS:
        start = re.split(r"[\x00\n\u2028]", payload)[0][:22].rstrip()
        assert start in text, payload


def test_the_markdown_page_is_no_html(pages: tuple[Path, Path]) -> None:
    """Read by a Markdown reader that lets raw HTML through, no tag, link or image comes out that we did not write."""
    text = pages[1].read_text(encoding="utf-8")
    assert "<" not in text and check_markdown(text) > 4
    made = Wellformed(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
    ours = {"h1", "h2", "h3", "h4", "p", "ul", "li", "strong", "em", "table", "thead", "tbody", "tr", "th", "td"}
    assert set(made.tags) <= ours, set(made.tags) - ours
    assert {name for _, name, _ in made.attributes} <= {"style"}  # how a column is aligned
    assert "document.title" in text


def test_the_gates_markdown_is_no_html() -> None:
    """Runs, cells and figures of others are named there too."""
    found = [Finding("regression", "count", one, one, one, one, one) for one in PAYLOADS]
    text = markdown(Comparison(f"`{PAYLOADS[0]}", f"a`b`` {PAYLOADS[3]}", 1, found, list(PAYLOADS), speed=PAYLOADS[0]))
    assert not re.findall(r"<(?!/?(?:details|summary)>)", re.sub(r"`[^`\n]*`", "", text))
    made = Wellformed(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
    assert not set(made.tags) & {
        "script",
        "img",
        "svg",
        "iframe",
        "body",
        "object",
        "input",
        "meta",
        "base",
        "link",
        "x",
    }


def test_a_terminal_is_not_steered() -> None:
    """By what a fault quotes, or by the reason a cell ended for."""
    fault = UserFault("row 1 holds '\x1b[2J\x1b]0;HIT\x07\u202egnp.exe\x9b31m', allowed: caf\u00e9 \u4e2d")
    assert str(fault) == "row 1 holds '\ufffd[2J\ufffd]0;HIT\ufffd\ufffdgnp.exe\ufffd31m', allowed: caf\u00e9 \u4e2d"
    outcome = Outcome(status=Status.error, reason="\x1b[2Jgone\r\nnext")
    assert verdict(Result.model_construct(outcome=outcome, scores=None)) == "error: \ufffd[2Jgone  next"
    assert answer(ProbeRecord(cell="x", probe="formats", asked={}, outcome=outcome)) == "error: \ufffd[2Jgone  next"


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH")


def without_policy(page: Path, more: str = "") -> Path:
    """The page as an older browser would take it: nothing but escaping protects it."""
    text, number = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
    assert number == 1
    copy = page.with_name("bare.html")
    copy.write_text(text.replace("</main>", f"{more}</main>"), encoding="utf-8")
    return copy


@needs_browser
def test_nothing_runs_in_a_browser(pages: tuple[Path, Path], tmp_path: Path) -> None:
    dom, console = browse(tmp_path / "profile", pages[0], "--dump-dom")
    assert console == [] and "<title>hostile: " in dom
    dom, console = browse(tmp_path / "profile", without_policy(pages[0]), "--dump-dom", "--virtual-time-budget=3000")
    assert console == [] and "<title>hostile: " in dom and "<title>HIT" not in dom


@needs_browser
def test_a_payload_that_is_not_escaped_would_be_seen(pages: tuple[Path, Path], tmp_path: Path) -> None:
    dom, _ = browse(
        tmp_path / "profile", without_policy(pages[0], PAYLOADS[3]), "--dump-dom", "--virtual-time-budget=3000"
    )
    assert "<title>HIT</title>" in dom
