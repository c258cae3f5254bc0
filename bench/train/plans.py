"""What gradient strategies share: a plan that trains some parameters of a module through a readout, and PEFT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bench.data.rows import Rows
from bench.models.base import Base
from bench.models.parts import count, freeze
from bench.score.batch import Batch, Encoded
from bench.score.heads import HeadReader
from bench.score.readers import VerbalizerReader, make_reader
from bench.score.replies import answering
from bench.strategy import Answerer, Examples, ParamGroup, Plan, TaskContext, Unsupported

HEAD_LR = 1e-3
"""Least learning rate of a fresh head: at a pretrained weight's rate it would hardly leave its initialisation."""

Reader = VerbalizerReader | HeadReader


def target_of(base: Base, reader: Reader) -> nn.Module:
    """What a strategy changes and the meter watches: the whole model, or under a head its backbone."""
    return reader.target() if isinstance(reader, HeadReader) else base.module


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors as safetensors, on the CPU and contiguous."""
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)


@dataclass(frozen=True)
class Stored:
    """How what a user must keep goes into a folder and comes back into a prepared model."""

    save: Callable[[Path], None]
    load: Callable[[Path], None]


def as_tensors(file: str, tensors: Mapping[str, torch.Tensor]) -> Stored:
    """One safetensors file; loading copies into the same tensors by name."""

    def load(folder: Path) -> None:
        found = load_file(folder / file)
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(found[name])

    return Stored(lambda folder: save_tensors(folder / file, tensors), load)


def head_of(reader: Reader) -> Stored:
    """The fresh head, where the readout has one."""
    if isinstance(reader, HeadReader):
        return as_tensors("head.safetensors", {"weight": reader.head.weight, "bias": reader.head.bias})
    return Stored(lambda folder: None, lambda folder: None)


def together(*parts: Stored) -> Stored:
    """Several, in this order."""

    def save(folder: Path) -> None:
        for part in parts:
            part.save(folder)

    def load(folder: Path) -> None:
        for part in parts:
            part.load(folder)

    return Stored(save, load)


def gradient_plan(
    base: Base,
    context: TaskContext,
    module: nn.Module,
    reader: Reader,
    parameters: Sequence[nn.Parameter],
    lr: float,
    stored: Stored,
    *,
    weight_decay: float = 0.0,
    created: int = 0,
    taught: Taught | None = None,
    answers: Callable[[nn.Module, Reader], Answerer] = answering,
) -> Plan:
    """Train `parameters` (and the head, if any) with the cross-entropy over label scores, by default of the task and
    its sources; `answers` says how module and reader answer then.

    Raises `Unsupported` where nothing would train.
    """
    trained = list(parameters)
    if not trained:
        raise Unsupported("no parameter of this model would train under these options")
    for parameter in trained:
        parameter.requires_grad_(True)
    formats = 1 if taught is not None else max(1, len(context.formats))
    taught = taught or Taught.of(base, context, reader)
    heads = taught.heads()
    groups = [ParamGroup(trained, lr, weight_decay), *([ParamGroup(heads, max(lr, HEAD_LR))] if heads else [])]

    kept = together(stored, head_of(reader))
    return Plan(
        answer=answers(module, reader),
        save=kept.save,
        load=kept.load,
        module=module,
        groups=groups,
        examples=taught.examples,
        reread=partial(taught.reread, context),
        mixed=len(context.sources),
        formats=formats,
        collate=taught.collate,
        loss=partial(taught.loss, module),
        weigh=partial(taught.weigh, module),
        created=created + count(heads),
        seen=[target_of(base, reader)],
    )


@dataclass(frozen=True)
class Taught:
    """The groups of examples a plan trains on: a task in one prompt format each, read by a reader of its own. Tasks
    come in the order of their names."""

    contexts: list[TaskContext]
    readers: list[Reader]

    @staticmethod
    def of(base: Base, context: TaskContext, reader: Reader) -> Taught:
        """The task among its sources, each in all its formats. Every task of a set gives the same list, so that all
        train alike. Raises `Unsupported` where several formats are asked for and the reader reads no prompt."""
        tasks: list[tuple[TaskContext, Reader]] = [(source, make_reader(base, source)) for source in context.sources]
        tasks.insert(context.position, (context, reader))
        groups = [(c, r) for c, first in tasks for r in (first, *(first.through(t) for t in c.formats[1:]))]
        return Taught([c for c, _ in groups], [r for _, r in groups])

    def loss(self, module: nn.Module, batch: Any, labels: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch, by the reader of its group."""
        return self.readers[batch.group].loss(module, batch, labels)

    def weigh(self, module: nn.Module, encoded: Encoded) -> int:
        """How many of what that loss is a mean over an example holds."""
        return self.readers[encoded.group].weight(module, encoded)

    def examples(self) -> Examples:
        """All rows of every group."""
        encoded: list[Encoded] = []
        labels: list[int] = []
        items: list[tuple[str, int]] = []
        for group, (context, reader) in enumerate(zip(self.contexts, self.readers, strict=True)):
            encoded += [replace(e, group=group) for e in reader.encode_training(context.train)]
            labels += context.train.labels
            items += [(context.name, row) for row in context.train.index]
        return Examples(encoded, labels, items)

    def reread(self, context: TaskContext, rows: Rows) -> Examples:
        """Other rows of one of its tasks, as that task's first group."""
        group = next(i for i, one in enumerate(self.contexts) if one.name == context.name)
        encoded = [replace(e, group=group) for e in self.readers[group].encode_training(rows)]
        return Examples(encoded, rows.labels, [(context.name, row) for row in rows.index])

    def heads(self) -> list[nn.Parameter]:
        """Parameters of the fresh heads, each once, in the order of the tasks: formats of a task share its head."""
        unique = {id(r.head): r.head for r in self.readers if isinstance(r, HeadReader)}
        return [parameter for head in unique.values() for parameter in head.parameters()]

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        """One batch of one group."""
        batch = self.readers[encoded[0].group].collate(encoded)
        batch.group = encoded[0].group
        return batch


