"""How far a process's heap grows: what a rehearsal asked of its allocator is asked once more, of an empty one.

A rehearsal's own heap would not do: a fake tensor is made with far more small objects than a real one, and each that
stays keeps a hole from closing. So the trace is replayed in a fresh interpreter, which imports nothing but this.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from array import array

from bench.predict.heap import Heap
from bench.predict.trace import DROPPED, FIRST, GONE, MADE, NODE, STORED, Trace
from bench.process import ALLOCATOR, importable

STORAGE = 96
"""Bytes of the object that holds a storage, as all sizes here seen in malloc under torch 2.11; made before its data."""
TENSOR = (176, 24)
"""Bytes of the objects that a tensor is made of, after its data."""
GRADED = (176, 24, 312)
"""The same of a tensor that autograd has made a node for."""
NODES = ((488, 16, 32), (640, 16), (312, 16, 32), (736, 16), (528, 16, 32), (488, 16), (536, 16, 32))
"""Bytes of nodes of autograd's graph, with what they save and with their edges, in turn."""
STAYING = (48, 56, 104, 512)
"""Bytes of what the first call of an operator leaves for good: while it stays, the heap does not end below it."""
TURNS = (0, 2, 5)
"""Which of them comes first, in each replay of a trace: heaps differ with it by some percent, as processes do."""


def grown(trace: Trace) -> dict[str, float]:
    """Stage of adapting -> the most bytes by which a process's heap grows in it: the median of some replays.

    Raises `RuntimeError` with the last line of what went wrong where a replay fails.
    """
    order = json.dumps(trace.stages).encode() + b"\n" + trace.events.tobytes()
    found = [replayed(order, turn) for turn in TURNS]
    return {
        stage: statistics.median(float(one[stage]) for one in found) for stage in found[0] if stage.startswith("adapt")
    }


def replayed(order: bytes, turn: int) -> dict[str, int]:
    """Stage -> the most bytes the heap grew by in it, as a fresh interpreter tells."""
    command = [sys.executable, "-m", "bench.predict.replay", str(turn)]
    own = {**importable(), "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES") or ALLOCATOR}  # as a cell's
    done = subprocess.run(command, input=order, capture_output=True, env={**os.environ, **own})
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(f"the replay of the heap failed: {words[-1]}")
    told: dict[str, int] = json.loads(done.stdout)
    return told


class Replay:
    """One pass over a trace."""

    def __init__(self, trace: Trace, turn: int = 0) -> None:
        self.trace, self.heap = trace, Heap()
        self.grown: dict[str, int] = {}
        codes, keys = trace.events[::3], 1 + max(trace.events[1::3], default=0)
        # all room is made before the count begins: what Python asks for is no part of the cell
        self.data, self.storages = room(keys), room(keys)
        self.tensors = tuple(room(keys) for _ in GRADED)
        self.graph = room(max(map(len, NODES)) * codes.count(NODE))
        self.nodes, self.objects = turn, 0
        """Nodes made so far, and objects that the graph is made of now."""
        self.graded = False
        """Whether the operator at work has a node."""

    def run(self) -> dict[str, int]:
        """Stage -> the most bytes the heap had grown in it."""
        stage = ""
        for code, key, size in self.trace:
            if code == STORED:
                self.storages[key] = self.heap.small(STORAGE)
                self.data[key] = self.heap.allocate(size)
                if stage:
                    self.grown[stage] = max(self.grown.get(stage, 0), self.heap.grown())
            elif code == DROPPED:
                self.drop(key)
            elif code == MADE:
                self.make(key)
            elif code == GONE:
                for objects in self.tensors:
                    self.heap.forget(objects[key])
                    objects[key] = 0
            elif code == NODE:
                self.node()
            elif code == FIRST:
                for size in STAYING:
                    self.heap.small(size)
            else:
                if not stage:
                    self.heap.begin(filter(None, self.data))
                stage = self.trace.stages[key]
                if not stage.endswith(("forward", "backward")):
                    self.release()
        return self.grown

    def drop(self, key: int) -> None:
        """A storage is gone. One from before the trace has no block."""
        if self.data[key]:
            self.heap.free(self.data[key])
            self.heap.forget(self.storages[key])
            self.data[key] = 0

    def make(self, key: int) -> None:
        """A tensor is made."""
        for objects, size in zip(self.tensors, GRADED if self.graded else TENSOR, strict=False):
            objects[key] = self.heap.small(size)
        self.graded = False

    def node(self) -> None:
        """A node of the graph is made."""
        for size in NODES[self.nodes % len(NODES)]:
            self.graph[self.objects] = self.heap.small(size)
            self.objects += 1
        self.nodes += 1
        self.graded = True

    def release(self) -> None:
        """A pass is over, and the graph goes."""
        for at in range(self.objects):
            self.heap.forget(self.graph[at])
        self.objects = 0


def room(count: int) -> array[int]:
    """Room for so many addresses."""
    return array("Q", bytes(8 * count))


def main() -> int:
    """Replay the trace on standard input: a line with its stages, then its events."""
    stages, _, events = sys.stdin.buffer.read().partition(b"\n")
    read = array("q")
    read.frombytes(events)
    print(json.dumps(Replay(Trace(read, json.loads(stages)), int(sys.argv[1])).run()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
