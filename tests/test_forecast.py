"""Predictions asked for by plan and run: kept by shape, judged, in every record, and made by a lean process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runs import write_strategies

from bench import forecast as forecasting
from bench import plan
from bench.cards import GIB
from bench.cli import main
from bench.config import load
from bench.forecast import PATIENCE_SECONDS, Forecaster, Predictor, place, predictor
from bench.job import Job
from bench.records import Predicted

PLANNED = ["suite=smoke", "tasks=sst2", "model=random:tiny-gpt2", "strategies=lora", "data.source=sample", "device=cpu"]
RANDOM = ["tasks.sst2.data={random: 64}"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def jobs(*tokens: str) -> list[Job]:
    return plan.make(load([*PLANNED, *tokens])).jobs


@pytest.mark.parametrize(
    "tokens",
    ["budget.memory_gib=2", "run.name=other", "results_dir=elsewhere", "threads=1"],
)
def test_what_changes_no_shape_is_predicted_once(tokens: str) -> None:
    assert place(jobs(tokens)[0], False) == place(jobs()[0], False)


@pytest.mark.parametrize(
    "tokens",
    ["batch=4", "micro_batch=2", "sequence=32", "strategies.lora.r=2", "budget.labels=8", "budget.train_examples=8",
     "checkpointing=true", "foreach=true", "readout=head", "precision=bf16", "tasks.sst2.limit=9", "seeds=[1]",
     "model=random:tiny-llama"],
)  # fmt: skip
def test_what_may_change_a_shape_is_predicted_anew(tokens: str) -> None:
    """The seed among them: it draws the rows, and with them the lengths of the heaviest batch."""
    assert place(jobs(tokens)[0], False) != place(jobs()[0], False)
    assert place(jobs()[0], True) != place(jobs()[0], False)


def test_seeds_share_where_every_row_is_as_long() -> None:
    pair = plan.make(load(["suite=memory-claims", "tasks=gpt2-small-seq128", "strategies=full", "seeds=2"])).jobs
    assert len({job.cell.id for job in pair}) == 2 and len({place(job, False) for job in pair}) == 1
    assert len({place(job, False) for job in jobs("seeds=2")}) == 2


def test_a_users_own_strategy_is_part_of_the_key(tmp_path: Path) -> None:
    """Its code is in no digest of ours: an edited file must not find the old figures."""
    folder = write_strategies(tmp_path / "mine", {"own": "raise RuntimeError('one')"})
    tokens = [f"adapters_path={folder}", "strategies=own"]
    before = place(jobs(*tokens)[0], False)
    write_strategies(tmp_path / "mine", {"own": "raise RuntimeError('two')"})
    assert place(jobs(*tokens)[0], False) != before


class Answers(Predictor):
    """Answers at once, and counts."""

    asked = 0

    def ask(self, job: Job, on_card: bool) -> dict[str, Any]:
        Answers.asked += 1
        if job.cell.strategy == "bitfit":
            return {"reason": "unsupported: this model has no gills"}
        if job.cell.strategy == "full":
            return {"reason": "not predicted: it fell over"}
        return {"peak_bytes": 5}


def test_answers_are_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and `unsupported` stand; a predictor that failed is asked again. No process runs for what is known."""
    monkeypatch.setattr(forecasting, "Predictor", Answers)
    monkeypatch.setattr(Answers, "asked", 0)
    wanted = jobs("strategies=lora,bitfit,full")
    for total in (3, 4):
        with Forecaster() as forecaster:
            found = forecaster.ask(wanted, set())
        assert Answers.asked == total
    assert found[wanted[0].cell.id] == Predicted(peak_bytes=5)
    assert (found[wanted[2].cell.id].reason or "").startswith("not predicted")
    with Forecaster() as forecaster:
        forecaster.ask(wanted[:2], set())
        assert forecaster.processes == []


class Kept(Predictor):
    """Outlives whoever asks: starting one takes longer than what is asked here."""

    def stop(self) -> None:
        """Not yet."""


@pytest.fixture(scope="module")
def kept() -> Iterator[Predictor]:
    """One process for the tests that ask about nothing but answers."""
    one = Kept(PATIENCE_SECONDS)
    one.start()  # here: it dies with the thread that starts it
    yield one
    Predictor.stop(one)


