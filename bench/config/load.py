"""From command-line tokens and a suite file to a frozen `Suite` and `Settings`, or one worded fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from pydantic import BaseModel, ValidationError

from bench.config import tokens as tokens_
from bench.config.chain import Step
from bench.config.formats import FormatMaterial, Wording
from bench.config.probes import ContaminationProbe, FormatProbe, Probes, RetentionProbe, WritingProbe
from bench.config.reply import Reply
from bench.config.schema import (
    AXES,
    COUNTS,
    Budget,
    DataRef,
    Pairs,
    Splits,
    Suite,
    Task,
    Template,
)
from bench.config.settings import DataSettings, RunSettings, Settings
from bench.errors import UserFault, unknown
from bench.places import bundled

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    suite: Suite
    settings: Settings

    @property
    def run_name(self) -> str:
        """Name of the folder under `results_dir`: `run.name`, else the suite's name."""
        return self.settings.run.name or self.suite.name


def suite_names() -> list[str]:
    """Names of the bundled suites."""
    return sorted(path.stem for path in bundled("suites").glob("*.yaml"))


def suite_file(name: str) -> Path:
    """The file of a suite: a bundled name, or a path ending in .yaml. Raises `UserFault` for neither."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserFault(f"suite file {name} does not exist")
        return path
    if name not in suite_names():
        raise unknown("suite", name, suite_names())
    return bundled("suites") / f"{name}.yaml"


def read_suite_file(path: Path) -> dict[str, Any]:
    """A suite file as plain data; YAML is loaded safely, and nothing in it is ever resolved.

    A text such as `${price}` stays what it is; one that would read the environment is refused.
    """
    try:
        raw = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:  # YAML and OmegaConf errors of many kinds; one line each
        raise UserFault(f"suite file {path.name} cannot be read: {' '.join(str(error).split())[:300]}") from None
    if not isinstance(raw, dict):
        raise UserFault(
            f"suite file {path.name} is not a mapping; allowed: name, model, tasks, strategies, budget, ..."
        )
    if (found := resolver(raw)) is not None:
        raise UserFault(f"suite file {path.name} holds '{found[:60]}': interpolation is not allowed in values")
    return {str(key): value for key, value in raw.items()}


def resolver(value: Any) -> str | None:
    """The first key or text that OmegaConf would look up outside the file, such as `${oc.env:HOME}`; the name of what
    looks it up may be an interpolation of its own."""
    if isinstance(value, str):
        return value if re.search(r"\$\{[^{}]*(?::|\$\{)", value) else None
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return next((found for one in inner if (found := resolver(one)) is not None), None)


def load(arguments: list[str]) -> Request:
    """Read tokens such as `['suite=glue-small', 'tasks=sst2', 'budget.labels=64']`. Raises `UserFault`."""
    asked = tokens_.read(arguments)
    raw = read_suite_file(suite_file(asked.suite))
    refuse_non_mappings(raw)
    settings_raw = {k: v for k, v in asked.overrides.items() if k in Settings.model_fields}
    overrides = {k: v for k, v in asked.overrides.items() if k not in Settings.model_fields}
    if "name" in overrides:
        raise UserFault("'name' cannot be overridden; use run.name= to store a run under another name")
    for key in overrides:
        if key not in Suite.model_fields:
            raise unknown_key(key, [*Suite.model_fields, *Settings.model_fields, "suite"])
    for kind in tokens_.SELECTIONS:
        refuse_stray_overrides(kind, overrides.get(kind), raw.get(kind), asked.selected.get(kind))
    suite_axis_gives_way(raw, overrides)
    merged = tokens_.merge(raw, overrides)
    refuse_non_mappings(merged)
    own_entries_follow(merged.get("tasks") or {}, overrides.get("strategies") or {})
    for kind, chosen in asked.selected.items():
        select(merged, kind, chosen)
    return Request(suite=build(Suite, merged, asked.suite), settings=build(Settings, settings_raw, "settings"))


def refuse_non_mappings(raw: dict[str, Any]) -> None:
    """Tasks, strategies and a task's own strategies are looked into before they are validated."""
    found = {kind: raw.get(kind) for kind in tokens_.SELECTIONS}
    tasks = found["tasks"] if isinstance(found["tasks"], dict) else {}
    for name, task in tasks.items():
        own = task.get("strategies") if isinstance(task, dict) else None
        found[f"tasks.{name}.strategies"] = own
        found |= {f"tasks.{name}.strategies.{k}": v for k, v in (own.items() if isinstance(own, dict) else ())}
    for place, given in found.items():
        if given is not None and not isinstance(given, dict):
            raise UserFault(f"{place}: input should be a valid dictionary, got {given!r}"[:300])


