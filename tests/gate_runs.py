"""Pairs of fake runs for tests of the regression gate: a base, and a new run that differs in what a test says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from records_factory import Fake, write_run

from bench.compare.sides import read_side
from bench.compare.whole import Comparison, compare
from bench.records import Predicted, PredictedPhase, Result, Status

SMALL = {"tasks": ("sst2",), "strategies": ("zero_shot", "lora"), "items": 200}
LORA = "smollm2-135m-instruct sst2 lora s0"
Edit = Callable[[Result], Result]


def full(result: Result) -> Result:
    """A record with everything the gate looks at."""
    if result.outcome.status is not Status.ok:
        return result
    adapt, predict = result.phases["adapt"], result.phases["predict"]
    trains = adapt.flops is not None
    more = {"steps": 32, "examples": 256, "forwards": 256, "step_seconds": adapt.seconds} if trains else {}
    asked = {"steps": 7, "examples": 200, "forwards": 400, "tokens": 5000, "flops": 2e12, "step_seconds": 3.0}
    phases = {"adapt": adapt.model_copy(update=more), "predict": predict.model_copy(update=asked)}
    peak = PredictedPhase(peak_bytes=1000, parts={"activations": 1000})
    known = Predicted(peak_bytes=1000, flops=4.1e12, phases={"adapt": peak})
    return result.model_copy(update={"phases": {**result.phases, **phases}, "predicted": known})


def changed(strategy: str, change: Edit) -> Edit:
    """`full`, and one strategy's record changed."""
    return lambda result: change(full(result)) if result.cell.strategy == strategy else full(result)


def phase(name: str, **figures: Any) -> Edit:
    """Other figures of one phase."""

    def edit(result: Result) -> Result:
        other = result.phases[name].model_copy(update=figures)
        return result.model_copy(update={"phases": {**result.phases, name: other}})

    return edit


def runs(folder: Path, edit: Edit = full, **new: Any) -> tuple[Path, Path]:
    """A base and a new run of the same cells, the second edited."""
    base = write_run(folder / "base", Fake(**{**SMALL, "edit": full}))
    return base, write_run(folder / "new", Fake(**{**SMALL, "edit": edit, **new}))


def found(folder: Path, edit: Edit = full, **new: Any) -> Comparison:
    """The comparison of such a pair."""
    base, other = runs(folder, edit, **new)
    return compare(read_side(str(base)), read_side(str(other)))


def answer(folder: Path, strategy: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the stored predictions of a strategy's cells."""
    for path in folder.glob(f"*-{strategy}-*/predictions.parquet"):
        table = pq.read_table(path).to_pydict()
        change(table)
        pq.write_table(pa.table(table), path)