DIES = {"dies": "import os; os._exit(3)", "hangs": "import time; time.sleep(600)"}


def test_an_order_that_cannot_be_sent_is_answered(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens to a process, nobody waits for ever."""

    def fails(self: Predictor, job: Job, on_card: bool) -> dict[str, Any]:
        raise OSError("no more processes")

    monkeypatch.setattr(Predictor, "ask", fails)
    [one] = jobs()
    with Forecaster() as forecaster:
        assert forecaster.ask([one], set())[one.cell.id].reason == "not predicted: OSError: no more processes"


def test_a_prediction_that_hangs_or_dies_costs_itself_only(tmp_path: Path) -> None:
    own = f"adapters_path={write_strategies(tmp_path / 'adapters', DIES)}"
    dies, hangs = jobs(own, "strategies=dies,hangs")
    with predictor() as process:
        assert "exit code 3" in process.ask(dies, False)["reason"]
        assert process.ask(jobs()[0], False)["peak_bytes"]
        process.patience = 3
        assert process.ask(hangs, False)["reason"] == "not predicted: no answer in 3 s"


def test_a_plan_is_close_or_sure(
    cache: Path, kept: Predictor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Just around the predicted peak there is no verdict; the cap is not part of what is remembered."""
    monkeypatch.setattr(forecasting, "Predictor", lambda _: kept)

    def planned(*tokens: str) -> dict[str, Any]:
        assert main(["plan", *PLANNED[:-1], *tokens, "--json"]) == 0
        [cell] = json.loads(capsys.readouterr().out)["cells"]
        return dict(cell)

    peak = planned("gpu=t4")["predicted"]["peak_bytes"]
    written = len(list((cache / "predictions").iterdir()))
    for share, fits, begins in ((0.94, None, "close: needs"), (1.05, None, "close: needs"), (1.2, True, "needs"),
                                (0.8, False, "needs")):  # fmt: skip
        cell = planned("gpu=t4", f"budget.memory_gib={share * peak / GIB:.9f}")
        assert cell["fits"] is fits and cell["reason"].startswith(begins), (share, cell["reason"])
        assert cell["limit_bytes"] == pytest.approx(share * peak, rel=1e-3)
        assert (cell["least_bytes"] is None) == (fits is True)
    assert len(list((cache / "predictions").iterdir())) == written + 1, "only micro-batch 1 was asked in addition"
    auto = planned("gpu=t4", "micro_batch=auto", f"budget.memory_gib={0.8 * peak / GIB:.9f}")
    assert auto["micro_batch"] in (1, 2, 4) and auto["predicted"]["peak_bytes"] < peak
    small = planned("device=cpu", "budget.memory_gib=0.2")
    assert small["fits"] is False and small["reason"].startswith("the process alone takes 0.43 GiB")


def test_a_plan_without_predictions_asks_nobody(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: float) -> Predictor:
        raise AssertionError("a predictor was wanted")

    monkeypatch.setattr(forecasting, "Predictor", refuse)
    assert main(["plan", *PLANNED, "gpu=t4", "predict=false", "--json"]) == 0
    [cell] = json.loads(capsys.readouterr().out)["cells"]
    assert cell["fits"] is None and cell["reason"] == "not predicted: predict=false"
    assert cell["predicted"]["peak_bytes"] is None


@pytest.mark.slow
def test_a_large_model_is_predicted_in_little_memory() -> None:
    """GPT-2 XL, all of its weights trained at 1,024 tokens: over 20 GB of tensors, foretold in under 1 GB."""
    [job] = plan.make(load(["suite=memory-claims", "tasks=gpt2-xl-seq1024", "strategies=full"])).jobs
    with predictor(240) as process:
        answer = process.ask(job, False)
        high = process.held()
    assert answer["peak_bytes"] > 20e9
    assert high < 1e9, f"{high / 1e6:.0f} MB"


def test_a_process_outlives_the_thread_that_asked(cache: Path) -> None:
    """The kernel ends it with the thread that started it: several rounds of questions must find it alive."""
    [one] = jobs()
    with Forecaster() as forecaster:
        for rows in (None, 4, 2, 1):
            found = forecaster.ask([one.model_copy(update={"micro_batch": rows})], set())[one.cell.id]
            assert found.peak_bytes is not None, found.reason
