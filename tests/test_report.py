"""The page of a run: what it says, what it must not say, and that no record can break it."""

from __future__ import annotations

import html
import json
import re
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from records_factory import TASKS, Fake, cell, write_run

from bench.errors import UserFault
from bench.records import PlanFile, Result, Status, write_record
from bench.report import render
from bench.report.format import plain
from bench.report.markdown import escape

ONE_RUN = "one training run: differences between trained strategies are not claimed"
HOSTILE = "</script></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'|`*_\n# x\u202e\x00${{7*7}}"


def pages(root: Path, fake: Fake, digest: str | None = None) -> tuple[str, str]:
    """Write a fake run, render it, and return (HTML, Markdown)."""
    paths = render(write_run(root / "results", fake), root / "reports", digest)
    return paths[0].read_text(encoding="utf-8"), paths[1].read_text(encoding="utf-8")


def words(page: str) -> str:
    """What a reader of an HTML page reads, in one line."""
    body = re.sub(r"<(style|script|svg).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def section(page: str, name: str) -> str:
    """The words of one section of an HTML page."""
    return words(page.split(f'<section id="{name}">')[1].split("</section>")[0])


class Wellformed(HTMLParser):
    """Fails on a tag closed that was not open; collects what a page would load, run or style."""

    VOID = ("meta", "br", "img", "link", "hr", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.ids: list[str | None] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open[-4:])
        self.open.pop()


def check_markdown(text: str) -> int:
    """Every table has a rule and rows as wide as its head; returns the number of tables."""
    tables = [block.split("\n") for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)]
    for lines in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines if line}
        assert len(widths) == 1, lines[:3]
        assert re.fullmatch(r"\|( (---:|:---) \|)+", lines[1])
    return len(tables)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return pages(tmp_path_factory.mktemp("one"), Fake())


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    statuses = {
        ("cola", "full", 1): Status.out_of_memory,
        ("rte", "dora", 0): Status.error,
        ("rte", "dora", 2): Status.diverged,
        ("sst2", "few_shot", 2): Status.timeout,
        ("sst2", "frozen", 0): Status.interrupted,
        ("mrpc", "bitfit", 0): Status.unsupported,
    }
    fake = Fake(
        name="three",
        seeds=(0, 1, 2),
        models=("smollm2-135m-instruct", "minilm"),
        statuses=statuses,
        missing=[("mrpc", "few_shot", 1), ("mrpc", "few_shot", 2)],
    )
    return pages(tmp_path_factory.mktemp("three"), fake)


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


# What it says ---------------------------------------------------------------------------------------------------------


def test_the_answer_comes_first_in_two_sentences(one: tuple[str, str]) -> None:
    answer = section(one[0], "answer")
    assert re.search(
        r"Use \w+: mean gain over chance 0\.\d{3} \[0\.\d{3}, 0\.\d{3}\] on sst2 \(0\.\d{3}\) and cola", answer
    )
    assert re.search(r"peak memory 1\.\d\d GiB \(RSS\), \d+ s of training a task\.", answer)
    assert (
        one[0].index('id="answer"')
        < one[0].index('id="leaderboard"')
        < one[0].index('id="figures"')
        < one[0].index('id="tasks"')
        < one[0].index('id="comparisons"')
        < one[0].index('id="failures"')
        < one[0].index('id="measured"')
        < one[0].index('id="reading"')
    )


def test_one_seed_claims_nothing(one: tuple[str, str]) -> None:
    for page in (section(one[0], "answer"), one[1]):
        assert ONE_RUN in page
        assert "is better" not in page and "better than" not in page
    assert "is better" not in words(one[0])
    assert "comparisons of two trained models, not of the strategies" in words(one[0])


def test_two_seeds_claim_nothing_either(tmp_path: Path) -> None:
    page, _ = pages(tmp_path, Fake(seeds=(0, 1)))
    assert "two training runs: differences between trained strategies are not claimed" in section(page, "answer")
    assert "is better" not in words(page)


