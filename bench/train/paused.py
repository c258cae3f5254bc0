"""Training put down on disk and taken up again in a freshly prepared plan, step for step as if it had gone on.

Kept are the trained parameters, the optimizer's state, what the method itself keeps, the place in the data and torch's
random state. Everything else follows from the seed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bench.train.loop import Trained, Training

PART = 64 * 2**20
"""Bytes after which a file is full. A file is in memory twice while it is written, so a halt must not write all the
state at once: under a cap it would need more than the training itself."""
NUMBERS = "numbers.json"


def put_down(training: Training, folder: Path) -> None:
    """Write the state of a halted training into `folder`, replacing what is there: safetensors files, one JSON."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    numbers: dict[str, Any] = {"drawn": list(training.order.drawn.values())}
    part: dict[str, torch.Tensor] = {}
    files = size = 0
    for name, value in state_of(training):
        if not isinstance(value, torch.Tensor):
            numbers[name] = value
            continue
        if size and size + value.nbytes > PART:
            save_file(part, folder / f"{files}.safetensors")
            part, size, files = {}, 0, files + 1
        part[name] = value.detach().cpu().contiguous().clone()
        size += value.nbytes
    save_file(part, folder / f"{files}.safetensors")
    (folder / NUMBERS).write_text(json.dumps(numbers))


def state_of(training: Training) -> Iterator[tuple[str, Any]]:
    """All that is kept, by name; weights are listed apart from what the optimizer holds only where they are apart."""
    yield "random", torch.get_rng_state()
    if torch.cuda.is_initialized():
        yield "random.cuda", torch.cuda.get_rng_state()
    optimizer = training.optimizer
    for i, (parameter, held) in enumerate(zip(optimizer.params, optimizer.held, strict=True)):
        yield f"weight.{i}", parameter
        if held is not parameter:
            yield f"whole.{i}", held
        for key, value in optimizer.inner.state.get(held, {}).items():
            yield f"state.{i}.{key}", value
    if training.plan.own_state is not None:
        for name, tensor in training.plan.own_state().items():
            yield f"own.{name}", tensor


def stored_in(folder: Path) -> Iterator[tuple[str, Any]]:
    """What `put_down` wrote, one by one."""
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118  # not a mapping
                yield name, stored.get_tensor(name)
    yield from json.loads((folder / NUMBERS).read_text()).items()


def take_up(training: Training, done: Trained, folder: Path) -> None:
    """Bring a fresh training to where the one in `folder` was; `done` is what that one had to tell."""
    training.done = done
    optimizer = training.optimizer
    into: dict[str, list[torch.Tensor]] = {"weight": [*optimizer.params], "whole": optimizer.held}
    others: dict[str, Any] = {}
    for name, value in stored_in(folder):
        kind, _, rest = name.partition(".")
        if kind in into:
            with torch.no_grad():
                into[kind][int(rest)].copy_(value)
        elif kind == "state":
            index, _, key = rest.partition(".")
            held = into["whole"][int(index)]
            # moments live with their weight; AdamW's step count stays on the CPU, but for a fused one
            moment = isinstance(value, torch.Tensor) and value.shape == held.shape and value.dim() > 0
            beside = moment or (isinstance(value, torch.Tensor) and optimizer.counts_on_device)
            optimizer.inner.state[held][key] = value.to(held.device) if beside else value
        else:
            others[name] = value
    training.order.skip(others["drawn"])
    if training.plan.restore is not None:
        training.plan.restore({n.removeprefix("own."): t for n, t in others.items() if n.startswith("own.")})
    torch.set_rng_state(others["random"])
    if "random.cuda" in others:
        torch.cuda.set_rng_state(others["random.cuda"])
