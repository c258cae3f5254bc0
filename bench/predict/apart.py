"""A rehearsal in a process of its own: one that went before leaves holes in the heap, which the next one would fill."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from bench.predict.live import Peak
from bench.predict.rehearse import Rehearsal
from bench.process import can_fork, die_with_parent
from bench.strategy import Diverged, Unsupported

REFUSALS = {"Unsupported": Unsupported, "Diverged": Diverged}
"""Ends of a rehearsal that its caller tells apart."""


def apart(work: Callable[[], Rehearsal]) -> Rehearsal:
    """What `work` gives, done in a forked child; here, where fork is missing.

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
        raise RuntimeError(f"the rehearsal ended with exit code {os.waitstatus_to_exitcode(status)}")
    return taken(json.loads(text))


def answered(work: Callable[[], Rehearsal]) -> dict[str, Any]:
    """The rehearsal, or how it ended, as JSON."""
    try:
        return {"found": asdict(work())}
    except (Unsupported, Diverged) as error:
        return {"refusal": type(error).__name__, "words": str(error)}
    except BaseException as error:
        traceback.print_exc()
        return {"words": f"{type(error).__name__}: {error}"}


def taken(answer: dict[str, Any]) -> Rehearsal:
    """A rehearsal from its JSON. Raises as it ended."""
    if "refusal" in answer:
        raise REFUSALS[answer["refusal"]](answer["words"])
    if "found" not in answer:
        raise RuntimeError(answer["words"])
    found = answer["found"]
    peaks = {stage: Peak(**peak) for stage, peak in found.pop("peaks").items()}
    return Rehearsal(peaks=peaks, **found)
