"""A sharded cell's processes: started by torchrun, and what they came to in one outcome.

The process that was forked for the cell is torchrun's agent. It watches the ranks; where one ends badly it ends the
others, and all of them end with it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.events import Events
from bench.job import Job
from bench.process import UNWRITABLE, die_with_parent
from bench.records import STOPPED_BY, Outcome, Status
from bench.shortage import REMEDY, least
from bench.store import read_result, write_record
from bench.warm import oom_kills

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

ORDER = "order.json"


def serve(job: Job, events: Events) -> int:
    """Carry a sharded cell out in processes of its own; the exit code. Whatever becomes of them there is a record."""
    from bench.measure.environment import cores

    assert job.cell.devices is not None
    os.dup2(events.descriptor, 1)  # the first rank tells the launcher how far it is; what else is said goes to the log
    each = max(1, (job.threads or cores()) // job.cell.devices)
    kills = oom_kills()
    with tempfile.TemporaryDirectory(dir=job.folder, prefix=".ranks-") as files:
        order = Path(files) / ORDER
        order.write_text(job.model_copy(update={"threads": each}).model_dump_json())
        failures = started(job.cell.devices, order)
        if any(failure.exitcode == UNWRITABLE for failure in failures.values()):
            return UNWRITABLE
        if failures:
            told = told_in(Path(files))
            conclude(job, *judged(job, told, failures, oom_kills() > kills))
    return 0


def started(devices: int, order: Path) -> dict[int, ProcessFailure]:
    """Have torchrun start so many ranks and wait for them; those that failed."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if Path("/sys/class/net/lo").exists():  # all ranks are on this machine, whatever its name resolves to
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    place = ["--standalone", f"--nproc-per-node={devices}", "--local-addr=127.0.0.1", f"--log-dir={order.parent}"]
    try:
        run.main([*place, "-m", "bench.torchrun", str(order)])
    except ChildFailedError as error:
        return dict(error.failures)
    return {}


def told_in(files: Path) -> dict[int, tuple[Status, str]]:
    """What ranks that failed have said of it."""
    found = {}
    for path in sorted(files.glob("[0-9]*.json")):
        status, reason = json.loads(path.read_text())
        found[int(path.stem)] = Status(status), str(reason)
    return found


def judged(
    job: Job, told: dict[int, tuple[Status, str]], failures: dict[int, ProcessFailure], kernel_killed: bool
) -> tuple[Status, str]:
    """Outcome and reason of a cell whose ranks did not all end well. A rank that is gone takes the others with it, so
    what those say then is not why."""
    size, again = job.cell.devices, "which ended the others; it runs again next time"
    for rank, (status, reason) in sorted(told.items()):
        if status in (Status.unsupported, Status.diverged):
            return status, reason
        if status == Status.out_of_memory:
            return status, f"rank {rank} of {size}: {reason}"
    killed = [rank for rank, f in failures.items() if f.exitcode < 0 and f.exitcode != -signal.SIGTERM]
    if killed and kernel_killed:
        words = f"the kernel killed rank {killed[0]} of {size} for want of memory{least(job)}"
        return Status.out_of_memory, f"{words}: {REMEDY}, or use a larger machine"
    if killed:
        name = signal.Signals(-failures[killed[0]].exitcode).name
        return Status.error, f"rank {killed[0]} of {size} was killed from outside ({name}), {again}"
    first = min(failures, key=lambda rank: failures[rank].timestamp)
    if told:
        rank = first if first in told else min(told)
        return Status.error, f"rank {rank} of {size}: {told[rank][1]}"
    return Status.error, f"rank {first} of {size} ended with exit code {failures[first].exitcode}, {again}"


def conclude(job: Job, status: Status, reason: str) -> None:
    """Put down how a cell ended. What its first rank has recorded stays; a whole record stands."""
    from bench.recording import Recorder

    path = Path(job.folder) / "result.json"
    if not path.is_file():
        Recorder(job).write(status, reason)
        return
    result = read_result(path)
    if result.outcome.status == Status.ok:
        return
    used = result.used and result.used.model_copy(update={"ended_by": STOPPED_BY.get(status, result.used.ended_by)})
    write_record(path, result.model_copy(update={"outcome": Outcome(status=status, reason=reason), "used": used}))


def main(arguments: list[str]) -> int:
    """One rank, as torchrun starts it: its number is in the environment, the order in a file."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle
    events = Events(os.dup(1))
    os.dup2(2, 1)
    order = Path(arguments[0])
    job = Job.model_validate_json(order.read_text())
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if job.cell.device == "cuda":
        from bench.measure import card

        card.take(rank)
    from bench.ranked import run_rank

    return run_rank(job, events.teller(), rank, size, order.parent)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # no thread of a library may hold it
