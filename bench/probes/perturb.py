"""Changes of test items for which the right answer is known: it stays (invariant) or moves as computed (directional).

A model that has learnt items by heart is tied to how they stand in the data, so it loses more under a change than on
items it has not seen. The drop alone is brittleness; see `bench.probes.contamination` for what it is held against.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bench.config.schema import Task, Template
from bench.data import arithmetic
from bench.data.rows import Rows
from bench.probes import wording


@dataclass(frozen=True)
class Variant:
    """Rows with new fields and the labels now right, what they are asked through, and which of them changed."""

    rows: Rows
    touched: list[bool]
    """Per row: whether anything of it differs from the plain row. The others are left out of every figure."""
    template: Template | None = None
    """The prompt to ask through; None: the task's own."""


class Perturbation(ABC):
    """One way to change items. `apply` gives one variant or several; an item's score is then the mean over them."""

    name: str
    kind: Literal["invariant", "directional"]

    @abstractmethod
    def applies(self, task: Task) -> bool:
        """Whether the right answers after the change are known for this task."""

    @abstractmethod
    def apply(self, rows: Rows, task: Task, seed: int) -> list[Variant]:
        """The changed rows, in the order given; the same for the same rows and seed."""


class OptionOrder(Perturbation):
    """Every cyclic order of the options but the one in the data; the right label moves along.

    All orders together put each option at each place once, so a constant answer reaches exactly 1 in K
    (Zheng et al. 2024 permute so to remove the bias of places). Rows whose options speak of each other's places ("A and
    B", "all of the above": 3% of MMLU) are asked too, but moved they mean something else: they count as not changed.
    """

    name = "option order"
    kind = "invariant"

    def applies(self, task: Task) -> bool:
        return task.kind == "choose"

    def apply(self, rows: Rows, task: Task, seed: int) -> list[Variant]:
        labels, k = task.labels, len(task.labels)
        variants, placed = [], [any(_of_places(f[label], labels) for label in labels) for f in rows.fields]
        for turn in range(1, k):
            fields = [
                f | {label: f[labels[(j + turn) % k]] for j, label in enumerate(labels)} for f in rows.fields
            ]  # fmt: skip
            moved = replace(rows, fields=fields, labels=[(right - turn) % k for right in rows.labels])
            touched = [a != b and not tied for a, b, tied in zip(fields, rows.fields, placed, strict=True)]
            variants.append(Variant(moved, touched))
        return variants


def _of_places(option: str, labels: list[str]) -> bool:
    """Whether an option names others by their label, or by where they stand."""
    label = rf"\(?(?:{'|'.join(map(re.escape, labels))})\)?"
    named = re.search(rf"(?<!\w){label},? (?:and|or|&|nor) {label}(?!\w)", option)
    return bool(named or re.search(r"\b(?:all|none|both|any|either|neither|some|two)\b.*\babove\b", option, re.I))


class Numbers(Perturbation):
    """Word problems with other numbers, their answers computed again (Mirzadeh et al. 2024, section 3).

    Defined for the problems this project makes (`data: {arithmetic: N}`), whose stories are known.
    """

    name = "numbers"
    kind = "directional"

    def applies(self, task: Task) -> bool:
        return task.data.arithmetic is not None

    def apply(self, rows: Rows, task: Task, seed: int) -> list[Variant]:
        field = next(iter(task.text_fields))
        made = [arithmetic.choice(field, task.labels, n, "test", 1 + seed % 2**31) for n in rows.index]
        changed = replace(rows, fields=[fields for fields, _ in made], labels=[right for _, right in made])
        return [Variant(changed, [True] * len(rows))]


class Rephrased(Perturbation):
    """The other wording that the task's data gives (`Task.pairs`), e.g. by a model (Yang et al. 2023)."""

    name = "rephrased"
    kind = "invariant"

    def __init__(self, wordings: Mapping[int, Mapping[str, str]]) -> None:
        self.wordings = wordings

    def applies(self, task: Task) -> bool:
        return bool(self.wordings)

    def apply(self, rows: Rows, task: Task, seed: int) -> list[Variant]:
        fields = [f | dict(self.wordings.get(n, {})) for f, n in zip(rows.fields, rows.index, strict=True)]
        return [_invariant(rows, fields)]


class LabelWords(Perturbation):
    """The prompt says that the label words are exchanged, each for the next; the right answer is then the other word.

    A model that reads the task can follow; one that repeats what it has learnt gives the old word.
    """

    name = "label words"
    kind = "directional"

    def applies(self, task: Task) -> bool:
        return task.kind == "classify"

    def apply(self, rows: Rows, task: Task, seed: int) -> list[Variant]:
        template, k = task.templates[0], len(task.labels)
        words = [template.verbalizer[label].strip() for label in task.labels]
        orders = ", ".join(f'say "{words[(i + 1) % k]}" for "{word}"' for i, word in enumerate(words))
        # braces of a word would be read as a field
        rule = f"The words are exchanged here: {orders}.\n".replace("{", "(").replace("}", ")")
        swapped = template.model_copy(update={"pattern": rule + template.pattern})
        moved = replace(rows, labels=[(right + 1) % k for right in rows.labels])
        return [Variant(moved, [True] * len(rows), swapped)]


class Wording(Perturbation):
    """A change of the texts that leaves what they mean. Not for labels that judge the form (`Task.judges`), nor for a
    row's options, among which the right one may differ from a wrong one by a letter."""

    kind = "invariant"

    def __init__(self, name: str, change: Callable[[str, np.random.Generator], str]) -> None:
        self.name, self.change = name, change

    def applies(self, task: Task) -> bool:
        return task.judges == "meaning"

    def apply(self, rows: Rows, task: Task, seed: int) -> list[Variant]:
        changed = []
        for fields, row in zip(rows.fields, rows.index, strict=True):
            random = np.random.default_rng([seed % 2**63, row])  # of the row alone: neighbours change nothing
            changed.append(fields | {name: self.change(fields[name], random) for name in task.text_fields})
        return [_invariant(rows, changed)]


def _invariant(rows: Rows, fields: list[dict[str, str]]) -> Variant:
    return Variant(replace(rows, fields=fields), [a != b for a, b in zip(fields, rows.fields, strict=True)])


def perturbations(task: Task, wordings: Mapping[int, Mapping[str, str]] | None = None) -> list[Perturbation]:
    """Those that apply to a task, in the order they are shown. `wordings`: `TaskRows.wordings`."""
    every = [
        OptionOrder(),
        Numbers(),
        Rephrased(wordings or {}),
        LabelWords(),
        Wording("typos", wording.slips),
        Wording("lower case", lambda text, _: text.lower()),
        Wording("upper case", lambda text, _: text.upper()),
        Wording("paraphrase", lambda text, _: wording.paraphrase(text)),
    ]
    return [one for one in every if one.applies(task)]
