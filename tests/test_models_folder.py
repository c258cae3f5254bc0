"""Models in a folder: what is loaded, what is refused, and in which words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench.errors import UserFault
from bench.models import cache, catalog


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in a folder, as `path:` takes it."""
    import torch

    from bench.models.base import load_base

    folder = tmp_path_factory.mktemp("stored") / "llama"
    base = load_base(catalog.parse("random:tiny-llama"), None, torch.float32)
    base.module.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "m"))


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _load(folder: Path):
    import torch

    from bench.models.base import load_base

    ref = catalog.parse(f"path:{folder}")
    return load_base(ref, cache.ensure(ref), torch.float32)


def test_a_folder_loads(stored: Path) -> None:
    import torch

    base, ref = _load(stored), catalog.parse(f"path:{stored}")
    assert cache.is_ready(ref) and cache.ensure(ref) == stored == base.folder
    assert (base.kind, base.max_length, base.tokenizer.pad_token_id) == ("causal", 512, 1)
    ids = base.tokenizer("a word", return_tensors="pt")
    assert torch.isfinite(base.module(**ids).logits).all()


def test_fingerprint_of_a_folder_is_its_content(copy: Path, stored: Path) -> None:
    of = lambda folder: catalog.parse(f"path:{folder}").fingerprint()  # noqa: E731
    assert of(copy) == of(stored) and of(copy).startswith("sha256:")
    (copy / "README.md").write_text("other files do not matter")
    assert of(copy) == of(stored)
    _edit(copy / "config.json", rms_norm_eps=1e-6)
    assert of(copy) != of(stored)


def test_folder_faults(copy: Path) -> None:
    def fault(words: str) -> None:
        ref = catalog.parse(f"path:{copy}")
        assert not cache.is_ready(ref)
        with pytest.raises(UserFault, match=words):
            cache.ensure(ref)

    config, weights, tokenizer = (copy / n for n in ("config.json", "model.safetensors", "tokenizer.json"))
    good = config.read_text()
    _edit(config, auto_map={"AutoModel": "x.Y"})
    fault(r"needs code of its own \(auto_map in config.json\)")
    config.write_text(good)
    _edit(copy / "tokenizer_config.json", auto_map={"AutoTokenizer": "x.Y"})
    fault(r"auto_map in tokenizer_config.json")
    _edit(copy / "tokenizer_config.json", auto_map=None)
    (copy / "tokenizer_config.json").unlink()
    _edit(config, quantization_config={})
    fault("stored quantised")
    config.write_text("[]")
    fault("config.json holds no JSON object")
    config.write_text("{")
    fault("config.json cannot be read")
    config.unlink()
    fault("has no config.json")
    config.write_text(good)
    tokenizer.rename(copy / "other.json")
    fault("has no tokenizer; allowed: tokenizer.json")
    weights.rename(copy / "pytorch_model.bin")
    fault(r"only as pickles \(pytorch_model.bin\), which run code .*; allowed: safetensors")
    (copy / "pytorch_model.bin").unlink()
    fault("has no weights; allowed: model.safetensors")
    (copy / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}})
    )
    fault("lacks 1 of 1 weight files, e.g. model-00001-of-00001.safetensors")
    ref = catalog.parse(f"path:{copy}")
    shutil.rmtree(copy)
    with pytest.raises(UserFault, match="does not exist"):
        ref.fingerprint()


def test_load_faults(copy: Path) -> None:
    import torch

    from bench.models.base import load_base

    with pytest.raises(UserFault, match="has no folder yet"):
        load_base(catalog.parse(f"path:{copy}"), None, torch.float32)
    for changes, words in [
        ({"model_type": "nothing-like-it"}, "cannot read its config.json"),
        ({"model_type": "vit", "architectures": None}, "'vit', which is no text model"),
        (
            {"model_type": "llama", "num_hidden_layers": 3},
            r"lack \d+ of the parameters of a LlamaForCausalLM, e.g. model",
        ),
    ]:
        _edit(copy / "config.json", **changes)
        with pytest.raises(UserFault, match=words):
            _load(copy)


def test_a_missing_pad_token_is_stood_in_for(copy: Path) -> None:
    content = json.loads((copy / "tokenizer_config.json").read_text())
    bare = {k: v for k, v in content.items() if not k.endswith("_token")}
    (copy / "tokenizer_config.json").write_text(json.dumps({**bare, "eos_token": "<|eos|>"}))
    assert _load(copy).tokenizer.pad_token == "<|eos|>"
    (copy / "tokenizer_config.json").write_text(json.dumps(bare))
    with pytest.raises(UserFault, match="no pad, eos or unk token"):
        _load(copy)


def test_a_sentence_encoder_loses_its_pooler(tmp_path: Path) -> None:
    """Nothing reads through it: it would be counted as trained, get no gradient, and break AdaLoRA's importance."""
    import tiny
    import torch
    from transformers import BertModel

    masked = tiny.base("tiny-bert")
    folder = tmp_path / "encoder"
    torch.manual_seed(0)
    BertModel(masked.module.config).save_pretrained(folder)
    masked.tokenizer.save_pretrained(folder)
    base = _load(folder)
    assert base.kind == "encoder" and not [n for n, _ in base.module.named_parameters() if "pooler" in n]
    for name in ("adalora", "lora", "full"):
        base, context = _load(folder), tiny.context("head")
        plan = tiny.STRATEGIES[name].prepare(base, context, tiny.options(name))
        trained = tiny.adapt(plan, context, tiny.Meter(tiny.Budget(labels=12, train_examples=8)))
        assert len(trained.losses) == 2
