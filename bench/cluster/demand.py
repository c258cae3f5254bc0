"""What a cell asks Ray for, and in which order cells are handed over. Ray decides where and when they run."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from bench.cards import GIB, PROCESS_BYTES
from bench.config import Settings
from bench.errors import UserFault, unknown
from bench.job import Job
from bench.live import name_of
from bench.shortage import need

TYPE = "accelerator_type:"
"""How Ray names the resource that tells a node's type of card."""
LOSSES = 3
"""How often a task begins anew because its node or Ray's process there was lost."""


@dataclass(frozen=True)
class Demand:
    """What every cell of a run asks for: the same of all, so that their times can be compared."""

    cpus: int
    cards: int
    kind: str | None
    """Type of card."""
    nodes: int
    """Nodes that can serve it now."""
    slots: int
    """Cells that these can run at a time."""
    memory: int
    """Bytes of the largest of them: nobody can ask for more."""

    def __str__(self) -> str:
        nodes = f"{self.nodes} node{'s' * (self.nodes != 1)}"
        return f"Ray: {nodes}, {self.slots} cell{'s' * (self.slots != 1)} at a time, each with {self.each}"

    @property
    def each(self) -> str:
        """What a cell asks for, in words."""
        card = f" and a card{f' of type {self.kind}' if self.kind else ''}" if self.cards else ""
        return f"{self.cpus} CPU{'s' * (self.cpus != 1)}{card}"

    def options(self, job: Job) -> dict[str, Any]:
        """The options of a cell's task. What a cell itself ends in is an outcome and never an exception, so Ray tries
        again only what was lost."""
        asked: dict[str, Any] = {
            "num_cpus": self.cpus,
            "num_gpus": self.cards,
            "max_retries": LOSSES,
            "retry_exceptions": False,
            "scheduling_strategy": "SPREAD",  # neighbours share a machine's memory bandwidth
            "name": name_of(job, True),
        }
        if self.kind is not None:
            asked["accelerator_type"] = self.kind
        if (room := memory_of(job)) is not None:
            asked["memory"] = min(room, self.memory)
        return asked


def memory_of(job: Job) -> int | None:
    """Bytes of main memory a cell on a CPU asks for: its cap, else what is predicted; None where neither is known."""
    if job.cell.device != "cpu":
        return None
    if job.memory_gib is not None:
        return round(job.memory_gib * GIB)
    held = need(job.predicted)
    return None if held is None else held + PROCESS_BYTES


def demand(nodes: list[dict[str, Any]], settings: Settings, device: str) -> Demand:
    """What cells ask for on these nodes (`ray.nodes()`). Without `threads` it is what the smallest node has for each
    cell: all of its CPUs, or on a card its share of them. Raises `UserFault` where no node can serve a cell."""
    alive = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if device == "cuda":
        kind, able = of_one_type([node for node in alive if node.get("GPU", 0) >= 1], settings.ray_gpu)
    elif settings.ray_gpu is not None:
        raise UserFault(
            f"ray_gpu={settings.ray_gpu}, but the cells of this run are for a CPU; allowed: device=cuda beside it"
        )
    else:
        kind, able = None, alive
    if not able:
        raise UserFault(
            "no node of the Ray cluster has a CPU to offer; allowed: nodes started with --num-cpus=1 or more"
        )
    each = {id(node): int(node.get("GPU", 0)) if device == "cuda" else 1 for node in able}
    cpus = settings.threads or max(1, min(int(node["CPU"]) // each[id(node)] for node in able))
    most = max(int(node["CPU"]) for node in able)
    if cpus > most:
        raise UserFault(f"threads={cpus}, but no node of the Ray cluster has more than {most} CPUs for a cell")
    served = [node for node in able if node["CPU"] >= cpus]
    cards = int(device == "cuda")
    memory = max(int(node.get("memory", 0)) for node in served)
    return Demand(cpus, cards, kind, len(served), slots_of(served, {"num_cpus": cpus, "num_gpus": cards}), memory)


def fits(node: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether a node with these resources can ever serve a task with these options."""
    kind = options.get("accelerator_type")
    asked = {"CPU": options["num_cpus"], "GPU": options["num_gpus"], "memory": options.get("memory", 0)}
    return (kind is None or TYPE + kind in node) and all(node.get(name, 0) >= least for name, least in asked.items())


def slots_of(nodes: list[dict[str, Any]], options: dict[str, Any]) -> int:
    """How many tasks with these options the nodes can run at a time, by CPUs and cards."""
    asked = [(name, options[option]) for name, option in (("CPU", "num_cpus"), ("GPU", "num_gpus")) if options[option]]
    able = [node for node in nodes if fits(node, options | {"memory": 0})]
    return sum(min(int(node[name]) // each for name, each in asked) for node in able)


def of_one_type(nodes: list[dict[str, Any]], asked: str | None) -> tuple[str | None, list[dict[str, Any]]]:
    """The type of card the run uses, and the nodes that have it: times on different cards cannot be compared."""
    if not nodes:
        raise UserFault(
            "device=cuda, but no node of the Ray cluster offers a card; allowed: device=cpu, or nodes started with "
            "--num-gpus=1 or more"
        )
    kinds = {id(node): type_of(node) for node in nodes}
    named = sorted({kind for kind in kinds.values() if kind is not None})
    if asked is not None and asked not in named:
        raise unknown("type of card in the Ray cluster", asked, named)
    if asked is None and len(set(kinds.values())) > 1:
        rest = " and cards it does not name" if None in kinds.values() else ""
        raise UserFault(
            f"the Ray cluster has cards of several types ({', '.join(named)}{rest}), whose times cannot be compared; "
            f"allowed: ray_gpu={'|'.join(named)}"
        )
    kind = asked or next(iter(kinds.values()))
    return kind, [node for node in nodes if kinds[id(node)] == kind]


def type_of(node: dict[str, Any]) -> str | None:
    """The type of a node's cards, as Ray names it; None where it does not."""
    return next((name.removeprefix(TYPE) for name in node if name.startswith(TYPE)), None)


def longest_first(jobs: list[Job]) -> list[Job]:
    """Orders by predicted seconds, the longest first: what is handed over last should not be what all wait for.

    Where like cells have no recorded seconds, predicted FLOPs stand in, at the median speed of those that have both. Of
    what nothing is known comes first; orders that are alike keep their order.
    """
    both = [(j.predicted.flops, j.predicted.seconds) for j in jobs if j.predicted.flops and j.predicted.seconds]
    speed = statistics.median(flops / seconds for flops, seconds in both) if both else 1.0

    def seconds(job: Job) -> float:
        if job.predicted.seconds is not None:
            return job.predicted.seconds
        return float("inf") if job.predicted.flops is None else job.predicted.flops / speed

    return sorted(jobs, key=seconds, reverse=True)
