"""Experiment trackers as hooks: trackio, mlflow and wandb are told of every cell, once its record is on disk.

Each telling is a process of its own that has ended before the next cell begins. So no tracker's import, thread or
upload lies in a measured phase, and one that fails, hangs or ends its process costs a line and never a cell. Where a
tracker keeps its runs, and who may write there, is said by its own environment variables (TRACKIO_DIR,
MLFLOW_TRACKING_URI, WANDB_MODE, WANDB_API_KEY, ...), which never enter a record.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from bench.errors import UserFault
from bench.process import importable
from bench.records import Result, Status

SECONDS = 120.0
"""How long a tracker may take over one cell."""
PATIENCE = 3
"""Failures in a row after which a tracker is left alone for the rest of the command."""
PARTS = ("scores", "parameters", "phases", "used", "near_ties")
"""Parts of a record whose numbers are the cell's figures."""
SETTINGS = ("cell", "outcome", "data", "environment")
"""Parts of a record that say what the cell was."""
PARAMS_A_CALL, METRICS_A_CALL, LETTERS = 100, 1000, 500
"""What mlflow takes at once (its `utils/validation.py`), and what older servers take of one value."""


@dataclass(frozen=True)
class Told:
    """What a tracker hears of one cell. Names have slashes, by which trackers group."""

    project: str
    """The run's name."""
    name: str
    """The cell's id."""
    group: str
    """The task."""
    settings: dict[str, str | int | float | bool]
    figures: dict[str, float]
    losses: list[float] = field(default_factory=list)
    """Training loss of every step."""
    ok: bool = True
    ended: float = 0.0
    """When the cell ended, seconds since 1970."""
    seconds: float = 0.0
    """Seconds of all its phases."""


def told_of(result: Result, project: str) -> Told:
    """What a record says, flat; what is absent is left out."""
    raw = result.model_dump(mode="json")
    phases = result.phases.values()
    return Told(
        project=project,
        name=result.cell.id,
        group=result.cell.task,
        settings=dict(leaf for part in SETTINGS for leaf in leaves(part, raw[part])),
        figures={
            name: float(value)
            for part in PARTS
            for name, value in leaves(part, raw[part])
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        },
        losses=[] if result.training is None else result.training.losses,
        ok=result.outcome.status == Status.ok,
        ended=moment(result.environment.get("time")),
        seconds=sum(phase.seconds for phase in phases),
    )


def moment(time: Any) -> float:
    """A record's time of day as seconds since 1970; 0 where it says none."""
    try:
        return datetime.fromisoformat(str(time)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Single values below one name; a list as JSON."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(f"{name}/{key}", inner)
    elif value is not None:
        yield name, json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


# ---- the hooks, each in a process of its own; the calls are those of trackio 0.43, mlflow 3.18 and wandb 0.31


def to_trackio(told: Told) -> None:
    """Into trackio's local database, or wherever TRACKIO_SPACE_ID or TRACKIO_SERVER_URL says."""
    import trackio

    quiet = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}  # nothing of its own runs at that time
    run = trackio.init(project=told.project, name=told.name, group=told.group, config=told.settings, **quiet)
    for step, loss in enumerate(told.losses):
        run.log({"training/loss": loss}, step=step)
    run.log(told.figures, step=len(told.losses))
    run.finish()


def to_mlflow(told: Told) -> None:
    """One mlflow run a cell. By the client and not `mlflow.start_run`, which would add host, user and paths."""
    from mlflow.entities import Metric, Param
    from mlflow.tracking import MlflowClient

    client, end = MlflowClient(), round(told.ended * 1000)
    known = client.get_experiment_by_name(told.project)
    place = client.create_experiment(told.project) if known is None else known.experiment_id
    begun = round((told.ended - told.seconds) * 1000)
    run = client.create_run(place, start_time=begun, run_name=told.name, tags={"task": told.group}).info.run_id
    params = [Param(plain(name), str(value)[:LETTERS]) for name, value in told.settings.items()]
    metrics = [Metric(plain(name), value, end, 0) for name, value in told.figures.items()]
    metrics += [Metric("training/loss", loss, end, step) for step, loss in enumerate(told.losses)]
    for i in range(0, len(params), PARAMS_A_CALL):
        client.log_batch(run, params=params[i : i + PARAMS_A_CALL])
    for i in range(0, len(metrics), METRICS_A_CALL):
        client.log_batch(run, metrics=metrics[i : i + METRICS_A_CALL])
    client.set_terminated(run, "FINISHED" if told.ok else "FAILED", end)


