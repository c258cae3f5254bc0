"""Does our engine say of lm-eval's tasks what lm-eval says? The same model, the same items, both in this process.

    BENCH_MIRROR=DIR python benchmarks/lm_eval/agree.py [MODEL [ITEMS]]

For each task of this folder: accuracy of both, items whose likeliest option is the same, and the largest difference of
a log-likelihood.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch

from bench.budget import Meter
from bench.config import DataSettings
from bench.config.schema import Task
from bench.data.harness import told
from bench.data.rows import read
from bench.data.sources import locate
from bench.models.build import build
from bench.score.adapted import Adapted
from bench.score.continued import ContinuedReader
from bench.strategy import TaskContext

HERE = Path(__file__).resolve().parent


def main(model: str = "smollm2-135m-instruct", items: str = "40") -> None:
    """Print one line a task."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    settings, base = DataSettings(mirror=os.environ["BENCH_MIRROR"]), build(model, "fp32")
    theirs = HFLM(pretrained=base.module, tokenizer=base.tokenizer, batch_size=4)
    os.chdir(os.environ["BENCH_MIRROR"])  # where relative paths in a task's file start
    manager = TaskManager(include_path=str(HERE), include_defaults=False)
    for file in sorted(HERE.glob("*.yaml")):
        raw = {"data": {"lm_eval": str(file)}, "limit": int(items)}
        task = told(file.stem, Task.model_validate(raw), settings)
        assert task.harness is not None
        rows = read(file.stem, task, locate(file.stem, task, "mirror", settings))
        reader = ContinuedReader(base, TaskContext(file.stem, task, rows.train, 0, "verbalizer", 8, 256))
        ours = Adapted(base.module, reader).predict(rows.test.fields, Meter())
        name = task.harness.task
        asked = {"tasks": [name], "samples": {name: rows.test.index}, "bootstrap_iters": 0, "log_samples": True}
        found = lm_eval.simple_evaluate(model=theirs, task_manager=manager, **asked)
        assert found is not None
        said = {one["doc_id"]: [float(reply[0][0]) for reply in one["resps"]] for one in found["samples"][name]}
        other = np.array([said[index] for index in rows.test.index])
        same, apart = (ours.argmax(-1) == other.argmax(-1)).sum(), np.abs(ours - other).max()
        right = float((ours.argmax(-1) == rows.test.labels).mean())
        print(
            f"{name}: accuracy {right:.4f}, lm-eval's {found['results'][name]['acc,none']:.4f}; same option in {same} "
            f"of {len(ours)} items; log-likelihoods at most {apart:.1e} apart; {reader.truncated} cut",
            flush=True,
        )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
