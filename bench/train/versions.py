"""Several versions of the same trained parameters, of which a model holds one at a time: policy, reference, reward.

They share one model, so a reference and a learned reward cost a copy of what trains and no second model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from bench.score.adapted import Adapted
from bench.strategy import Plan
from bench.train.plans import save_tensors

REFERENCE = "reference"
"""The version a policy is held against: what it was where its last stage began."""


@dataclass
class Versions:
    """Values of `params` by name, beside those that the model holds now."""

    params: list[nn.Parameter]
    kept: dict[str, list[torch.Tensor]] = field(default_factory=dict)

    def keep(self, name: str) -> None:
        """Note the values as they are now."""
        self.kept[name] = [p.detach().clone() for p in self.params]

    def take(self, name: str) -> None:
        """Give the model these values; those it has are lost."""
        with torch.no_grad():
            for parameter, value in zip(self.params, self.kept[name], strict=True):
                parameter.copy_(value)

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """The model with these values for a while."""
        self._swap(name)
        try:
            yield
        finally:
            self._swap(name)

    def _swap(self, name: str) -> None:
        """Exchange values in place: storages stay where they are."""
        with torch.no_grad():
            for parameter, other in zip(self.params, self.kept[name], strict=True):
                now = parameter.detach().clone()
                parameter.copy_(other)
                other.copy_(now)

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors by name, for what a halted training must keep."""
        return {f"{name}.{i}": tensor for name, of in self.kept.items() for i, tensor in enumerate(of)}

    def restore(self, stored: Mapping[str, torch.Tensor]) -> None:
        """Take back what `state` gave; names without a place are passed over."""
        for name in dict.fromkeys(key.rpartition(".")[0] for key in stored if "." in key):
            self.kept[name] = [stored[f"{name}.{i}"].to(p) for i, p in enumerate(self.params)]


def stored_beside(plan: Plan, versions: Versions, kept: Sequence[str]) -> None:
    """Store some versions beside what the plan stores, and take all back: `plan.load` wraps the model anew."""
    save_policy, load_policy, module = plan.save, plan.load, plan.module
    assert load_policy is not None and module is not None
    trained = {id(p) for p in versions.params}
    names = [name for name, p in module.named_parameters() if id(p) in trained]

    def save(folder: Path) -> None:
        save_policy(folder)
        for version in set(kept) & set(versions.kept):
            save_tensors(folder / f"{version}.safetensors", dict(zip(names, versions.kept[version], strict=True)))

    def load(folder: Path) -> None:
        load_policy(folder)
        assert isinstance(plan.answer, Adapted)
        loaded = dict(plan.answer.module.named_parameters())
        versions.params = [loaded[name] for name in names]
        for version in kept:
            if (folder / f"{version}.safetensors").is_file():
                found = load_file(folder / f"{version}.safetensors")
                versions.kept[version] = [found[n].to(p) for n, p in zip(names, versions.params, strict=True)]

    plan.save, plan.load = save, load


def answered(plan: Plan, wrap: Callable[[Any], Any]) -> None:
    """Answer through `wrap`, now and after what was stored is loaded."""
    load = plan.load
    assert load is not None

    def loaded(folder: Path) -> None:
        load(folder)
        plan.answer = wrap(plan.answer)

    plan.answer, plan.load = wrap(plan.answer), loaded
