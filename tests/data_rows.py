"""Tasks and rows for the tests of data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.config.schema import Task
from bench.data.rows import Rows, read
from bench.data.sources import Located
from bench.errors import UserFault

NAMES = ["bad", "good"]


def make(train="train", test="validation", labels=NAMES, columns=None, **more) -> Task:
    columns = columns or {"text": "sentence", "label": "label"}
    field = next(f for f in columns if f != "label")
    template = {"pattern": f"{{{field}}}:", "verbalizer": {label: f" {label}" for label in labels}}
    raw = {"data": {"path": "x"}, "splits": {"train": train, "test": test}, "columns": columns, "labels": labels}
    return Task.model_validate({**raw, "templates": [template], **more})


def fault(call, *args, **kwargs) -> str:
    with pytest.raises(UserFault) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def jsonl(folder: Path, split: str, rows: list[dict]) -> Path:
    path = folder / f"{split}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def plain(n: int, classes: int = 2) -> list[dict]:
    return [{"sentence": f"text {i}", "label": i % classes, "idx": i} for i in range(n)]


def here(**files: Path | tuple[Path, ...]) -> Located:
    return Located("path", {k: v if isinstance(v, tuple) else (v,) for k, v in files.items()}, "sha256:0")


def both(tmp_path: Path, rows: list[dict], **task):
    """`rows` as the train split beside a sound validation split, read."""
    located = here(train=jsonl(tmp_path, "train", rows), validation=jsonl(tmp_path, "validation", plain(4)))
    return read("a", make(**task), located)


def pool(texts: list[str], labels: list[int] | None = None) -> Rows:
    labels = labels or [0] * len(texts)
    return Rows([{"text": t} for t in texts], labels, list(range(len(texts))))
