"""Target cards, verdicts on predicted memory, and the claims of the literature."""

from __future__ import annotations

import pytest

from bench import plan
from bench.cards import CONTEXT_BYTES, GIB, card_named, cards, verdict
from bench.claims import CONDITIONS, examined, holds, unlike, verdicts
from bench.config import load
from bench.config.schema import Claim
from bench.errors import UserFault
from bench.outlook import claim_row, claims
from bench.records import CellInfo, Predicted

PLANNED = ["suite=smoke", "tasks=sst2", "model=random:tiny-gpt2", "strategies=lora", "data.source=sample"]


def test_every_card_has_what_a_verdict_needs() -> None:
    assert set(cards()) == {"t4", "v100-32", "a10g", "rtx-4090", "l40s", "a100-40", "a100-80", "h100", "h200"}
    for name, card in cards().items():
        assert card.source and card.bandwidth_gb_s > 100, name
        assert ("bf16" in card.tflops) == (float(card.compute_capability) >= 8.0), name
        assert card.usable_bytes == card.memory_bytes - CONTEXT_BYTES


def test_a_card_that_does_not_exist_is_named_with_the_nearest() -> None:
    with pytest.raises(UserFault, match=r"unknown gpu 'a100'; did you mean 'a100-[48]0'"):
        card_named("a100")


@pytest.mark.parametrize(
    ("peak", "fits", "words"),
    [
        (10, True, "needs 10.00 of 15.00 GiB, 5.00 GiB to spare"),
        (20, False, "needs 20.00 of 15.00 GiB, 5.00 GiB too much"),
        (14.5, None, "close: needs 14.50 of 15.00 GiB, 0.50 GiB to spare"),
        (15.5, None, "close: needs 15.50 of 15.00 GiB, 0.50 GiB too much"),
    ],
)
def test_a_verdict_says_by_how_much(peak: float, fits: bool | None, words: str) -> None:
    """Within the prediction's own error there is none."""
    found = verdict(peak * GIB, 15 * GIB)
    assert found[0] is fits and found[1].startswith(words)


@pytest.mark.parametrize(
    ("peak", "fits", "words"),
    [
        (13.8, True, "needs 13.80 of 15.00 GiB"),
        (14.5, None, "close: needs 14.50 of 15.00 GiB, 0.50 GiB to spare, within the prediction's error of 8%"),
        (18.0, None, "close: needs 18.00 of 15.00 GiB, 3.00 GiB too much, within the prediction's error of 20%"),
        (19.0, False, "needs 19.00 of 15.00 GiB"),
        (15.01, None, "close: "),
    ],
)
def test_on_a_cpu_a_heap_may_fall_out_smaller(peak: float, fits: bool | None, words: str) -> None:
    """It seldom grows above what is foretold, and often stays below."""
    found = verdict(peak * GIB, 15 * GIB, "cpu")
    assert found[0] is fits and found[1].startswith(words)


@pytest.mark.parametrize(("gpu", "precision"), [("t4", "fp16"), ("l40s", "bf16")])
def test_a_plan_for_a_card_is_of_its_cells(gpu: str, precision: str) -> None:
    """Device, precision and cap are the card's; what is run here is not touched."""
    [job] = plan.make(load([*PLANNED, f"gpu={gpu}"]), on_target=True).jobs
    assert (job.cell.device, job.cell.precision) == ("cuda", precision)
    assert job.memory_gib == pytest.approx(card_named(gpu).usable_bytes / GIB, abs=1e-3)
    here = plan.make(load([*PLANNED, f"gpu={gpu}", "device=cpu"])).jobs[0]
    assert here.cell.device == "cpu" and here.memory_gib is None
    assert here.cell.id == plan.make(load([*PLANNED, "device=cpu"])).jobs[0].cell.id


def claim(task: str, **expects: object) -> Claim:
    return Claim.model_validate(
        {"task": task, "strategy": "full", "says": "it fits", "source": "x", "under": "y", **expects}
    )


def test_claims_hold_or_not() -> None:
    """Within the prediction's error a range holds; a card without a verdict leaves the claim open."""
    assert holds(claim("a", gigabytes=[3, 4]), 3_500_000_000) is True
    assert holds(claim("a", gigabytes=[3, 4]), 4_300_000_000) is True
    assert holds(claim("a", gigabytes=[3, 4]), 5_000_000_000) is False
    assert holds(claim("a", fits="t4"), 10 * GIB) is True
    assert holds(claim("a", fits="t4"), round(14.4 * GIB)) is None
    with pytest.raises(UserFault, match="unknown gpu"):
        holds(claim("a", fits="t5"), GIB)


