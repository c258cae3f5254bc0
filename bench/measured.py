"""Parts of a record: what a cell scored, what it cost, what was foretold, and how it was tuned.

Times are seconds, sizes are bytes, and lengths are tokens throughout; absent is `None`.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Base of everything that goes to disk."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


class Sealed(Record):
    """Base of what has a file of its own."""

    sha256: str | None = Field(default=None, exclude=True)
    """SHA-256 of all the file says beside it (`bench.store.seal`): `write_record` makes it, readers check it and leave
    it out. None in memory, and in files older than this, which are read unchecked."""


class Score(Record):
    """One metric over the test items, with a 95% interval over items (it describes one trained model)."""

    value: float
    low: float | None = None
    """Lower end of the 95% interval; None where it cannot be computed."""
    high: float | None = None
    """Upper end of the 95% interval."""
    n: int
    """Test items scored."""
    chance: float
    """Best value any constant answer reaches on these items, in this metric; or what `chance_is` says."""
    chance_is: str | None = None
    """The baseline that stands for chance, which reads no label; None: the best constant answer."""
    interval: str | None = None
    """How the interval was made: `wilson`, `bca`, `percentile`, `clusters`."""
    clusters: int | None = None
    """Clusters the items come in (items that share a passage); None where each stands alone."""
    clusters_worth: float | None = None
    """As many clusters of one size as these are worth: what the interval's coverage hangs on (Kish 1965, 8.2)."""


class Parameters(Record):
    """Sizes of the adapted model."""

    trainable: int
    """Parameters a gradient or a solver changed."""
    total: int
    """Parameters of base and addition together; tied weights count once."""
    stored_bytes: int
    """Bytes written by the strategy's own `save`: what a user keeps for each task, beside the base."""
    created: int | None = None
    """Parameters the strategy added to the base (a head, factors, prompts, created biases)."""


class Phase(Record):
    """What one phase (`load`, `adapt`, `predict`, `probe`) cost. Phases never overlap; peaks are reset at each."""

    seconds: float
    """Wall time of the phase."""
    step_seconds: float | None = None
    """Wall time inside optimizer steps (adapt) or scoring batches (predict)."""
    steps: int | None = None
    """Optimizer steps taken, or batches scored."""
    examples: int | None = None
    """Rows forwarded, repeats counted."""
    forwards: int | None = None
    """Rows through the model: one an item, or one a label where words of several tokens cannot share a row. What is
    asked before a step or written token by token counts every time."""
    tokens: int | None = None
    """Real (non-padding) tokens forwarded."""
    padded_tokens: int | None = None
    """Tokens forwarded with padding."""
    tokens_per_second: float | None = None
    """Real tokens over step time after warm-up (the first steps and steps that counted FLOPs are left out)."""
    flops: float | None = None
    """Floating-point operations, counted by operator shapes; a multiply and an add are two."""
    recomputed_flops: float | None = None
    """Of forward passes repeated for the backward pass (gradient checkpointing); not part of `flops` or any budget."""
    halved: int | None = None
    """Scoring batches that ran out of memory and were scored in halves; None: none."""
    cached_steps: int | None = None
    """Of `steps`, batches whose features had been read before in the run, by another cell or in an earlier phase. The
    phase's figures hold what they cost then (seconds, tokens, FLOPs, peaks), as if they were read here; None: none."""
    cached_forwards: int | None = None
    """Of `forwards`, rows that were not forwarded for that reason."""
    cached_seconds: float | None = None
    """Of `seconds`, those of these batches, which the phase did not take."""
    peak_rss_bytes: int | None = None
    """Highest resident set of the cell's process in this phase (VmHWM, reset at its start)."""
    baseline_rss_bytes: int | None = None
    """Resident set at the start of the phase."""
    peak_allocated_bytes: int | None = None
    """Highest CUDA bytes allocated by torch in this phase; None without CUDA."""
    peak_reserved_bytes: int | None = None
    """Highest CUDA bytes reserved by torch's allocator in this phase; None without CUDA."""
    peak_device_bytes: int | None = None
    """Highest bytes of this process the driver reports (NVML), sampled; None without CUDA."""
    energy_joules: float | None = None
    """Energy of the whole card over the phase (NVML); None where not offered."""


class Rank(Record):
    """What one process of a sharded cell held."""

    rank: int
    """Its number, from 0."""
    phases: dict[str, Phase]
    """`load` and `adapt`: seconds and memory of this process; tokens and FLOPs are the cell's and stand there."""


class PredictedPhase(Record):
    """What memory is predicted to hold at the peak of one phase."""

    peak_bytes: int
    """Bytes of all tensors alive."""
    resident_bytes: int | None = None
    """On a CPU: what the process is expected to hold resident at that peak, over its resident set at the phase's start;
    an allocator's holes included. None on a card, or where it is not modelled."""
    held_bytes: int | None = None
    """Beside `resident_bytes`: the model's weights as they were loaded, which lie in the resident set at that start."""
    parts: dict[str, int]
    """What for: `parameters`, `gradients`, `optimizer`, `activations`, `temporaries`, `kv_cache`, `quantisation`."""


