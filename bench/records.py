"""The record of a cell: the product of this harness. One frozen tree, one docstring a field.

Absent is `None` and is printed "not measured"; never -1, 0.0 or an empty string.
Times are seconds, sizes are bytes, and lengths are tokens throughout.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field, field_validator

from bench.config.schema import AXES, Claim
from bench.measured import Curated as Curated
from bench.measured import Halt as Halt
from bench.measured import LeftOut as LeftOut
from bench.measured import Parameters as Parameters
from bench.measured import Phase as Phase
from bench.measured import Predicted as Predicted
from bench.measured import PredictedPhase as PredictedPhase
from bench.measured import Rank as Rank
from bench.measured import Record as Record
from bench.measured import Score as Score
from bench.measured import Sealed as Sealed
from bench.measured import Training as Training
from bench.measured import Trial as Trial
from bench.measured import Tuning as Tuning
from bench.measured import Used as Used

SCHEMA_VERSION = 1
NEAR_TIE = 1e-3
"""Nats between the best two label scores below which rounding may decide."""


class Status(StrEnum):
    """How a cell ended. `error` and `interrupted` run again; the rest stand."""

    ok = "ok"
    out_of_memory = "out_of_memory"
    unsupported = "unsupported"
    diverged = "diverged"
    timeout = "timeout"
    error = "error"
    interrupted = "interrupted"


class Outcome(Record):
    """How a cell ended, and in a sentence why and what to do."""

    status: Status
    reason: str | None = None
    """Why it ended so and what to do about it; None where it is `ok`."""
    limit_seconds: float | None = None
    """The limit a `timeout` ran into; the cell runs again only under a larger one."""


STOPPED_BY = {Status.timeout: "cell_seconds", Status.out_of_memory: "memory"}
"""Outcome -> the limit that ended such a cell, whatever it had used of its budget."""


class CellInfo(Record):
    """What was measured: a cell's identity in full."""

    id: str
    """`task-strategy-s{seed}-{hash8}`."""
    suite: str
    model: str
    """The model as the suite names it (an alias or a `form:` of DESIGN 7)."""
    task: str
    strategy: str
    """The name in the suite; a variant's own name where it has one."""
    base_strategy: str
    """The strategy file's name."""
    family: str
    """The strategy's family, for grouping."""
    group: str | None = None
    """The group it is ranked in apart from all others, where it decides no headline; None: it decides."""
    readout: str
    """`head` or `verbalizer`: how an answer is read from the model. A table ranks within one readout."""
    metric: str
    """The task's metric; the key into `scores` that ranks."""
    seed: int
    seeded: bool = True
    """Whether the seed can change the result at all."""
    options: dict[str, Any]
    """The strategy's options with defaults filled in."""
    budget: dict[str, Any]
    """The budget with its one binding axis and caps."""
    precision: str
    """`fp32`, `bf16` or `fp16`."""
    device: str
    """Device type: `cpu` or `cuda`."""
    batch: int
    micro_batch: int | Literal["auto"] | None = None
    """Rows per forward asked for; `auto`: the most that fit (see `training`); None: a step is one forward."""
    sequence: int
    checkpointing: bool = False
    """Whether activations were dropped in the forward pass and computed again for the backward pass."""
    foreach: bool = False
    """Whether AdamW worked on all weights at once."""
    sharding: Literal["ddp", "fsdp2"] | None = None
    """How training was spread over several processes; None: one process."""
    devices: int | None = None
    """So many processes, each with a device of its own; None: one."""
    sources: dict[str, str] = Field(default_factory=dict)
    """Other tasks trained on together with this one: name -> digest of task and data."""
    held_out: str | None = None
    """The task's type, where it trained on tasks of other types only; None for every other strategy."""
    formats_digest: str | None = None
    """Digest of the prompt formats trained on, where they are several (`formats_in_training`)."""
    limit: int | None = None
    """Test rows scored, where the suite limits them."""
    plant: int = 0
    """How often it was trained on its test items before its normal training: a positive control, never ranked."""
    plant_items: int | None = None
    """So many test items, drawn by the seed from all of the split; they are what a planted cell is scored on."""
    engine: str | None = None
    """The library whose loop trained it in place of ours (`trl`), as a check: never ranked, never matched."""
    model_fingerprint: str
    """What the model's bytes are: a checksum, or a pinned revision, or the recipe of random weights."""
    task_digest: str
    """Digest of the task's templates, labels, columns and metric."""
    numerics: int
    """Version number of our numerics; a change of results by a change of ours raises it."""

    @field_validator("budget")
    @classmethod
    def of_numbers(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Tables and curves count with them; a record that was changed by hand or on its disk may hold anything."""
        for key in ("labels", *AXES, "memory_gib", "trials", "folds"):
            given = value.get(key)
            if given is not None and (isinstance(given, bool) or not isinstance(given, int | float)):
                raise ValueError(f"{key} is no number")
            if isinstance(given, float) and not math.isfinite(given):
                raise ValueError(f"{key} is no finite number")
        return value


class Apart(Record):
    """Training rows left out because a text of theirs stands in a test set (`drop_overlap` of a task)."""

    dropped: int
    """Training rows left out."""
    of: int
    """Training rows there were."""
    compared: dict[str, int] = Field(default_factory=dict)
    """Test set -> texts it holds."""
    missing: list[str] = Field(default_factory=list)
    """Test sets that were to be compared with, and that the bundled sample has nothing for."""


class Agreement(Record):
    """How often a judge and people prefer the same answer."""

    principle: str | None = None
    """The principle the judge went by; None: all rows together."""
    n: int
    """Rows that both judged."""
    share: float
    """Of which they prefer the same answer."""
    low: float
    """Lower end of its 95% interval (Wilson)."""
    high: float
    """Upper end."""
    kappa: float | None = None
    """Cohen's kappa (1960); None where both always name the same place."""
    kappa_low: float | None = None
    """Lower end of its 95% interval (percentile bootstrap over rows)."""
    kappa_high: float | None = None
    """Upper end."""


class Judged(Record):
    """Labels that a judge made (`columns.human` of a task), and what people say of them."""

    by: str | None = None
    """The judge, as the suite names it."""
    rows: int
    """Rows the judge labelled, training and test."""
    agreements: list[Agreement] = Field(default_factory=list)
    """Over all rows that people judged too, then by principle; empty where there is none."""
    scored_against: Literal["people", "judge"]
    """Whose labels the test rows have."""
    left_out: int = 0
    """Test rows not scored because no person judged them, while people judged others."""


class DataInfo(Record):
    """What the cell read."""

    source: str
    """`mirror`, `hub`, `sample` or `path`."""
    fingerprint: str
    """`sha256:...` over the data files read, or the hub's pinned revision."""
    train_rows: int | None = None
    """Training rows the label budget draws from."""
    apart: Apart | None = None
    """What was dropped from the training rows for the sake of test sets; None where nothing was compared."""
    judged: Judged | None = None
    """Where a judge made the labels that are trained on: its agreement with people."""
    train_matches: str | None = None
    """Pattern those rows were chosen by; None where all of the split was used."""
    test_rows: int | None = None
    """Rows scored."""
    truncated: int | None = None
    """Inputs (train and test) that were longer than `sequence` and lost their front."""
    label_counts: list[int] | None = None
    """Test rows of each label, in the order of `labels`; None where answers are texts or entities."""
    labels: list[str] = Field(default_factory=list)
    """Label names."""


class Result(Sealed):
    """The record of one cell."""

    schema_version: int = SCHEMA_VERSION
    cell: CellInfo
    outcome: Outcome
    scores: dict[str, Score] | None = None
    """Metric name -> score; None where the cell has none."""
    parameters: Parameters | None = None
    phases: dict[str, Phase] = Field(default_factory=dict)
    """Of a sharded cell rank 0's, but with the peaks of the rank that held most."""
    ranks: list[Rank] = Field(default_factory=list)
    """Of a sharded cell what each of its processes held; empty for one process."""
    used: Used | None = None
    training: Training | None = None
    tuning: Tuning | None = None
    predicted: Predicted = Field(default_factory=Predicted)
    data: DataInfo
    model_note: str | None = None
    """What the base model already is (instruction-tuned, 4-bit source, random ...), in a sentence."""
    predictions_sha256: str | None = None
    """SHA-256 of predictions.parquet as it was written; None where there is none, and in records older than this."""
    curated: list[Curated] = Field(default_factory=list)
    """What a filter or a choice left of the rows of its sources, where one was asked for."""
    near_ties: int | None = None
    """Test items whose best two label scores lie within 1e-3: another batch size or machine may answer differently."""
    notes: list[str] = Field(default_factory=list)
    """Remarks a reader of the score needs (one label for every item; biases created; ...)."""
    environment: dict[str, Any] = Field(default_factory=dict)
    """Machine, versions, commit, dirty flag, digest of the code, time of day."""

    @field_validator("environment")
    @classmethod
    def of_known_shape(cls, value: dict[str, Any]) -> dict[str, Any]:
        """What reports and comparisons look into; other keys may hold anything."""
        machine = value.get("machine")
        groups = {"machine": machine, "versions": value.get("versions")}
        groups |= {"machine.gpu": machine.get("gpu")} if isinstance(machine, dict) else {}
        for name, given in groups.items():
            if given is not None and not isinstance(given, dict):
                raise ValueError(f"{name} is no group of values")
        for key in ("code_digest", "commit", "dirty", "threads", "time"):
            if isinstance(value.get(key), dict | list):
                raise ValueError(f"{key} is no single value")
        return value


class PlanFile(Sealed):
    """`results/<run>/plan.json`: the cells last asked for, in order. A report renders exactly these."""

    schema_version: int = SCHEMA_VERSION
    run: str
    suite: str
    description: str = ""
    source: str
    """The one data source of the run: `mirror`, `hub`, `sample` (tasks with a `path` are their own)."""
    cells: list[CellInfo]
    code_digest: str
    """Digest of our code at the time of asking; records of other code are marked in the report."""
    claims: dict[str, Claim] = Field(default_factory=dict)
    """Statements of the literature that cells of the suite test."""
    created: str
    """ISO 8601 time, UTC."""
