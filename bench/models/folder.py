"""What a folder with a model must hold, and what is refused: pickles, remote code, weights that are not all there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.errors import UserFault
from bench.models.headers import check_layers, check_safetensors

# Only these files are ever fetched, unpacked or fingerprinted. `1_Pooling` says how a sentence encoder pools.
_SMALL = re.compile(
    r"config\.json|generation_config\.json|tokenizer[^/]*\.(?:json|model|txt)|vocab[^/]*\.(?:json|txt)|merges[^/]*\.txt"
    r"|special_tokens_map\.json|added_tokens\.json|spiece\.model|sentencepiece[^/]*\.model"
    r"|chat_template\.(?:jinja|json)|1_Pooling/config\.json"
)
_VOCABULARY = re.compile(r"tokenizer\.(?:json|model)|vocab[^/]*\.(?:json|txt)|spiece\.model|sentencepiece[^/]*\.model")
_PICKLE = re.compile(r"[^/]*\.(?:bin|pt|pth|ckpt|pkl)")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
LARGEST_JSON = 2**26
"""Bytes of a configuration or an index: the largest published ones have a few million."""
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


def small_files(names: Iterable[str]) -> list[str]:
    """Those of `names` (relative, `/`) that are configuration or tokenizer, sorted."""
    return sorted(n for n in names if _SMALL.fullmatch(n))


def weight_files(names: Iterable[str]) -> list[str]:
    """Those of `names` that transformers reads as safetensors weights, sorted; one file wins over shards, as there."""
    names = set(names)
    if WEIGHTS in names:
        return [WEIGHTS]
    return sorted([INDEX, *(n for n in names if _SHARD.fullmatch(n))]) if INDEX in names else []


def refuse_without_safetensors(names: Iterable[str], label: str) -> None:
    """Raise `UserFault` where `names` holds no safetensors weights; says so plainly where there are only pickles."""
    names = sorted(names)
    if weight_files(names):
        return
    if pickles := [n for n in names if _PICKLE.fullmatch(n)]:
        raise UserFault(
            f"model '{label}' has its weights only as pickles ({', '.join(pickles[:3])}), which run code when they are "
            "loaded; allowed: safetensors"
        )
    raise UserFault(f"model '{label}' has no weights; allowed: {WEIGHTS}, or {INDEX} and its shards")


def check_config(folder: Path, label: str) -> dict[str, Any]:
    """config.json as a dict. Raises `UserFault` where it is missing, unreadable, quantised or asks for remote code."""
    config = _json(folder / "config.json", label)
    tokenizer = folder / "tokenizer_config.json"
    for name, content in (
        ("config.json", config),
        (tokenizer.name, _json(tokenizer, label) if tokenizer.exists() else {}),
    ):
        if "auto_map" in content:
            raise UserFault(
                f"model '{label}' needs code of its own (auto_map in {name}), which is never run here; "
                "allowed: architectures that transformers itself has"
            )
    if "transformers_weights" in config:
        raise UserFault(
            f"model '{label}' names other weights (transformers_weights in config.json), which nothing here checks; "
            f"allowed: {WEIGHTS}, or {INDEX} and its shards"
        )
    if "quantization_config" in config:
        raise UserFault(f"model '{label}' is stored quantised, so it cannot be trained in full; allowed: plain weights")
    return config


def check_folder(folder: Path, label: str) -> None:
    """Raise `UserFault` where `folder` is not a whole model: config.json, every safetensors shard, a tokenizer."""
    if not folder.is_dir():
        raise UserFault(f"model folder '{folder}' does not exist; allowed: a folder with config.json and *.safetensors")
    names = [p.name for p in folder.iterdir()]
    config = check_config(folder, label)
    refuse_without_safetensors(names, label)
    if ADAPTER in names:
        raise UserFault(
            f"model '{label}' holds an adapter beside its weights ({ADAPTER}), which would be loaded with them; "
            "allowed: a folder of one whole model, the adapter merged into it or left out"
        )
    wanted = {WEIGHTS} if WEIGHTS in names else _shards(folder, label)
    if missing := sorted(wanted - set(names)):
        raise UserFault(f"model '{label}' lacks {len(missing)} of {len(wanted)} weight files, e.g. {missing[0]}")
    try:
        tensors = sum(check_safetensors(folder / name) for name in sorted(wanted))
    except (OSError, UserFault) as error:
        raise UserFault(f"model '{label}': {error}") from None
    check_layers(config, tensors, label)
    if not any(_VOCABULARY.fullmatch(n) for n in names):
        raise UserFault(
            f"model '{label}' has no tokenizer; allowed: tokenizer.json, vocab.*, tokenizer.model, spiece.model"
        )


def fingerprint_folder(folder: Path, label: str) -> str:
    """`sha256:...` over names and bytes of the files a model consists of; other files do not matter.

    Raises `UserFault` where the folder is not a whole model.
    """
    check_folder(folder, label)
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    digest = hashlib.sha256()
    # by the index, as transformers loads them, whatever shards are called
    shards = set() if WEIGHTS in names else _shards(folder, label)
    for name in sorted({*small_files(names), *weight_files(names), *shards}):
        digest.update(f"{name}\0{file_sha256(folder / name)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def file_sha256(path: Path) -> str:
    """sha256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _shards(folder: Path, label: str) -> set[str]:
    """Weight files that the index names."""
    named = _json(folder / INDEX, label).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise UserFault(f"model '{label}': {INDEX} holds no weight_map of tensors and their files")
    return set(named.values())


def _json(path: Path, label: str) -> dict[str, Any]:
    if not path.is_file():
        raise UserFault(
            f"model '{label}' has no {path.name}; allowed: a folder with config.json, *.safetensors, a tokenizer"
        )
    try:
        if (size := path.stat().st_size) > LARGEST_JSON:
            raise ValueError(f"it has {size} bytes, allowed: {LARGEST_JSON} at most")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserFault(f"model '{label}': {path.name} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise UserFault(f"model '{label}': {path.name} holds no JSON object")
    return content
