"""Which batch a rehearsal drives: that which holds the most memory, also where answers are what makes it heavy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from bench import plan
from bench.config import load
from bench.job import Job
from bench.models.catalog import parse
from bench.predict.fakes import fake_base
from bench.predict.heaviest import head_weight
from bench.predict.rehearse import rehearse

ASKING = {"q": "x y " * 115, "a": "b"}
ANSWERING = {"q": "x y", "a": "c d " * 100}
"""Fewer tokens in all, and many more that the LM head reads."""


def job_of(rows: list[dict[str, str]], tmp_path: Path, *tokens: str) -> Job:
    """A cell that learns to write these answers, one row a step."""
    for split, given in (("train", rows), ("test", [{"q": "hello", "a": "z"}])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    task = {
        "data": {"path": str(tmp_path)}, "splits": {"train": "train", "test": "test"}, "kind": "generate",
        "columns": {"question": "q", "label": "a"}, "reply": {"reads": "free", "tokens": 4},
        "templates": [{"pattern": "{question}\n"}], "metric": "rouge_l",
    }  # fmt: skip
    suite = {
        "name": "t", "model": "random:gpt2", "tasks": {"t": task}, "strategies": {"lora": {}}, "seeds": [0], "batch": 1,
        "sequence": 1000, "budget": {"labels": len(rows), "train_examples": 4},
    }  # fmt: skip
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    return plan.make(load([f"suite={tmp_path / 'suite.yaml'}", *tokens])).jobs[0]


def peak(order: Job) -> float:
    """Bytes that adapting is foretold to hold."""
    found = rehearse(order, fake_base(parse(order.model), None, torch.float32, 4), on_card=True)
    return max(one.size for stage, one in found.peaks.items() if stage.startswith("adapt"))


def test_a_long_answer_weighs_more_than_a_longer_prompt(tmp_path: Path) -> None:
    """A cell that trains on both rows needs what the heavier one alone needs."""
    asking, answering, both = (peak(job_of(r, tmp_path)) for r in ([ASKING], [ANSWERING], [ASKING, ANSWERING]))
    assert asking < answering == both


def test_what_the_head_reads_weighs_more_where_blocks_keep_less(tmp_path: Path) -> None:
    """By the whole model's depth, whatever the rehearsed one's is: 3 x 50,257 numbers beside 16 x 12 x 768."""
    order = job_of([ASKING], tmp_path)
    shallow = fake_base(parse(order.model), None, torch.float32, 4)
    assert head_weight(order, shallow) == pytest.approx(3 * 50257 / (16 * 12 * 768))
    again = job_of([ASKING], tmp_path, "checkpointing=true")
    assert head_weight(again, shallow) == pytest.approx(3 * 50257 / ((12 + 16) * 768))
