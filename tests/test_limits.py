"""What ended a cell and what it used: every axis for every strategy, and cells that fail on the way."""

from __future__ import annotations

from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from records_factory import Fake, write_run
from test_conformance import job_of
from tiny import STRATEGIES, drive

from bench.launch import lost
from bench.records import Phase, Result, Status, Used
from bench.report.appendix import ended
from bench.report.collect import collect
from bench.store import read_result
from bench.strategy import Diverged
from bench.train import loop
from bench.worker import run_cell

SMALL: dict[str, dict[str, Any]] = {"peft": {"peft_type": "IA3"}}
NAMES = sorted(STRATEGIES)
AXES = ("train_examples", "train_tokens", "train_flops", "train_seconds")
ROOM: dict[str, dict[str, int]] = {
    "frozen": {"labels": 64, "train_examples": 64},  # several batches of features
    "autoprompt": {"labels": 12, "train_examples": 170},  # three rounds
}
"""Labels and examples of a first run; for the others three epochs of the usual labels."""
ROUND = {"autoprompt": 12, "meta_prompt": 9, "ppo": 5, "grpo": 5}
"""Passes of what a strategy calls a step: a gradient, then eleven prompts compared; nine instructions asked about the same
rows; a batch of responses drawn, asked of policy, reference and reward, and learned from."""


@pytest.fixture(autouse=True)
def steps_that_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs are not all cut to one length, so that a new shape may come with every step; and steps take unlike times by
    a clock of their own: by a real one a second run may end within seven tenths of the first one's seconds."""
    monkeypatch.setattr(tiny, "SEQUENCE", 160)
    tiny.steps_take(monkeypatch, 0.25, 0.2, 0.3)


def cell(name: str, **axis: float) -> tiny.Driven:
    labels = ROOM.get(name, {}).get("labels", tiny.LABELS)
    return drive(name, "tiny-gpt2", STRATEGIES[name].readouts[0], labels=labels, more=SMALL.get(name), **axis)


@cache
def free(name: str) -> tiny.Driven:
    """A run whose figures tell what each axis may be set to."""
    return cell(name, train_examples=ROOM.get(name, {}).get("train_examples", 3 * tiny.LABELS))


def amounts(done: tiny.Driven, axis: str) -> list[float]:
    """What every step used of an axis; of examples a step takes at most a batch."""
    if axis == "train_examples":
        return [min(float(done.meter.examples), tiny.BATCH)]
    return [float(getattr(step, axis.removeprefix("train_"))) for step in done.meter.steps]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", NAMES)
def test_it_ends_within_a_step_of_the_axis(name: str, axis: str) -> None:
    """Never over its limit (seconds: by less than the longest step), and nearer to it than one more step."""
    whole = free(name)
    assert whole.refused is None, whole.refused
    if not whole.meter.steps:
        assert whole.trained.ended_by == "nothing to train" and not whole.plan.groups  # type: ignore[union-attr]
        return
    total = whole.meter.used(0, None, True).model_dump()[axis]
    if name == "bag_of_words" and axis != "train_examples":
        # it asks no model, so tokens and FLOPs bind nothing, and its one step is all there is, whatever seconds it takes
        assert whole.trained.ended_by == "converged" and len(whole.meter.steps) == 1
        assert total > 0 if axis == "train_seconds" else total == 0
        return
    limit = 0.7 * total if axis in ("train_flops", "train_seconds") else int(0.7 * total)
    done = cell(name, **{axis: limit})
    assert done.refused is None, done.refused
    # the step not taken may be a larger one than any that was: the longer run tells how large they come
    step, spent = max(amounts(done, axis) + amounts(whole, axis)) * ROUND.get(name, 1), done.meter.spent()
    over = step if axis == "train_seconds" else 1e-9 * limit
    assert limit - step <= spent <= limit + over, f"{spent:g} of {limit:g}, a step takes {step:g}"
    assert done.trained.ended_by == axis


def test_a_probe_that_read_every_label_converged() -> None:
    """Its budget had room for more, so no axis ended it."""
    assert free("frozen").trained.ended_by == "converged"


@pytest.mark.parametrize(("axis", "limit"), [("train_tokens", 3), ("train_flops", 1e3)])
@pytest.mark.parametrize("name", ["full", "lora", "frozen"])
def test_a_budget_too_small_for_one_step_is_refused(name: str, axis: str, limit: float) -> None:
    """Nothing untrained gets a score, and nothing that overspent: the sentence names the key, its value and the way out."""
    refused = cell(name, **{axis: limit}).refused
    assert refused is not None and "raise it" in refused
    if name != "frozen":
        assert refused.startswith(f"budget.{axis}={limit:g} is too small for one step (")


def test_real_seconds_pass_their_limit_by_less_than_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """However uneven the machine is: what was spent before that step was within it."""
    monkeypatch.undo()
    limit = 0.2
    done = cell("full", train_seconds=limit)
    steps = [step.seconds for step in done.meter.steps]
    assert done.trained.ended_by == "train_seconds" and len(steps) > 1
    assert sum(steps[:-1]) <= limit and sum(steps) == pytest.approx(done.meter.spent())


