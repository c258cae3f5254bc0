"""Records of probes: what was asked of a finished cell, and what it answered. One file a probe, beside the cell's.

Absent is `None`. Items are told by row numbers, never by text.
"""

from __future__ import annotations

import statistics
from typing import Any, Literal

from pydantic import Field

from bench.records import Outcome, Phase, Record, Sealed

PROBE_VERSION = 1


class FormatAnswer(Record):
    """One prompt format with one draw of demonstrations: what the cell scored when it was asked so."""

    number: int
    """Of the format, from 0; 0 is the task's own first template."""
    described: dict[str, str]
    """What the format is made of: separator, casing, field names, order, spacing, label words, instruction, chat."""
    trained_on: bool = False
    """Whether the cell was trained on this format."""
    demonstrations: int | None = None
    """Which draw and order of demonstrations stood in front; None where there are none."""
    scores: dict[str, float]
    """Metric name -> value: the task's metric and accuracy."""
    calibrated: dict[str, float] | None = None
    """The same after contextual calibration (Zhao et al. 2021); None where it is not defined."""
    answers: list[int]
    """Items answered with each label, in the order of the labels."""
    calibrated_answers: list[int] | None = None

    @property
    def degenerate(self) -> bool:
        """Whether every item got one and the same label: such a format rules the spread and says nothing else."""
        return max(self.answers) == sum(self.answers)


class FormatFindings(Record):
    """A cell asked in several prompt formats."""

    metric: str
    """The task's metric: the key into `scores` that ranks."""
    items: list[int]
    """Row numbers of the test items asked, the same in every format."""
    chance: float
    """Best value any constant answer reaches on these items, in the task's metric."""
    answers: list[FormatAnswer]
    calibrates: bool = False
    """Whether the cell itself answers calibrated: then `calibrated` are its scores."""
    plain_forwards: int | None = None
    """Forward passes of the task's own format alone."""
    forwards: int | None = None
    """Forward passes of the whole probe."""
    notes: list[str] = Field(default_factory=list)


Verdict = Literal["seen", "not seen", "no power", "not applicable"]
"""`seen`: the check says the test items were trained on. `not seen`: it would have told (see `power`) and did not.
`no power`: this check cannot tell here, so nothing follows. `not applicable`: it could not be made."""


SHORT = "items too short to tell"
"""A figure of overlap checks: test items too short to be looked for."""


class Check(Record):
    """One contamination check of one cell. `p` is as the test gave it, its verdict already holds after Holm over the
    cell's checks (`figures["p, Holm"]`)."""

    name: str
    """`membership`, `overlap`, `overlap: pool`, or `perturbation: <which>`."""
    family: Literal["membership", "overlap", "perturbation"]
    kind: Literal["invariant", "directional"] | None = None
    """Of a perturbation: whether the right answer stays or changes in a known way."""
    statistic: float | None = None
    """Membership: mean gain of the test items less that of the controls, nats. Overlap: share of test items found.
    Perturbation: drop of the score under the change, less that of the reference."""
    low: float | None = None
    """Lower end of the statistic's 95% interval."""
    high: float | None = None
    p: float | None = None
    """Of the named test, one-sided towards `seen`; None where the check is no test."""
    n: int | None = None
    """Items it rests on."""
    plain: float | None = None
    """Perturbation: accuracy on these items as they are."""
    changed: float | None = None
    """Perturbation: accuracy after the change."""
    reference: str | None = None
    """What it is held against: `base`, `clean twin`, `controls`, ..."""
    figures: dict[str, float] = Field(default_factory=dict)
    """Further numbers in words of their own."""
    verdict: Verdict
    says: str
    """The verdict in a sentence a user understands."""


class ContaminationFindings(Record):
    """The contamination checks of one cell."""

    dose: int = 0
    """How often it was trained on the test items before its normal training; 0: a clean cell."""
    test_items: list[int] = Field(default_factory=list)
    """Row numbers of the drawn test items: what a planted cell was trained on."""
    control_items: list[int] = Field(default_factory=list)
    """Row numbers of the controls: same pool, trained on by nobody."""
    test_accuracy: float | None = None
    control_accuracy: float | None = None
    checks: list[Check]
    correct: dict[str, list[bool]] = Field(default_factory=dict)
    """Perturbation -> for each test item whether it was right, in the order of `test_items` (`plain`: as it is): what
    the difference in differences against a clean twin is made of. Several variants of one are told apart by ` #n`."""
    touched: dict[str, list[bool]] = Field(default_factory=dict)
    """Perturbation -> for each test item whether it was changed at all; the others say nothing."""
    notes: list[str] = Field(default_factory=list)


class Retained(Record):
    """One task a cell was not tuned for: what its base answered, and what the tuned model does."""

    task: str
    items: list[int]
    """Row numbers of the test items asked."""
    before: list[bool]
    """Whether the base answers each right, in the task's own prompt."""
    after: list[bool]
    """Whether the tuned model does."""
    chance: float
    """Accuracy of the best constant answer on these items."""
    low: float
    """Of the change of accuracy, with its 95% interval over items (Newcombe 1998, method 10)."""
    high: float

    @property
    def change(self) -> float:
        """Accuracy after less accuracy before."""
        return (sum(self.after) - sum(self.before)) / len(self.items)


class RetentionFindings(Record):
    """Tasks a cell was not tuned for, asked before and after."""

    tasks: list[Retained]
    notes: list[str] = Field(default_factory=list)


class Text(Record):
    """What was written to one prompt before and after. None where it shares words in a row with a text of the data."""

    before: str | None
    after: str | None


class WritingFindings(Record):
    """What a policy wrote, before and after its preferences were trained; one entry a response."""

    against: str
    """What stands for before."""
    scorer_accuracy: float
    """Of the independent scorer on the task's test pairs."""
    scorer_pairs: int
    """Pairs the scorer learned from."""
    before: list[float]
    """The scorer's rewards, of no unit."""
    after: list[float]
    kl: list[float] | None
    """Log-probability of each later response less that under the earlier policy, nats: the mean is the KL."""
    kl_bound: float | None = None
    """Where a response is the best of n: the most the KL can be (Beirami et al. 2024), nats."""
    tokens_before: list[int]
    tokens_after: list[int]
    topic_before: list[bool]
    """Whether a response names anything the task's texts are about."""
    topic_after: list[bool]
    topic_data: float
    """Share of the task's own test texts that do."""
    distinct_before: float | None
    """Different pairs of words in a row over all of them."""
    distinct_after: float | None
    texts: list[Text]

    @property
    def gain(self) -> float:
        """Mean reward after less before, in SDs of the rewards before."""
        return (statistics.fmean(self.after) - statistics.fmean(self.before)) / (statistics.stdev(self.before) or 1.0)

    @property
    def wins(self) -> list[float]:
        """1 where the later response has the higher reward, 0.5 for a tie."""
        return [(new > old) + 0.5 * (new == old) for old, new in zip(self.before, self.after, strict=True)]


class ProbeRecord(Sealed):
    """`probes/<name>.json` beside a cell's record."""

    schema_version: int = PROBE_VERSION
    cell: str
    """The cell's id."""
    probe: Literal["formats", "contamination", "retention", "writing"]
    asked: dict[str, Any]
    """The probe's options with defaults filled in; the same options are not asked again."""
    outcome: Outcome
    phase: Phase | None = None
    """What it cost: never part of the cell's own phases."""
    formats: FormatFindings | None = None
    contamination: ContaminationFindings | None = None
    retention: RetentionFindings | None = None
    writing: WritingFindings | None = None
    environment: dict[str, Any] = Field(default_factory=dict)
