"""Items a second of our scoring against lm-eval's, on its own tasks and prompts: the same model object, in turn.

lm-eval is asked through `simple_evaluate` with the model class and the task files that its command uses, at whichever
of several batch sizes it is fastest; ours through what `python -m bench run` scores a cell with. Loading the model and
the rows is in neither side's seconds (`benchmarks.agree` compares the two commands' answers). Both have one thread.

    python -m benchmarks.scoring MIRROR [rounds=3] [items=1.0] [model=smollm2-135m-instruct]

prints a line a row and ends with a JSON line. `items` scales how many items a row has.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench.budget import Meter
from bench.config import DataSettings, Settings
from bench.config.schema import Task
from bench.data.harness import told
from bench.data.rows import Rows, read
from bench.data.sources import locate
from bench.models.base import Base
from bench.models.build import build
from bench.models.parts import touch
from bench.score.adapted import Adapted
from bench.score.continued import ContinuedReader
from bench.strategy import TaskContext
from benchmarks.paired import in_turn

HERE = Path(__file__).resolve().parent / "lm_eval"
BATCHES = (1, 4, 16)
"""What lm-eval is tried with."""
DOUBLED = 4
"""Items of a row that are asked in double precision too."""


@dataclass(frozen=True)
class Row:
    """One comparison."""

    name: str
    task: str
    shots: int
    items: int
    wanted: float
    """The ratio to reach."""


ROWS = (
    Row("4 several-token options", "mmlu_texts", 0, 24, 3.0),
    Row("4 several-token options, 5 fixed demonstrations", "mmlu_texts", 5, 16, 8.0),
    Row("4 several-token options, short questions", "mmlu_anatomy_texts", 0, 24, 3.0),
    Row("single-token labels", "sst2", 0, 64, 1.2),
)


class Ops(TorchDispatchMode):
    """Counts operations that reach a kernel."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


class Ours:
    """What a cell's predict phase does."""

    def __init__(self, base: Base, row: Row, settings: DataSettings) -> None:
        raw = {"data": {"lm_eval": str(HERE / f"{row.task}.yaml"), "shots": row.shots}, "limit": row.items}
        task = told(row.task, Task.model_validate(raw), settings)
        assert task.harness is not None
        rows = read(row.task, task, locate(row.task, task, "mirror", settings))
        self.test: Rows = rows.test
        self.name = task.harness.task
        self.context = TaskContext(row.task, task, rows.train, 0, "verbalizer", 8, 256)
        self.base, self.meter, self.scores = base, Meter(), np.zeros(0)
        self.book = self.meter.book, self.meter.again

    def __call__(self) -> None:
        """Score all items anew; FLOPs of shapes are known from the first time, as from a cell's earlier batches."""
        self.meter = Meter()
        self.meter.book, self.meter.again = self.book
        self.meter.watch([self.base.module])
        reader = ContinuedReader(self.base, self.context)
        self.scores = Adapted(self.base.module, reader).predict(self.test.fields, self.meter)
        self.meter.unwatch()


