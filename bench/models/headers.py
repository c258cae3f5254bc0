"""What the header of a weight file claims, held against the file before any library believes it.

Both formats begin with counts, lengths and offsets that a reader follows: false ones end in endless loops or in
memory asked for without bound. Only the header is read here, in memory bounded by its own size.

safetensors: https://github.com/huggingface/safetensors#format. GGUF, versions 2 and 3:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.errors import UserFault

LARGEST_HEADER = 2**25
"""Bytes of a safetensors header: the largest published ones have under a million."""
BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one number of each safetensors type."""
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF's types of one number -> its letter in `struct`."""
STRING, ARRAY = 8, 9
ALIGNMENT = "general.alignment"
REPEATED = (ALIGNMENT, ".block_count", ".expert_count")
"""Ends of GGUF's keys that say how often a part is built, and where tensors begin."""
DEEPEST = 4
"""Arrays of arrays in GGUF; none that is known has any."""
MOST_DIMENSIONS = 16
"""Of a tensor; GGUF's own limit is 4."""
MOST_VALUES, MOST_TENSORS = 2**16, 2**20
"""Of a GGUF file; known ones have under a hundred values and a few thousand tensors."""
MOST_LAYERS = 1000
"""A model may have more only where it has as many tensors: a billion would be built one by one."""
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers", "encoder_layers",
          "decoder_layers")  # fmt: skip


def check_safetensors(path: Path) -> int:
    """Number of tensors of a safetensors file whose header is true to it. Raises `UserFault` in words."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8:
            raise _fault(path, f"its header is to have {length} bytes and the file has {size}")
        if length > LARGEST_HEADER:
            raise _fault(path, f"its header has {length} bytes, allowed: {LARGEST_HEADER} at most")
        raw = stream.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise _fault(path, "its header is no JSON") from None
    if not isinstance(header, dict):
        raise _fault(path, "its header is no JSON object")
    spans = [_span(path, name, entry) for name, entry in header.items() if name != "__metadata__"]
    end = _apart(path, spans)
    if end != size - 8 - length:
        raise _fault(path, f"its tensors end at byte {end} of {size - 8 - length}")
    return len(spans)


def _span(path: Path, name: str, entry: Any) -> tuple[int, int, str]:
    """First byte, end and name of a tensor, whose type and shape ask for exactly as many."""
    try:
        bits, shape, (begin, end) = BITS[entry["dtype"]], entry["shape"], entry["data_offsets"]
        # numbers beyond 64 bits are no sizes, and a product of many of them would take for ever
        known = isinstance(shape, list) and len(shape) <= MOST_DIMENSIONS
        known = known and all(type(n) is int and 0 <= n < 2**63 for n in (*shape, begin, end))
    except (TypeError, KeyError, ValueError):
        known = False
    if not known:
        raise _fault(path, f"the entry of tensor '{name[:80]}' is none of a type, a shape and two offsets")
    if (end - begin) * 8 != math.prod(shape) * bits:
        raise _fault(path, f"tensor '{name[:80]}' has {end - begin} bytes, which its type and shape do not need")
    return begin, end, name


def _apart(path: Path, spans: Iterable[tuple[int, int, str]], holes: bool = False) -> int:
    """Where the last of the spans ends. Raises `UserFault` where two overlap, or something lies between them."""
    at = 0
    for begin, end, name in sorted(spans):
        if begin < at or (begin > at and not holes):
            what = "overlaps another" if begin < at else "leaves a hole before it"
            raise _fault(path, f"tensor '{name[:80]}' {what}")
        at = max(at, end)
    return at


def check_layers(config: dict[str, Any], tensors: int, label: str) -> None:
    """Raise `UserFault` for a config.json with far more layers than its weights can fill."""
    for part in (config, *(inner for inner in config.values() if isinstance(inner, dict))):
        for key in LAYERS:
            given = part.get(key)
            if isinstance(given, int | float) and given > max(MOST_LAYERS, tensors):
                raise UserFault(
                    f"model '{label}': its config.json says {key}: {given}, and its weights hold {tensors} tensors"
                )


def check_gguf(path: Path) -> None:
    """Raise `UserFault` for a GGUF file whose counts, lengths or offsets lead out of it."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        if size < 24 or stream.read(4) != b"GGUF":
            raise _fault(path, "it does not begin as GGUF does")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Gguf(path, data, size).check()


