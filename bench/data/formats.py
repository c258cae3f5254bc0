"""A grammar of prompt formats: the same task and labels, written in many ways, drawn by seed.

What varies follows Sclar et al. 2024 ("Quantifying Language Models' Sensitivity to Spurious Features in Prompt Design",
section 3.1: separators, casing and spacing between named fields), and beside it wording: the fields' names and order,
the instruction and its place, lead-in and label words, and whether the prompt is a turn of a chat.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from bench.config.formats import FormatMaterial, Wording
from bench.config.schema import Task, Template
from bench.data.prompts import PLACE
from bench.errors import UserFault

SEPARATORS = (": ", " - ", ":: ", ":\n", " = ")
"""Between a name and what it names. A last space belongs to the answer's word, not to the prompt."""
CASINGS = {"as is": str, "Title": str.title, "UPPER": str.upper, "lower": str.lower}
"""Of the names of fields and of the lead-in, never of the data."""
SPACINGS = ("\n", "\n\n", "  ", " || ", " ; ")
"""Between the parts of a prompt."""
LEADS = ("Answer", "Label")
PLACES = ("before", "after")
"""Where an instruction stands: before or after the fields."""


@dataclass(frozen=True)
class Format:
    """One way to write a task's prompt."""

    number: int
    """Its place in the sample; 0 is the task's own first template."""
    template: Template
    described: dict[str, str]
    """What it is made of, by name: `separator`, `casing`, `names`, `order`, `spacing`, `words`, `instruction`, `place`,
    `lead`, `chat`; of the task's own template only words and chat. `pattern` holds the whole."""


def sample(task: Task, number: int, seed: int, chat: bool = True) -> list[Format]:
    """`number` distinct formats; number 0 is the task's first template unchanged, the others are drawn by `seed`.

    The formats of a smaller number are the beginning of those of a larger one. Without `chat`, formats that are a turn
    of a chat are passed over and the next ones of the draw take their place, so that both samples share the others.

    Raises:
        UserFault: the grammar holds fewer, or the task has no label words to vary.
    """
    if task.spoken:
        words = f"with kind {task.kind} rows hold the answers; allowed: 1 format"
        raise UserFault(f"prompt formats vary label words, and {words}")
    found: list[Format] = []
    for template, described in drawn(task, seed):
        if chat or not template.chat or not found:
            found.append(Format(len(found), template, described))
        if len(found) == number:
            return found
    kind = "" if chat else " without a chat template"
    raise UserFault(
        f"{number} prompt formats are asked for, and this task's material makes {len(found)}{kind}; allowed: at most "
        "that, or more names, instructions or words in tasks.<name>.formats"
    )


def candidates(task: Task, number: int, seed: int) -> list[Template]:
    """The beginning of the draw that holds `number` templates whether or not the model has a chat template.

    Which of them are used is known once the tokenizer is there (see `spoken`). Raises `UserFault` as `sample` does.
    """
    plain = [f.template for f in sample(task, number, seed, chat=False)]
    whole: list[Template] = []
    for template, _ in drawn(task, seed):
        whole.append(template)
        if template == plain[-1]:
            break
    return whole


def instructions(task: Task, number: int, seed: int) -> list[Template]:
    """Up to `number` ways to put a task as an instruction: its templates, then formats drawn by `seed`, as far as the
    task lists what they are made of (`formats`). Drawn ones are turns of a chat where the first template is one.
    """
    found = list(task.templates[:number])
    if task.formats is not None and not task.spoken:
        for template, _ in drawn(task, seed):
            if len(found) == number:
                break
            if template.chat == found[0].chat and template not in found:
                found.append(template)
    return found


def spoken(templates: Sequence[Template], number: int, chat: bool) -> tuple[Template, ...]:
    """The first `number` of `candidates` that a model with (`chat`) or without a chat template can read."""
    return tuple(t for i, t in enumerate(templates) if chat or not t.chat or i == 0)[:number]


def drawn(task: Task, seed: int) -> Iterator[tuple[Template, dict[str, str]]]:
    """The task's own template, then every other format the grammar holds, each once, in an order drawn by seed."""
    own = task.templates[0]
    yield own, {"template": "the task's own", "words": _listed(own, task), **_whole(own)}
    grammar = Grammar(task)
    met: set[int] = set()
    seen = {_key(own)}
    draw = random.Random(f"formats {seed}")
    while len(met) < grammar.size:
        index = draw.randrange(grammar.size)
        if index in met:
            continue
        met.add(index)
        template, described = grammar.written(index)
        if (key := _key(template)) not in seen:
            seen.add(key)
            yield template, described


def _key(template: Template) -> tuple[Any, ...]:
    """What makes two formats one."""
    return template.pattern, tuple(sorted(template.verbalizer.items())), template.chat


def _listed(template: Template, task: Task) -> str:
    return ", ".join(template.verbalizer[label].strip() for label in task.labels)


def _whole(template: Template) -> dict[str, str]:
    return {"chat": "yes" if template.chat else "no", "pattern": template.pattern}


