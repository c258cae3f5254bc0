"""A run's records hold what was foretold of their cells."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runs import run_here, write_strategies

from bench.forecast import Predictor
from bench.records import Status

pytestmark = pytest.mark.usefixtures("forked")


@pytest.mark.slow
def test_every_record_holds_its_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of cells that worked, of one that cannot and of one that died; a second run asks nobody."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    own = f"adapters_path={write_strategies(tmp_path / 'adapters', {'dies': 'import os; os._exit(3)'})}"
    asked = [own, "predict=true", "strategies=lora,prefix_tuning,dies", "model=random:tiny-bert"]
    worked, cannot, died = run_here(tmp_path, *asked)
    assert worked.predicted.peak_bytes and worked.predicted.flops == worked.used.train_flops  # type: ignore[union-attr]
    assert worked.predicted.phases["adapt"].parts["activations"] > 0
    assert cannot.outcome.status is Status.unsupported and (cannot.predicted.reason or "").startswith("unsupported: ")
    assert died.outcome.status is Status.error and "exit code 3" in (died.predicted.reason or "")
    assert "predicting the memory of 3 cells" in (tmp_path / "output.txt").read_text()
    page = (tmp_path / "reports" / "smoke.md").read_text()
    assert "Predicted beside measured memory" in page
    starts: list[Predictor] = []
    monkeypatch.setattr(Predictor, "start", starts.append)
    again = [own, "predict=true", "rerun=all", "strategies=lora,prefix_tuning", "model=random:tiny-bert"]
    for one, before in zip(run_here(tmp_path, *again), (worked, cannot), strict=True):
        assert one.predicted.model_copy(update={"seconds": None}) == before.predicted and starts == []
    [left_out] = run_here(tmp_path, own, "predict=false", "rerun=all", "strategies=lora", "model=random:tiny-bert")
    assert left_out.predicted.peak_bytes is None and left_out.predicted.reason == "not predicted: predict=false"
