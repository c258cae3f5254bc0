"""From a request to the cells to run: every (model, task, strategy, seed) with its identity, and nothing loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from bench import registry
from bench.cards import GIB, Card, card_named
from bench.cells import cell_info, seeded, trained_formats
from bench.config import Budget, Request, Suite, Task
from bench.data.harness import told
from bench.data.rows import read
from bench.data.sources import Located, choose_source, locate
from bench.errors import UserFault
from bench.job import Job, SourceJob
from bench.measure import card
from bench.models.catalog import ModelRef, parse
from bench.records import CellInfo
from bench.refusals import check_cap, check_devices, check_options, check_probes, check_sources, nothing_runs
from bench.registry import Variant
from bench.strategy import Strategy


@dataclass(frozen=True)
class Planned:
    """One run: its source, jobs in order, and the models they need."""

    source: str
    jobs: list[Job]
    models: dict[str, ModelRef]
    target: Card | None = None
    """The card `gpu=` names."""


def device_type(asked: str, elsewhere: bool = False) -> Literal["cpu", "cuda"]:
    """`cuda` where a card is visible to the driver, unless asked otherwise. `UserFault` if asked for in vain; cells
    that run `elsewhere` need no card here."""
    present = card.describe() is not None
    if asked == "cuda" and elsewhere:
        return "cuda"
    if asked == "cuda" and not present:
        raise UserFault("device=cuda, but the driver shows no card; allowed here: cpu, auto")
    return "cuda" if present and asked != "cpu" else "cpu"


def precision_of(asked: str, device: str, target: Card | None = None) -> str:
    """fp32 on a CPU; on a card bf16 where it has it (compute capability 8.0 on), else fp16. `UserFault` where the card
    is not known, because it is in another machine."""
    if asked != "auto":
        return asked
    if target is not None and device == "cuda":
        return target.precision
    if device != "cuda":
        return "fp32"
    if (described := card.describe()) is None:
        raise UserFault(
            "precision=auto follows the card, and this machine shows none; allowed: gpu=NAME of the cluster's card "
            "(see: python -m bench list gpus), or precision=bf16, fp16 or fp32"
        )
    return "bf16" if float(described["compute_capability"]) >= 8.0 else "fp16"


def make(request: Request, on_target: bool = False) -> Planned:
    """Resolve strategies, models and data, and lay out every cell. Raises `UserFault`; writes nothing.

    With `on_target` the cells are those of the card that `gpu=` names, on whatever machine this is.
    """
    request = known(request)
    suite, settings = request.suite, request.settings
    target = card_named(suite.gpu) if suite.gpu else None
    strategies = registry.load(settings.adapters_path)
    scored = [name for name, task in suite.tasks.items() if task.role != "train"]
    variants = {task: task_variants(suite, suite.tasks[task], strategies) for task in scored}
    check_sources(suite, variants)
    check_options(suite, variants)
    check_probes(request, variants)
    models = {spec: parse(spec) for spec in models_of(suite)}
    source = choose_source(suite.tasks, settings.data)
    located = {name: locate(name, task, source, settings.data) for name, task in suite.tasks.items()}
    for name, task in suite.tasks.items():
        read(name, task, located[name])  # missing columns and unknown labels are told now, before anything runs
    device = "cuda" if target and on_target else device_type(settings.device, settings.executor == "ray")
    if not on_target:
        if settings.executor == "local":  # what the nodes of a cluster have is not known before they are asked
            check_cap(suite.budget.memory_gib, device)
        check_devices(suite, device, settings.executor)
        if suite.micro_batch == "auto" and not settings.predict:
            raise UserFault("micro_batch=auto is found from predictions; allowed with predict=false: a number")
    suite = capped(suite, target, device)
    jobs = []
    for name, task in ((name, suite.tasks[name]) for name in scored):
        for spec in [task.model] if task.model else suite.model:
            assert spec is not None
            for variant in variants[name]:
                others = variant.sources_of(name, suite.tasks)
                precision = precision_of(task.precision or suite.precision, device, target)
                for budget, seed in repeats(suite, variant):
                    for dose in (0, *(() if task.written or task.continued else doses(suite, variant))):
                        cell = cell_info(
                            suite, name, models[spec], variant, budget, (seed, dose), (device, precision), located
                        )
                        jobs.append(make_job(request, cell, models[spec], variant, others, located))
    if not jobs:
        raise nothing_runs(suite)
    return Planned(source, jobs, models, target)


def known(request: Request) -> Request:
    """With every task of lm-eval as lm-eval defines it."""
    tasks = {name: told(name, task, request.settings.data) for name, task in request.suite.tasks.items()}
    return replace(request, suite=request.suite.model_copy(update={"tasks": tasks}))


def capped(suite: Suite, target: Card | None, device: str) -> Suite:
    """On a card the target's memory is the cap, unless a smaller one is given. A capped larger card gives bytes, not
    speed."""
    if target is None or device != "cuda":
        return suite
    cap = round(target.usable_bytes / GIB, 3)
    if suite.budget.memory_gib is not None and suite.budget.memory_gib <= cap:
        return suite
    return suite.model_copy(update={"budget": suite.budget.model_copy(update={"memory_gib": cap})})


def doses(suite: Suite, variant: Variant) -> list[int]:
    """How often cells of this strategy are planted; nothing for one that trains nothing."""
    asked = suite.probes.contamination
    if asked is None or not variant.strategy.spends(variant.options):
        return []
    return sorted(asked.plant) if asked.strategies is None or variant.name in asked.strategies else []


def repeats(suite: Suite, variant: Variant) -> list[tuple[Budget, int]]:
    """Budgets and seeds of a strategy: once where none can change its result, by label count, rung and seed."""
    strategy, budgets = variant.strategy, suite.budget.expanded()
    if not strategy.spends(variant.options):
        budgets = list({budget.labels: budget for budget in reversed(budgets)}.values())[::-1]
    seeds = suite.seeds if seeded(suite, variant) else suite.seeds[:1]
    reads_labels = strategy.needs.train_labels > 0 or strategy.other_types or suite.budget.trials is not None
    return [(budget, seed) for budget in (budgets if reads_labels else budgets[:1]) for seed in seeds]


def models_of(suite: Suite) -> list[str]:
    """Every model some task uses, in order."""
    specs = [*(suite.model if any(t.model is None for t in suite.tasks.values()) else [])]
    specs += [t.model for t in suite.tasks.values() if t.model is not None]
    return list(dict.fromkeys(specs))


def task_variants(suite: Suite, task: Task, strategies: dict[str, Strategy]) -> list[Variant]:
    """The strategies of a task: its own where it names some, else the suite's."""
    entries = suite.strategies if task.strategies is None else task.strategies
    return [registry.variant(name, raw or {}, strategies) for name, raw in entries.items()]