class Grammar:
    """The axes of a task's formats; a format is one choice on each."""

    def __init__(self, task: Task) -> None:
        self.task = task
        material = task.formats or FormatMaterial()
        self.names = names_of(task, material)
        wordings = material.wordings or wordings_of(task)
        asked = [(w, i, lead) for w in wordings for i in w.instructions for lead in w.leads]
        # an instruction stands in two places, nothing stands in one
        self.asked = [(w, i, place, lead) for w, i, lead in asked for place in (PLACES if i else PLACES[:1])]
        self.orders = orders_of(task, material)
        self.axes = (self.asked, SEPARATORS, list(CASINGS), self.names, SPACINGS, self.orders, (False, True))
        self.size = prod(map(len, self.axes))
        """Choices on all axes; some of them come to the same prompt."""

    def written(self, index: int) -> tuple[Template, dict[str, str]]:
        """The format of an index below `size`, read as digits on the axes."""
        chosen: list[Any] = []
        for axis in self.axes:
            index, digit = divmod(index, len(axis))
            chosen.append(axis[digit])
        (wording, instruction, place, lead), separator, casing, names, spacing, (kept, turned), chat = chosen
        order = turned if names else kept
        pattern = self.pattern(order, names, separator, CASINGS[casing], spacing, (instruction, place, lead))
        space = "" if chat or pattern[-1].isspace() else " "
        words = {label: space + wording.words[label].strip() for label in self.task.labels}
        template = Template(pattern=pattern, verbalizer=words, chat=chat)
        described = {
            "separator": json.dumps(separator),
            "casing": casing,
            "names": ", ".join(names[f] for f in order if f in names) or "none",
            "order": ", ".join(order),
            "spacing": json.dumps(spacing),
            "words": _listed(template, self.task),
            "instruction": instruction or "none",
            "place": place if instruction else "none",
            "lead": lead,
        }
        return template, described | _whole(template)

    def pattern(
        self,
        order: Sequence[str],
        names: dict[str, str],
        separator: str,
        cased: Any,
        spacing: str,
        around: tuple[str, str, str],
    ) -> str:
        """Instruction, named fields and lead-in, in that order or with the instruction after the fields."""
        instruction, place, lead = around
        # an option keeps its label as it is: that is what the answer names
        options = self.task.labels if self.task.kind == "choose" else ()
        called = {f: name if f in options else cased(name) for f, name in names.items()}
        named = [f"{called[f]}{separator}{{{f}}}" if f in called else f"{{{f}}}" for f in order]
        parts = [instruction, *named] if place == "before" else [*named, instruction]
        ending = f"{cased(lead)}{separator}"
        # a last space goes to the word: a token of its own is what a tokenizer makes of it
        return spacing.join([part for part in parts if part] + [ending.removesuffix(" ")])


def names_of(task: Task, material: FormatMaterial) -> list[dict[str, str]]:
    """Sets of names for the fields, one name a field; last the set of fields that go without.

    By default the fields' own names, and what the task's templates call them (`Review: {text}`). An option of a
    multiple-choice task is always named by its label: else nobody could tell which one an answer means.
    """
    options = {label: label for label in task.labels} if task.kind == "choose" else {}
    listed = {field: material.fields.get(field) or _called(task, field) for field in task.text_columns}
    most = max(map(len, listed.values()))
    return [{f: n[i % len(n)] for f, n in listed.items()} | options for i in range(most)] + [options]


def _called(task: Task, field: str) -> list[str]:
    found = [field.replace("_", " ").capitalize()]
    for template in task.templates:
        found += re.findall(rf"(?:^|\n)([A-Z][\w ]*):\s*\{{{field}\}}", template.pattern)
    return list(dict.fromkeys(found))


def orders_of(task: Task, material: FormatMaterial) -> list[tuple[list[str], list[str]]]:
    """Pairs: the fields' order where they have no names, and where they have. Both as written, or turned."""
    plain = list(task.fields)
    turned = plain[::-1]
    if len(plain) < 2 or material.reorder is False or task.kind == "choose":
        return [(plain, plain)]
    return [(plain, plain), (turned if material.reorder else plain, turned)]


def wordings_of(task: Task) -> list[Wording]:
    """Label words of the task's templates, each set with the questions those templates ask, else a plain instruction.

    A template's question is its lines that hold no field, but for a last one that leads in.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for template in task.templates:
        key = tuple(template.verbalizer[label].strip() for label in task.labels)
        lines = template.pattern.split("\n")
        asks = [line.strip() for line in lines[:-1] if line.strip() and not PLACE.search(line)]
        found.setdefault(key, [])
        if asks:
            found[key].append(" ".join(asks))
    return [
        Wording(
            words=dict(zip(task.labels, words, strict=True)),
            instructions=list(dict.fromkeys(asks)) or _plain(words, task.labels),
            leads=list(LEADS),
        )
        for words, asks in found.items()
    ]


def _plain(words: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Instructions for words whose question is not known. Only labels' own names may go without: they say what is
    asked."""
    told = [f"Answer with one of these: {', '.join(words)}.", f"Choose between {' and '.join(words)}."]
    return ["", *told] if list(words) == list(labels) else told
