"""Loading a base model into memory. The one module here that imports torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bench.errors import UserFault
from bench.models import architectures
from bench.models.architectures import Kind
from bench.models.catalog import ModelRef
from bench.models.size import check_size
from bench.models.tokenizer import byte_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

# Relative positions without a table: no length is too long for them, only for memory.
_UNLIMITED = ("t5", "mt5", "umt5", "bloom", "mamba", "mamba2", "rwkv")
_MASKED_HEADS = ("ForMaskedLM", "ForPreTraining")


@dataclass
class Base:
    """A base model ready for a strategy to take over; nothing is frozen yet."""

    spec: str
    """As the user named it."""
    module: nn.Module
    """A transformers model on the CPU, in eval mode."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer: `pad_token` is set, padding is on the right."""
    kind: Kind
    """`causal`, `masked` and `seq2seq` have an LM head, `encoder` has none."""
    max_length: int | None
    """Longest input in tokens, special ones included; None where the architecture sets no limit (T5)."""
    width: int
    """Size of a hidden state."""
    folder: Path | None
    """Where its files lie; None for random weights."""
    note: str
    """What the base model already is, one sentence."""


def load_base(ref: ModelRef, folder: Path | None, dtype: torch.dtype, seed: int = 0) -> Base:
    """The model of `ref` on the CPU in `dtype`; `folder` is what `cache.ensure(ref)` returned.

    `random:` models are initialised as their architecture defines, from `seed`. Starts no threads, makes no CUDA call
    and leaves the global random state as it was, so that the process may fork afterwards.
    Raises `UserFault` for a folder whose architecture transformers cannot load or whose weights do not fill it.
    """
    with _quiet(seed):
        config = _config(ref, folder)
        kind = kind_of(config, ref.spec)
        auto = _auto_class(kind)
        if folder is None:
            module = auto.from_config(config, dtype=dtype, **_attention(auto, config))
        else:
            module = _stored(ref, folder, config, auto, dtype)
        return _base(ref, folder, module, kind)


def meta_base(ref: ModelRef, folder: Path | None, dtype: torch.dtype, depth: int | None = None) -> Base:
    """As `load_base`, but every parameter is on the meta device: shapes and counts in seconds, at any size.

    With `depth` the model has so many blocks, in each stack where it has two.
    """
    with _quiet(0), torch.device("meta"):
        config = _config(ref, folder)
        if depth is not None:
            config.num_hidden_layers = depth
            if hasattr(config, "num_decoder_layers"):
                config.num_decoder_layers = depth
        kind = kind_of(config, ref.spec)
        auto = _auto_class(kind)
        return _base(ref, folder, auto.from_config(config, dtype=dtype, **_attention(auto, config)), kind)


def depth_of(ref: ModelRef, folder: Path | None) -> int:
    """Blocks of the model, of one stack where it has two."""
    return int(_config(ref, folder).num_hidden_layers)


def kind_of(config: PretrainedConfig, label: str) -> Kind:
    """Which sort of model a configuration describes: by its `architectures`, else by its model type.

    Raises `UserFault` where transformers has no text model of that type.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        MODEL_MAPPING,
    )

    of = type(config)
    head = (getattr(config, "architectures", None) or [""])[0]
    if getattr(config, "is_encoder_decoder", False) and of in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        return "seq2seq"
    if of in MODEL_FOR_MASKED_LM_MAPPING:  # a BERT-like: some of these can also be decoders, when they say so
        if head.endswith(_MASKED_HEADS):
            return "masked"
        decoder = getattr(config, "is_decoder", False) and of in MODEL_FOR_CAUSAL_LM_MAPPING
        return "causal" if decoder else "encoder"
    if of in MODEL_FOR_CAUSAL_LM_MAPPING:
        return "causal"
    if (
        of in MODEL_MAPPING and of in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    ):  # the second leaves out vision and audio
        return "encoder"
    raise UserFault(f"model '{label}' is of type '{config.model_type}', which is no text model transformers can load")


def _config(ref: ModelRef, folder: Path | None) -> PretrainedConfig:
    if ref.form == "random":
        return architectures.config(ref.name)
    if folder is None:
        raise UserFault(f"model '{ref.spec}' has no folder yet: make it ready first (cache.ensure)")
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # what transformers makes of a file of others is not one kind of error
        raise UserFault(f"model '{ref.spec}': transformers cannot read its config.json: {error}") from None


def _auto_class(kind: Kind) -> Any:
    import transformers

    names = {"causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM", "seq2seq": "AutoModelForSeq2SeqLM"}
    return getattr(transformers, names.get(kind, "AutoModel"))


def _attention(auto: Any, config: PretrainedConfig) -> dict[str, str]:
    """torch's own fused attention where the model has it: the same kernel on every machine."""
    of = auto._model_mapping[type(config)]
    of = of[0] if isinstance(of, tuple) else of
    return {"attn_implementation": "sdpa"} if getattr(of, "_supports_sdpa", False) else {}