def make_job(
    request: Request,
    cell: CellInfo,
    model: ModelRef,
    variant: Variant,
    others: list[str],
    located: dict[str, Located],
) -> Job:
    """The worker's order for a cell."""
    settings, tasks = request.settings, request.suite.tasks
    formats = trained_formats(request.suite, variant, [cell.task, *others])
    return Job(
        cell=cell,
        task=tasks[cell.task],
        model=model.spec,
        options=variant.options.model_dump(mode="json"),
        located=sent(located[cell.task]),
        sources=[
            SourceJob(name=n, task=tasks[n], located=sent(located[n]), formats=formats.get(n, [])) for n in others
        ],
        formats=formats.get(cell.task, []),
        wants_sources=bool(variant.sources) and not variant.strategy.other_types,
        position=sum(name < cell.task for name in others),
        folder=str((Path(settings.results_dir) / request.run_name / cell.id).resolve()),
        adapters_path=None if settings.adapters_path is None else str(Path(settings.adapters_path).resolve()),
        threads=settings.threads,
        probes=request.suite.probes,
        others=[
            SourceJob(name=n, task=tasks[n], located=sent(located[n]))
            for n in asked_besides(request.suite, cell.task, others)
        ],
        keep_adapters=settings.keep_adapters,
        memory_gib=cell.budget.get("memory_gib"),
        micro_batch=None if cell.micro_batch == "auto" else cell.micro_batch,
    )


def asked_besides(suite: Suite, task: str, sources: list[str]) -> list[str]:
    """The other tasks a cell is asked about: those with labels, of the same model, that are scored and that it
    does not train on."""
    asked = suite.probes.retention
    if asked is None:
        return []
    return [
        name
        for name, other in suite.tasks.items()
        if name not in (task, *sources)
        and (asked.tasks is None or name in asked.tasks)
        and not other.spoken
        and other.role != "train"
        and other.model == suite.tasks[task].model
    ]


def sent(located: Located) -> dict[str, Any]:
    """Where a task's files are, as JSON for a worker in whatever folder."""
    files = {k: [str(Path(p).resolve()) for p in v] for k, v in located.files.items()}
    return {"source": located.source, "files": files, "fingerprint": located.fingerprint, "wordings": located.wordings}
