"""How far the process's heap grows when tensors come and go: what glibc's allocator makes of a log of allocations.

torch asks for memory aligned to 64 bytes. For that glibc looks for a block 96 bytes larger than wanted and hands what
is left to small objects, so that a freed block is too small for the next tensor of its own size. Freed neighbours
would join to a large enough one, but while a forward pass goes on, the objects between them live: autograd keeps its
nodes until the backward pass. A decoder's heap ends up to twice as large as the tensors in it (malloc.c of glibc 2.36:
`_int_memalign`, `_int_malloc`, `_int_free`, `sysmalloc`).
"""

from __future__ import annotations

import bisect

SURPLUS = 96
"""Bytes a free block must have beyond what is wanted: the alignment and the smallest chunk."""
GAP = 112
"""Bytes between two tensors, taken by small objects."""
HEADER, UNIT = 8, 16
FIRST_THRESHOLD, LARGEST_THRESHOLD = 128 * 1024, 32 * 2**20
"""Requests above the threshold that no free block can serve become blocks of their own, which go back to the system
when they are freed. Each one freed raises the threshold to its size, up to the largest (`mallopt(3)`)."""


class Heap:
    """Addresses are offsets from the start of the heap."""

    def __init__(self) -> None:
        self.top = 0
        """Where untouched memory begins."""
        self.mapped = 0
        """Bytes of blocks of their own."""
        self.threshold = FIRST_THRESHOLD
        self.blocks: list[tuple[int, int]] = []
        """Free blocks, (size, address), sorted."""
        self.held: dict[int, tuple[int, int]] = {}
        """Key -> (address, size); a block of its own has address -1."""

    @property
    def resident(self) -> int:
        """Bytes that were touched and not given back."""
        return self.top + self.mapped

    def allocate(self, key: int, wanted: int) -> None:
        """The smallest free block that serves, else a block of its own, else more heap."""
        size = -(-(wanted + HEADER) // UNIT) * UNIT
        at = bisect.bisect_left(self.blocks, (size + SURPLUS, -1))
        if at < len(self.blocks):
            got, address = self.blocks.pop(at)
            rest = got - size - GAP
            if rest > SURPLUS:
                bisect.insort(self.blocks, (rest, address + size + GAP))
            self.held[key] = (address, size)
        elif size >= self.threshold:
            self.mapped += size
            self.held[key] = (-1, size)
        else:
            self.held[key] = (self.top, size)
            self.top += size + GAP

    def free(self, key: int) -> None:
        """Back to the free blocks, or to the system."""
        address, size = self.held.pop(key)
        if address >= 0:
            bisect.insort(self.blocks, (size, address))
            return
        self.mapped -= size
        if size <= LARGEST_THRESHOLD:
            self.threshold = max(self.threshold, size)

    def join(self) -> None:
        """Free neighbours become one block: the objects between them are gone."""
        joined: list[tuple[int, int]] = []
        for address, size in sorted((address, size) for size, address in self.blocks):
            if joined and joined[-1][0] + joined[-1][1] + GAP >= address:
                before, _ = joined.pop()
                joined.append((before, address + size - before))
            else:
                joined.append((address, size))
        self.blocks = sorted((size, address) for address, size in joined)
