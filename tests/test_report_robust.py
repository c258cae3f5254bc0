"""No record, damaged or hostile, can break the page, and the page loads nothing."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from page_checks import Wellformed, check_markdown
from records_factory import TASKS, Fake, cell, write_run
from test_report import pages, section, three_fake, words

from bench.errors import UserFault
from bench.records import PlanFile, Result, Status
from bench.report import render
from bench.report.format import plain
from bench.report.markdown import escape
from bench.store import write_record

HOSTILE = "</script></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'|`*_\n# x\u202e\x00${{7*7}}"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return pages(tmp_path_factory.mktemp("hostile"), hostile_fake())


def hostile_fake() -> Fake:
    """A run whose every string is an attack."""

    def edit(result: Result) -> Result:
        raw = result.model_dump(mode="json")
        identifier = raw["cell"]["id"]
        raw = poisoned(raw)
        raw["cell"]["id"], raw["cell"]["metric"] = identifier, result.cell.metric
        raw["outcome"]["status"] = result.outcome.status.value
        return Result.model_validate(raw)

    return Fake(
        name="hostile",
        tasks=("sst2", "cola"),
        strategies=("lora", "zero_shot", HOSTILE),
        edit=edit,
        source=HOSTILE,
        description=HOSTILE,
        models=(HOSTILE,),
        code_digest=HOSTILE,
        statuses={("cola", "zero_shot", 0): Status.error},
    )


def poisoned(value: object) -> object:
    """The same tree with every string replaced, and keys of free mappings too."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, list):
        return [poisoned(part) for part in value]
    if isinstance(value, dict):
        free = {"python", "torch", "transformers", "bitsandbytes", "cpu", "system", "id", "r"}
        return {
            HOSTILE + key if key in free and "schema_version" not in value and "suite" not in value else key: poisoned(
                part
            )
            for key, part in value.items()
        }
    return value


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return pages(tmp_path_factory.mktemp("three"), three_fake())


def test_missing_and_damaged_records_are_rows(tmp_path: Path) -> None:
    run = write_run(tmp_path, Fake(tasks=("sst2",)))
    paths = sorted(run.glob("*/result.json"))
    paths[0].write_text("{not json")
    paths[1].write_text(json.dumps({"schema_version": 99}))
    paths[2].write_bytes(b"\xff\xfe\x00")
    paths[3].write_text("[" * 100_000)
    paths[4].write_text(paths[5].read_text())
    paths[5].unlink()
    page, text = (path.read_text() for path in render(run, tmp_path)[:2])
    failed = section(page, "failures")
    assert failed.count("record damaged") == 4 and failed.count("record of a newer version") == 1
    assert "not JSON" in failed and "schema_version 99" in failed and "of another cell" in failed
    assert str(tmp_path) not in page and str(tmp_path) not in text
    assert "1 not run yet" in words(page)


@pytest.mark.parametrize("damage", ["gone", "empty", "garbage", "short", "other labels", "wrong", "huge", "columns"])
def test_damaged_predictions_leave_the_comparisons_only(tmp_path: Path, damage: str) -> None:
    run = write_run(tmp_path, Fake(tasks=("sst2",), strategies=("lora", "full", "frozen")))
    path = next(path for path in run.glob("*/predictions.parquet") if "-full-" in str(path))
    table = pq.read_table(path)
    n = table.num_rows
    row, label, predicted = (table[name].to_numpy() for name in ("row", "label", "predicted"))
    changed = {
        "short": (row[:-5], label[:-5], predicted[:-5]),
        "other labels": (row, 1 - label, predicted),
        "wrong": (row, label, 1 - predicted),
        "huge": (row, label, np.full(n, 10**12)),
        "empty": (row[:0], label[:0], label[:0]),
    }
    if damage == "gone":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"PAR1 nonsense PAR1")
    elif damage == "columns":
        pq.write_table(table.drop(["label"]), path)
    else:
        pq.write_table(pa.table(dict(zip(("row", "label", "predicted"), changed[damage], strict=True))), path)
    page = render(run, tmp_path)[0].read_text()
    assert re.search(
        r"Left out of the comparisons: \w+ on sst2: its (predictions|test items)", section(page, "comparisons")
    )
    assert "full" in section(page, "leaderboard")


def test_a_run_not_started_renders(tmp_path: Path) -> None:
    fake = Fake(tasks=("sst2",), missing=[("sst2", name, 0) for name in Fake().strategies])
    page, text = pages(tmp_path, fake)
    assert "no cell has a score yet" in section(page, "answer") and "7 not run yet" in text
    assert "nothing to draw" in section(page, "figures")


def test_an_empty_plan_renders(tmp_path: Path) -> None:
    page, text = pages(tmp_path, Fake(tasks=()))
    assert "The plan holds no cell." in page and "The plan holds no cell." in text


def test_numbers_that_are_none_or_not_finite(tmp_path: Path) -> None:
    def edit(result: Result) -> Result:
        raw = result.model_dump(mode="json")
        raw["phases"], raw["parameters"], raw["used"], raw["training"] = {}, None, None, None
        raw["environment"] = {}
        for found in raw["scores"].values():
            found["low"] = found["high"] = None
        return Result.model_validate(raw)

    run = write_run(tmp_path, Fake(tasks=("sst2",), edit=edit))
    path = next(run.glob("*lora*/result.json"))
    path.write_text(re.sub(r'"value": [0-9.]+', '"value": NaN', path.read_text()))
    page, text = (path.read_text() for path in render(run, tmp_path)[:2])
    assert "not measured" in section(page, "leaderboard") and "interval not measured" in text
    assert "nan" not in words(page).lower().split() and "None" not in words(page).replace("None.", "")


