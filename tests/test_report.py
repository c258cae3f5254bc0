"""The page of a run: what it says and what it must not say."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from records_factory import Fake, write_run

from bench.records import Result, Status
from bench.report import render

ONE_RUN = "one training run: differences between trained strategies are not claimed"


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


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return pages(tmp_path_factory.mktemp("one"), Fake())


def three_fake() -> Fake:
    """Two models, three seeds, every status and cells never run."""
    statuses = {
        ("cola", "full", 1): Status.out_of_memory,
        ("rte", "dora", 0): Status.error,
        ("rte", "dora", 2): Status.diverged,
        ("sst2", "few_shot", 2): Status.timeout,
        ("sst2", "frozen", 0): Status.interrupted,
        ("mrpc", "bitfit", 0): Status.unsupported,
    }
    return Fake(
        name="three",
        seeds=(0, 1, 2),
        models=("smollm2-135m-instruct", "minilm"),
        statuses=statuses,
        missing=[("mrpc", "few_shot", 1), ("mrpc", "few_shot", 2)],
    )


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return pages(tmp_path_factory.mktemp("three"), three_fake())


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
    for items in (120, 40):
        page, text = pages(tmp_path / str(items), Fake(source="sample", items=items, tasks=("sst2",)))
        head = words(page.split("<main>")[0])
        for found in (head, text.split("## The answer")[0]):
            assert "a sample written for this project" in found
            assert f"{items} items cannot separate tuned methods" in found
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


def test_a_board_without_scores_comes_last(tmp_path: Path) -> None:
    """An encoder cannot be prompted: the answer printed first is that of its head."""
    run = write_run(
        tmp_path,
        Fake(
            tasks=("sst2",),
            strategies=("zero_shot", "frozen"),
            statuses={("sst2", "zero_shot", 0): Status.unsupported},
        ),
    )
    plan = json.loads((run / "plan.json").read_text())
    for info in plan["cells"]:
        info["readout"] = "head" if info["strategy"] == "frozen" else "verbalizer"
    (run / "plan.json").write_text(json.dumps(plan))
    page = render(run, tmp_path / "pages").html
    answer = section(page.read_text(), "answer")
    assert answer.index("head readout") < answer.index("verbalizer readout")


def test_a_choice_of_training_rows_is_told(tmp_path: Path) -> None:
    def chosen(result: Result) -> Result:
        data = result.data.model_copy(update={"train_matches": "[.!?]<$"}) if result.data else None
        return result.model_copy(update={"data": data})

    page, text = pages(tmp_path, Fake(tasks=("sst2",), strategies=("lora",), edit=chosen))
    assert "train rows (those matching '[.!?]<$')" in words(section(page, "measured"))
    assert "those matching" in text


def test_cells_of_other_code_are_counted_and_marked(tmp_path: Path) -> None:
    """Marked only beside cells of this code: a mark on every row tells nobody anything."""

    def older(result: Result) -> Result:
        if result.cell.strategy == "full":
            return result
        return result.model_copy(update={"environment": {**result.environment, "code_digest": "before"}})

    fake = Fake(tasks=("sst2",), strategies=("lora", "full"), edit=older)
    page, text = pages(tmp_path / "mixed", fake)
    assert "1 of 2 recorded cells measured by other code" in section(page, "measured")
    assert section(page, "leaderboard").count("other code") == 1 and "ok other code" in text
    assert "1 cell measured by other code than today's; marked below." in words(page.split("<main>")[0])
    page, text = pages(tmp_path / "all", fake, digest="another")
    assert "2 of 2 recorded cells measured by other code than this digest; rerun=changed" in section(page, "measured")
    assert "other code" not in section(page, "leaderboard") and "ok other code" not in text
    assert "2 cells measured by other code than today's." in words(page.split("<main>")[0])


def test_labels_of_other_tasks_are_told_apart(tmp_path: Path) -> None:
    """A strategy that read other tasks' labels says so under the leaderboard and in the budget table; so do near-ties
    and batches that ran out of memory."""

    def helped(result: Result) -> Result:
        if result.cell.strategy != "dora" or result.used is None:
            return result
        phases = result.phases | {"predict": result.phases["predict"].model_copy(update={"halved": 1})}
        used = result.used.model_copy(update={"source_labels": 384})
        return result.model_copy(update={"used": used, "near_ties": 2, "phases": phases})

    html_page, markdown = pages(tmp_path, Fake(edit=helped))
    for text in (html_page, markdown):
        assert "dora also read labels of other tasks (up to 384 a cell)" in text
        assert "384 of other tasks" in text and "2 near-ties." in text
        assert "1 scoring batch ran out of memory and went on in halves." in text
        assert text.count("also read labels") == 1
