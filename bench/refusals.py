"""What is refused before anything runs: caps that cap nothing, sources that are no tasks, probes that cannot run."""

from __future__ import annotations

import psutil

from bench.cards import GIB
from bench.config import Request, Suite, Task
from bench.data.formats import sample
from bench.data.splits import parse
from bench.errors import UserFault, unknown
from bench.measure import card
from bench.registry import Variant


def check_cap(gib: float | None, device: str) -> None:
    """Raise `UserFault` for a cap above what this machine has: it would cap nothing."""
    if gib is None:
        return
    described = card.describe() if device == "cuda" else None
    has = described["memory_bytes"] if described else psutil.virtual_memory().total
    if gib * GIB > has:
        what = "card" if described else "machine"
        raise UserFault(f"budget.memory_gib: got {gib:g}, this {what} has {has / GIB:.1f} GiB; allowed: at most that")


def check_devices(suite: Suite, device: str, executor: str = "local") -> None:
    """Raise `UserFault` for more devices than there are cards, or than a step has rows, and for a cluster, where a cell
    asks for one."""
    if suite.sharding is None:
        return
    if executor != "local":
        raise UserFault(
            f"sharding={suite.sharding} spreads a cell over devices of one machine, and executor={executor} gives it "
            "one; allowed: executor=local, or no sharding"
        )
    assert suite.devices is not None
    if device == "cuda" and suite.devices > (cards := len(card.visible())):
        raise UserFault(
            f"devices={suite.devices}, and the driver shows {cards} card{'' if cards == 1 else 's'}; allowed: at most "
            "that, or device=cpu"
        )
    rows = min(task.batch or suite.batch for task in suite.tasks.values())
    if suite.devices > rows:
        raise UserFault(
            f"devices={suite.devices}, and a step has {rows} row{'' if rows == 1 else 's'} to share out; allowed: at "
            "most that many devices, or a larger batch"
        )


def check_sources(suite: Suite, variants: dict[str, list[Variant]]) -> None:
    """Raise `UserFault` for a source that is no task, or one that would be read otherwise than the cell's own task."""
    for task, of_task in variants.items():
        for variant in of_task:
            for other in () if variant.sources == "all" else variant.sources:
                if other not in suite.tasks:
                    raise unknown(f"task in strategies.{variant.name}.sources", other, suite.tasks)
                if suite.tasks[other].role == "test":
                    raise UserFault(
                        f"strategies.{variant.name}.sources: {other} has role: test, so no other task trains on it; "
                        "allowed: tasks without a role or with role: train"
                    )
            for other in variant.sources_of(task, suite.tasks):
                for key in ("batch", "sequence"):
                    if getattr(suite.tasks[other], key) != getattr(suite.tasks[task], key):
                        raise UserFault(
                            f"strategies.{variant.name}.sources: {task} and {other} have each their own {key}; tasks "
                            "trained together need the same"
                        )


def check_options(suite: Suite, variants: dict[str, list[Variant]]) -> None:
    """Raise `UserFault` for options that make no sense on a task of theirs."""
    for task, of_task in variants.items():
        for variant in of_task:
            variant.strategy.check(variant.name, task, suite.tasks[task], variant.options)


def left_out(probe: str, task: Task) -> bool:
    """Whether a probe of formats or contamination is not asked of a task; texts of lm-eval stand as they are."""
    return task.continued or (task.spoken if probe == "formats" else task.written)


def unasked(suite: Suite) -> list[str]:
    """Which probes asked for are not asked of which tasks, a sentence each."""
    said = []
    for name in ("formats", "contamination"):
        left = [n for n, task in suite.tasks.items() if left_out(name, task)]
        if name in suite.probes.asked and left:
            why = "its label words are what varies" if name == "formats" else "its statistic is of labels' likelihoods"
            said.append(f"probes.{name} leaves out {', '.join(left)}: {why}, and answers there are texts")
    return said


def check_probes(request: Request, variants: dict[str, list[Variant]]) -> None:
    """Raise `UserFault` for probes that could never run: without stored weights, or planting what does not exist."""
    probes = request.suite.probes
    if probes.asked and not request.settings.keep_adapters:
        raise UserFault(
            f"probes.{probes.asked[0]} asks what a cell has stored, and keep_adapters=false stores nothing; allowed: "
            "keep_adapters=true"
        )
    if probes.formats is not None:
        for task in request.suite.tasks.values():
            if not task.spoken and task.role != "train":  # too few are told now, not at the end
                sample(task, probes.formats.number, probes.formats.seed, chat=False)
    if probes.writing is not None:
        for name, task in request.suite.tasks.items():
            check_scorer(name, task)
    for name in (probes.retention.tasks if probes.retention else None) or ():
        if name not in request.suite.tasks:
            raise unknown("task in probes.retention.tasks", name, request.suite.tasks)
    planted = probes.contamination.strategies if probes.contamination else None
    known = {variant.name: variant for of_task in variants.values() for variant in of_task}
    for name in planted or ():
        if name not in known:
            raise unknown("strategy in probes.contamination.strategies", name, known)
        if not known[name].strategy.spends(known[name].options):
            raise UserFault(f"probes.contamination.strategies: {name} trains nothing, so nothing can be planted in it")


def check_scorer(name: str, task: Task) -> None:
    """Raise `UserFault` for a scorer that would learn from rows of training or test, or from a file nobody reads."""
    if task.scorer is None:
        return
    scorer, train = parse(task.scorer), parse(task.splits.train)
    if scorer.base != train.base:
        raise UserFault(
            f"tasks.{name}.scorer: {task.scorer} is no slice of the split trained on; allowed: one like "
            f"{train.base}[60%:80%]"
        )
    for part, slice_ in (("train", task.splits.train), ("test", task.splits.test)):
        if scorer.meets(parse(slice_)):
            raise UserFault(
                f"tasks.{name}.scorer: {task.scorer} shares rows with splits.{part}, {slice_}; a scorer of what is "
                "written learns from rows of its own"
            )


def nothing_runs(suite: Suite) -> UserFault:
    """Why a request has no cell: its tasks only train others, or list other strategies than those selected."""
    if all(task.role == "train" for task in suite.tasks.values()):
        names = ", ".join(suite.tasks)
        return UserFault(f"no cell to run: {names} only train others (role: train); allowed: a task to score")
    return UserFault(
        "no cell to run: the tasks list their own strategies, none of which is among those selected "
        f"({', '.join(suite.strategies)}); allowed: one that the suite file lists there"
    )
