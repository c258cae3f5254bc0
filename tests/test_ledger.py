"""A ledger per phase: seconds that do not overlap, and adapting that holds no evaluation, nor the reverse."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_conformance import job_of

from bench.measure import phases
from bench.store import read_result
from bench.worker import run_cell


@pytest.mark.parametrize("name", ["zero_shot", "few_shot", "frozen", "full", "lora", "adapter", "autoprompt"])
def test_every_token_is_in_the_ledger_of_its_phase(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A witness at the embedding counts what is forwarded in each phase; the meter, which watches the model, agrees."""
    seen: dict[str, int] = {}
    spans: list[tuple[str, float, float]] = []
    running = ["outside"]
    inner = phases.Ledger.phase

    @contextmanager
    def witnessed(ledger: Any, phase: str, meter: Any = None) -> Iterator[None]:
        assert running == ["outside"], "a phase inside a phase"
        with inner(ledger, phase, meter):
            start, running[0] = time.perf_counter(), phase
            try:
                yield
            finally:
                running[0] = "outside"
                spans.append((phase, start, time.perf_counter()))

    def base() -> Any:
        held = tiny.base("tiny-gpt2")
        table: Any = held.module.get_input_embeddings()  # type: ignore[operator]
        table.register_forward_pre_hook(
            lambda _, args: seen.update({running[0]: seen.get(running[0], 0) + args[0].numel()})
        )
        return held

    monkeypatch.setattr(phases.Ledger, "phase", witnessed)
    job = job_of(name, "tiny-gpt2", tmp_path)
    Path(job.folder).mkdir(parents=True)
    begun = time.perf_counter()
    assert run_cell(job, base, lambda phase, share: None) == 0
    whole = time.perf_counter() - begun
    record = read_result(Path(job.folder) / "result.json")
    assert record.outcome.status == "ok" and record.used is not None

    assert "outside" not in seen and "load" not in seen, "nothing is computed outside the phases that count it"
    for phase in ("adapt", "predict"):
        assert (record.phases[phase].padded_tokens or 0) == seen.get(phase, 0), phase
    assert record.phases["predict"].examples == record.data.test_rows == 8, "the test items, once each"
    assert (record.phases["adapt"].examples or 0) == record.used.train_examples

    assert [phase for phase, _, _ in spans] == ["load", "adapt", "predict"]
    assert all(end <= start for (_, _, end), (_, start, _) in pairwise(spans))
    for phase, start, end in spans:
        assert 0 < record.phases[phase].seconds < end - start + 0.05
        assert (record.phases[phase].step_seconds or 0) <= record.phases[phase].seconds
    assert sum(phase.seconds for phase in record.phases.values()) <= whole


def test_evaluation_leaves_the_training_ledger_alone(tmp_path: Path) -> None:
    """Four times the test items: adapt's examples, tokens and FLOPs stay, predict's grow."""
    records = []
    for limit in (8, 32):
        job = job_of("full", "tiny-gpt2", tmp_path / str(limit))
        job = job.model_copy(update={"task": job.task.model_copy(update={"limit": limit})})
        Path(job.folder).mkdir(parents=True)
        assert run_cell(job, partial(tiny.base, "tiny-gpt2"), lambda phase, share: None) == 0
        records.append(read_result(Path(job.folder) / "result.json").phases)
    few, many = records
    for figure in ("examples", "tokens", "padded_tokens", "flops", "steps"):
        assert getattr(few["adapt"], figure) == getattr(many["adapt"], figure) > 0
    assert many["predict"].examples == 4 * (few["predict"].examples or 0) == 32
    assert (many["predict"].flops or 0) > 2 * (few["predict"].flops or 0)