def test_a_statement_holds_when() -> None:
    ranges = {"short": claim("short", gigabytes=[3, 4]), "long": claim("long", gigabytes=[3, 4])}
    for short, long, words in (
        (3.5, 3.6, "holds"),
        (3.5, 9.0, "holds when short"),
        (1.0, 9.0, "does not hold"),
        (3.5, None, "open for long; holds when short"),
    ):
        peaks = {("short", "full"): round(short * 1e9), ("long", "full"): None if long is None else round(long * 1e9)}
        assert verdicts(examined(ranges, peaks, dict.fromkeys(peaks, cell_of()))) == {"it fits": words}


def cell_of(*tokens: str) -> CellInfo:
    """The cell of the first claim of suite=memory-claims, as these tokens leave it."""
    return plan.make(load(["suite=memory-claims", "tasks=gpt2-small-seq128", *tokens])).jobs[0].cell


def test_every_claim_of_the_suite_is_about_the_cell_it_names() -> None:
    request = load(["suite=memory-claims"])
    cells = {(job.cell.task, job.cell.strategy): job.cell for job in plan.make(request).jobs}
    for name, one in request.suite.claims.items():
        assert unlike(one, cells[one.task, one.strategy]) is None, name
        named = {key for key in CONDITIONS if getattr(one, key) is not None}
        assert named >= {*CONDITIONS} - ({"foreach"} if "paged" in one.under else set()), name
        assert ("r 8" in one.under) == bool(one.options), name


@pytest.mark.parametrize(
    ("token", "has", "about"),
    [
        ("precision=bf16", "precision=bf16", "precision=fp32"),
        ("checkpointing=true", "checkpointing=true", "checkpointing=false"),
        ("foreach=false", "foreach=false", "foreach=true"),
        ("tasks.gpt2-small-seq128.batch=4", "batch=4", "batch=1"),
        ("tasks.gpt2-small-seq128.sequence=64", "sequence=64", "sequence=128"),
        ("tasks.gpt2-small-seq128.model=random:gpt2-xl", "model=random:gpt2-xl", "model=random:gpt2"),
    ],
)
def test_a_claim_is_not_judged_by_another_cell(token: str, has: str, about: str) -> None:
    """Whatever it is predicted to hold: the claim would not hold, and stays open instead."""
    request = load(["suite=memory-claims", "tasks=gpt2-small-seq128", token])
    [job] = plan.make(request).jobs
    known = {job.cell.id: Predicted(peak_bytes=9 * GIB)}
    [one] = claims(request, plan.make(request), known)
    assert one.holds is None and one.peak == 9 * GIB
    words = f"the cell computes with {has}, the claim is about {about}"
    assert verdicts([one]) == {one.claim.says: f"open for gpt2-small-seq128 ({words})"}
    assert claim_row(one)["unlike"] == words and claim_row(one)["holds"] is None


def test_a_claim_about_options_is_open_where_they_are_others() -> None:
    tokens = ["suite=memory-claims", "tasks=llama-65b-seq128", "strategies=qlora", "strategies.qlora.r=16"]
    request = load(tokens)
    [job] = plan.make(request).jobs
    one = request.suite.claims["llama-65b-qlora-seq128"]
    assert unlike(one, job.cell) == "the cell computes with r=16, the claim is about r=8"


@pytest.mark.parametrize("expects", [{}, {"gigabytes": [1, 2], "fits": "t4"}])
def test_a_claim_expects_one_thing(expects: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="either 'gigabytes' or 'fits'"):
        claim("a", **expects)


def test_overrides_reach_the_strategies_a_task_lists() -> None:
    """Else they would silently do nothing."""
    tokens = ["suite=memory-claims", "tasks=llama-65b-seq128", "strategies=qlora,full", "strategies.qlora.r=16"]
    jobs = {job.cell.strategy: job for job in plan.make(load(tokens)).jobs}
    assert jobs["qlora"].options["r"] == 16 and jobs["qlora"].cell.checkpointing
    assert not jobs["full"].cell.checkpointing
