"""Work in a process of its own, forked from one whose heap is as good as empty."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import Any

from bench.process import can_fork, die_with_parent
from bench.strategy import Diverged, Unsupported

REFUSALS = {"Unsupported": Unsupported, "Diverged": Diverged}
"""Ends of a rehearsal that its caller tells apart."""


def apart(work: Callable[[], Any]) -> Any:
    """What `work` gives (anything JSON can tell), done in a forked child; here, where fork is missing.

    Raises `Unsupported` and `Diverged` as `work` does, `RuntimeError` in the words of any other error.
    """
    if not can_fork():
        return work()
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reads)
        die_with_parent()
        with os.fdopen(writes, "w") as pipe:
            json.dump(answered(work), pipe)
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not text:
        raise RuntimeError(f"the forked process ended with exit code {os.waitstatus_to_exitcode(status)}")
    answer = json.loads(text)
    if "refusal" in answer:
        raise REFUSALS[answer["refusal"]](answer["words"])
    if "found" not in answer:
        raise RuntimeError(answer["words"])
    return answer["found"]


def answered(work: Callable[[], Any]) -> dict[str, Any]:
    """What `work` gave, or how it ended, as JSON."""
    try:
        return {"found": work()}
    except (Unsupported, Diverged) as error:
        return {"refusal": type(error).__name__, "words": str(error)}
    except BaseException as error:
        traceback.print_exc()
        return {"words": f"{type(error).__name__}: {error}"}
