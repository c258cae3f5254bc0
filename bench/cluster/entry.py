"""What Ray itself carries to a node: pickled by value, and importing nothing of this package before it is there, so
that a node without adaptbench, or with another one, can still say so in words."""

from __future__ import annotations

from typing import Any


def serve(order: dict[str, str], mailbox: Any, *contents: Any) -> dict[str, Any]:
    """The Ray task: carry out one order on this node (`bench.cluster.node.carry_out`)."""
    try:
        from bench.cluster import node
    except ImportError as error:
        return {
            "fault": f"a node of the Ray cluster cannot import adaptbench ({error}); allowed: the same adaptbench "
            "installed on every node"
        }
    return node.carry_out(order, mailbox, contents)


class Mailbox:
    """The Ray actor beside the command that hears how orders go on, until they are asked for."""

    def __init__(self) -> None:
        self.letters: list[tuple[int, str, str, float]] = []

    def put(self, letter: tuple[int, str, str, float]) -> None:
        """Number of the order, its node, its phase (`begin` at first), and the share of it that is done."""
        self.letters.append(letter)

    def take(self) -> list[tuple[int, str, str, float]]:
        """What came since it was asked last."""
        letters, self.letters = self.letters, []
        return letters
