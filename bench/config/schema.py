"""What a suite and a run are made of. Everything here is frozen, and what cannot be read is a worded fault."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from bench.config.data import DataRef as DataRef
from bench.config.data import HeldOut as HeldOut
from bench.config.data import Pairs as Pairs
from bench.config.data import Splits as Splits
from bench.config.data import Template as Template
from bench.config.frozen import Frozen, Whole, Word, safe_name
from bench.config.probes import Probes
from bench.config.task import Precision as Precision
from bench.config.task import Task as Task
from bench.errors import nearest

AXES = ("train_examples", "train_tokens", "train_flops", "train_seconds", "epochs")
WHOLE_AXES = ("train_examples", "train_tokens", "epochs")
COUNTS = ("labels", "curve")
"""The two ways to say how many labels a budget has."""
Readout = Literal["auto", "head", "verbalizer"]
Search = Literal["grid", "halving"]
Sharding = Literal["ddp", "fsdp2"]
MOST_GIB = 1e6
"""A cap is below this: no machine has it, and a larger number of bytes is soon none."""
MOST_WHOLE = 2.0**63
"""A rung of a whole axis is below this, as a float given for the axis itself is."""
FOLDS = 2
"""Parts of the labels, where `budget.folds` does not say: with few labels, halves leave both sides some."""


class Budget(Frozen):
    """What a cell may read and spend. Exactly one axis binds; the rest are caps (DESIGN 4).

    A suite's budget may stand for several: `curve` names label counts, `ladder` values of the axis, and `epochs`
    follows the labels. A cell's never does (see `expanded`).
    """

    labels: int = Field(128, ge=0, description="distinct labelled target items read for any purpose")
    train_examples: int | None = Field(None, ge=1, description="examples forwarded in training, repeats counted")
    train_tokens: int | None = Field(None, ge=1, description="real (non-padding) tokens forwarded in training")
    train_flops: float | None = Field(None, gt=0, description="floating-point operations in training")
    train_seconds: float | None = Field(None, gt=0, description="seconds of optimizer steps")
    epochs: int | None = Field(None, ge=1, description="training examples as a multiple of the label budget")
    curve: list[Whole] | None = Field(None, min_length=1, description="label counts, each run, in place of `labels`")
    ladder: list[float] | None = Field(None, min_length=1, description="values of the binding axis, each run")
    memory_gib: float | None = Field(None, gt=0, lt=MOST_GIB, description="cap on resident (CPU) or device memory")
    trials: int | None = Field(None, ge=2, description="configurations each strategy tries, its defaults among them")
    search: Search | None = Field(None, description="with trials: `halving` (the default) or `grid`, all to the end")
    folds: int | None = Field(None, ge=2, description="with trials: parts of the labels, each held out once (2)")

    @model_validator(mode="after")
    def trials_first(self) -> Budget:
        if self.trials is None and (stray := [key for key in ("search", "folds") if getattr(self, key) is not None]):
            raise ValueError(f"{stray[0]} says how trials are searched, and there are none: give budget.trials too")
        return self

    @model_validator(mode="after")
    def one_count_of_labels(self) -> Budget:
        if self.curve is None:
            return self
        if "labels" in self.model_fields_set:
            raise ValueError("labels and curve both say how many labels: give one, e.g. budget.curve=[64]")
        if min(self.curve) < 0 or len(set(self.curve)) != len(self.curve):
            raise ValueError(f"curve holds label counts of 0 or more, each once, got {self.curve}")
        return self

    @model_validator(mode="after")
    def one_axis(self) -> Budget:
        axes = [a for a in AXES if getattr(self, a) is not None]
        if len(axes) != 1:
            raise ValueError(
                f"exactly one budget axis must bind, got {axes or 'none'}; allowed: one of {', '.join(AXES)}"
            )
        return self

    @model_validator(mode="after")
    def rungs(self) -> Budget:
        if self.ladder is None:
            return self
        if min(self.ladder) <= 0 or len(set(self.ladder)) != len(self.ladder):
            raise ValueError(f"ladder holds values of the axis above 0, each once, got {self.ladder}")
        if self.axis in WHOLE_AXES and any(value % 1 for value in self.ladder):
            raise ValueError(f"ladder holds whole numbers of {self.axis}, got {self.ladder}")
        if self.axis in WHOLE_AXES and max(self.ladder) >= MOST_WHOLE:
            raise ValueError(f"ladder holds numbers of {self.axis} below {MOST_WHOLE:.0f}, got {self.ladder}")
        return self

    @property
    def axis(self) -> str:
        """Name of the binding axis."""
        return next(a for a in AXES if getattr(self, a) is not None)

    def expanded(self) -> list[Budget]:
        """One budget a label count and rung, `epochs` turned into training examples (1 at least: an axis is never
        0)."""
        counts = [self.labels] if self.curve is None else sorted(self.curve)
        rungs = [getattr(self, self.axis)] if self.ladder is None else sorted(self.ladder)
        return [self._at(labels, rung) for labels in counts for rung in rungs]

    def _at(self, labels: int, rung: float) -> Budget:
        value = int(rung) if self.axis in WHOLE_AXES else rung
        update: dict[str, Any] = {"labels": labels, "curve": None, "ladder": None, self.axis: value}
        if self.trials is not None:
            update |= {"search": self.search or "halving", "folds": self.folds or FOLDS}
        if self.epochs is not None:
            update |= {"train_examples": max(1, round(labels * value)), "epochs": None}
        return self.model_copy(update=update)


class Claim(Frozen):
    """A statement of the literature about memory, as something a cell can show."""

    task: str
    strategy: str
    gigabytes: tuple[float, float] | None = Field(None, description="expected peak, GB (10^9 bytes): lowest, highest")
    fits: str | None = Field(None, description="a card the cell is said to fit")
    says: str = Field(description="the statement")
    under: str = Field(description="what the cell computes with: weights, optimizer, attention, dropout, loss")
    source: str = Field(description="where it stands")
    model: str | None = Field(None, description="the cell's model; where a cell has another, the claim stays open")
    precision: Literal["fp32", "fp16", "bf16"] | None = Field(None, description="the cell's precision, likewise")
    batch: int | None = Field(None, ge=1, description="the cell's rows per optimizer step, likewise")
    sequence: int | None = Field(None, ge=8, description="the cell's longest input, likewise")
    foreach: bool | None = Field(None, description="whether AdamW works on all weights at once, likewise")
    checkpointing: bool | None = Field(None, description="whether activations are computed again, likewise")
    options: dict[str, Any] = Field(default_factory=dict, description="the cell's options, likewise")

    @model_validator(mode="after")
    def one_expectation(self) -> Claim:
        if (self.gigabytes is None) == (self.fits is None):
            raise ValueError("a claim expects either 'gigabytes' or 'fits'")
        return self


class Suite(Frozen):
    """What is measured. Every field here can change a result, so all of it is part of a cell's identity."""

    name: str
    description: str = ""
    model: list[str] = Field(min_length=1)
    tasks: dict[str, Task] = Field(min_length=1)
    strategies: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: list[Whole] = Field([0], min_length=1)
    budget: Budget
    claims: dict[str, Claim] = Field(default_factory=dict, description="statements that cells of this suite test")
    foreach: bool = Field(
        False,
        description="AdamW works on all weights at once, which takes room beside them; a card's is fused otherwise",
    )
    probes: Probes = Field(default_factory=Probes, description="what finished cells are asked beyond their score")
    gpu: Word | None = Field(None, description="target card: caps memory on a card, and `plan` says what fits")
    readout: Readout = "auto"
    precision: Precision = "auto"
    batch: int = Field(8, ge=1, description="rows per optimizer step")
    micro_batch: int | Literal["auto"] | None = Field(
        None, description="rows per forward, a step's gradients are accumulated; `auto`: the most that fit the memory"
    )
    checkpointing: bool = Field(False, description="drop activations and compute them again for the backward pass")
    sharding: Sharding | None = Field(
        None, description="how a cell is spread over its devices: `ddp` copies the model, `fsdp2` shards it"
    )
    devices: int | None = Field(None, ge=1, description="processes of a cell, each with a device of its own")
    sequence: int = Field(256, ge=8, description="longest input in tokens; longer ones lose their front")

    @field_validator("name")
    @classmethod
    def plain_name(cls, value: str) -> str:
        return safe_name(value)

    @field_validator("micro_batch", mode="before")
    @classmethod
    def rows_or_auto(cls, value: Any) -> Any:
        """A union's own message would name both of its members."""
        if value is None or value == "auto" or (isinstance(value, int) and value >= 1):
            return value
        close = (
            f"; did you mean '{nearest(value, ['auto'])}'?"
            if isinstance(value, str) and nearest(value, ["auto"])
            else ""
        )
        raise ValueError(f"rows per forward are a whole number from 1 on, or auto{close}")

    @field_validator("sharding", mode="before")
    @classmethod
    def known_sharding(cls, value: Any) -> Any:
        """Of what torch has, by its names."""
        known = get_args(Sharding)
        if value is None or value in known:
            return value
        near = nearest(str(value), list(known))
        raise ValueError(f"a cell is sharded by {' or '.join(known)}" + (f"; did you mean '{near}'?" if near else ""))

    @model_validator(mode="after")
    def how_and_how_many(self) -> Suite:
        devices = self.devices or 1
        if self.sharding is None and devices > 1:
            raise ValueError(
                f"devices={devices} says over how many devices a cell is spread, and not how; allowed: sharding=ddp or "
                "sharding=fsdp2 beside it"
            )
        if self.sharding is not None and devices < 2:
            raise ValueError(
                f"sharding={self.sharding} spreads a cell over several devices, and devices is "
                f"{self.devices or 'not given'}; allowed: devices=2 or more"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def shorthand(cls, raw: Any) -> Any:
        """`model: x` is `[x]`; `seeds: 3` is 0, 1, 2; an empty strategy entry is `{}`."""
        if not isinstance(raw, dict):
            return raw
        raw = dict(raw)
        if isinstance(raw.get("model"), str):
            raw["model"] = [part.strip() for part in raw["model"].split(",") if part.strip()]
        seeds = raw.get("seeds")
        if isinstance(seeds, int) and not isinstance(seeds, bool):
            raw["seeds"] = list(range(seeds))
        if isinstance(raw.get("strategies"), dict):
            raw["strategies"] = {k: ({} if v is None else v) for k, v in raw["strategies"].items()}
        return raw

    @model_validator(mode="after")
    def distinct(self) -> Suite:
        for what, values in (("model", self.model), ("seeds", self.seeds)):
            if len(set(values)) != len(values):
                raise ValueError(f"{what} has an entry twice: {values}")
        own = [name for task in self.tasks.values() for name in task.strategies or {}]
        for name in (*self.tasks, *self.strategies, *own):
            safe_name(name)
        return self