def refuse_stray_overrides(kind: str, overrides: Any, present: Any, selected: list[str] | None) -> None:
    """An override for a task or strategy that will not run is a fault: it would silently do nothing."""
    if overrides is None:
        return
    if not isinstance(overrides, dict):
        raise UserFault(f"{kind} must be overridden below a name, e.g. {kind}.NAME.key=value")
    known = list(present or {}) if selected is None else selected
    for name in overrides:
        if name in known:
            continue
        if selected is not None:
            raise UserFault(f"override for {kind}.{name}, which is not selected; selected: {', '.join(selected)}")
        fault = unknown(f"{kind[:-1] if kind == 'tasks' else 'strategy'} in an override", name, known)
        raise UserFault(f"{fault} (to add one, select it: {kind}={','.join([*known, name])})")


def suite_axis_gives_way(raw: dict[str, Any], overrides: dict[str, Any]) -> None:
    """A budget axis named by an override replaces the suite file's axis; so do `labels` and `curve` each other."""
    budget, asked = raw.get("budget"), overrides.get("budget")
    if not isinstance(asked, dict) or not isinstance(budget, dict):
        return
    for keys in (AXES, COUNTS):
        if any(asked.get(key) is not None for key in keys):
            raw["budget"] = budget = {key: value for key, value in budget.items() if key not in keys}


def own_entries_follow(tasks: dict[str, Any], overrides: dict[str, Any]) -> None:
    """An override of a strategy reaches the tasks that list it themselves, which would else not hear of it."""
    for task in tasks.values():
        own = task.get("strategies") if isinstance(task, dict) else None
        for name, options in overrides.items():
            if own and name in own and isinstance(options, dict):
                own[name] = {**(own[name] or {}), **options}


def select(merged: dict[str, Any], kind: str, chosen: list[str]) -> None:
    """Keep the chosen entries, in the order chosen. A strategy need not be in the suite; a task must be."""
    entries = merged.get(kind) or {}
    if kind == "tasks":
        for name in chosen:
            if name not in entries:
                raise unknown("task", name, entries)
    merged[kind] = {name: entries.get(name) or {} for name in chosen}
    for task in (merged.get("tasks") or {}).values():
        own = task.get("strategies") if kind == "strategies" and isinstance(task, dict) else None
        if own:
            task["strategies"] = {name: own.get(name) or {} for name in chosen if name in own}


def build(model: type[Model], raw: dict[str, Any], where: str) -> Model:
    """Validate, turning pydantic's report into one line: where, what, got, allowed, nearest name."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise worded(error, model) from None


def worded(error: ValidationError, model: type[BaseModel], prefix: str = "") -> UserFault:
    """One line for the first fault of a validation."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in (*([prefix] if prefix else []), *first["loc"]))
    if first["type"] == "extra_forbidden":
        return unknown_key(path, [*fields_at(model, first["loc"][:-1])])
    if first["type"] == "missing":
        return UserFault(f"'{path}' is missing")
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    got = first["input"]
    if isinstance(got, (dict, BaseModel)) or (isinstance(got, list) and len(got) > 6):
        return UserFault(f"{path}: {message}" if path else message)
    return UserFault(f"{path}: {message}, got {got!r}")


def unknown_key(path: str, allowed: list[str]) -> UserFault:
    """`unknown key 'budget.secnds'; did you mean 'train_seconds'?`."""
    fault = str(unknown("key", path.rpartition(".")[2], allowed))
    return UserFault(fault.replace(f"'{path.rpartition('.')[2]}'", f"'{path}'", 1))


def fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> Iterator[str]:
    """Names allowed at a place inside a model."""
    inner: dict[str, type[BaseModel]] = {
        "budget": Budget,
        "tasks": Task,
        "splits": Splits,
        "templates": Template,
        "pairs": Pairs,
        "reply": Reply,
        "run": RunSettings,
        "data": DataRef if model is Suite else DataSettings,
        "probes": Probes,
        "formats": FormatMaterial if loc[:1] == ("tasks",) else FormatProbe,
        "wordings": Wording,
        "contamination": ContaminationProbe,
        "retention": RetentionProbe,
        "writing": WritingProbe,
        "chain": Step,
    }
    here = model
    for part in loc:
        here = inner.get(str(part), here)
    yield from here.model_fields