class Theirs:
    """`lm_eval.simple_evaluate` on the same rows."""

    def __init__(self, base: Base, row: Row, ours: Ours) -> None:
        from lm_eval.tasks import TaskManager

        self.base, self.shots, self.name, self.rows = base, row.shots, ours.name, ours.test.index
        self.manager = TaskManager(include_path=str(HERE), include_defaults=False)
        self.scores = np.zeros(0)
        self.size, self.swing = self.fastest()
        self.model = self.wrapped(base.module, self.size)

    def wrapped(self, module: Any, size: int) -> Any:
        """A model as lm-eval asks it, in batches of this size."""
        from lm_eval.models.huggingface import HFLM

        return HFLM(pretrained=module, tokenizer=self.base.tokenizer, batch_size=size)

    def fastest(self) -> tuple[int, float]:
        """The batch size whose scoring took least, of a third of the items, and the largest difference that the choice
        makes to a log-likelihood."""
        seconds, said, rows = {}, [], self.rows[: max(4, len(self.rows) // 3)]
        for size in BATCHES:
            model = self.wrapped(self.base.module, size)
            before = time.process_time()
            said.append(self.asked(model, rows))
            seconds[size] = time.process_time() - before
        return min(seconds, key=lambda size: seconds[size]), float(np.ptp(np.array(said), axis=0).max())

    def __call__(self) -> None:
        """Score all items anew."""
        self.scores = self.asked(self.model, self.rows)

    def asked(self, model: Any, rows: list[int]) -> np.ndarray:
        """Log-likelihoods (items, options), items in the order of these rows."""
        import lm_eval

        asked = {"tasks": [self.name], "samples": {self.name: rows}, "bootstrap_iters": 0, "log_samples": True}
        found = lm_eval.simple_evaluate(model, task_manager=self.manager, num_fewshot=self.shots, **asked)
        assert found is not None
        said = {one["doc_id"]: [float(r[0][0]) for r in one["resps"]] for one in found["samples"][self.name]}
        return np.array([said[row] for row in rows])


def doubled(module: nn.Module) -> nn.Module:
    """A copy that computes in double precision, norms included, which in transformers take any input as float32."""
    copy = deepcopy(module).double()
    for parent in list(copy.modules()):
        children: list[tuple[str, Any]] = list(parent.named_children())
        for name, norm in children:
            if type(norm).__name__.endswith("RMSNorm"):
                exact = nn.RMSNorm(norm.weight.shape, eps=norm.variance_epsilon, dtype=torch.float64)
                exact.load_state_dict(norm.state_dict())
                setattr(parent, name, exact)
    return copy


def from_double(ours: Ours, theirs: Theirs) -> dict[str, float]:
    """How far either side lies from double precision, where the two lie farthest apart: the farthest log-likelihood of
    `DOUBLED` items. lm-eval asks the copy, one option at a time: nothing is shared and nothing is padded."""
    apart = np.abs(ours.scores - theirs.scores).max(-1)
    far = np.sort(np.argsort(-apart)[:DOUBLED])
    exact = theirs.asked(theirs.wrapped(doubled(ours.base.module), 1), [theirs.rows[one] for one in far])
    return {
        "items": len(far), "ours": float(np.abs(ours.scores[far] - exact).max()),
        "theirs": float(np.abs(theirs.scores[far] - exact).max()),
    }  # fmt: skip


def operations(way: Callable[[], None]) -> int:
    """How many it takes."""
    with Ops() as ops:
        way()
    return ops.count


def measured(row: Row, base: Base, settings: DataSettings, rounds: int) -> dict[str, Any]:
    """One row: ratio with its spread, agreement, and counts an item."""
    ours = Ours(base, row, settings)
    theirs = Theirs(base, row, ours)
    ops = operations(ours), operations(theirs)  # and so both are warm
    pair, items, meter = in_turn(ours, theirs, rounds), len(ours.test.index), ours.meter
    return {
        "name": row.name, "task": row.task, "shots": row.shots, "items": items, "wanted": row.wanted, **pair.told(),
        "their_batch": theirs.size, "apart": float(np.abs(ours.scores - theirs.scores).max()),
        "apart_itself": theirs.swing, "from_double": from_double(ours, theirs),
        "same": int((ours.scores.argmax(-1) == theirs.scores.argmax(-1)).sum()),
        "rows_an_item": round(meter.rows / items, 2), "tokens_an_item": round(meter.tokens / items, 1),
        "ops_an_item": round(ops[0] / items, 1), "their_ops_an_item": round(ops[1] / items, 1),
    }  # fmt: skip


def far(one: dict[str, Any]) -> str:
    """How far apart the log-likelihoods of a row are, and how much of it is arithmetic, in words."""
    if (exact := one.get("from_double")) is None:  # measured before this was asked
        return f"at most {one['apart']:.1e} apart"
    return (
        f"at most {one['apart']:.1e} apart (lm-eval from itself in other batches {one['apart_itself']:.1e}; from "
        f"double precision ours {exact['ours']:.1e}, lm-eval's {exact['theirs']:.1e})"
    )


def main(mirror: str, *options: str) -> None:
    """Print a line a row, then all as JSON."""
    asked = {"rounds": "3", "items": "1.0", "model": "smollm2-135m-instruct"} | dict(o.split("=", 1) for o in options)
    torch.set_num_threads(1)
    mirror = str(Path(mirror).resolve())
    os.environ["LMEVAL_LOG_LEVEL"] = "ERROR"
    os.chdir(mirror)  # where relative paths in lm-eval's files start
    settings = Settings(data=DataSettings(mirror=mirror), adapters_path=str(HERE)).data
    base = build(asked["model"], "fp32")
    touch(base.module)
    found = []
    for row in ROWS:
        scaled = Row(row.name, row.task, row.shots, max(4, int(row.items * float(asked["items"]))), row.wanted)
        found.append(measured(scaled, base, settings, int(asked["rounds"])))
        one = found[-1]
        print(
            f"{one['name']}: {one['ratio']:.2f} times lm-eval's items/s [{one['low']:.2f}, {one['high']:.2f}] (wanted: "
            f"{one['wanted']:g}); same option in {one['same']} of {one['items']}, {far(one)}; "
            f"lm-eval's batch {one['their_batch']}",
            flush=True,
        )
    print(json.dumps({"threads": 1, "model": asked["model"], "rows": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