class Predicted(Record):
    """What was foretold for the cell, by driving its code with weights that have no values."""

    peak_bytes: int | None = None
    """Largest predicted peak of all phases: bytes of tensors, without CUDA's context and the process itself."""
    phases: dict[str, PredictedPhase] = Field(default_factory=dict)
    """Predicted peak of `load`, `adapt` and `predict`."""
    flops: float | None = None
    """Predicted training FLOPs; None where the budget's axis leaves the number of steps open."""
    trainable: int | None = None
    """Predicted trainable parameters."""
    fits: bool | None = None
    """Whether the peak fits the target card or the cap; None: too close to say, no limit given, or not predicted."""
    limit_bytes: int | None = None
    """The limit of that verdict."""
    seconds: float | None = None
    """Median seconds of like cells recorded on this machine."""
    reason: str | None = None
    """Why a figure is missing, or how much the peak lies under or over the limit."""
    micro_batch: int | None = None
    """Rows per forward that these figures are of, where `micro_batch=auto` chose them."""
    least_bytes: int | None = None
    """What the cell needs at micro-batch 1, where its own peak does not clearly fit the limit."""


class Used(Record):
    """What was used of every budget axis, whichever one bound; None where a cell died before it could tell."""

    ended_by: str | None = None
    """The limit that ended the work: an axis name, `converged`, `nothing to train`, `memory` or `cell_seconds`; None
    where it ended by no limit (see the outcome)."""
    labels: int | None = 0
    """Distinct labelled target items read for any purpose."""
    source_labels: int = 0
    """Distinct labelled items of other tasks, which the label budget does not hold."""
    train_examples: int | None = 0
    """Examples forwarded before the strategy was ready."""
    train_tokens: int | None = 0
    """Real tokens forwarded before the strategy was ready."""
    train_flops: float | None = None
    """FLOPs spent before the strategy was ready."""
    train_seconds: float | None = 0.0
    """Seconds of optimizer steps or searching."""
    progress: float | None = None
    """Share of the binding axis used, 0..1; None where the strategy does not train."""


class Training(Record):
    """How training went."""

    losses: list[float] = Field(default_factory=list)
    """Training loss at every optimizer step, in order."""
    learning_rate: float | None = None
    """Peak learning rate of the main parameter group."""
    still_improving: bool | None = None
    """Whether the loss was still clearly falling when the budget ended (see docs/numbers.md); None untrained."""
    batch: int | None = None
    """Rows per optimizer step."""
    micro_batch: int | None = None
    """Rows per forward, where a step's gradients were accumulated."""
    told: dict[str, list[float]] = Field(default_factory=dict)
    """Name -> one number a step, of what the method itself watched beside its loss, such as how much likelier than
    before the preferred and the other answers of a batch were."""


class Halt(Record):
    """What was seen of a configuration at one share of its budget."""

    share: float
    """Share of the binding axis spent, 0..1; of held-out labels asked about, where nothing trains."""
    log_likelihood: float | None
    """Mean log-probability of the held-out labels over all folds, nats; None where it failed."""


class Trial(Record):
    """One configuration that was tried."""

    values: dict[str, Any]
    """The options that were varied."""
    halts: list[Halt]
    """In order; the last one is the furthest it came."""
    failed: str | None = None
    """Why it has no likelihood."""
    seconds: float
    """Seconds of steps and of asking, over all folds."""
    flops: float
    """FLOPs of steps and of asking, over all folds."""


class Tuning(Record):
    """How the options were chosen within the labels (`budget.trials`)."""

    search: str
    """`halving` or `grid`."""
    folds: int
    """Parts of the labels, each held out once."""
    items: int
    """Labels, each held out once."""
    space: dict[str, list[Any]]
    """Option -> ends of its range, or its values."""
    trials: list[Trial]
    """The first one holds the defaults."""
    chosen: int
    """Which of them was fitted on all labels and scored."""
    edges: list[str] = Field(default_factory=list)
    """Chosen values at an end of their range: a better one may lie beyond."""
    default_scores: dict[str, Score] | None = None
    """What the defaults score on the test items, fitted on all labels; None where they were chosen or could not run."""
    remark: str | None = None
    """Why fewer configurations were tried than the budget allows."""


class LeftOut(Record):
    """One row that was not trained on."""

    row: int
    """Its number in the split's file, from 0."""
    rule: str
    """The first rule that it breaks (see `bench.data.instructions`)."""
    nearest: int | None = None
    """The kept row that it is too near to."""
    similarity: float | None = None
    """ROUGE-L F1 of both instructions, 0..1."""


class Curated(Record):
    """What a filter or a choice left of the rows of one source."""

    source: str
    """The task whose rows they are."""
    candidates: int
    """Rows that were looked at: those the label budget allows."""
    kept: list[int]
    """Row numbers of those that were trained on, in the order they were taken."""
    left_out: list[LeftOut]
    """Rows that break a rule; the others that are missing were not drawn or not chosen."""
    how: str
    """What was done, in a sentence."""
