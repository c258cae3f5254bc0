"""How much memory a process would hold resident: its allocator is asked.

torch asks glibc for memory aligned to 64 bytes. For that glibc looks for a block 96 bytes larger than wanted and hands
what is left to small objects, so a freed block is often too small for the next tensor of its own size, and a process
holds more than the tensors in it. So every tensor of a rehearsal gets a block of its size from the same allocator, in
the same order and between the same small objects. No block is written: its pages never come to be, and a prediction
stays small however large the model is.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterable
from pathlib import Path

ALIGNMENT = 64
"""Bytes; torch's for memory on a CPU (c10/core/alignment.h)."""
PAGE = 4096
MAPPED = 2
"""Bit in the word before a block that says that the block is a mapping of its own (glibc, malloc.c)."""


def known() -> bool:
    """Whether this process has the allocator that is meant: glibc's."""
    return platform.libc_ver()[0] == "glibc"


def heap_begins() -> int | None:
    """Address at which this process's heap begins; None where the kernel does not tell."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith("[heap]"):
            return int(line.partition("-")[0], 16)
    return None


class Heap:
    """Blocks that stand for tensors, and what would be resident because of them.

    Only growth since `begin` counts: memory above the heap's end at that time, pages below it that are used again, and
    mappings.
    """

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None)
        self.libc.sbrk.restype = self.libc.malloc.restype = ctypes.c_void_p
        self.libc.sbrk.argtypes = [ctypes.c_ssize_t]
        self.libc.malloc.argtypes = [ctypes.c_size_t]
        self.libc.free.argtypes = [ctypes.c_void_p]
        self.libc.posix_memalign.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]
        self.floor = self.end()
        self.lowest = heap_begins() or self.floor
        self.used = bytearray()
        """A byte for every page from `lowest` to `floor`: 1 once a block has covered it."""
        self.refilled = self.mapped = 0

    def end(self) -> int:
        """Address at which the heap ends."""
        return int(self.libc.sbrk(0))

    def begin(self, held: Iterable[int] = ()) -> None:
        """Give back what is free, as a phase does, and count from here on; what `held` blocks take is there already."""
        self.libc.malloc_trim(0)
        self.floor = self.end()
        self.used = bytearray(max(0, self.floor - self.lowest) // PAGE + 1)
        for address in held:
            if not mapping(address):
                self.refill(address, address + size_of(address))
        self.refilled = self.mapped = 0

    def allocate(self, size: int) -> int:
        """Address of a block of `size` bytes for a tensor. Raises `MemoryError` where no address space is left."""
        block = ctypes.c_void_p()
        if self.libc.posix_memalign(ctypes.byref(block), ALIGNMENT, size) or block.value is None:
            raise MemoryError(f"no address space for a tensor of {size} bytes")
        self.mapped += mapping(block.value)
        if not mapping(block.value):
            self.refill(block.value, block.value + size)
        return block.value

    def small(self, size: int) -> int:
        """Address of a block of `size` bytes for a small object."""
        return int(self.libc.malloc(size))

    def refill(self, begins: int, ends: int) -> None:
        """Count the pages of a block that lie below the floor, each once."""
        if begins < self.lowest:  # another thread's arena
            return
        first, last = (begins - self.lowest) // PAGE, (min(ends, self.floor) - 1 - self.lowest) // PAGE + 1
        if first < last:
            self.refilled += self.used.count(0, first, last)
            self.used[first:last] = b"\1" * (last - first)

    def free(self, address: int) -> None:
        """The block is free again."""
        self.mapped -= mapping(address)
        self.libc.free(address)

    def forget(self, address: int) -> None:
        """The small object is gone."""
        self.libc.free(address)

    def grown(self) -> int:
        """Bytes that would be resident beyond those at `begin`."""
        return self.end() - self.floor + self.mapped + PAGE * self.refilled


def size_of(address: int) -> int:
    """Bytes of the block at an address, as glibc notes them before it."""
    return ctypes.c_size_t.from_address(address - 8).value & ~7


def mapping(address: int) -> int:
    """Bytes of a block that is a mapping of its own; 0 of any other."""
    return size_of(address) if ctypes.c_size_t.from_address(address - 8).value & MAPPED else 0
