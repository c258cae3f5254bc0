"""The page in a real browser: no policy violation, no sideways scrolling, sorting works, and works in the dark."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from records_factory import Fake, write_run
from test_report_robust import hostile_fake

from bench.records import Status
from bench.report import render

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
)


def browse(profile: Path, page: Path, *more: str) -> tuple[str, list[str]]:
    """(stdout, console lines) of one visit with a fresh profile."""
    done = subprocess.run(
        [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", *more, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    shutil.rmtree(profile, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(scope="module", params=["full", "hostile", "nothing"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered page: many rows of every kind, hostile strings, or nothing to recommend."""
    root = tmp_path_factory.mktemp(request.param)
    fake = {
        "full": Fake(
            seeds=(0, 1, 2),
            models=("smollm2-135m-instruct", "minilm"),
            missing=[("mrpc", "few_shot", 1)],
            statuses={("cola", "full", 1): Status.out_of_memory, ("rte", "dora", 0): Status.error},
        ),
        "hostile": hostile_fake(),
        "nothing": Fake(skill=0.0),
    }[request.param]
    return render(write_run(root, fake), root / "reports")[0]


def with_script(page: Path, script: str) -> Path:
    """A copy of a page with one more script, allowed by its hash."""
    mark = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = page.read_text(encoding="utf-8")
    text = text.replace("script-src &#39;sha256-", f"script-src &#39;sha256-{mark}&#39; &#39;sha256-")
    copy = page.with_name("probed.html")
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return copy


def test_no_policy_violation_and_nothing_lost(page: Path, tmp_path: Path) -> None:
    dom, console = browse(tmp_path / "profile", page, "--dump-dom")
    assert console == []
    assert 'class="js"' in dom  # the script ran under its hash
    assert "alert(1)" not in "".join(part.split("</script>")[0] for part in dom.split("<script")[1:])


@pytest.mark.parametrize("scheme", [0, 1])
def test_it_can_be_seen(page: Path, tmp_path: Path, scheme: int) -> None:
    shot = tmp_path / "page.png"
    _, console = browse(
        tmp_path / "profile",
        page,
        f"--screenshot={shot}",
        "--window-size=1400,2400",
        f"--blink-settings=preferredColorScheme={scheme}",
    )
    assert console == [] and shot.stat().st_size > 20_000


@pytest.mark.parametrize("width", [390, 768, 1400])
def test_it_never_scrolls_sideways(page: Path, tmp_path: Path, width: int) -> None:
    """The page stands in a frame of that width, since a window cannot be as narrow, and tells its own size."""
    probe = (
        "for (const part of document.querySelectorAll('details')) part.open = true;"
        "const wide = document.documentElement;"
        "parent.postMessage([innerWidth, wide.scrollWidth, document.body.scrollWidth].join(' '), '*');"
    )
    frame = tmp_path / "frame.html"
    frame.write_text(f"""<body><script>addEventListener("message", (e) => document.body.dataset.size = e.data);</script>
        <iframe src="{with_script(page, probe).as_uri()}" style="border:0;width:{width}px;height:900px"></iframe>""")
    dom, console = browse(
        tmp_path / "profile", frame, "--dump-dom", "--window-size=1500,1000", "--virtual-time-budget=5000"
    )
    assert console == []
    inner, scroll, body = map(int, dom.split('data-size="')[1].split('"')[0].split())
    assert inner == width and scroll <= width and body <= width


def test_columns_sort(page: Path, tmp_path: Path) -> None:
    """A click on a column of numbers sorts it downwards, a second upwards, and rows without a number stay last."""
    if page.name == "hostile.html":
        pytest.skip("its numbers are those of the other pages")
    probe = """
        const table = document.querySelector("#leaderboard table"), head = table.tHead.rows[0].cells[3];
        const said = () => head.getAttribute("aria-sort") + ":" + Array.from(table.tBodies[0].rows, (row) =>
            row.cells[3].dataset.sort === undefined ? "none" : Number(row.cells[3].dataset.sort).toFixed(4)).join(",");
        head.querySelector("button").click(); const down = said();
        head.querySelector("button").click(); const up = said();
        document.body.dataset.sorted = down + ";" + up;"""
    dom, console = browse(tmp_path / "profile", with_script(page, probe), "--dump-dom")
    assert console == []
    down, up = dom.split('data-sorted="')[1].split('"')[0].split(";")
    for said, order, reverse in ((down, "descending", True), (up, "ascending", False)):
        name, _, values = said.partition(":")
        numbers = [float(value) for value in values.split(",") if value != "none"]
        assert name == order and numbers == sorted(numbers, reverse=reverse) and len(numbers) >= 5
        assert "none" not in values.split(",")[: len(numbers)]
