"""The strategy interface: what one file in `adapters/` must offer, and what the engine hands to it.

A strategy prepares a `Plan`; the engine owns the only training loop and drives the plan until the meter says
the budget is spent. Nothing here imports torch at run time, so listing and planning stay fast.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import ConfigDict, Field

from bench.config.frozen import Frozen
from bench.config.schema import Readout, Task, Template
from bench.measured import Curated
from bench.space import Space

if TYPE_CHECKING:
    import numpy as np
    import torch

    from bench.budget import Meter
    from bench.data.rows import Rows
    from bench.models.base import Base

Kind = Literal["causal", "masked", "seq2seq", "encoder"]
ALL_KINDS: frozenset[Kind] = frozenset(("causal", "masked", "seq2seq", "encoder"))


class Unsupported(Exception):
    """This strategy cannot work here; the message says why and names the alternative. Becomes an outcome."""


class Diverged(Exception):
    """Loss or scores are not finite; the message says where. Becomes an outcome."""


class Options(Frozen):
    """Base of every strategy's options."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    readout: Readout = "auto"
    """How the answer is read: `head`, `verbalizer`, or `auto` (the suite's, else what model and strategy allow)."""
    checkpointing: bool | None = None
    """Drop activations and compute them again for the backward pass; None: as the suite says."""
    formats_in_training: int = Field(1, ge=1)
    """Train on a mixture of so many prompt formats: the first ones of the sample drawn with `probes.formats.seed`."""


@dataclass(frozen=True)
class Needs:
    """What a strategy cannot do without; where it is missing the cell is `unsupported` in these words."""

    kinds: frozenset[Kind] = ALL_KINDS
    """Kinds of model it works on."""
    train_labels: int = 1
    """Fewest labelled examples it can start with."""
    labels: bool = False
    """Whether it needs labels that are the same for every row, as a demonstration or a solved probe does."""
    writes: bool = False
    """Whether it works without such labels where the answer is written."""
    continues: bool = False
    """Whether it works without such labels on a task of lm-eval, whose options are texts of the rows."""
    replies: bool = False
    """Whether it needs a task that is answered by writing."""
    pairs: bool = False
    """Whether it needs rows that say which of several answers is preferred: of two texts, or of the labels' words."""


@dataclass(frozen=True)
class TaskContext:
    """What a strategy may see of its task: the labels the budget allows, never the test rows."""

    name: str
    task: Task
    train: Rows
    """The labelled rows of the budget, drawn by seed; the same for every strategy of a seed."""
    seed: int
    readout: Literal["head", "verbalizer"]
    batch: int
    """Rows per optimizer step."""
    sequence: int
    """Longest input in tokens."""
    micro_batch: int | None = None
    """Rows per forward, where gradients of a step are accumulated; None: all of a step at once."""
    sources: tuple[TaskContext, ...] = ()
    """Other tasks trained on together with this one, in the order of their names, each with labels of its own."""
    position: int = 0
    """Where this task stands among its sources by name: every task of a set trains the same."""
    device: str = "cpu"
    """Where the cell computes: `cpu` or `cuda`."""
    foreach: bool = False
    """Whether AdamW works on all weights at once, which takes room beside them; else on a card it is fused."""
    formats: tuple[Template, ...] = ()
    """All prompt formats to train on, the task's own first, where they are several; empty: its own alone."""
    features: Path | None = None
    """Folder for what the untouched model gives for a batch, shared with the run's other cells of the same model,
    precision and device (`bench.score.features`); None: every cell reads for itself."""

    def with_template(self, number: int) -> TaskContext:
        """Asked through the task's template of this number. Raises `Unsupported` where it has fewer."""
        templates = self.task.templates
        if number >= len(templates):
            raise Unsupported(f"template={number}, but {self.name} has {len(templates)}: use 0 to {len(templates) - 1}")
        if number == 0:
            return self
        return replace(self, task=self.task.model_copy(update={"templates": [templates[number]]}))

    @property
    def classes(self) -> int:
        """Number of labels."""
        return len(self.task.labels)