def test_three_seeds_claim_what_the_test_holds(tmp_path: Path) -> None:
    page, text = pages(tmp_path, Fake(seeds=(0, 1, 2)))
    answer = section(page, "answer")
    assert ONE_RUN not in answer and ONE_RUN not in text
    assert re.search(r"It is better than .*zero_shot", answer)
    assert "cannot be told apart from" in answer and "cheapest" in answer
    assert "lora is better" in section(page, "comparisons")


def test_untrained_strategies_are_compared_at_one_seed(tmp_path: Path) -> None:
    """Nothing is trained and no seed matters: McNemar compares all there is to compare."""

    def edit(result: Result) -> Result:
        return result.model_copy(update={"cell": result.cell.model_copy(update={"seeded": False})})

    run = write_run(tmp_path, Fake(tasks=("sst2",), strategies=("zero_shot", "full"), edit=edit))
    raw = json.loads((run / "plan.json").read_text())
    for info in raw["cells"]:
        info["seeded"] = False
    (run / "plan.json").write_text(json.dumps(raw))
    page = render(run, tmp_path)[0].read_text()
    assert "It is better than zero_shot" in section(page, "answer")
    assert ONE_RUN not in words(page)


def test_nothing_beats_chance(tmp_path: Path) -> None:
    page, text = pages(tmp_path, Fake(skill=0.0))
    assert "No strategy beats chance on any task, so nothing is recommended." in section(page, "answer")
    assert "Use " not in section(page, "answer") and "nothing is recommended" in text
    assert 'class="pick"' not in page


def test_a_single_metric_is_averaged_as_it_is(tmp_path: Path) -> None:
    page, _ = pages(tmp_path, Fake(tasks=("sst2", "agnews")))
    assert "mean accuracy" in section(page, "answer") and "gain over chance" not in section(page, "leaderboard")


def test_the_mean_names_what_it_leaves_out(one: tuple[str, str]) -> None:
    board = section(one[0], "leaderboard")
    assert "no strategy that finished beats chance there: mrpc and rte" in board
    assert "(score - chance) / (1 - chance)" in board


def test_a_sample_says_so_in_the_heading(tmp_path: Path) -> None:
    page, text = pages(tmp_path, Fake(source="sample", items=120, tasks=("sst2",)))
    head = words(page.split("<main>")[0])
    for found in (head, text.split("## The answer")[0]):
        assert "a sample written for this project" in found and "120 items cannot separate tuned methods" in found
    assert "Use " not in section(page, "answer") and "scores highest" in section(page, "answer")


def test_other_sources_do_not(one: tuple[str, str]) -> None:
    assert "sample" not in words(one[0].split("<main>")[0])


def test_failures_are_rows_with_their_reasons(three: tuple[str, str]) -> None:
    failed = section(three[0], "failures")
    for status, reason in (
        ("out of memory", "Adapting needed 16.4 GiB"),
        ("error", "mat1 and mat2"),
        ("diverged", "NaN"),
        ("timeout", "cell_seconds"),
        ("interrupted", "Ctrl-C"),
        ("unsupported", "no bias terms"),
    ):
        assert status in failed and reason in failed, status
        assert reason in three[1]
    board = section(three[0], "leaderboard")
    assert "2 of 3 ok" in board and "not ranked" in board and "not run yet" in board
    assert "4 not run yet" in words(three[0].split("<main>")[0])


def test_incomplete_strategies_are_not_ranked(three: tuple[str, str]) -> None:
    board = three[1].split("## Leaderboard")[1].split("## Tasks")[0]
    for name in ("few_shot", "full", "frozen"):
        row = next(line for line in board.splitlines() if line.startswith(f"| {name} "))
        assert row.split(" | ")[1] == "–" and row.split(" | ")[2].startswith("not ranked"), row
    assert "did not finish and are not ranked" in section(three[0], "answer")


def test_one_leaderboard_a_model(three: tuple[str, str]) -> None:
    for page in (section(three[0], "leaderboard"), three[1]):
        assert "smollm2-135m-instruct, verbalizer readout" in page and "minilm, verbalizer readout" in page


