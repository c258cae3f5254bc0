"""The table of predicted against measured memory: what counts of several measurements, and what it says of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench import plan
from bench.cards import verdict
from bench.config import load
from bench.job import Job
from bench.records import DataInfo, Outcome, Phase, Predicted, PredictedPhase, Result, Status
from bench.shortage import need
from benchmarks.memory_error import HERE, row, summary
from benchmarks.memory_page import page

PLANNED = ["suite=smoke", "tasks=sst2", "model=random:tiny-gpt2", "strategies=lora", "data.source=sample", "device=cpu"]
MB = 10**6
TOLD = {
    "predicted": {
        "peak_bytes": 900 * MB,
        "phases": {"adapt": {"peak_bytes": 900 * MB, "parts": {}, "resident_bytes": 830 * MB}},
    },
    "seconds": 1.0,
    "held": 500 * MB,
}


def job() -> Job:
    """One planned cell."""
    return plan.make(load(PLANNED)).jobs[0]


def ended(one: Job, rise: int | None) -> Result:
    """Its record: the resident set rose by so many MB while adapting, or it was killed before."""
    phase = Phase(seconds=1.0, baseline_rss_bytes=300 * MB, peak_rss_bytes=(300 + (rise or 0)) * MB)
    status = Status.error if rise is None else Status.ok
    data = DataInfo(source="sample", fingerprint="0", labels=["a", "b"])
    return Result(
        cell=one.cell, outcome=Outcome(status=status, reason="killed" if rise is None else None), data=data,
        phases={} if rise is None else {"adapt": phase}, environment={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rises", "median", "out"),
    [
        ([800], 800, 0),
        ([600, 800, 810], 800, 0),  # a heap that lay otherwise once
        ([600, 610, 810], 610, 1),
        ([None, 800, 600], 700, 1),
    ],
)
def test_the_median_of_several_processes_counts(rises: list[int | None], median: int, out: int) -> None:
    one = job()
    found = row(one, [ended(one, rise) for rise in rises], TOLD)
    whole = [rise * MB for rise in rises if rise is not None]
    assert (found["measured_bytes"], sorted(found["measured_each"])) == (median * MB, sorted(whole))
    assert found["error"] == pytest.approx(830 / median - 1)
    assert summary([found])["out_of_bounds"] == out


def test_a_cell_that_never_came_so_far_has_its_reason() -> None:
    one = job()
    assert row(one, [ended(one, None)], TOLD)["reason"] == "error: killed"
    assert row(one, [], None)["reason"] == "not measured"


@pytest.mark.parametrize(("rises", "told"), [([800], False), ([600, 800, 900], True)])
def test_the_page_tells_how_far_measurements_lie_apart(rises: list[int], told: bool) -> None:
    """What no prediction can be nearer to."""
    one = job()
    rows: list[dict[str, Any]] = [row(one, [ended(one, rise) for rise in rises], TOLD)]
    around: dict[str, Any] = {"versions": {"python": "3"}, "machine": {"cpu": "a processor", "cores": 2}}
    said = page(rows, summary(rows), "the command", around)
    apart = "Of 1 cell measured 3 times, each time in a process of another warm one, the most lay 50.0% above the least"
    assert (apart in said) is told
    assert ("| 800 (600-900) | 830 | 900 | +3.8% |" in said) is told
    assert ("| 800 | 830 | 900 | +3.8% |" in said) is not told


def test_no_verdict_contradicts_a_measurement() -> None:
    """Of the committed table: under a limit just above what a process took it is never told not to fit, and under one
    just below never to fit."""
    rows = json.loads((HERE / "reports" / "benchmarks" / "memory-error.json").read_text())["rows"]
    seen = 0
    for one in rows:
        if one["error"] is None:
            continue
        phase = PredictedPhase(
            peak_bytes=one["tensor_bytes"], resident_bytes=one["resident_bytes"], held_bytes=one["held_bytes"], parts={}
        )
        needs = need(Predicted(peak_bytes=one["tensor_bytes"], phases={"adapt": phase}))
        assert needs is not None
        for risen in one["measured_each"]:
            took = one["held_bytes"] + risen
            assert verdict(needs, took + 1, "cpu")[0] is not False, one
            assert verdict(needs, took - 1, "cpu")[0] is not True, one
            seen += 1
    assert seen > 100