class Answerer(Protocol):
    """What the engine asks after adaptation: label scores for rows it has not seen."""

    @property
    def truncated(self) -> int:
        """Inputs that were longer than allowed and lost their front, so far."""
        ...

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Scores, float64 array (rows, labels), larger is likelier, in the order given."""
        ...

    def through(self, template: Template) -> Answerer:
        """The same adapted model asked through another prompt. Raises `Unsupported` where it reads no prompt."""
        ...


@dataclass
class Examples:
    """What a plan trains on: encoded rows, each with a length and a group, and their labels."""

    encoded: list[Any]
    labels: list[int]
    items: list[tuple[str, int]]
    """Task and row number: which labelled item it is, so that one read twice counts once."""
    beside: list[list[tuple[str, int]]] = field(default_factory=list)
    """Of each row the other labelled items it shows, such as demonstrations; empty: of none."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [e.length for e in self.encoded]

    @property
    def groups(self) -> list[int]:
        """The group of each row."""
        return [e.group for e in self.encoded]


@dataclass
class ParamGroup:
    """Parameters sharing a learning rate."""

    params: list[torch.nn.Parameter]
    lr: float
    """Peak learning rate."""
    weight_decay: float = 0.0
    begins: float = 0.0
    """Share of the budget at which its schedule begins; before it the rate is zero."""
    ends: float = 1.0
    """Share of the budget at which it has come down to zero."""
    later: tuple[tuple[float, float, float], ...] = ()
    """(peak learning rate, begins, ends) of further stages in which the same parameters train."""


@dataclass
class Plan:
    """What the loop needs. `loss` holds the method's own regulariser; `search` replaces the loop where nothing
    is differentiated. A plan with neither groups nor search answers as it is."""

    answer: Answerer
    save: Callable[[Path], None]
    """Writes what a user must keep for this task, beside the base, into an empty folder."""
    load: Callable[[Path], None] | None = None
    """Reads it back into a freshly prepared plan, whose `answer` then answers as the trained one did."""
    module: torch.nn.Module | None = None
    """The module whose training mode the loop sets."""
    groups: list[ParamGroup] = field(default_factory=list)
    examples: Callable[[], Examples] | None = None
    """What is trained on, encoded; once, before the first step."""
    reread: Callable[[Rows], Examples] | None = None
    """Other rows of the cell's own task, encoded as its training rows are: for a planted leak."""
    wants: Callable[[int, float], bool] | None = None
    """(group, progress in 0..1) -> whether a batch of this group is trained on now; None: always."""
    mixed: int = 0
    """Other tasks it trains on beside its own."""
    formats: int = 1
    """Prompt formats it trains on, of every task."""
    redrawn: Callable[[int], Answerer] | None = None
    """Number -> the same strategy with another draw and order of demonstrations; 0: its own. None: it has none."""
    collate: Callable[[Sequence[Any]], Any] | None = None
    """Encoded examples to one padded batch with a `shape` (rows, padded length)."""
    loss: Callable[[Any, torch.Tensor], torch.Tensor] | None = None
    """(batch, labels int64 (rows,)) -> scalar loss, mean over rows or over what `weigh` counts of them."""
    weigh: Callable[[Any], int] | None = None
    """Encoded example -> how many of what the loss is a mean over it holds, such as words to be tagged: the passes of a
    step are weighted by it. None: 1, for the mean is over rows."""
    enter: Callable[[int, Meter], bool] | None = None
    """(group, meter) before the first batch of a group that begins a stage of its own: work on the model as it is then,
    counted by the meter, such as what it answers before it is changed. False: the budget does not hold it."""
    ready: Callable[[int, Meter], bool] | None = None
    """(group, meter) before every batch: makes what it is read from where the method makes that itself, such as answers
    sampled from the model as it is now. False: the budget does not hold it."""
    told: Callable[[], dict[str, list[float]]] | None = None
    """Name -> one number a step, of what the method itself watches beside its loss."""
    after_step: Callable[[float], None] | None = None
    """Called with the progress (0..1) between `optimizer.step()` and `zero_grad()`."""
    finish: Callable[[], None] | None = None
    """Called once after the last step."""
    pause: Callable[[], None] | None = None
    """Called before the plan is asked amid its training, after which it may train on."""
    own_state: Callable[[], dict[str, torch.Tensor]] | None = None
    """What the method keeps beside trained parameters and the optimizer: needed to go on after a pause."""
    restore: Callable[[dict[str, torch.Tensor]], None] | None = None
    """Takes it back into a freshly prepared plan."""
    drive: Callable[[Meter], Any] | None = None
    """Another library's loop over this plan, in place of ours; gives a `bench.train.loop.Trained`."""
    search: Callable[[Meter], str] | None = None
    """Runs in place of the loop and gives what ended it: `converged`, or the budget axis that was spent."""
    labels_used: int | None = None
    """Distinct labels read; None means all rows of `TaskContext.train`."""
    created: int = 0
    """Parameters added to the base."""
    trained: int | None = None
    """Parameters changed where no optimizer group tells (a solved probe)."""
    paged: bool = False
    """Whether the optimizer's state may be paged out to host memory (CUDA, bitsandbytes)."""
    virtual_tokens: int = 0
    """Tokens a row the method puts in front of the input: executed work, which the meter's token axis must foresee."""
    seen: list[torch.nn.Module] = field(default_factory=list)
    """Modules whose forwards the meter watches."""
    notes: list[str] = field(default_factory=list)
    curated: list[Curated] = field(default_factory=list)
    """What a filter or a choice left of a source's rows."""


