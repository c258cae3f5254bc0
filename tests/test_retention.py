"""What tuning did to other tasks: asked of stored weights, held against the base, told with an interval."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from cli_runs import run_here, tokens
from rich.console import Console
from tiny import STRATEGIES, base, context, driven

from bench.budget import Meter
from bench.config import load
from bench.data.rows import Rows
from bench.errors import UserFault
from bench.plan import make
from bench.probed import ProbeRecord, Retained
from bench.probes.retention import elsewhere, retained
from bench.records import Result, Status
from bench.report.retention import Change, changes, retention_sentences, retention_table
from bench.run import execute
from bench.stats.pairs import paired_change
from bench.store import probe_file, read_probe
from bench.strategy import Unsupported

pytestmark = pytest.mark.usefixtures("forked")

# ---- the interval


def test_the_change_of_a_proportion_by_hand() -> None:
    """Worked out with the formulas of the paper: 10 items, 4 both right, 3 before only, 1 after only, 2 neither."""
    before = np.array([1] * 4 + [1] * 3 + [0] + [0] * 2, dtype=bool)
    after = np.array([1] * 4 + [0] * 3 + [1] + [0] * 2, dtype=bool)
    # Wilson at z = 1.959964: 7 of 10 is [0.39678, 0.89221], 5 of 10 is [0.23659, 0.76341]
    # a d - b c = 8 - 3 = 5, less n / 2 = 5: nothing is left of the correlation
    low = -0.2 - math.hypot(0.5 - 0.236593, 0.892209 - 0.7)
    high = -0.2 + math.hypot(0.763407 - 0.5, 0.7 - 0.396778)
    found = paired_change(before, after)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5) and found.method == "newcombe"
    back = paired_change(after, before)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low), abs=1e-12), "the other way round"


def test_equal_answers_change_nothing_and_are_not_certain() -> None:
    same = np.array([True] * 60 + [False] * 40)
    found = paired_change(same, same)
    assert found.low < 0 < found.high and found.high < 0.06
    assert paired_change(np.ones(100, bool), np.zeros(100, bool)).high < -0.9


def test_the_interval_of_a_change_holds_as_often_as_it_says() -> None:
    random, hits, draws = np.random.default_rng(0), 0, 3000
    for _ in range(draws):
        shared = random.standard_normal(150)
        before, after = (shared + random.standard_normal(150) < limit * 2**0.5 for limit in (0.84, 0.25))
        found = paired_change(before, after)
        hits += found.low <= 0.598706 - 0.799546 <= found.high
    assert 0.93 <= hits / draws <= 0.97


@pytest.mark.parametrize(("before", "after"), [([], []), ([True], [True, False])])
def test_what_is_not_paired_is_refused(before: list[bool], after: list[bool]) -> None:
    with pytest.raises(ValueError, match="paired_change needs two vectors of one length above 0"):
        paired_change(before, after)


# ---- the probe

OTHER = tiny.task().model_copy(
    update={"templates": [tiny.task().templates[0].model_copy(update={"pattern": "{text} So?"})]}
)


def test_a_tuned_model_reads_another_task_as_itself_would() -> None:
    """Through LoRA's own module; the base's answers are those of a fresh base."""
    done = driven("lora", "tiny-llama", "verbalizer")
    assert done.plan is not None
    there = context("verbalizer", task=OTHER, train=Rows([], [], []))
    test, fresh = tiny.rows().test, base("tiny-llama")
    found = retained(
        elsewhere(done.plan.answer, there), STRATEGIES["zero_shot"].prepare(fresh, there, tiny.options("zero_shot")).answer,
        there, test, Meter(),
    )  # fmt: skip
    scores = done.plan.answer.through(OTHER.templates[0]).predict(test.fields, Meter())
    assert found.after == (scores.argmax(-1) == test.labels).tolist()
    assert len(found.before) == len(found.items) == 8 and found.low <= found.change <= found.high


@pytest.mark.parametrize("name", ["few_shot", "autoprompt"])
def test_what_adapts_its_own_prompt_is_refused(name: str) -> None:
    done = driven(name, "tiny-llama", "verbalizer")
    assert done.plan is not None
    with pytest.raises(Unsupported, match="says nothing about another task: use lora or full"):
        elsewhere(done.plan.answer, context("verbalizer", task=OTHER, train=Rows([], [], [])))


def asked(folder: Path, *more: str) -> list[str]:
    """Tokens of a run of two tasks by tiny cells."""
    small = [token for token in tokens(folder) if not token.startswith(("suite=", "tasks."))]
    return ["suite=glue-small", "tasks=sst2,rte", "tasks.sst2.limit=24", "tasks.rte.limit=24", *small, *more]


def run(folder: Path, *more: str) -> list[Result]:
    given = ["strategies=zero_shot,lora,full", "probes.retention.items=20", *more]
    with (folder / "output.txt").open("a") as out:
        return execute(load(asked(folder, *given)), Console(file=out, width=200))


def test_a_run_asks_its_tuned_cells_about_its_other_tasks(tmp_path: Path) -> None:
    """Once; a second run asks nothing again, and the page tells of it."""
    results = run(tmp_path, "seeds=2")
    assert all(r.outcome.status == Status.ok for r in results)
    records: dict[tuple[str, str], ProbeRecord] = {}
    for result in results:
        path = probe_file(tmp_path / "results" / "glue-small" / result.cell.id, "retention")
        records[result.cell.task, result.cell.strategy] = read_probe(path)
    for (task, strategy), record in records.items():
        if strategy == "zero_shot":
            assert record.outcome.status == Status.unsupported and "nothing was trained" in (
                record.outcome.reason or ""
            )
            continue
        assert record.retention is not None, record.outcome.reason
        [one] = record.retention.tasks
        assert one.task == {"sst2": "rte", "rte": "sst2"}[task] and len(one.items) == 20
    page = (tmp_path / "reports" / "glue-small.md").read_text(encoding="utf-8")
    assert "What tuning on sst2 did to other tasks" in page and "**What did it forget?**" in page
    before = (tmp_path / "output.txt").read_text()
    run(tmp_path, "seeds=2")
    assert "retention: accuracy on" not in (tmp_path / "output.txt").read_text()[len(before) :]
    assert "retention: accuracy on rte" in before


def test_a_run_of_one_task_has_none_to_ask_about(tmp_path: Path) -> None:
    run_here(tmp_path, "tasks=sst2", "strategies=lora", "probes=retention")
    assert "retention" not in (tmp_path / "output.txt").read_text()


def test_an_unknown_task_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserFault) as error:
        make(load(asked(tmp_path, "strategies=lora", "probes.retention.tasks=rt")))
    assert str(error.value) == "unknown task in probes.retention.tasks 'rt'; did you mean 'rte'?"


# ---- the page


class Cell:
    """A cell with a probe's record, as far as the table reads it."""

    def __init__(self, before: list[bool], after: list[bool]) -> None:
        ends = paired_change(before, after)
        one = Retained(
            task="cola",
            items=list(range(len(before))),
            before=before,
            after=after,
            chance=0.5,
            low=ends.low,
            high=ends.high,
        )
        found: Any = type("Found", (), {"tasks": [one]})()
        self.probes = {"retention": type("Record", (), {"retention": found})()}


def seeds(number: int, lost: int = 30) -> list[Any]:
    before = [True] * 80 + [False] * 40
    return [Cell(before, [False] * (lost + s) + [True] * (80 - lost - s) + [False] * 40) for s in range(number)]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_losses_are_told_with_their_interval(number: int) -> None:
    [one] = changes({"lora": seeds(number)})
    assert one.seeds == number and one.told == "lost" and one.low < one.after - one.before < one.high < 0
    said = retention_sentences("sst2", [one])
    assert said[0].startswith("Tuning on sst2 lost accuracy elsewhere: lora -0.2") and len(said) == 1
    table = retention_table("sst2", [one])
    assert table is not None and ("wide" in table.rows[0][4].sub) == (number == 2)


def test_silence_and_a_base_at_chance_are_told() -> None:
    quiet = Change("lora", "cola", 0.5, 0.52, 0.6, -0.05, 0.09, 120, 1)
    assert retention_sentences("sst2", [quiet]) == [
        "No change can be told of lora on cola.",
        "The base itself does not beat a constant answer on cola: there was little to forget.",
    ]
    assert retention_sentences("sst2", []) == [] and retention_table("sst2", []) is None
