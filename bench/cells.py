"""A cell's identity: all that can change its result, and the id derived from it."""

from __future__ import annotations

from typing import Any

from bench import identity, registry
from bench.config import Budget, Suite, Task, Template
from bench.data.formats import candidates, instructions
from bench.data.sources import Located
from bench.models.catalog import ModelRef
from bench.models.kinds import kind_of, public_name
from bench.records import CellInfo
from bench.registry import Variant


def cell_info(
    suite: Suite,
    name: str,
    model: ModelRef,
    variant: Variant,
    budget: Budget,
    repeat: tuple[int, int],
    computes: tuple[str, str],
    located: dict[str, Located],
) -> CellInfo:
    """A cell's identity in full, its id derived from everything that can change its result.

    `repeat`: seed and dose of a planted leak; `computes`: device type and precision.
    """
    task, (seed, dose), (device, precision) = suite.tasks[name], repeat, computes
    engine = engine_of(variant)
    apart = {"checkpointing"} | (set() if engine else {"engine"})
    apart |= set() if variant.options.formats_in_training > 1 else {"formats_in_training"}
    measured: dict[str, Any] = {
        "base_strategy": variant.strategy.name,
        "readout": readout_of(suite, model, variant),
        "metric": task.metric,
        "seed": seed,
        "options": variant.options.model_dump(mode="json", exclude=apart),
        "budget": {k: v for k, v in budget.model_dump(mode="json").items() if v is not None},
        "precision": precision,
        "device": device,
        "model_fingerprint": model.fingerprint(),
        "task_digest": identity.task_digest(task),
        "numerics": identity.NUMERICS_BY_AXIS.get(budget.axis, identity.NUMERICS),
        "engine": engine,
        **how_computed(suite, task, variant),
        **what_is_read(suite, name, variant, dose, located),
    }
    cell = CellInfo(
        id="",
        suite=suite.name,
        model=public_name(model),
        task=name,
        strategy=variant.name,
        family=variant.strategy.family,
        group=variant.group(task),
        seeded=seeded(suite, variant),
        held_out=registry.type_of(name, suite.tasks) if variant.strategy.other_types else None,
        **measured,
    )
    return cell.model_copy(update={"id": identity.id_of(cell, located[name].fingerprint)})


def engine_of(variant: Variant) -> str | None:
    """The library whose loop trains, where it is not ours."""
    engine = getattr(variant.options, "engine", "own")
    return None if engine == "own" else engine


def how_computed(suite: Suite, task: Task, variant: Variant) -> dict[str, Any]:
    """Of a cell's identity: rows a step and a pass, lengths, how memory is traded for time, and over
    how many devices it is spread."""
    own = variant.options.checkpointing
    return {
        "batch": task.batch or suite.batch,
        "micro_batch": suite.micro_batch,
        "sequence": task.sequence or suite.sequence,
        "checkpointing": suite.checkpointing if own is None else own,
        "foreach": suite.foreach,
        "sharding": suite.sharding,
        "devices": suite.devices if suite.sharding else None,
    }


def what_is_read(suite: Suite, name: str, variant: Variant, dose: int, located: dict[str, Located]) -> dict[str, Any]:
    """Of a cell's identity: other tasks and prompt formats trained on, test rows, and a planted leak."""
    others, planted = variant.sources_of(name, suite.tasks), suite.probes.contamination
    return {
        "sources": sources_digests(suite, others, located),
        "formats_digest": identity.formats_digest(trained_formats(suite, variant, [name, *others])),
        "limit": suite.tasks[name].limit,
        "plant": dose,
        "plant_items": planted.items if dose and planted else None,
    }


def trained_formats(suite: Suite, variant: Variant, tasks: list[str]) -> dict[str, list[Template]]:
    """Task -> what its prompt formats are taken from, where a strategy trains on several; else nothing.

    Always drawn by the same seed: with the probe's, asking a finished cell in other formats would train it anew. One
    that trains on other types of tasks sees none of its own task's (`tasks` begins with it).
    """
    number = variant.options.formats_in_training
    if variant.strategy.other_types:
        return {name: instructions(suite.tasks[name], number, FORMATS_SEED) for name in tasks[1:]}
    return {n: candidates(suite.tasks[n], number, FORMATS_SEED) for n in tasks if number > 1}


FORMATS_SEED = 0
"""Draws the formats that are trained on; the probe's default is the same, so that it asks in these too."""


def sources_digests(suite: Suite, others: list[str], located: dict[str, Located]) -> dict[str, str]:
    """Name of each source task -> digest of the task and its data."""
    return {
        name: identity.digest([identity.task_digest(suite.tasks[name]), located[name].fingerprint], 16)
        for name in others
    }


def seeded(suite: Suite, variant: Variant) -> bool:
    """Whether the seed can change the result: it draws the labels that trials are judged by, too."""
    return suite.budget.trials is not None or variant.strategy.seeded(variant.options)


def readout_of(suite: Suite, model: ModelRef, variant: Variant) -> str:
    """The readout a cell will use: the option's, else the suite's, else the first the strategy has that the model
    allows (a head where there is no LM head). What cannot work is found by the worker."""
    for asked in (variant.options.readout, suite.readout):
        if asked != "auto" and (asked in variant.strategy.readouts or variant.options.readout == asked):
            return asked
    allowed = ("head", "verbalizer") if kind_of(model) == "encoder" else ("verbalizer", "head")
    return next(readout for readout in allowed if readout in variant.strategy.readouts)
