"""Which outcome a cell's end is: refusals before it starts, and every error in a sentence with its remedy."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

from bench import registry
from bench.errors import UserFault
from bench.job import Job
from bench.measure.allocators import is_shortage
from bench.models.base import Base
from bench.records import Status
from bench.shortage import ran_out
from bench.strategy import Diverged, Strategy, TaskContext, Unsupported


def refuse_what_is_missing(strategy: Strategy, base: Base, context: TaskContext) -> None:
    """Raise `Unsupported` in words where the strategy's needs are not met."""
    name, needs = strategy.name, strategy.needs
    if base.kind not in needs.kinds:
        allowed = " or ".join(sorted(needs.kinds))
        heads = {"encoder": "it has no LM head", "masked": "its LM head fills blanks and cannot continue a prompt"}
        why = heads.get(base.kind, "its encoder reads the prompt and its decoder answers")
        raise Unsupported(f"{name} needs a {allowed} model; this one is {base.kind} ({why}): use frozen, lora or full")
    if context.readout not in strategy.readouts:
        raise Unsupported(f"{name} has no {context.readout} readout: use readout={' or '.join(strategy.readouts)}")
    other = {"prefer": "asks which of two answers is preferred"}
    other |= {"generate": "is answered by writing", "tag": "names entities of a text"}
    if context.task.continued:
        refuse_foreign(strategy, context)
    if needs.labels and context.task.kind in other and not (needs.writes and context.task.written):
        raise Unsupported(
            f"{name} needs labels that all rows share, and {context.name} {other[context.task.kind]}: use zero_shot, "
            "lora or full"
        )
    if needs.replies and context.task.kept:
        raise Unsupported(
            f"{name} reasons before a short answer that is right or wrong, and {context.name} is scored by "
            f"{context.task.metric} of the whole reply: use zero_shot, few_shot, lora or full"
        )
    if needs.replies and context.task.kind != "generate":
        raise Unsupported(
            f"{name} reasons in words of its own, and {context.name} has labels: use zero_shot or few_shot, or a task "
            "of kind generate"
        )
    if needs.pairs and context.task.written:
        raise Unsupported(
            f"{name} learns which of several answers is preferred, and {context.name} is answered by writing: use lora "
            "or full, or a task with labels or of kind prefer"
        )
    if strategy.other_types and not context.sources:
        raise Unsupported(
            f"{name} trains on tasks of other types than the one it is scored on, and this run has none: choose tasks "
            "of two types or more (tasks.<name>.type)"
        )
    if len(context.train) < needs.train_labels:
        raise Unsupported(
            f"{name} needs at least {needs.train_labels} label(s), got {len(context.train)}: raise budget.labels"
        )


def unsharded(job: Job) -> str | None:
    """Why a cell cannot be trained by several processes, with what to do; None where it can."""
    strategies = registry.load(job.adapters_path)
    here = "take away sharding and devices"
    if not strategies[job.cell.base_strategy].shards:
        able = [name for name, strategy in strategies.items() if strategy.shards]
        return f"{job.cell.base_strategy} does not train over several devices: use {', '.join(sorted(able))}, or {here}"
    if job.cell.engine is not None:
        return f"engine={job.cell.engine} trains in a loop of its own, on one device: use engine=own, or {here}"
    if job.cell.budget.get("trials") is not None:
        return f"budget.trials tries configurations on one device: take away budget.trials, or {here}"
    unequal = [
        one for one in (job.task, *(s.task for s in job.sources)) if one.objective == "language" or one.kind == "tag"
    ]
    if any(one.data.random is None for one in unequal):  # random rows are all equally long
        return (
            f"a loss that is a mean over tokens is not one over the rows that devices share out: use labels, or {here}"
        )
    if job.cell.plant:
        return f"a planted cell is trained on one device: take away probes.contamination.plant, or {here}"
    return None


def refuse_foreign(strategy: Strategy, context: TaskContext) -> None:
    """Raise `Unsupported` where a strategy needs words, pairs or prompts that a task of lm-eval has not."""
    name, needs, harness = strategy.name, strategy.needs, context.task.harness
    assert harness is not None
    chosen = needs.pairs or needs.replies or strategy.other_types or strategy.family == "preference tuning"
    if chosen or (needs.labels and not needs.continues):
        raise Unsupported(
            f"{name} needs label words, pairs or prompts of its own making, and {context.name} is a task of lm-eval, "
            "whose texts stand as they are: use zero_shot, few_shot, lora or full"
        )
    if context.readout == "head" and not harness.shared:
        raise Unsupported(
            f"a head gives one number a label, and each row of {context.name} has options of its own: use "
            "readout=verbalizer"
        )
    if needs.train_labels and not len(context.train):
        raise Unsupported(
            f"lm-eval names nothing to train on for {context.name}: cut its test rows, such as "
            f'tasks.{context.name}.splits={{train: "test[:50%]", test: "test[50%:]"}}'
        )


def without_place(text: str, job: Job) -> str:
    """A message that names a file of the user's own strategies, without the place of their folder: that is one of this
    machine, and a record is read on others."""
    return text if job.adapters_path is None else text.replace(f"{Path(job.adapters_path).parent}{os.sep}", "")


def outcome_of(error: BaseException, job: Job) -> tuple[Status, str]:
    """Which outcome an exception is, in a sentence with the remedy."""
    if isinstance(error, Unsupported):
        return Status.unsupported, str(error)
    if isinstance(error, Diverged):
        return Status.diverged, str(error)
    if is_shortage(error):
        return Status.out_of_memory, ran_out(str(error), job)
    if isinstance(error, KeyboardInterrupt):
        return Status.interrupted, "interrupted by Ctrl-C; it runs again next time"
    where = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(where[-1].filename).name}:{where[-1].lineno}" if where else ""
    detail = " ".join(without_place(str(error), job).split())[:400]
    kind = "" if isinstance(error, UserFault) else f"{type(error).__name__}: "
    return Status.error, f"{kind}{detail}{place}; the end of log.txt beside this record has the traceback"
