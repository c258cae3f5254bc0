"""Tasks that are answered in writing, their rows, and a run of one, for the tests of kinds generate and tag."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_rows import jsonl
from rich.console import Console

from bench.config import load
from bench.config.schema import Task
from bench.data.rows import Rows
from bench.records import Result
from bench.run import execute

COLUMNS = {"question": "q", "label": "a", "rationale": "why"}
"""Of a question, its answer and the reasoning between them."""


def generate(reply: dict[str, Any] | None = None, pattern: str = "Q: {question}\nA:", **more: Any) -> Task:
    """Questions whose replies are right or wrong."""
    return Task.model_validate(
        {
            "data": {"path": "x"},
            "splits": {"train": "train", "test": "validation"},
            "kind": "generate",
            "columns": COLUMNS,
            "reply": reply or {},
            "templates": [{"pattern": pattern}],
            **more,
        }
    )


def question(n: int, **more: Any) -> dict[str, Any]:
    """A row of a file of such questions."""
    return {"q": f"What is {n} and one?", "a": str(n + 1), "why": f"One more than {n} is {n + 1}.", **more}


def task(kind: str = "tag", pattern: str = "T: {text}\nE:\n", **more: Any) -> Task:
    """Entities of two types to be named, or a text to be written."""
    raw: dict[str, Any] = {
        "data": {"path": "x"},
        "splits": {"train": "train", "test": "validation"},
        "kind": kind,
        "columns": {"text": "t", "label": "e"},
        "templates": [{"pattern": pattern}],
    }
    if kind == "tag":
        raw["labels"] = ["person", "place"]
    else:
        raw |= {"reply": {"reads": "free"}, "metric": "rouge_l"}
    return Task.model_validate(raw | more)


def rows(n: int) -> Rows:
    """Rows of entities; every other one has none."""
    fields = [{"text": f"So Ann{i} left.", "target": f"person: Ann{i}" if i % 2 == 0 else "none"} for i in range(n)]
    return Rows(fields, [1] * n, list(range(n)))


def run(
    tmp_path: Path, one: Task, given: list[dict], *tokens: str, **strategies: Any
) -> tuple[list[Result], str, Path]:
    """Run these strategies on the task: its records, its report and its folder."""
    data = tmp_path / "rows"
    data.mkdir()
    jsonl(data, "train", given)
    jsonl(data, "test", given[: len(given) // 2])
    raw = one.model_dump(mode="json", exclude_none=True)
    raw |= {"data": {"path": str(data)}, "splits": {"train": "train[:50%]", "test": "train[50%:]"}}
    suite = {"name": "mine", "model": "random:tiny-llama", "tasks": {"mine": raw}, "sequence": 96, "batch": 4,
             "strategies": strategies, "budget": {"labels": 8, "train_examples": 8}}  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(suite))
    where = [f"results_dir={tmp_path / 'results'}", f"reports_dir={tmp_path / 'reports'}", "threads=1", "device=cpu"]
    with (tmp_path / "output.txt").open("w") as out:
        done = execute(load([f"suite={path}", *tokens, *where]), Console(file=out, width=300))
    return done, (tmp_path / "reports" / "mine.md").read_text(), tmp_path / "results" / "mine"
