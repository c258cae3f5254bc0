"""Runs cells of one checkout on demand. It is started by its path with that checkout's `bench` importable, so it uses
only what `run` uses, and belongs to the checkout that compares, not to the one that is measured.

One line of JSON in, one out: first what was planned, then for each {"cell": i, "folder": DIR} the cell's outcome.
Standard error is for people.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main(tokens: list[str]) -> int:
    """Serve until standard input ends; 2 where the tokens are a user's fault, which is then the one line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints must not look like an answer
    from bench.errors import UserFault

    try:
        for answer in served(tokens):
            print(json.dumps(answer), file=answers, flush=True)
    except UserFault as fault:
        print(json.dumps({"fault": str(fault)}), file=answers, flush=True)
        return 2
    return 0


def served(tokens: list[str]) -> Iterator[dict[str, Any]]:
    """What was planned, then an answer to every order."""
    import bench
    from bench import plan
    from bench.config import load
    from bench.errors import UserFault
    from bench.models.cache import ensure
    from bench.outlook import foretold
    from bench.run import held, write_plan
    from bench.run import launched as warm_launcher

    request = load(tokens)
    if getattr(request.settings, "executor", "local") != "local":  # an older checkout may know no other
        raise UserFault("speed is compared on one machine, cell by cell in turn; allowed: no executor=ray")
    planned = plan.make(request)
    for ref in planned.models.values():
        ensure(ref)
    jobs = foretold(request, planned, planned.jobs, lambda line: print(line, file=sys.stderr))
    run_dir = Path(request.settings.results_dir) / request.run_name
    with held(run_dir), warm_launcher(request, run_dir) as launcher:
        write_plan(request, planned, run_dir)
        yield {"bench": str(Path(bench.__file__).resolve().parent.parent), "cells": [j.cell.id for j in jobs]}
        for line in sys.stdin:
            order = json.loads(line)
            folder = Path(order["folder"]) / jobs[order["cell"]].cell.id
            result = launcher.run(jobs[order["cell"]].model_copy(update={"folder": str(folder)}))
            yield {"status": result.outcome.status.value, "folder": str(folder)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