class Strategy(ABC):
    """One way of adapting a model. Subclass in `adapters/<name>.py` and bind an instance to `strategy`."""

    name: str = ""
    """Set by the registry: the file's stem."""
    family: ClassVar[str]
    trains: ClassVar[str]
    """What trains, in a few words."""
    parameters: ClassVar[str]
    """How many, as a formula in the symbols of docs/taxonomy.md."""
    memory: ClassVar[str]
    """What memory holds while it adapts."""
    paper: ClassVar[str]
    """The source of the method."""
    needs: ClassVar[Needs] = Needs()
    readouts: ClassVar[tuple[Literal["head", "verbalizer"], ...]] = ("verbalizer", "head")
    """Readouts it can use, the preferred one first."""
    base_unchanged: ClassVar[bool] = True
    """Whether the base's own weights are bit-identical afterwards."""
    places_base: ClassVar[bool] = False
    """Whether `prepare` itself puts the base on the cell's device: one that makes it smaller first never holds it whole
    there."""
    keeps_all: ClassVar[bool] = True
    """Whether everything it creates is needed afterwards; not so where an encoder or pruned ranks are thrown away."""
    shards: ClassVar[bool] = False
    """Whether several processes can train its plan together: its loss is a mean over rows, and all it keeps beside its
    parameters goes through `Plan.own_state`."""
    other_types: ClassVar[bool] = False
    """Whether it trains on the run's tasks of other types and on none of its own task's type, which is held out."""
    ranges: ClassVar[Space] = {}
    """Options that `budget.trials` varies, each over its published range; empty: there is nothing to tune."""
    Options: ClassVar[type[Options]] = Options

    def seeded(self, options: Any) -> bool:
        """Whether the seed can change the result; an unseeded strategy is run once whatever `seeds` says."""
        return True

    def spends(self, options: Any) -> bool:
        """Whether a larger budget axis can change the result; one that spends nothing is run at one rung only."""
        return True

    def space(self, options: Any, task: Task) -> Space:
        """`ranges`, as these options and this task leave them."""
        return self.ranges

    def check(self, name: str, task: str, of: Task, options: Any) -> None:  # noqa: B027  # most have nothing to refuse
        """Raise `UserFault` where these options of the suite's entry `name` make no sense on this task, before anything
        runs."""

    @abstractmethod
    def prepare(self, base: Base, context: TaskContext, options: Any) -> Plan:
        """Wrap, initialise and say how to train. Raises `Unsupported` where it cannot work on this base."""