def to_wandb(told: Told) -> None:
    """One wandb run a cell; what wandb gathers by itself (console, machine, git, code) stays out."""
    import wandb

    own = wandb.Settings(
        silent=True, console="off", save_code=False, disable_git=True, x_disable_stats=True, x_disable_meta=True
    )
    run = wandb.init(project=told.project, name=told.name, group=told.group, config=told.settings, settings=own)
    for step, loss in enumerate(told.losses):
        run.log({"training/loss": loss}, step=step)
    run.log(told.figures, step=len(told.losses))
    run.finish(exit_code=0 if told.ok else 1)


def plain(name: str) -> str:
    """A name as mlflow takes it."""
    return re.sub(r"[^\w\-. /]", "_", name)[:250]


TRACKERS: dict[str, Callable[[Told], None]] = {"trackio": to_trackio, "mlflow": to_mlflow, "wandb": to_wandb}
"""Name -> what tells it of a cell. Also the name of its module and of the extra that installs it."""


# ---- the parent's side


def refuse_missing(names: list[str]) -> None:
    """Raise `UserFault` for a tracker whose library is not installed."""
    for name in names:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # without an origin it is a mere folder, such as wandb's of runs here
            raise UserFault(
                f"trackers: {name} is not installed: python -m pip install {name} (the extra '{name}'), or leave it out"
            )


class Hooks:
    """Tells every tracker of every finished cell, one after the other. Never raises for what a tracker does."""

    def __init__(self, names: list[str], project: str, say: Callable[[str], None]) -> None:
        refuse_missing(names)
        self.project, self.say = project, say
        self.failures = dict.fromkeys(names, 0)

    def tell(self, result: Result) -> None:
        """Tell them; what fails is a line."""
        told = json.dumps(asdict(told_of(result, self.project))) if self.failures else ""
        for name, failed in list(self.failures.items()):
            why = sent(name, told)
            self.failures[name] = 0 if why is None else failed + 1
            if why is None:
                continue
            over = self.failures[name] >= PATIENCE
            if over:
                del self.failures[name]
            rest = f"; after {PATIENCE} failures in a row it is not asked again" if over else ""
            self.say(f"tracker {name} was not told of {result.cell.id}: {why}; the record is whole{rest}")


def sent(name: str, told: str) -> str | None:
    """Tell one tracker in a process; why it failed, else None."""
    # a folder of the user's, such as the `wandb` that wandb itself writes runs into, is no module
    command = [sys.executable, "-m", "bench.trackers", name]
    try:
        done = subprocess.run(
            command, input=told, capture_output=True, text=True, errors="replace", check=False, timeout=SECONDS,
            env={**os.environ, **importable()},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it took longer than {SECONDS:g} s"
    except OSError as error:
        return f"its process cannot be started: {error.strerror}"
    if not done.returncode:
        return None
    return without_secrets((done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1])


def without_secrets(text: str) -> str:
    """A line without credentials: a library's error may quote an address or a key of the environment."""
    for name, value in os.environ.items():
        if len(value) >= 6 and re.search(r"(?i)key|token|secret|passw|credential", name):
            text = text.replace(value, "***")
    return re.sub(r"//[^/@\s]+@", "//***@", text)[:300]


def main(arguments: list[str]) -> int:
    """`python -m bench.trackers NAME` with a cell on standard input: 0, or 2 with one line on standard error."""
    try:
        TRACKERS[arguments[0]](Told(**json.load(sys.stdin)))
    except (Exception, SystemExit) as error:  # whatever a tracker's library raises
        first = (str(error).strip() or "no message").splitlines()[0]
        print(f"{type(error).__name__}: {first}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