def test_no_plan_is_one_worded_line(tmp_path: Path) -> None:
    with pytest.raises(UserFault, match="nothing to report"):
        render(tmp_path, tmp_path)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(UserFault, match="is damaged"):
        render(tmp_path, tmp_path)


def test_names_cannot_leave_their_folders(tmp_path: Path) -> None:
    run = write_run(tmp_path, Fake(tasks=("sst2",), strategies=("lora",)))
    raw = json.loads((run / "plan.json").read_text())
    raw["cells"][0]["id"] = "../../etc"
    (run / "plan.json").write_text(json.dumps(raw))
    assert "is not a folder name" in render(run, tmp_path / "pages")[0].read_text()
    raw["run"] = "../escaped"
    (run / "plan.json").write_text(json.dumps(raw))
    with pytest.raises(UserFault, match="is no file name"):
        render(run, tmp_path / "pages")
    assert not (tmp_path / "escaped.html").exists()


def test_hostile_text_is_text(hostile: tuple[str, str]) -> None:
    page, text = hostile
    seen = Wellformed(page)
    assert seen.tags.count("script") == 1 and "img" not in seen.tags and seen.tags.count("style") == 1
    assert not [name for _, name, _ in seen.attributes if name.startswith("on")]
    assert "alert(1)" in words(page)  # shown, not run
    assert "\u202e" not in page + text and "\x00" not in page + text
    outside = re.sub(r"&lt;|&gt;", "", text)
    assert "<" not in outside and ">" not in outside
    assert check_markdown(text) > 4
    assert not [line for line in text.splitlines() if line.startswith("# x")]


def test_half_a_surrogate_pair_does_not_stop_the_page(tmp_path: Path) -> None:
    run = write_run(tmp_path, Fake(tasks=("sst2",), strategies=("lora",)))
    path = next(run.glob("*/result.json"))
    path.write_text(path.read_text().replace("AMD EPYC", "AMD \\ud800 EPYC"))
    assert "7B13" in render(run, tmp_path)[0].read_text(encoding="utf-8")


def test_one_file_that_loads_nothing(three: tuple[str, str]) -> None:
    page = three[0]
    seen = Wellformed(page)
    assert not re.search(r"https?:|//[a-z]", re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))
    assert not [a for a in seen.attributes if a[1] in ("src", "href", "xlink:href", "style", "action", "srcset")]
    assert not set(seen.tags) & {"link", "img", "iframe", "object", "embed", "base", "form"}
    assert "@import" not in page and "url(" not in page
    assert len(seen.ids) == len(set(seen.ids))
    policy = next(value for _, name, value in seen.attributes if name == "content" and value and "default-src" in value)
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy


def test_complete_without_the_script(three: tuple[str, str]) -> None:
    page = three[0]
    assert page.count("<script>") == 1 and page.rindex("<script>") > page.rindex("</main>")
    assert page.count('aria-sort="none"') == len(re.findall(r"<th[^>]*><button type=\"button\" disabled>", page)) > 50


def test_markdown_tables_are_valid(three: tuple[str, str]) -> None:
    assert check_markdown(three[1]) > 15
    assert three[1].endswith("\n") and "\n\n\n" not in three[1]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a|b", r"a\|b"),
        ("two\nlines", "two lines"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("zero_shot", "zero_shot"),
        ("_x_", r"\_x\_"),
        ("http://x.org", "http:&#47;&#47;x.org"),
        ("`c` *s* [l](u)", r"\`c\` \*s\* \[l\](u)"),
        ("a\\|b", r"a\\\|b"),
    ],
)
def test_markdown_escapes(raw: str, shown: str) -> None:
    assert escape(raw) == shown


def test_unprintable_characters_are_replaced() -> None:
    assert plain("a\u202eb\x00c\ud800d\te") == "a\ufffdb\ufffdc\ufffdd e"


def test_pages_are_written_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages(tmp_path, Fake(tasks=("sst2",), strategies=("lora",)))
    reports = tmp_path / "reports"
    before = (reports / "glue-small.html").read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        render(tmp_path / "results" / "glue-small", reports)
    assert (reports / "glue-small.html").read_bytes() == before
    assert sorted(path.name for path in reports.iterdir()) == ["glue-small.html", "glue-small.md"]


def test_rendering_imports_no_model_library(tmp_path: Path) -> None:
    import subprocess

    run = write_run(tmp_path, Fake(tasks=("sst2",), strategies=("lora", "full")))
    code = (
        f"import sys; from pathlib import Path; import bench.report; assert 'altair' not in sys.modules; "
        f"bench.report.render(Path({str(run)!r}), Path({str(tmp_path)!r})); "
        "assert not {'torch', 'transformers', 'peft', 'sklearn'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr


def test_ten_thousand_cells(tmp_path: Path) -> None:
    """Planned cells of 50 strategies over 4 tasks and 50 seeds, none recorded but one strategy's."""
    fake = Fake(tasks=tuple(TASKS)[:4], strategies=("lora",), seeds=tuple(range(50)))
    run = write_run(tmp_path, fake)
    infos = [
        cell(fake, fake.models[0], task, name, seed)
        for task in fake.tasks
        for seed in fake.seeds
        for name in ("lora", *(f"method{i}" for i in range(49)))
    ]
    write_record(
        run / "plan.json",
        PlanFile(
            run="big", suite="big", source="mirror", cells=infos, code_digest="x", created="2026-07-01T09:00:00+00:00"
        ),
    )
    start = time.monotonic()
    path = render(run, tmp_path).html
    assert time.monotonic() - start < 60
    assert "9,800 not run yet" in words(path.read_text()) or "9800 not run yet" in words(path.read_text())
