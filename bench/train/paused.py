"""Training put down on disk and taken up again in a freshly prepared plan, step for step as if it had gone on.

Kept are the trained parameters, the optimizer's state, what the method itself keeps, the place in the data and torch's
random state. Everything else follows from the seed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bench.train.loop import Trained, Training


def put_down(training: Training, file: Path) -> None:
    """Write the state of a halted training as one safetensors file."""
    tensors: dict[str, torch.Tensor] = {"random": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    numbers: dict[str, Any] = {"drawn": training.order.drawn}
    for i, parameter in enumerate(training.optimizer.params):
        tensors[f"weight.{i}"] = parameter
    for i, held in enumerate(training.optimizer.held):
        tensors[f"whole.{i}"] = held
        for key, value in training.optimizer.inner.state.get(held, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"state.{i}.{key}"] = value
            else:
                numbers[f"state.{i}.{key}"] = value
    if training.plan.own_state is not None:
        tensors |= {f"own.{name}": tensor for name, tensor in training.plan.own_state().items()}
    save_file(
        {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()},
        file,
        metadata={"numbers": json.dumps(numbers)},
    )


def take_up(training: Training, done: Trained, file: Path) -> None:
    """Bring a fresh training to where the one in `file` was; `done` is what that one had to tell."""
    with safe_open(file, framework="pt") as stored:
        numbers = json.loads(stored.metadata()["numbers"])
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  # not a mapping
    training.order.skip(numbers["drawn"])
    training.done = done
    optimizer = training.optimizer
    with torch.no_grad():
        for i, parameter in enumerate(optimizer.params):
            parameter.copy_(tensors[f"weight.{i}"])
        for i, held in enumerate(optimizer.held):
            held.copy_(tensors[f"whole.{i}"])
    for name, value in [*tensors.items(), *numbers.items()]:
        kind, _, rest = name.partition(".")
        if kind == "state":
            index, _, key = rest.partition(".")
            held = optimizer.held[int(index)]
            # moments live with their weight; AdamW's step count stays on the CPU
            beside = isinstance(value, torch.Tensor) and value.shape == held.shape and value.dim() > 0
            optimizer.inner.state[held][key] = value.to(held.device) if beside else value
    if training.plan.restore is not None:
        training.plan.restore({n.removeprefix("own."): t for n, t in tensors.items() if n.startswith("own.")})
    torch.set_rng_state(tensors["random"])
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"])
