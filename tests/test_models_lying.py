"""Models whose configuration is not that of their weights, or whose weights are not only those that were checked."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
from test_headers import gguf, said, value
from test_models_cache import tiny_gguf
from test_models_folder import _edit, _load, stored  # noqa: F401

from bench.errors import UserFault
from bench.models import catalog, convert
from bench.models.headers import check_gguf
from bench.models.size import SPARE, check_size


@pytest.fixture
def copy(stored: Path, tmp_path: Path) -> Path:  # noqa: F811
    return Path(shutil.copytree(stored, tmp_path / "m"))


def fingerprint(folder: Path) -> str:
    return catalog.parse(f"path:{folder}").fingerprint()


def test_shards_are_those_that_the_index_names(copy: Path) -> None:
    """By any name, as transformers loads them: other weights are another model. A shard nobody names does not matter."""
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "weights-one.safetensors")}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file(weights, copy / "weights-one.safetensors", metadata={"format": "pt"})
    first = fingerprint(copy)
    name = "model.norm.weight"
    assert torch.equal(_load(copy).module.state_dict()[name], weights[name])
    save_file(weights | {name: weights[name] + 1}, copy / "weights-one.safetensors", metadata={"format": "pt"})
    assert fingerprint(copy) != first
    assert torch.equal(_load(copy).module.state_dict()[name], weights[name] + 1)


def test_an_adapter_beside_the_weights_is_refused(copy: Path) -> None:
    (copy / "adapter_config.json").write_text("{}")
    for act in (_load, fingerprint):
        with pytest.raises(
            UserFault, match=r"holds an adapter beside its weights \(adapter_config.json\), .*; allowed: a"
        ):
            act(copy)


def test_other_weights_named_in_the_configuration_are_refused(copy: Path) -> None:
    _edit(copy / "config.json", transformers_weights="other.safetensors")
    with pytest.raises(
        UserFault, match=r"names other weights \(transformers_weights in config.json\), .*; allowed: model.s"
    ):
        _load(copy)


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({"hidden_size": 32768, "intermediate_size": 131072, "num_hidden_layers": 900, "head_dim": 64}, 10**12),
        ({"vocab_size": 2**34}, 10**11),
    ],
)
def test_a_configuration_wider_than_its_weights(copy: Path, changes: dict[str, int], asked: int) -> None:
    """Refused by its shapes: no memory is asked for."""
    _edit(copy / "config.json", **changes)
    with pytest.raises(
        UserFault, match=r"its configuration asks for ([\d,]+) numbers, and [\d,]+ bytes of weights"
    ) as told:
        _load(copy)
    number = str(told.value).partition("asks for ")[2].partition(" ")[0]
    assert int(number.replace(",", "")) > asked


def test_a_size_is_held_against_the_files() -> None:
    """Twice what the bytes can hold, and a little; worked by hand on one layer of two by three without a bias."""
    import torch

    class Auto:
        @staticmethod
        def from_config(config: int) -> torch.nn.Module:
            return torch.nn.Linear(config, 3, bias=False)

    check_size(Auto, SPARE // 3, 0, 8, "m")
    check_size(Auto, SPARE // 3 + 1, 1, 8, "m")
    with pytest.raises(UserFault, match=rf"m: its configuration asks for {SPARE // 3 * 3 + 30:,} numbers, and 1 bytes"):
        check_size(Auto, SPARE // 3 + 10, 1, 8, "m")


@pytest.mark.parametrize("key", ["llama.block_count", "general.alignment", "llama.expert_count"])
@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (9, struct.pack("<IQI", 4, 1, 10**9)),
        (8, struct.pack("<Q", 1) + b"9"),
        (6, struct.pack("<f", 1e9)),
        (12, struct.pack("<d", 1e9)),
        (7, b"\x01"),
    ],
    ids=["array", "text", "float", "double", "bool"],
)
def test_counts_of_a_gguf_are_whole_numbers(tmp_path: Path, key: str, kind: int, raw: bytes) -> None:
    """transformers takes the number out of an array of one."""
    (tmp_path / "model.gguf").write_bytes(gguf(value(key, kind, raw), counts=(1, 0)))
    assert said(check_gguf, tmp_path / "model.gguf") == f"its value '{key}' is no whole number"


def test_a_gguf_wider_than_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_gguf(tmp_path / "wide.gguf")
    raw, key = (tmp_path / "wide.gguf").read_bytes(), b"llama.feed_forward_length"
    at = raw.index(key) + len(key)
    assert struct.unpack_from("<II", raw, at) == (4, 64)
    (tmp_path / "wide.gguf").write_bytes(raw[:at] + struct.pack("<II", 4, 2**31 - 1) + raw[at + 8 :])
    assert convert.main([str(tmp_path / "wide.gguf"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("wide.gguf: its configuration asks for ")
    assert not (tmp_path / "out").exists()