def selected_plan(
    base: Base, context: TaskContext, choose: Callable[[nn.Module], dict[str, nn.Parameter]], lr: float, **options: Any
) -> Plan:
    """Train those parameters that `choose` names in the target (it may add some), and keep them as one file.

    Raises `Unsupported` where it names none.
    """
    reader = make_reader(base, context)
    freeze(base.module)
    target = target_of(base, reader)
    before = {id(p) for p in target.parameters()}
    chosen = choose(target)
    created = count([p for p in chosen.values() if id(p) not in before])
    stored = as_tensors("parameters.safetensors", chosen)
    return gradient_plan(base, context, target, reader, list(chosen.values()), lr, stored, created=created, **options)


def virtual_tokens_fit(base: Base, context: TaskContext, number: int) -> None:
    """Raise `Unsupported` where virtual tokens and the longest input do not fit the model's context together."""
    if base.max_length is not None and number + context.sequence > base.max_length:
        raise Unsupported(
            f"{number} virtual tokens and inputs of up to {context.sequence} do not fit the "
            f"model's context of {base.max_length}: lower sequence or num_virtual_tokens"
        )


def prompt_ids(base: Base, context: TaskContext, number: int) -> list[int]:
    """`number` token ids of the prompt's own words, repeated as often as it takes: where virtual tokens start."""
    ids: list[int] = base.tokenizer(context.task.templates[0].pattern, add_special_tokens=False)["input_ids"]
    return (ids * (number // len(ids) + 1))[:number]


def wrapped(target: nn.Module, config: Any, everywhere: str | None) -> Any:
    """PEFT's model around `target`. Where PEFT knows no default layers for the family and `everywhere` names the key
    that lists them, every linear layer. Raises `Unsupported` in PEFT's own words where it cannot wrap this model."""
    from peft import get_peft_model

    try:
        return get_peft_model(target, config)
    except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
        words = " ".join(str(error).split())[:300]
        if everywhere is not None and "specify" in words and everywhere in words:
            setattr(config, everywhere, "all-linear")
            return wrapped(target, config, None)
        raise Unsupported(f"PEFT cannot wrap this model so: {words}; use lora, or other target_modules") from error


def peft_plan(
    base: Base,
    context: TaskContext,
    config: Any,
    lr: float,
    everywhere: str | None = None,
    answers: Callable[[nn.Module, Reader], Answerer] = answering,
    reader: Reader | None = None,
    **options: Any,
) -> Plan:
    """Wrap with any PEFT configuration and train what PEFT made trainable. `config.task_type` is set here.

    `reader`: another one than task and readout call for. Raises `Unsupported` as `wrapped` does.
    """
    from peft import PeftModel, TaskType

    reader = reader or make_reader(base, context)
    freeze(base.module)
    target = target_of(base, reader)
    before = {id(p) for p in base.module.parameters()}
    kinds = {"causal": TaskType.CAUSAL_LM, "seq2seq": TaskType.SEQ_2_SEQ_LM}
    plain = TaskType.FEATURE_EXTRACTION  # a masked model's forward needs nothing of its own
    config.task_type = plain if isinstance(reader, HeadReader) else kinds.get(base.kind, plain)
    module = wrapped(target, config, everywhere)
    module.peft_config["default"].base_model_name_or_path = base.spec
    parameters = [p for p in module.parameters() if p.requires_grad]
    created = count([p for p in module.parameters() if id(p) not in before])

    plan: Plan

    def save(folder: Path) -> None:
        module.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's model card: nothing a user must keep

    def load(folder: Path) -> None:
        bare = module.get_base_model() if config.is_prompt_learning else module.unload()
        plan.answer = answers(PeftModel.from_pretrained(bare, str(folder)), reader)

    stored = Stored(save, load)
    plan = gradient_plan(
        base, context, module, reader, parameters, lr, stored, created=created, answers=answers, **options
    )
    return plan