def test_readouts_and_tasks_of_their_own_are_ranked_apart(tmp_path: Path) -> None:
    run = write_run(tmp_path, Fake(tasks=("sst2", "cola"), strategies=("lora", "frozen", "full")))
    raw = json.loads((run / "plan.json").read_text())
    raw["cells"] = [
        info | ({"readout": "head"} if info["strategy"] == "frozen" else {})
        for info in raw["cells"]
        if (info["task"], info["strategy"]) != ("cola", "full")
    ]
    (run / "plan.json").write_text(json.dumps(raw))
    board = section(render(run, tmp_path)[0].read_text(), "leaderboard")
    assert "head readout" in board and "verbalizer readout (sst2)" in board and "verbalizer readout (cola)" in board


def test_costs_are_shown(one: tuple[str, str]) -> None:
    row = next(line for line in one[1].splitlines() if "lora (reparametrisation)" in line)
    for shown in ("GiB", "2.44 M", "280", "34 s"):
        assert shown in row
    assert "still improving when the budget ended" in section(one[0], "leaderboard")
    assert "not measured" in section(one[0], "leaderboard")  # tokens/s of zero_shot
    tasks = section(one[0], "tasks")
    assert "Chance 0.516" in tasks and "872 test items" in tasks and "4.10 T" in tasks and "accuracy" in tasks


def test_seeds_are_averaged(tmp_path: Path) -> None:
    run = write_run(tmp_path, Fake(tasks=("sst2",), strategies=("lora",), seeds=(0, 1, 2)))
    values = [json.loads(path.read_text())["scores"]["accuracy"]["value"] for path in run.glob("*/result.json")]
    page = render(run, tmp_path)[0].read_text()
    assert f"{np.mean(values):.3f}" in section(page, "leaderboard")
    assert f"SD {np.std(values, ddof=1):.3f}" in section(page, "tasks") and "3 of 3" in section(page, "tasks")


def test_cuda_memory_is_named(tmp_path: Path) -> None:
    page, _ = pages(tmp_path, Fake(tasks=("sst2",), cuda=True))
    assert "GiB (CUDA allocated)" in section(page, "answer")


def test_how_it_was_measured(one: tuple[str, str]) -> None:
    for page in (section(one[0], "measured"), one[1]):
        for fact in (
            "AMD EPYC 7B13",
            "16.0 GiB memory",
            "torch 2.13.0",
            "0123abcd",
            "fp32",
            "instruction-tuned",
            "mirror",
            "128 labels",
            "train_examples",
            "Numerics version",
            "every recorded cell was measured by this code",
        ):
            assert fact in page, fact
        assert "bitsandbytes" not in page


def test_cells_of_other_code_are_counted_and_marked(tmp_path: Path) -> None:
    page, text = pages(tmp_path, Fake(tasks=("sst2",), strategies=("lora", "full")), digest="another")
    assert "2 of 2 recorded cells measured by other code" in section(page, "measured")
    assert "other code" in section(page, "leaderboard") and "other code" in text
    assert "2 cells measured by other code" in words(page.split("<main>")[0])


# What cannot break it -------------------------------------------------------------------------------------------------


def test_missing_and_damaged_records_are_rows(tmp_path: Path) -> None:
    run = write_run(tmp_path, Fake(tasks=("sst2",)))
    paths = sorted(run.glob("*/result.json"))
    paths[0].write_text("{not json")
    paths[1].write_text(json.dumps({"schema_version": 99}))
    paths[2].write_bytes(b"\xff\xfe\x00")
    paths[3].write_text("[" * 100_000)
    paths[4].write_text(paths[5].read_text())
    paths[5].unlink()
    page, text = (path.read_text() for path in render(run, tmp_path))
    failed = section(page, "failures")
    assert failed.count("record damaged") == 5
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
    page, text = (path.read_text() for path in render(run, tmp_path))
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
    path, _ = render(run, tmp_path)
    assert time.monotonic() - start < 60
    assert "9,800 not run yet" in words(path.read_text()) or "9800 not run yet" in words(path.read_text())
