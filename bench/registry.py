"""Finding strategies: every file of the bundled `adapters` folder, then of the folder named by `adapters_path=`.

Each folder becomes a private package, so files may use relative helpers (names starting with `_`) and never
clash with a PyPI package called `adapters`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from bench.config.load import worded
from bench.config.schema import Task
from bench.errors import UserFault, unknown
from bench.places import bundled
from bench.strategy import Options, Strategy

APART = ("preference tuning",)
"""Families that stand apart where rows have labels: there is no preference to learn there but the label itself, so they
are held against each other and against the control that trains on as long, and decide no headline."""


@dataclass(frozen=True)
class Variant:
    """A strategy as a suite names it: the base strategy with its options, defaults filled in."""

    name: str
    strategy: Strategy
    options: Options
    sources: tuple[str, ...] | Literal["all"] = ()
    """Other tasks of the suite that the cell trains on too; `all`: every other one that may be trained on."""

    def group(self, task: Task) -> str | None:
        """The group it is ranked in apart from all others on a task; None: it stands among them."""
        family = self.strategy.family
        return family if family in APART and not task.spoken else None

    def sources_of(self, task: str, tasks: Mapping[str, Task]) -> list[str]:
        """The sources of one task's cell among the suite's `tasks`, by name: the order they are asked for in must not
        change what is trained. None is of the task's own type where the strategy holds that out."""
        out = type_of(task, tasks) if self.strategy.other_types else None
        return sorted(
            name
            for name, other in tasks.items()
            if name != task
            and other.role != "test"
            and (self.sources == "all" or name in self.sources)
            and type_of(name, tasks) != out
        )


def type_of(name: str, tasks: Mapping[str, Task]) -> str:
    """The type of a task: its own name where it says none."""
    return tasks[name].type or name


def folders(adapters_path: str | None) -> list[Path]:
    """The bundled folder and the user's. Raises `UserFault` where the user's does not exist."""
    found = [bundled("adapters")]
    if adapters_path is not None:
        extra = Path(adapters_path).expanduser()
        if not extra.is_dir():
            raise UserFault(f"adapters_path={adapters_path} is not a folder")
        found.append(extra.resolve())
    return found


def private_package(folder: Path) -> str:
    """Register `folder` as a package under a private name and return that name."""
    name = f"_adaptbench_plugins_{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return name


def load_file(path: Path, package: str) -> Strategy:
    """Import one strategy file, once a process while it stays as it is: a forked cell finds what its parent read.

    Raises `UserFault` where it fails or offers no strategy.
    """
    return _imported(path, package, path.stat().st_mtime_ns)


@cache
def _imported(path: Path, package: str, changed: int) -> Strategy:
    full_name = f"{package}.{path.stem}"
    spec = importlib.util.spec_from_file_location(full_name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[full_name]
        raise UserFault(f"strategy file {path} fails to import: {type(error).__name__}: {error}") from error
    strategy = getattr(module, "strategy", None)
    if not isinstance(strategy, Strategy):
        raise UserFault(f"strategy file {path} has no attribute `strategy` holding a bench.strategy.Strategy")
    strategy.name = path.stem
    return strategy


def load(adapters_path: str | None = None) -> dict[str, Strategy]:
    """All strategies by name. One name in two folders is a fault."""
    strategies: dict[str, Strategy] = {}
    origin: dict[str, Path] = {}
    for folder in folders(adapters_path):
        package = private_package(folder)
        for path in sorted(folder.glob("*.py")):
            if path.stem.startswith("_"):
                continue
            if path.stem in strategies:
                raise UserFault(f"strategy '{path.stem}' is in two folders: {origin[path.stem]} and {folder}")
            strategies[path.stem], origin[path.stem] = load_file(path, package), folder
    return strategies


def variant(name: str, raw: dict[str, Any], strategies: dict[str, Strategy]) -> Variant:
    """Resolve a suite's entry: its `base` (by default its own name), its `sources` and validated options."""
    raw = dict(raw)
    base, sources = raw.pop("base", name), raw.pop("sources", ())
    if sources != "all" and not (isinstance(sources, list | tuple) and all(isinstance(s, str) for s in sources)):
        raise UserFault(f"strategies.{name}.sources: a list of task names or 'all', got {sources!r}")
    if not isinstance(base, str) or base not in strategies:
        raise unknown("strategy", str(base), strategies)
    strategy = strategies[base]
    if strategy.other_types and not sources:
        sources = "all"
    options_type: type[BaseModel] = strategy.Options
    try:
        options = options_type.model_validate(raw)
    except ValidationError as error:
        raise worded(error, options_type, prefix=f"strategies.{name}") from None
    assert isinstance(options, Options)
    return Variant(name, strategy, options, "all" if sources == "all" else tuple(sources))
