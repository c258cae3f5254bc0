"""Weight files whose headers lie: refused in words before any library reads them, and in little memory."""

from __future__ import annotations

import json
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_models_cache import tiny_gguf

from bench.errors import UserFault
from bench.models import cache, catalog, convert
from bench.models.folder import check_folder
from bench.models.headers import LARGEST_HEADER, check_gguf, check_safetensors

MIB = 2**20
PAIR = {"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]}}  # fmt: skip


def said(check: Callable[[Path], object], path: Path) -> str:
    """The one line a file is refused with, found in under 8 MiB."""
    tracemalloc.start()
    try:
        with pytest.raises(UserFault) as fault:
            check(path)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()
    start = f"{path.name} is damaged or made to do harm: "
    assert str(fault.value).startswith(start) and len(str(fault.value)) < 300
    return str(fault.value).removeprefix(start)


def stored(path: Path, header: Any, data: int = 22, length: int | None = None) -> Path:
    """A safetensors file: any header over so many zero bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + bytes(data))
    return path


def test_true_headers_pass(tmp_path: Path) -> None:
    """By our own hand and by the library's, among them a tensor without numbers and one of a single number."""
    import torch
    from safetensors.torch import save_file

    assert check_safetensors(stored(tmp_path / "x", {**PAIR, "__metadata__": {"format": "pt"}})) == 2
    given = {"empty": torch.zeros(0, 3), "one": torch.tensor(1.0), "half": torch.zeros(5, dtype=torch.float16)}
    given |= {"bool": torch.ones(3, dtype=torch.bool), "eight": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    save_file(given, tmp_path / "y")
    assert check_safetensors(tmp_path / "y") == 5


def changed(**entry: Any) -> dict[str, Any]:
    """The pair with something else said of `b`."""
    return {**PAIR, "b": {**PAIR["b"], **entry}}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"", "its header is no JSON"),
        (b"[" * 100_000, "its header is no JSON"),
        (b"[]", "its header is no JSON object"),
        (b'{"a": 1}', "the entry of tensor 'a' is none of"),
        (changed(dtype="F31"), "the entry of tensor 'b' is none of a type, a shape and two offsets"),
        (changed(dtype=["F32"]), "the entry of tensor 'b' is none of"),
        (changed(shape="3"), "the entry of tensor 'b' is none of"),
        (changed(shape=[-3]), "the entry of tensor 'b' is none of"),
        (changed(shape=[True]), "the entry of tensor 'b' is none of"),
        (changed(shape=[1] * 17), "the entry of tensor 'b' is none of"),
        (changed(shape=[2**64]), "the entry of tensor 'b' is none of"),
        (changed(data_offsets=[-6, 0]), "the entry of tensor 'b' is none of"),
        (changed(data_offsets=[16, 22, 24]), "the entry of tensor 'b' is none of"),
        (changed(data_offsets=[22, 16]), "tensor 'b' has -6 bytes, which its type and shape do not need"),
        (changed(shape=[2**40]), "tensor 'b' has 6 bytes, which"),
        (changed(shape=[2**40], data_offsets=[16, 16 + 2**41]), f"its tensors end at byte {16 + 2**41} of 22"),
        (changed(data_offsets=[10, 16]), "tensor 'b' overlaps another"),
        (changed(data_offsets=[0, 6]), "overlaps another"),
        (changed(data_offsets=[18, 24]), "tensor 'b' leaves a hole before it"),
        ({"a": PAIR["a"]}, "its tensors end at byte 16 of 22"),
    ],
)
def test_a_safetensors_header_that_lies(tmp_path: Path, header: Any, words: str) -> None:
    assert words in said(check_safetensors, stored(tmp_path / "model.safetensors", header))


@pytest.mark.parametrize("length", [23, 2**31, 2**62, 2**64 - 1])
def test_a_header_longer_than_its_file(tmp_path: Path, length: int) -> None:
    told = said(check_safetensors, stored(tmp_path / "x", b"{}", 20, length))
    assert told == f"its header is to have {length} bytes and the file has 30"


def test_a_header_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    """A file with a hole has the length without the bytes."""
    with (tmp_path / "x").open("wb") as out:
        out.write((2**30).to_bytes(8, "little"))
        out.truncate(2**30 + 8)
    assert f"its header has {2**30} bytes, allowed: {LARGEST_HEADER}" in said(check_safetensors, tmp_path / "x")


def folder(place: Path, **files: bytes | str) -> Path:
    """A model's folder, whole but for what is given."""
    place.mkdir()
    for name, content in {"config.json": "{}", "tokenizer.json": "{}", **files}.items():
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return place


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"model.safetensors": b"\xff" * 8},
            "model 'm': model.safetensors is damaged or made to do harm: its header is",
        ),
        ({"model.safetensors.index.json": "{}"}, "holds no weight_map of tensors and their files"),
        ({"model.safetensors.index.json": '{"weight_map": ["a"]}'}, "holds no weight_map"),
        ({"model.safetensors.index.json": '{"weight_map": {"a": ["b"]}}'}, "holds no weight_map"),
        (
            {"model.safetensors.index.json": '{"weight_map": {"a": "../../x"}}'},
            "lacks 1 of 1 weight files, e.g. ../../x",
        ),
        ({"config.json": "[" * 100_000}, "model 'm': config.json cannot be read"),
        ({"config.json": '{"hidden_size": ' + "9" * 5000 + "}"}, "model 'm': config.json cannot be read"),
    ],
)
def test_a_folder_that_lies(tmp_path: Path, files: dict[str, bytes | str], words: str) -> None:
    with pytest.raises(UserFault, match=re.escape(words)):
        check_folder(folder(tmp_path / "m", **files), "m")


