"""Does `python -m bench run` say of lm-eval's tasks what the `lm_eval` command says, on the same items?

Both commands are started as a user starts them: ours first, then theirs on the rows that ours scored.

    python -m benchmarks.agree MIRROR [items=100] [model=smollm2-135m-instruct]

prints a line a task and ends with a JSON line; exit 1 where an accuracy is not the same, or the likeliest option of an
item is another one although the two likeliest are not within 1e-3 of each other (`near ties`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.models.cache import ensure
from bench.models.catalog import parse
from bench.store import read_result

HERE = Path(__file__).resolve().parent
TASKS = {"sst2": 0, "mmlu_anatomy": 0, "boolq": 0, "mmlu_anatomy_texts": 5}
"""File in `lm_eval/` -> demonstrations. With them a quarter of the items: lm-eval reads them anew for each option."""
NEAR = 1e-3
"""Two options whose log-likelihoods lie this close are a tie for all that single precision can tell."""


def main(mirror: str, *options: str) -> int:
    """0 where both say the same."""
    asked = {"items": "100", "model": "smollm2-135m-instruct"} | dict(o.split("=", 1) for o in options)
    found = []
    with tempfile.TemporaryDirectory() as work:
        for task, shots in TASKS.items():
            ours = by_us(Path(work), task, shots, mirror, asked)
            theirs = by_lm_eval(Path(work), task, shots, mirror, asked["model"], list(ours["said"]))
            found.append(compared(task, shots, ours, theirs))
            print(sentence(found[-1]), flush=True)
    print(json.dumps(found))
    return 1 if any(one["other"] or one["accuracy"] != one["theirs"] for one in found) else 0


def by_us(work: Path, task: str, shots: int, mirror: str, asked: dict[str, str]) -> dict[str, Any]:
    """Accuracy and log-likelihoods by document, of `bench run`."""
    items = int(asked["items"]) // (4 if shots else 1)
    name = f"harness_{task}"  # not the name of a task that the suite has: the file says all about this one
    command = [
        sys.executable, "-m", "bench", "run", "suite=glue-small", f"tasks={name}", "strategies=zero_shot", "seeds=1",
        f"tasks.{name}.data.lm_eval={HERE / 'lm_eval' / task}.yaml", f"tasks.{name}.data.shots={shots}",
        f"tasks.{name}.limit={items}", f"model={asked['model']}", f"data.mirror={Path(mirror).resolve()}",
        f"adapters_path={HERE / 'lm_eval'}", "predict=false", f"run.name=agree-{task}",
        f"results_dir={work}/results", f"reports_dir={work}/reports",
    ]  # fmt: skip
    called(command, HERE.parent)
    [record] = (work / "results" / f"agree-{task}").glob("*/result.json")
    result, table = read_result(record), pd.read_parquet(record.with_name("predictions.parquet"))
    columns = [name for name in table.columns if name.startswith("score")]
    assert result.scores is not None, result.outcome.reason
    said = dict(zip(table["row"].tolist(), table[columns].to_numpy(), strict=True))
    return {"accuracy": result.scores["accuracy"].value, "said": said}


def by_lm_eval(work: Path, task: str, shots: int, mirror: str, model: str, rows: list[int]) -> dict[str, Any]:
    """The same, of the `lm_eval` command."""
    name, out = f"mirror_{task}", work / f"lm-eval-{task}"
    command = [
        sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", name, "--device", "cpu",
        "--model_args", f"pretrained={ensure(parse(model))},dtype=float32", "--batch_size", "4",
        "--num_fewshot", str(shots), "--include_path", str(HERE / "lm_eval"), "--samples", json.dumps({name: rows}),
        "--log_samples", "--output_path", str(out),
    ]  # fmt: skip
    called(command, Path(mirror).resolve())  # where relative paths in a task's file start
    [results], [samples] = out.rglob("results_*.json"), out.rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    said = {one["doc_id"]: np.array([float(reply[0]) for reply in one["filtered_resps"]]) for one in lines}
    return {"accuracy": json.loads(results.read_text())["results"][name]["acc,none"], "said": said}


def called(command: list[str], folder: Path) -> None:
    """Run a command. Raises `RuntimeError` with the end of what it said, where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{(done.stdout + done.stderr)[-2000:]}")


def compared(task: str, shots: int, ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Figures of one task."""
    rows = [(said[: len(theirs["said"][row])], theirs["said"][row]) for row, said in ours["said"].items()]
    gaps = [np.sort(a)[-1] - np.sort(a)[-2] for a, _ in rows]
    same = [bool(a.argmax() == b.argmax()) for a, b in rows]
    return {
        "task": task, "shots": shots, "items": len(rows), "accuracy": ours["accuracy"], "theirs": theirs["accuracy"],
        "same": sum(same), "near_ties": sum(bool(gap < NEAR) for gap in gaps),
        "other": sum(gap >= NEAR and not alike for gap, alike in zip(gaps, same, strict=True)),
        "apart": float(max(np.abs(a - b).max() for a, b in rows)),
    }  # fmt: skip


def sentence(one: dict[str, Any]) -> str:
    """One task in words."""
    return (
        f"{one['task']} ({one['shots']} shots): accuracy {one['accuracy']:.4f}, lm-eval's {one['theirs']:.4f}; same "
        f"option in {one['same']} of {one['items']} items ({one['near_ties']} near ties); log-likelihoods at most "
        f"{one['apart']:.1e} apart"
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
