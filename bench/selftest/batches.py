"""Runs the cells of its tokens with another size of scoring batch: `python -m bench.selftest.batches SIZE TOKEN...`.

A process of its own, because the command line never imports torch and no setting of a run changes this size.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Run every cell in this process; 1 where a record could not be written."""
    from bench import plan
    from bench.config import load
    from bench.models.build import build
    from bench.run import write_plan
    from bench.score import adapted
    from bench.worker import run_cell

    adapted.TOKENS_A_BATCH = int(arguments[0])
    request = load(arguments[1:])
    planned = plan.make(request)
    run_dir = Path(request.settings.results_dir) / request.run_name
    run_dir.mkdir(parents=True)
    write_plan(request, planned, run_dir)
    codes = []
    for job in planned.jobs:
        Path(job.folder).mkdir(parents=True)
        codes.append(run_cell(job, partial(build, job.model, job.cell.precision), lambda phase, share: None))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