class _Gguf:
    """A GGUF header, read once from front to end; nothing of it is kept but a few whole numbers."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self.path, self.data, self.size, self.at = path, data, size, 4
        self.numbers: dict[str, int] = {}
        """What is looked at of its values, by key."""

    def check(self) -> None:
        version = self.number("I")
        if version not in (2, 3):
            raise _fault(self.path, f"it is GGUF version {version}; allowed: 2 and 3, little-endian")
        tensors, values = self.number("Q"), self.number("Q")
        for count, most, what in ((values, MOST_VALUES, "values"), (tensors, MOST_TENSORS, "tensors")):
            if count > most:
                raise _fault(self.path, f"it is to hold {count} {what}; allowed: {most} at most")
        for _ in range(values):
            self.value(self.text(), self.number("I"))
        for key, given in self.numbers.items():
            if key != ALIGNMENT and given > max(MOST_LAYERS, tensors):
                raise _fault(self.path, f"it says {key}: {given}, and holds {tensors} tensors")
        spans = [self.tensor() for _ in range(tensors)]
        align = self.numbers.get(ALIGNMENT, 32)
        if not 0 < align <= 2**20:
            raise _fault(self.path, f"its {ALIGNMENT} is {align}; allowed: 1 to {2**20}")
        start = -(-self.at // align) * align
        if (end := _apart(self.path, spans, holes=True)) > self.size - start:
            raise _fault(self.path, f"its tensors end at byte {start + end} of {self.size}: it is cut off")

    def room(self, count: int) -> int:
        """Where the next `count` bytes begin, which are then behind us."""
        begin = self.at
        if count > self.size - begin:
            raise _fault(self.path, f"its header needs {count} bytes at byte {begin} of {self.size}")
        self.at += count
        return begin

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.room(struct.calcsize(f"<{kind}")))
        return int(value) if kind not in "fd" else 0

    def text(self) -> str:
        begin = self.room(length := self.number("Q"))
        return self.data[begin : begin + min(length, 200)].decode("utf-8", "replace")

    def value(self, key: str, kind: int, depth: int = 0) -> None:
        """Go past a value; remember it where it decides how much is built. An array of one number would be read as
        that number."""
        if depth == 0 and key.endswith(REPEATED) and (kind not in SCALARS or SCALARS[kind] in "fd?"):
            raise _fault(self.path, f"its value '{key[:80]}' is no whole number")
        if kind == STRING:
            self.text()
        elif kind == ARRAY:
            self.array(key, depth)
        elif kind in SCALARS:
            found = self.number(SCALARS[kind])
            if depth == 0 and key.endswith(REPEATED):
                self.numbers[key] = found
        else:
            raise _fault(self.path, f"its value '{key[:80]}' is of an unknown type, {kind}")

    def array(self, key: str, depth: int) -> None:
        kind, count = self.number("I"), self.number("Q")
        if depth >= DEEPEST:
            raise _fault(self.path, f"its value '{key[:80]}' is an array of arrays of arrays")
        if kind in SCALARS:
            self.room(count * struct.calcsize(f"<{SCALARS[kind]}"))
            return
        if count * 8 > self.size - self.at:  # a string has a length, an array a type and a count
            raise _fault(self.path, f"its value '{key[:80]}' is to hold {count} entries, more than fit the file")
        for _ in range(count):
            self.value(key, kind, depth + 1)

    def tensor(self) -> tuple[int, int, str]:
        """First byte, end (both after the header) and name of the next tensor."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        name, dimensions = self.text(), self.number("I")
        if dimensions > MOST_DIMENSIONS:
            raise _fault(self.path, f"tensor '{name[:80]}' has {dimensions} dimensions; allowed: {MOST_DIMENSIONS}")
        shape = [self.number("Q") for _ in range(dimensions)]
        kind, begin = self.number("I"), self.number("Q")
        if kind not in {int(known) for known in GGMLQuantizationType}:
            raise _fault(self.path, f"tensor '{name[:80]}' is of an unknown type, {kind}")
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        return begin, begin + math.prod(shape) // block * size, name


def _fault(path: Path, why: str) -> UserFault:
    return UserFault(f"{path.name} is damaged or made to do harm: {why}")
