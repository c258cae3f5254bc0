"""Runs cells all in one process, with a size of scoring batch that no setting of a run changes.

Standard input holds a JSON list of orders, {"size": tokens a scoring batch or null, "tokens": [...]}. A process of its
own, because the command line never imports torch.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path


def carry_out(size: int | None, tokens: list[str]) -> int:
    """Run every cell of the tokens' plan here; 1 where a record could not be written."""
    from bench import plan
    from bench.config import load
    from bench.models.build import build
    from bench.run import write_plan
    from bench.score import adapted
    from bench.worker import run_cell

    usual, request = adapted.TOKENS_A_BATCH, load(tokens)
    planned = plan.make(request)
    run_dir = Path(request.settings.results_dir) / request.run_name
    run_dir.mkdir(parents=True)
    write_plan(request, planned, run_dir)
    codes = []
    try:
        adapted.TOKENS_A_BATCH = size or usual
        for job in planned.jobs:
            Path(job.folder).mkdir(parents=True)
            codes.append(run_cell(job, partial(build, job.model, job.cell.precision), lambda phase, share: None))
    finally:
        adapted.TOKENS_A_BATCH = usual
    return max(codes)


def main() -> int:
    """Carry out every order on standard input; the largest of their codes."""
    return max(carry_out(order["size"], order["tokens"]) for order in json.load(sys.stdin))


if __name__ == "__main__":
    sys.exit(main())