def _stored(ref: ModelRef, folder: Path, config: PretrainedConfig, auto: Any, dtype: torch.dtype) -> nn.Module:
    safe = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True, "output_loading_info": True}
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    try:
        check_size(auto, config, stored, 1, f"model '{ref.spec}'")
        module, info = auto.from_pretrained(folder, config=config, dtype=dtype, **_attention(auto, config), **safe)
    except (MemoryError, UserFault):
        raise
    except Exception as error:  # of transformers, safetensors or torch, by what a file of others holds
        raise UserFault(f"model '{ref.spec}' cannot be loaded: {error}") from None
    # transformers fills what is missing with random numbers and a warning. Only a pooler may be new: checkpoints
    # trained as language models never had one.
    lost = sorted(k for k in info["missing_keys"] if ".pooler." not in f".{k}")
    if lost:
        whole = type(module).__name__
        raise UserFault(
            f"model '{ref.spec}': its weights lack {len(lost)} of the parameters of a {whole}, e.g. {lost[0]}"
        )
    return module


def _base(ref: ModelRef, folder: Path | None, module: Any, kind: Kind) -> Base:
    config = module.config
    tokenizer: PreTrainedTokenizerBase
    tokenizer = byte_tokenizer(kind, _max_length(config, None)) if folder is None else _tokenizer(ref, folder)
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id  # else a batch of several rows has no last real token
    length = _max_length(config, tokenizer)
    if kind == "encoder" and isinstance(getattr(module, "pooler", None), nn.Module):
        module.pooler = None  # no readout of ours goes through it, so it would be counted as trained and never train
    return Base(ref.spec, module.eval(), tokenizer, kind, length, config.hidden_size, folder, ref.note)


def _tokenizer(ref: ModelRef, folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, OSError, KeyError) as error:
        raise UserFault(f"model '{ref.spec}': its tokenizer cannot be loaded: {error}") from None
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        # A new token would need a new embedding row; padding is masked, so any existing token serves.
        stand_in = tokenizer.eos_token or tokenizer.unk_token
        if stand_in is None:
            raise UserFault(
                f"model '{ref.spec}': its tokenizer has no pad, eos or unk token, so batches cannot be padded"
            )
        tokenizer.pad_token = stand_in
    return tokenizer


def _max_length(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase | None) -> int | None:
    if config.model_type in _UNLIMITED:
        return None
    limits = [positions_of(config), getattr(tokenizer, "model_max_length", None)]
    return min((n for n in limits if n is not None and n < 10**9), default=None)


def positions_of(config: PretrainedConfig) -> int | None:
    """Tokens for which the configuration names positions; None where it names none."""
    positions: int | None = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if positions is not None and config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= config.pad_token_id + 1  # their positions start after the pad id
    return positions


@contextmanager
def _quiet(seed: int) -> Iterator[None]:
    """One thread, no progress bars, a random state of its own: see `load_base`."""
    from transformers.utils import logging

    before, threads = os.environ.get("HF_DEACTIVATE_ASYNC_LOAD"), torch.get_num_threads()
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
    torch.set_num_threads(1)
    logging.disable_progress_bar()  # tqdm starts a monitor thread
    logging.set_verbosity_error()  # its table of missing weights: `_stored` says it in one line
    try:
        with torch.random.fork_rng(devices=[]):
            # not torch.manual_seed: that one also seeds CUDA, which this process must not touch
            torch.default_generator.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if before is None:
            del os.environ["HF_DEACTIVATE_ASYNC_LOAD"]
        else:
            os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = before
