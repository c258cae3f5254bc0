"""One task: its rows, columns, labels, prompts and metric, and what its kind needs of them."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from bench.config.data import OPTIONS, DataRef, HeldOut, Pairs, Splits, Template, compiles
from bench.config.formats import FormatMaterial
from bench.config.frozen import Frozen, Word
from bench.config.harness import Harness, completed
from bench.config.preferred import ANSWERS as ANSWERS
from bench.config.preferred import CHOSEN, check_preferred
from bench.config.preferred import HUMAN as HUMAN
from bench.config.preferred import PRINCIPLE as PRINCIPLE
from bench.config.reply import KEPT, Reply
from bench.config.written import INPUT as INPUT
from bench.config.written import INSTRUCTION as INSTRUCTION
from bench.config.written import MESSAGES as MESSAGES
from bench.config.written import RATIONALE as RATIONALE
from bench.config.written import RIGHT, check_chat, check_written
from bench.config.written import TARGET as TARGET
from bench.errors import nearest

Metric = Literal["accuracy", "f1", "matthews", "rouge1", "rouge2", "rouge_l", "chrf", "span_f1"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


class Task(Frozen):
    """One task: rows, columns, labels, prompts and the metric."""

    data: DataRef
    splits: Splits
    kind: Literal["classify", "choose", "prefer", "generate", "tag"] = Field(
        "classify", description="the labels are the same for every row, or name its own options, or say which of its "
        "two answers is preferred, or a free reply is right or wrong or shares much with a text, or entities of a text "
        "are named"
    )  # fmt: skip
    type: Word | None = Field(
        None, description="type of task, such as sentiment: instruction tuning trains on other types only; by default "
        "every task is a type of its own"
    )  # fmt: skip
    role: Literal["both", "train", "test"] = Field(
        "both", description="`train`: other tasks train on it and it is not scored; `test`: no other task trains on it"
    )
    objective: Literal["labels", "language"] = Field(
        "labels", description="training loss: over the labels' scores, or over every next token of the prompt"
    )
    columns: dict[str, str] = Field(
        description="field -> data column; `label` is the label's column, `options` holds the list of a row's options "
        "(kind choose), `chosen` and `rejected` or `first` and `second` two answers (kind prefer), `messages` a chat "
        "(kind generate), the others are text. With `human` beside first, second and label, `label` is a judge's and "
        "`human` a person's; `principle`: why"
    )
    labels: list[Word] = Field(
        min_length=1, description="label names in the order of the data's integer labels; kind tag: types of entities"
    )
    gap: float | None = Field(
        None, gt=0, description="kind prefer: `label` holds a rating of the one text, and two texts whose ratings "
        "differ by at least so much make a pair, the higher rated preferred"
    )  # fmt: skip
    judged_by: Word | None = Field(None, description="who or what made the labels, where a judge did (`columns.human`)")
    label_cut: float | None = Field(
        None, description="the label's column holds numbers: below it the first label, above the second, at it no row"
    )
    number: str | None = Field(
        None, description="kind choose: regular expression whose group is the right number in the label's column; the "
        "options are it and wrong numbers computed from it"
    )  # fmt: skip
    reply: Reply | None = Field(None, description="kinds generate and tag: how a reply is made and read")
    scorer: str | None = Field(
        None, description="kind prefer: split or slice that an independent scorer learns from (probes.writing), apart "
        "from those of train and test"
    )  # fmt: skip
    judges: Literal["meaning", "form"] = Field(
        "meaning", description="what the label is about: one about form changes with the wording (used by probes only)"
    )
    pairs: Pairs | None = Field(None, description="other wordings of the test rows, for the contamination probe")
    drop_overlap: list[HeldOut] | None = Field(
        None, description="drop training rows that share a whole text or 13 words in a row with the task's own test "
        "split or with these; an empty list: with its own alone"
    )  # fmt: skip
    templates: list[Template] = Field(min_length=1, description="the first one is used")
    formats: FormatMaterial | None = Field(None, description="what other prompt formats are made of (probes.formats)")
    metric: Metric = "accuracy"
    positive: Word | None = Field(None, description="the label F1 is computed for; by default the last one")
    limit: int | None = Field(
        None, ge=1, description="score only this many test rows: one fixed subset, whatever the seed"
    )
    cluster: str | None = Field(
        None, description="field whose equal text makes items one cluster, such as a shared passage; for errors only"
    )
    model: str | None = Field(None, description="this task's own model instead of the suite's")
    strategies: dict[str, dict[str, Any] | None] | None = Field(None, description="this task's own strategies")
    batch: int | None = Field(None, ge=1, description="rows per optimizer step, instead of the suite's")
    sequence: int | None = Field(None, ge=8, description="longest input in tokens, instead of the suite's")
    precision: Precision | None = Field(None, description="this task's own precision instead of the suite's")
    harness: Harness | None = Field(None, description="what lm-eval says of its task; found out, not written by hand")

    @field_validator("number")
    @classmethod
    def finds_a_number(cls, value: str | None) -> str | None:
        """One group, which is the number."""
        if compiles(value) is not None and re.compile(value or "").groups != 1:
            raise ValueError("a pattern with one group, the number")
        return value

    @field_validator("labels")
    @classmethod
    def enough(cls, value: list[str], info: ValidationInfo) -> list[str]:
        """Only entities may be of one type."""
        if len(value) < 2 and info.data.get("kind") != "tag":
            raise ValueError(f"list should have at least 2 items, got {len(value)}")
        return value

    @model_validator(mode="before")
    @classmethod
    def answers_in_turn(cls, raw: Any) -> Any:
        """The labels of a pair are its two answers, by their place; a reply is wrong or right; entities are listed."""
        if not isinstance(raw, dict):
            return raw
        if raw.get("kind") == "tag":
            reply = raw.get("reply") or {}
            listed = {"reads": "spans", **reply} if isinstance(reply, dict) else reply
            return {"metric": "span_f1", **raw, "reply": listed}
        labels = {"prefer": ANSWERS, "generate": RIGHT}.get(raw.get("kind", ""))
        return raw if labels is None else {"labels": list(labels), **raw}

    @model_validator(mode="before")
    @classmethod
    def of_lm_eval(cls, raw: Any) -> Any:
        """A task of lm-eval brings all that defines it."""
        return completed(raw, {name: field.default for name, field in cls.model_fields.items()})

    @model_validator(mode="before")
    @classmethod
    def nothing_scored(cls, raw: Any) -> Any:
        """What is not scored needs no test split."""
        splits = raw.get("splits") if isinstance(raw, dict) and raw.get("role") == "train" else None
        if not isinstance(splits, dict) or "train" not in splits or "test" in splits:
            return raw
        return {**raw, "splits": {**splits, "test": splits["train"]}}

    @model_validator(mode="after")
    def coherent(self) -> Task:
        if self.kind == "prefer":
            check_preferred(self)
        elif self.judged_by is not None:
            raise ValueError("judged_by names the judge of pairs of answers: give kind: prefer")
        elif self.gap is not None:
            raise ValueError("gap makes pairs of rated texts: give kind: prefer")
        if self.written != (self.reply is not None):
            raise ValueError("kind generate and 'reply' (how a reply is read) go together")
        if self.written:
            check_written(self)
        elif self.metric in KEPT:
            kind = "tag" if self.metric == "span_f1" else "generate with reply.reads: free"
            raise ValueError(f"metric {self.metric} is for kind {kind}, got kind {self.kind}")
        if MESSAGES in self.columns:
            check_chat(self)
        elif self.kind != "prefer" and ("label" not in self.columns or len(self.columns) < 2):
            raise ValueError("columns needs 'label' and at least one text field")
        if self.cluster is not None and self.cluster not in self.fields:
            close = nearest(self.cluster, self.fields)
            hint = f"; did you mean '{close}'?" if close else ""
            raise ValueError(f"cluster is '{self.cluster}', not one of the text fields {self.fields}{hint}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels has a name twice: {self.labels}")
        known = not self.continued or self.harness is not None
        if known and self.positive is not None and self.positive not in self.labels:
            raise ValueError(f"positive is '{self.positive}', not one of the labels {self.labels}")
        if self.metric == "f1" and len(self.labels) != 2:
            raise ValueError(f"metric f1 is for two labels, got {len(self.labels)}; allowed: accuracy, matthews")
        for template in self.templates:
            self._check(template)
        if self.formats is not None:
            self.formats.check(self.fields, self.labels)
        return self

    def _check(self, template: Template) -> None:
        places = template.places
        if self.spoken:
            if stray := places - set(self.prompt_fields):
                raise ValueError(
                    f"pattern names {sorted(stray)}; allowed with kind {self.kind}: {self.prompt_fields}, for the "
                    "answers follow the pattern"
                )
            if template.verbalizer:
                raise ValueError(f"with kind {self.kind} the answers follow the pattern: leave the verbalizer out")
            if self.written and not places:
                raise ValueError("pattern has no {field} place, so every item would read the same")
            return
        if stray := places - set(self.fields):
            raise ValueError(f"pattern names {sorted(stray)}, columns has {sorted(self.fields)}")
        if not places:
            raise ValueError("pattern has no {field} place, so every item would read the same")
        if set(template.verbalizer) != set(self.labels):
            raise ValueError(f"verbalizer has {sorted(template.verbalizer)}, labels has {sorted(self.labels)}")
        if len(set(template.verbalizer.values())) != len(self.labels) or "" in template.verbalizer.values():
            raise ValueError("verbalizer words must be different from each other and not empty")

    @model_validator(mode="after")
    def of_its_kind(self) -> Task:
        """What one kind or way of labelling needs and another has not."""
        if self.drop_overlap is not None and self.data.made is not None:
            raise ValueError(f"drop_overlap drops rows of files, and data.{self.data.made} makes them")
        if self.kind == "classify" and (self.number is not None or self.data.arithmetic is not None):
            raise ValueError("number and data.arithmetic make options to choose from: give kind: choose")
        if self.kind == "choose":
            if sum((OPTIONS in self.columns, self.number is not None, self.data.arithmetic is not None)) != 1:
                raise ValueError("kind choose needs one of columns.options, number or data.arithmetic for its options")
            if bad := [name for name in self.labels if not re.fullmatch(r"\w+", name) or name in self.columns]:
                raise ValueError(f"with kind choose a label names a field of its own in patterns, got '{bad[0]}'")
        if self.scorer is not None and self.kind != "prefer":
            raise ValueError(f"scorer learns from pairs of answers: for kind prefer only, got kind {self.kind}")
        if self.label_cut is not None and (len(self.labels) != 2 or self.kind != "classify"):
            raise ValueError(f"label_cut cuts numbers into two labels, got {self.kind} with {len(self.labels)}")
        if self.pairs is not None and (stray := set(self.pairs.columns) - set(self.text_columns)):
            raise ValueError(f"pairs.columns names {sorted(stray)}; allowed: {sorted(self.text_columns)}")
        return self

    @property
    def instructs(self) -> bool:
        """Whether a row is an instruction of its own, as in instruction files, and not one item of a task."""
        return self.kind == "generate" and INSTRUCTION in self.text_columns

    @property
    def judged(self) -> bool:
        """Whether a judge made the labels, held against a person's where there is one."""
        return self.kind == "prefer" and {*ANSWERS, "label", HUMAN} <= set(self.columns)

    @property
    def spoken(self) -> bool:
        """Whether answers are texts of the rows, which follow the pattern, and no words of a verbalizer."""
        return self.kind == "prefer" or self.written or self.continued

    @property
    def continued(self) -> bool:
        """Whether prompts and options are lm-eval's, whose texts stand as they are."""
        return self.data.lm_eval is not None

    @property
    def written(self) -> bool:
        """Whether the model answers by writing."""
        return self.kind in ("generate", "tag")

    @property
    def kept(self) -> tuple[str, ...]:
        """Numbers kept of every item where an answer is more than one of the labels; else nothing."""
        return KEPT.get(self.metric, ())

    @property
    def prompt_fields(self) -> list[str]:
        """Text fields that a pattern may name, in the order the suite wrote them: not those that hold answers."""
        if self.written:
            return [field for field in self.text_columns if field != RATIONALE]
        if self.continued:
            return list(self.text_columns)
        if self.kind != "prefer":
            return self.fields
        return [] if self.gap is not None else [f for f in self.text_columns if f not in {*CHOSEN, *ANSWERS}]

    @property
    def text_columns(self) -> dict[str, str]:
        """Field -> column of the fields that are one text each, in the order the suite wrote them."""
        if MESSAGES in self.columns:
            return {INSTRUCTION: self.columns[MESSAGES]}
        apart = {"label"} | ({OPTIONS} if self.kind == "choose" else set())
        apart |= {HUMAN, PRINCIPLE} if self.judged else set()
        return {field: column for field, column in self.columns.items() if field not in apart}

    @property
    def text_fields(self) -> list[str]:
        """Fields of running text, not those that hold one of several options."""
        return self.fields if self.spoken else list(self.text_columns)

    @property
    def fields(self) -> list[str]:
        """Text fields in the order the suite wrote them; a row's options or answers come last, each under its label's
        name."""
        if self.kind == "prefer":
            return [*self.prompt_fields, *ANSWERS]
        if self.written:
            return [*self.text_columns, TARGET]
        return [*self.text_columns, *(self.labels if self.kind == "choose" else [])]
