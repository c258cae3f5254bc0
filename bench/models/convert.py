"""`python -m bench.models.convert GGUF OUT`: a quantised GGUF becomes fp32 safetensors and a fast tokenizer, once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bench.errors import UserFault
from bench.models.headers import check_gguf

# llama.cpp's names for vocabularies whose merges were learned with every digit on its own (llama-vocab.cpp), which
# transformers 5.23 does not know: without the digit split two blanks before a number give other tokens.
DIGITS = ("smollm", "starcoder", "refact", "codeshell")
PLAIN = ("gpt-2",)
NUMBERS_A_BYTE = 8
"""Of a GGUF file at most: its smallest type has one and a half bits a number."""


def convert(gguf: Path, out: Path) -> None:
    """Write the model of `gguf` to the folder `out`: dequantised fp32 weights, config, generation config, tokenizer.

    Raises `UserFault` where the file's header leads out of it, transformers cannot read the architecture or the way
    text is split is not known.
    """
    check_gguf(gguf)
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    from bench.models.size import check_size

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    where: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
    try:
        split = _split(gguf)
        described = AutoConfig.from_pretrained(gguf.parent, **where)
        check_size(AutoModelForCausalLM, described, gguf.stat().st_size, NUMBERS_A_BYTE, gguf.name)
        # dequantize: the default keeps a quantizer on the model, which then neither trains nor saves.
        config = GgufConfig(dequantize=True)
        model, info = AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.float32, quantization_config=config, output_loading_info=True, **where
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)
    except UserFault:
        raise
    except Exception as error:  # of two libraries that trust the file
        raise UserFault(f"transformers cannot read {gguf.name}: {type(error).__name__}: {error}") from None
    if lost := sorted(info["missing_keys"]):  # transformers would fill these with random numbers and only warn
        what = f"a {type(model).__name__}: it lacks {len(lost)} parameters, e.g. {lost[0]}"
        raise UserFault(f"{gguf.name} does not fill {what}")
    if split == "digits":
        _split_digits(tokenizer)
    vars(model.config).pop("_model_name_or_path", None)  # the file's internal title, which would pose as a repository
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _split(gguf: Path) -> str:
    """`digits` or `as read`: how text is cut before the merges apply. An unknown way is refused, not guessed."""
    from gguf import GGUFReader
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    fields = GGUFReader(str(gguf)).fields
    model, pre = (fields[k].contents() if k in fields else None for k in ("tokenizer.ggml.model", "tokenizer.ggml.pre"))
    if pre in DIGITS:
        return "digits"
    known = sorted({*DIGITS, *PLAIN, *GGUF_PRE_TOKENIZER_SPLITS})
    if model == "gpt2" and pre not in known:
        raise UserFault(f"{gguf.name} splits text in a way not known here ('{pre}'); allowed: {', '.join(known)}")
    return "as read"


def _split_digits(tokenizer: Any) -> None:
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    )


def main(arguments: list[str]) -> int:
    """Exit code 0, or 2 with one worded line on stderr."""
    try:
        if len(arguments) != 2:
            raise UserFault(f"convert needs GGUF and OUT, got {len(arguments)} arguments")
        convert(Path(arguments[0]).absolute(), Path(arguments[1]))
    except UserFault as fault:
        print(fault, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