@pytest.mark.parametrize("config", ['{"num_hidden_layers": 1000000000}', '{"text": {"n_layer": 1e18}}'])
def test_layers_that_no_weights_fill(tmp_path: Path, config: str) -> None:
    """They would be built one by one before the weights are missed."""
    place = folder(tmp_path / "m", **{"config.json": config})
    stored(place / "model.safetensors", PAIR)
    with pytest.raises(UserFault, match=r"its config.json says n\w+: 1\S+, and its weights hold 2 tensors"):
        check_folder(place, "m")


# ---- GGUF


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(key: str, kind: int, raw: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + raw


def array(kind: int, count: int, raw: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + raw


def tensor(name: str, shape: list[int], kind: int, offset: int) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf(
    values: bytes = b"", tensors: bytes = b"", counts: tuple[int, int] = (0, 0), data: int = 0, version: int = 3
) -> bytes:
    """A GGUF file of (values, tensors) counts."""
    head = b"GGUF" + struct.pack("<IQQ", version, counts[1], counts[0]) + values + tensors
    return head + bytes(-len(head) % 32 + data)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "it does not begin as GGUF does"),
        (b"GGML" + bytes(40), "it does not begin as GGUF does"),
        (gguf(version=1), "it is GGUF version 1; allowed: 2 and 3"),
        (gguf(version=3 << 24), "allowed: 2 and 3, little-endian"),
        (gguf(counts=(2**62, 0)), f"it is to hold {2**62} values"),
        (gguf(counts=(0, 2**62)), f"it is to hold {2**62} tensors"),
        (gguf(counts=(60_000, 0)), "of 32"),
        (gguf(struct.pack("<Q", 2**62), counts=(1, 0)), f"its header needs {2**62} bytes at byte 32 of 32"),
        (gguf(value("k", 99, b""), counts=(1, 0)), "its value 'k' is of an unknown type, 99"),
        (gguf(value("k", 8, struct.pack("<Q", 2**63)), counts=(1, 0)), f"its header needs {2**63} bytes"),
        (gguf(value("k", 9, array(0, 2**62)), counts=(1, 0)), f"its header needs {2**62} bytes"),
        (gguf(value("k", 9, array(8, 2**62)), counts=(1, 0)), f"is to hold {2**62} entries, more than fit the file"),
        (gguf(value("k", 9, array(9, 2**61)), counts=(1, 0)), "more than fit the file"),
        (gguf(value("k", 9, array(9, 1) * 8), counts=(1, 0)), "is an array of arrays of arrays"),
        (gguf(value("llama.block_count", 4, struct.pack("<I", 2**31)), counts=(1, 0)), "llama.block_count: 2147483648, and holds 0"),
        (gguf(value("general.alignment", 4, bytes(4)), counts=(1, 0)), "its general.alignment is 0; allowed: 1 to"),
        (gguf(tensors=tensor("t", [2**40, 2**40], 0, 0), counts=(0, 1)), "its tensors end at byte"),
        (gguf(tensors=tensor("t", [8], 0, 2**62), counts=(0, 1), data=32), "its tensors end at byte"),
        (gguf(tensors=tensor("t", [8], 0, 2**64 - 32), counts=(0, 1), data=32), "its tensors end at byte"),
        (gguf(tensors=tensor("t", [8], 0, 0) + tensor("u", [8], 0, 16), counts=(0, 2), data=64), "tensor 'u' overlaps"),
        (gguf(tensors=tensor("t", [8], 77, 0), counts=(0, 1), data=32), "tensor 't' is of an unknown type, 77"),
        (gguf(tensors=text("t") + struct.pack("<I", 2**32 - 1), counts=(0, 1)), "has 4294967295 dimensions; allowed: 16"),
    ],
)  # fmt: skip
def test_a_gguf_header_that_lies(tmp_path: Path, raw: bytes, words: str) -> None:
    (tmp_path / "model.gguf").write_bytes(raw)
    table_of_types()
    assert words in said(check_gguf, tmp_path / "model.gguf")


def table_of_types() -> None:
    """Imported outside the measured memory."""
    import gguf.constants  # noqa: F401


def test_a_true_gguf_passes_and_none_of_its_halves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut anywhere, it is refused by its header; the conversion says so in one line."""
    whole = tmp_path / "tiny.gguf"
    tiny_gguf(whole)
    check_gguf(whole)
    raw, cut = whole.read_bytes(), tmp_path / "cut.gguf"
    for share in (0.001, 0.01, 0.05, 0.1, 0.3, 0.9, 0.999):
        cut.write_bytes(raw[: int(len(raw) * share)])
        said(check_gguf, cut)
    assert convert.main([str(cut), str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("cut.gguf is damaged or made to do harm: ") and printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_damaged_folder_is_not_ready(tmp_path: Path) -> None:
    ref = catalog.parse(f"path:{folder(tmp_path / 'm', **{'model.safetensors': b'no'})}")
    assert not cache.is_ready(ref)
    with pytest.raises(UserFault, match="damaged or made to do harm"):
        cache.ensure(ref)
