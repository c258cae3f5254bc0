"""A tokenizer whose tokens are bytes, for models with random weights: it needs no file and loses no text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# The order is RoBERTa's: its positions start at pad + 1, so the pad id must be 1 for 514 positions to hold 512 tokens.
SPECIAL = {"bos": "<|bos|>", "pad": "<|pad|>", "eos": "<|eos|>", "unk": "<|unk|>", "mask": "<|mask|>"}
BOS, PAD, EOS, UNK, MASK = range(5)
FIRST_BYTE = 5
SIZE = FIRST_BYTE + 256


def byte_alphabet() -> list[str]:
    """The printable character that byte-level BPE writes for each of the 256 bytes (GPT-2, Radford et al. 2019)."""
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    shifted = (chr(256 + n) for n in range(256))
    return [chr(b) if b in plain else next(shifted) for b in range(256)]


def byte_tokenizer(kind: str = "causal", max_length: int | None = None) -> PreTrainedTokenizerFast:
    """261 tokens: bos (also cls), pad, eos (also sep), unk, mask, then byte b at id 5 + b.

    `kind` decides what is put around a text, as the architecture's own tokenizer would: nothing (`causal`),
    `bos .. eos` and `bos .. eos .. eos` for pairs (`masked`, `encoder`), `.. eos` (`seq2seq`). Any text comes back by
    `decode(ids, skip_special_tokens=True)`; a text that itself spells a special token needs
    `split_special_tokens=True` in the call. `max_length` is in tokens, None for unlimited.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: n for n, token in enumerate([*SPECIAL.values(), *byte_alphabet()])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=None))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    bos, eos = (SPECIAL["bos"], BOS), (SPECIAL["eos"], EOS)
    if kind in ("masked", "encoder"):
        single, pair = f"{bos[0]} $A {eos[0]}", f"{bos[0]} $A {eos[0]} $B {eos[0]}"
        backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=[bos, eos])
    elif kind == "seq2seq":
        single, pair = f"$A {eos[0]}", f"$A {eos[0]} $B {eos[0]}"
        backend.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=[eos])
    named = {f"{name}_token": text for name, text in SPECIAL.items()}
    if kind in ("masked", "encoder"):
        named |= {"cls_token": SPECIAL["bos"], "sep_token": SPECIAL["eos"]}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_max_length=max_length or int(1e30),
        model_input_names=["input_ids", "attention_mask"],
        **named,
    )
