"""Configurations of published architectures at their true sizes, for models with random weights.

Sizes, dropout and positions are those of the published checkpoints' config.json; only the ids of special tokens
are the byte tokenizer's. Memory and speed depend on none of the values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from bench.models.tokenizer import BOS, EOS, PAD

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Kind = Literal["causal", "masked", "seq2seq", "encoder"]
_IDS: dict[str, Any] = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}


def config(name: str) -> PretrainedConfig:
    """The configuration of `random:<name>`; KeyError for a name that `catalog.RANDOM` does not have."""
    return _BUILDERS[name]()


def names() -> list[str]:
    """Names that `config` knows."""
    return list(_BUILDERS)


def _gpt2(width: int, layers: int, heads: int, **more: Any) -> PretrainedConfig:
    """Radford et al. 2019; dropout 0.1 everywhere, 1,024 positions, 50,257 tokens."""
    from transformers import GPT2Config

    return GPT2Config(n_embd=width, n_layer=layers, n_head=heads, architectures=["GPT2LMHeadModel"], **_IDS, **more)


def _bert(**more: Any) -> PretrainedConfig:
    """Devlin et al. 2019, uncased: 30,522 tokens, 512 positions, dropout 0.1."""
    from transformers import BertConfig

    return BertConfig(architectures=["BertForMaskedLM"], **_IDS, **more)


def _roberta(**more: Any) -> PretrainedConfig:
    """Liu et al. 2019: 50,265 tokens; 514 positions hold 512 tokens, for positions start at pad + 1."""
    from transformers import RobertaConfig

    shape: dict[str, Any] = {
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        **more,
    }
    return RobertaConfig(architectures=["RobertaForMaskedLM"], **_IDS, **shape)


def _llama(width: int, inner: int, layers: int, heads: int, kv_heads: int, **more: Any) -> PretrainedConfig:
    """Touvron et al. 2023 and Meta's Llama 3 herd, 2024; no dropout."""
    from transformers import LlamaConfig

    shape: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "rms_norm_eps": 1e-5,
        **more,
    }
    heads_of: dict[str, Any] = {"num_attention_heads": heads, "num_key_value_heads": kv_heads}
    return LlamaConfig(architectures=["LlamaForCausalLM"], **_IDS, **heads_of, **shape)


def _llama3(width: int, inner: int, layers: int, heads: int, factor: float, tied: bool) -> PretrainedConfig:
    """Llama 3.1 and 3.2: 128,256 tokens, 131,072 positions by scaled rotary embeddings, 8 key-value heads."""
    rope: dict[str, Any] = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": factor, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    shape: dict[str, Any] = {"vocab_size": 128256, "max_position_embeddings": 131072, "tie_word_embeddings": tied}
    return _llama(width, inner, layers, heads, 8, rope_parameters=rope, **shape)


def _t5(width: int, inner: int, layers: int, heads: int, **more: Any) -> PretrainedConfig:
    """Raffel et al. 2020, v1.0: ReLU, tied embeddings, 32,128 tokens, relative positions, dropout 0.1."""
    from transformers import T5Config

    ids: dict[str, Any] = {"pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": PAD}
    shape: dict[str, Any] = {"d_model": width, "d_ff": inner, "num_layers": layers, "num_heads": heads, **more}
    return T5Config(architectures=["T5ForConditionalGeneration"], **ids, **shape)


# Tests run these by the hundred: two layers, a vocabulary that only just holds the byte tokenizer, 512 positions.
_TINY: dict[str, Any] = {"vocab_size": 384}
_TINY_BERT: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, **_TINY}
_TINY_BERT["intermediate_size"] = 64

_BUILDERS: dict[str, Callable[[], PretrainedConfig]] = {
    "gpt2": lambda: _gpt2(768, 12, 12),
    "gpt2-medium": lambda: _gpt2(1024, 24, 16),
    "gpt2-large": lambda: _gpt2(1280, 36, 20),
    "gpt2-xl": lambda: _gpt2(1600, 48, 25),
    "bert-base": _bert,
    "roberta-base": _roberta,
    "llama-1b": lambda: _llama3(2048, 8192, 16, 32, 32.0, tied=True),
    "llama-3b": lambda: _llama3(3072, 8192, 28, 24, 32.0, tied=True),
    "llama-8b": lambda: _llama3(4096, 14336, 32, 32, 8.0, tied=False),
    "llama-65b": lambda: _llama(8192, 22016, 80, 64, 64, vocab_size=32000, max_position_embeddings=2048),
    "t5-small": lambda: _t5(512, 2048, 6, 8),
    "t5-base": lambda: _t5(768, 3072, 12, 12),
    "t5-large": lambda: _t5(1024, 4096, 24, 16),
    "tiny-gpt2": lambda: _gpt2(32, 2, 4, n_positions=512, **_TINY),
    "tiny-bert": lambda: _bert(**_TINY_BERT),
    "tiny-roberta": lambda: _roberta(**_TINY_BERT),
    "tiny-llama": lambda: _llama(32, 64, 2, 4, 2, max_position_embeddings=512, **_TINY),
    "tiny-t5": lambda: _t5(32, 64, 2, 4, d_kv=8, **_TINY),
}
