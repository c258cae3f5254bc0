"""A task, its files, and a hub of our own, for the tests of sources."""

from __future__ import annotations

import io
import os
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_data_hub import serve

from bench.config.schema import Task
from bench.config.settings import DataSettings
from bench.data import hub
from bench.errors import UserFault

ROOT = Path(__file__).resolve().parent.parent
COMMIT = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
AUTO = DataSettings()


def make(train="train", test="validation", **data) -> Task:
    return Task.model_validate(
        {
            "data": data or {"hub": "org/set", "config": "one", "revision": COMMIT, "sample": "sst2.jsonl"},
            "splits": {"train": train, "test": test},
            "columns": {"text": "sentence", "label": "label"},
            "labels": ["bad", "good"],
            "templates": [{"pattern": "{text}:", "verbalizer": {"bad": " bad", "good": " good"}}],
        }
    )


def table(*texts: str) -> pa.Table:
    return pa.table({"sentence": list(texts), "label": [i % 2 for i in range(len(texts))], "idx": [7] * len(texts)})


def write(path: Path, *texts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(*texts), path)
    return path


def as_bytes(*texts: str) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table(*texts), sink)
    return sink.getvalue()


def fault(call, *args, **kwargs) -> str:
    with pytest.raises(UserFault) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """No mirror, an empty cache, no proxy, and an endpoint where nothing listens."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith(("HF_", "HUGGINGFACE_", "BENCH_", "TRANSFORMERS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    hub._reachable.cache_clear()


@pytest.fixture
def online(monkeypatch):
    """A fake hub that HF_ENDPOINT points at, in this process."""
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # read at import, maybe before this test
    huggingface_hub.close_session()
    files = {
        "one/train-00000-of-00002.parquet": as_bytes("a", "b"),
        "one/train-00001-of-00002.parquet": as_bytes("c", "d"),
        "one/train_extra-00000-of-00001.parquet": as_bytes("no"),
        "one/validation-00000-of-00001.parquet": as_bytes("e", "f"),
        "data/train-00000-of-00001-b42a775f407cee45.parquet": as_bytes("g", "h"),
        "validation.parquet": as_bytes("i", "j"),
        "two/train.parquet": as_bytes("k"),
    }
    with serve({("org/set", COMMIT): files}) as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        yield fake
    huggingface_hub.close_session()


def fill_cache(tmp_path: Path, **texts: tuple[str, ...]) -> Path:
    snapshot = tmp_path / "hf" / "hub" / "datasets--org--set" / "snapshots" / COMMIT
    for split, rows in texts.items():
        write(snapshot / "one" / f"{split}-00000-of-00001.parquet", *rows)
    return snapshot
