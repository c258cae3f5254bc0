"""Orders that Ray has, and whether nodes are left that can serve them: Ray keeps what no node can serve, and says
nothing of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.cluster.demand import Demand, fits, slots_of
from bench.cluster.node import NODE_DIGITS
from bench.errors import UserFault
from bench.job import Job
from bench.shortage import in_gib

LOOK_SECONDS = 5.0
"""How often it is looked which nodes are left."""
PATIENCE_SECONDS = 300.0
"""For a node that can serve what is open, where none is left."""


@dataclass
class Open:
    """An order that Ray has."""

    job: Job
    reference: Any
    """What Ray gives for the result to come."""
    node: str | None = None
    """Where it is at work; None: nowhere, as far as is known."""


class Watch:
    """Looks at the nodes every few seconds; `nodes` tells of them as `ray.nodes()` does."""

    def __init__(
        self, nodes: Callable[[], list[dict[str, Any]]], asked: Demand, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.nodes, self.asked, self.say = nodes, asked, say
        self.slots = asked.slots
        """Cells that the nodes which are left can run at a time."""
        self.looked = time.monotonic()
        self.since: float | None = None
        """Since when no node can serve anything that is open."""

    def look(self, opened: list[Open]) -> None:
        """Note of every order whose node is lost that it is nowhere. Where none is at work and no node can serve one,
        say so once; raises `UserFault` when that lasts."""
        now = time.monotonic()
        if not opened or now - self.looked < LOOK_SECONDS:
            return
        self.looked, nodes = now, [node for node in self.nodes() if node["Alive"]]
        names = {node["NodeID"][:NODE_DIGITS] for node in nodes}
        for one in opened:
            one.node = one.node if one.node in names else None
        resources = [node["Resources"] for node in nodes]
        self.slots = slots_of(resources, self.asked.options(opened[0].job))
        asked = [self.asked.options(one.job) for one in opened if one.node is None]
        if len(asked) < len(opened) or any(fits(node, options) for node in resources for options in asked):
            self.since = None
            return
        what = self.described(opened, asked)
        if self.since is None:
            self.since = now
            self.say(f"Ray: no node is left that can serve {what}; waiting {PATIENCE_SECONDS:g} s for one")
        elif now - self.since >= PATIENCE_SECONDS:
            raise UserFault(
                f"for {PATIENCE_SECONDS:g} s no node of the Ray cluster could serve {what}; finished cells are kept; "
                "allowed: the same command, once there are nodes for it"
            )

    def described(self, opened: list[Open], asked: list[dict[str, Any]]) -> str:
        """What is open and what it asks for."""
        kind, number = "cell" if opened[0].job.probe is None else "probe", len(opened)
        memory = max(options.get("memory", 0) for options in asked)
        room = f" and {in_gib(memory)} of memory" if memory else ""
        return f"the {number} {kind}{'s' * (number != 1)} it has ({self.asked.each}{room})"
