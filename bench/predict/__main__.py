"""The predictor: orders come in as JSON lines on standard input, one prediction goes out for each.

It runs in a process of its own, because the command line never imports torch.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback

from bench.job import Job
from bench.process import die_with_parent

HELD = {"held": True}
"""The order that asks how much memory predictions took."""


def held() -> int:
    """Most bytes that this process or one forked from it has been resident with.

    `getrusage` (KiB) tells of children; of this process it would tell the peak of whoever started it.
    """
    from bench.measure.memory import high_water

    return max(high_water() or 0, 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def main() -> int:
    """Serve until standard input ends."""
    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    import torch

    from bench.predict.depth import predicted

    torch.set_num_threads(1)  # operators have nothing to compute
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order == HELD:
                answers.write(json.dumps({"held_bytes": held()}) + "\n")
                continue
            answer = predicted(Job.model_validate(order["job"]), order["on_card"])
        except Exception as error:  # a prediction that fails must cost no cell: it is missing, with the reason
            traceback.print_exc()
            answer = {"reason": f"not predicted: {type(error).__name__}: {' '.join(str(error).split())[:200]}"}
        answers.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