def test_the_first_step_is_taken_whatever_seconds_are_left() -> None:
    """How long it takes cannot be known before; it may pass the limit by less than itself."""
    done = cell("full", train_seconds=1e-6)
    assert done.refused is None and len(done.meter.steps) == 1 and done.trained.ended_by == "train_seconds"


@pytest.mark.parametrize("name", ["full", "lora", "bitfit", "prompt_tuning", "prefix_tuning", "adapter"])
def test_a_budget_of_the_flops_of_so_many_steps_takes_them(name: str) -> None:
    """Once two lengths have been seen, no step is believed more than a twentieth dearer than it is: not even here, where
    a third of the work is attention."""
    steps = [step.flops for step in free(name).meter.steps]
    assert len(steps) >= 6
    for taken in range(3, len(steps)):
        spent = sum(steps[:taken])
        assert cell(name, train_flops=spent + steps[taken - 1] / 20).meter.spent() == pytest.approx(spent), taken


# Cells that fail ------------------------------------------------------------------------------------------------------


def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Result:
    """The record of a cell that fails in its third step."""

    passes, taken = loop.accumulate, count()

    def third(*given: Any) -> list[torch.Tensor]:
        if next(taken) == 2:
            raise error
        return passes(*given)

    monkeypatch.setattr(loop, "accumulate", third)
    job = job_of("full", "tiny-gpt2", tmp_path)
    Path(job.folder).mkdir(parents=True)
    assert run_cell(job, partial(tiny.base, "tiny-gpt2"), lambda phase, share: None) == 0
    return read_result(Path(job.folder) / "result.json")


@pytest.mark.parametrize(
    ("error", "status", "ended_by"),
    [
        (Diverged("the loss was nan: lower the learning rate"), Status.diverged, None),
        (MemoryError("no room"), Status.out_of_memory, "memory"),
        (RuntimeError("shapes"), Status.error, None),
    ],
)
def test_a_cell_that_fails_says_what_it_had_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: Status, ended_by: str | None
) -> None:
    """Two whole steps of four rows; how many labels they were is not claimed."""
    record = failing(tmp_path, monkeypatch, error)
    used = record.used
    assert record.outcome.status is status and used is not None
    assert (used.ended_by, used.labels, used.train_examples) == (ended_by, None, 8)
    assert used.train_tokens and used.train_flops and used.train_seconds and record.scores is None
    assert used.train_tokens == record.phases["adapt"].tokens


@pytest.mark.parametrize(("status", "ended_by"), [(Status.timeout, "cell_seconds"), (Status.out_of_memory, "memory")])
def test_a_cell_whose_process_is_gone_names_the_limit_only(status: Status, ended_by: str) -> None:
    """What it had used died with it: absent, not zero."""
    used = lost(status)
    assert used.ended_by == ended_by and used.labels is used.train_examples is used.train_flops is None
    assert lost(Status.error).ended_by is None


def test_the_appendix_tells_limits_and_amounts(tmp_path: Path) -> None:
    """Every axis and cap with its limit beside it; a failed cell by its outcome; what is unknown is not a zero."""

    def edit(result: Result) -> Result:
        info = result.cell.model_copy(update={"budget": {"labels": 128, "train_examples": 256, "memory_gib": 15.0}})
        used = lost(Status.timeout) if result.outcome.status is Status.timeout else result.used
        return result.model_copy(update={"cell": info, "used": used})

    statuses = {("sst2", "full", 0): Status.timeout, ("sst2", "bitfit", 0): Status.diverged}
    fake = Fake(tasks=("sst2",), strategies=("zero_shot", "lora", "full", "bitfit"), statuses=statuses, edit=edit)
    table = ended(collect(write_run(tmp_path, fake)).cells)
    assert [column.name for column in table.columns][1:8] == [
        "ended by", "labels", "examples", "tokens", "FLOPs", "seconds", "memory",
    ]  # fmt: skip
    rows = {row[0].text.split("-")[1]: row for row in table.rows}
    assert [rows[n][1].text for n in ("zero_shot", "lora", "full", "bitfit")] == [
        "nothing to train", "train_examples", "cell_seconds", "diverged",
    ]  # fmt: skip
    assert (rows["lora"][3].text, rows["lora"][3].sub) == ("256", "of 256")
    assert (rows["lora"][2].sub, rows["lora"][4].sub) == ("of 128", "")
    assert rows["lora"][7].text.endswith("GiB") and rows["lora"][7].sub == "of 15.0 GiB"
    assert {entry.text for entry in rows["full"][2:7]} == {"not measured"}
    assert rows["zero_shot"][3].text == "0"


def test_used_of_old_records_still_reads() -> None:
    """Fields that may now be absent were numbers before."""
    old = {"ended_by": "train_examples", "labels": 8, "train_examples": 16, "train_tokens": 100, "train_seconds": 1.5}
    assert Used.model_validate(old).train_seconds == 1.5 and Phase(seconds=1.0).flops is None
