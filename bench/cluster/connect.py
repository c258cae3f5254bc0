"""Ray itself: imported at last, connected to, or told in words why not."""

from __future__ import annotations

import logging
import os
import socket
from importlib.util import find_spec
from typing import Any

from bench.errors import UserFault
from bench.measure.environment import cores

PATIENCE_SECONDS = 5.0
"""For the head of a cluster to answer."""


def check() -> None:
    """Refuse to go on where Ray is not installed, before anything is written. Raises `UserFault`."""
    if find_spec("ray") is None:
        raise UserFault(
            "executor=ray needs the package ray, which is not installed; allowed: python -m pip install 'ray>=2.50', "
            "or executor=local"
        )


def library() -> Any:
    """Ray. A task that Ray ends because its node runs short of memory is not tried again: it would run short again. A
    cluster that is started here runs its processes with our own niceness, not Ray's 15: cells are timed."""
    os.environ.setdefault("RAY_task_oom_retries", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    return ray


def connected(address: str | None) -> Any:
    """Ray, connected to the cluster at `address` (`auto`: the one this machine is part of), or to one of this machine
    alone, which ends with this process. Raises `UserFault`."""
    ray = library()
    if address is None:
        options = {"address": "local", "num_cpus": cores(), "include_dashboard": False}
    else:
        options = {"address": address}
        if address != "auto":
            answers(address)
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        why = " ".join(str(error).split())[:300]
        if address is None:
            raise UserFault(f"a local Ray cluster cannot be started: {why}; allowed: executor=local") from None
        raise silent(address, why) from None
    return ray


def answers(address: str) -> None:
    """Whether anything listens there: Ray itself tries for a minute and then ends the process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise silent(address, str(error)) from None


def silent(address: str, why: str) -> UserFault:
    """The fault of a cluster that cannot be reached."""
    return UserFault(
        f"ray_address={address}: no Ray cluster to be reached ({why}); allowed: host:port of the machine that runs "
        "`ray start --head`, auto on a machine of the cluster, or no ray_address for this machine alone"
    )
