"""Models on the hub, against a small fake one on this machine. Each case is a process: the client reads its settings once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import FakeHub

from bench.models import catalog

ROOT = Path(catalog.__file__).parents[2]
COMMIT, OTHER = "a" * 40, "b" * 40
CODE = """
import json, sys
from bench.errors import UserFault
from bench.models import cache, catalog
for spec in sys.argv[1:]:
    ref = catalog.parse(spec)
    before = cache.is_ready(ref)
    try:
        print(json.dumps([before, str(cache.ensure(ref)), cache.is_ready(ref)]))
    except UserFault as fault:
        print(json.dumps([before, "fault: " + str(fault), cache.is_ready(ref)]))
"""


def ask(tmp_path: Path, *specs: str, **environment: str) -> list[tuple[bool, str, bool]]:
    """(ready before, folder or fault, ready after) for each spec, in a fresh process with an own hub cache."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    own = {"HF_HOME": str(tmp_path / "hf"), "BENCH_CACHE": str(tmp_path / "cache"), **environment}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *specs],
        cwd=ROOT,
        env={**clean, **own},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A tiny GPT-2 as a repository's files, with things beside it that must not be fetched."""
    import torch

    from bench.models.base import load_base

    folder = tmp_path_factory.mktemp("repo")
    base = load_base(catalog.parse("random:tiny-gpt2"), None, torch.float32)
    base.module.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    kept = {p.name: p.read_bytes() for p in folder.iterdir()}
    return {**kept, "pytorch_model.bin": b"x", "onnx/model.safetensors": b"x", "README.md": b"x", "run.py": b"x"}


def test_a_repository_is_fetched_once_and_loads(files: dict[str, bytes], tmp_path: Path) -> None:
    import torch

    from bench.models.base import load_base

    spec = f"hub:org/tiny@{COMMIT}"
    with FakeHub({"org/tiny": {COMMIT: files}}) as hub:
        [(before, folder, after)] = ask(tmp_path, spec, HF_ENDPOINT=hub.url)
        assert (before, after) == (False, True), folder
        assert set(hub.sent) == set(files) - {"pytorch_model.bin", "onnx/model.safetensors", "README.md", "run.py"}
        asked = len(hub.asked)
        assert ask(tmp_path, spec, HF_ENDPOINT=hub.url) == [(True, folder, True)] and len(hub.asked) == asked
    assert ask(tmp_path, spec, HF_HUB_OFFLINE="1") == [(True, folder, True)]
    base = load_base(catalog.parse(spec), Path(folder), torch.float32)
    assert (base.kind, base.max_length, base.width) == ("causal", 512, 32)


def test_the_hub_cache_serves_offline(files: dict[str, bytes], tmp_path: Path) -> None:
    """The layout other tools leave behind, without the client's own list of the repository's files."""
    snapshot = tmp_path / "hf" / "hub" / "models--org--tiny" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for name, content in files.items():
        if "/" not in name:
            (snapshot / name).write_bytes(content)
    spec = f"hub:org/tiny@{COMMIT}"
    assert ask(tmp_path, spec, HF_HUB_OFFLINE="1") == [(True, str(snapshot), True)]
    (snapshot / "tokenizer.json").unlink()  # cut off half-way
    [(before, told, after)] = ask(tmp_path, spec, HF_HUB_OFFLINE="1")
    assert (before, after) == (False, False)
    assert told.startswith(
        f"fault: model '{spec}' is not in the hub's cache and the hub cannot be reached (HF_HUB_OFFLINE"
    )


def test_faults(files: dict[str, bytes], tmp_path: Path) -> None:
    pickles = {k: v for k, v in files.items() if k != "model.safetensors"}
    remote = {**files, "config.json": json.dumps({"auto_map": {"AutoModel": "x.Y"}}).encode()}
    shards = {
        "model.safetensors.index.json": json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}).encode()
    }
    repos = {"org/tiny": files, "org/pickles": pickles, "org/remote": remote, "org/none": {"config.json": b"{}"}}
    repos |= {"org/torn": {k: v for k, v in (files | shards).items() if k != "model.safetensors"}}
    with FakeHub({name: {COMMIT: content} for name, content in repos.items()}, gated=("org/gated",)) as hub:
        names = ["pickles", "remote", "none", "torn", "gated", "absent"]
        specs = [*(f"hub:org/{n}@{COMMIT}" for n in names), f"hub:org/tiny@{OTHER}"]
        told = [t for _, t, ready in ask(tmp_path, *specs, HF_ENDPOINT=hub.url) if not ready]
        sent = list(hub.sent)
    assert "has its weights only as pickles (pytorch_model.bin), which run code when they are loaded" in told[0]
    assert "needs code of its own (auto_map in config.json), which is never run here" in told[1]
    assert "has no weights; allowed: model.safetensors" in told[2]
    assert "lacks 1 of 1 weight files, e.g. model-00001-of-00002.safetensors" in told[3]
    assert "is gated: accept its licence on" in told[4] and "set HF_TOKEN" in told[4]
    assert "the hub has no repository org/absent (or it is private: set HF_TOKEN)" in told[5]
    assert f"org/tiny has no commit {OTHER}" in told[6] and len(told) == 7
    assert "pytorch_model.bin" not in sent and "model.safetensors" not in sent, "refused before the weights are fetched"


def test_unreachable_hub(tmp_path: Path) -> None:
    with FakeHub({}) as hub:
        url = hub.url  # its port is free again below
    [(_, told, ready)] = ask(tmp_path, f"hub:org/tiny@{COMMIT}", HF_ENDPOINT=url)
    assert f"is not in the hub's cache and the hub cannot be reached (ConnectError at {url})" in told and not ready
    assert "allowed without a hub: path:DIR or an alias" in told and "\n" not in told
