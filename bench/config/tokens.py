"""Command-line tokens: `key=value` overrides and selections, as plain nested dictionaries.

OmegaConf reads the dotlist syntax and never leaves this package. Interpolation is refused, not resolved:
resolving it would let environment variables (secrets) into records.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf

from bench.config.schema import AXES
from bench.errors import UserFault

SELECTIONS = ("tasks", "strategies")
for _reads in ("oc.env", "oc.decode", "oc.create"):
    OmegaConf.clear_resolver(_reads)  # a merge follows texts that look like one, whatever `resolve` says


@dataclass
class Tokens:
    """What the tokens said: the suite's name, selections by kind, and everything else as nested overrides."""

    suite: str = "glue-small"
    selected: dict[str, list[str]] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)


def plain(token: str) -> dict[str, Any]:
    """One `a.b=c` token as `{'a': {'b': c}}`. Raises `UserFault` where it is none."""
    key, separator, _ = token.partition("=")
    if not separator or not key.strip() or key.startswith("-"):
        raise UserFault(f"'{token}' is not an override: got no '=', allowed key=value, e.g. budget.labels=64")
    if "${" in token:
        raise UserFault(f"'{token}' holds '${{': interpolation is not allowed in values")
    try:
        container = OmegaConf.to_container(OmegaConf.from_dotlist([token]), resolve=False)
    except Exception as error:  # OmegaConf and its YAML loader raise many kinds; the user needs one line
        raise UserFault(f"cannot read '{token}': {str(error).splitlines()[0]}") from None
    if not isinstance(container, dict):
        raise UserFault(f"cannot read '{token}'; allowed key=value")
    return {str(k): v for k, v in container.items()}


def names(key: str, value: Any) -> list[str]:
    """A selection's names: `a,b` or `[a,b]`. Raises `UserFault` where it is empty or has one twice."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(p, str) for p in parts):
        raise UserFault(f"{key}={value!r} is not a selection; allowed: names joined by commas, e.g. {key}=a,b")
    chosen = [p.strip() for p in parts if p.strip()]
    if not chosen:
        raise UserFault(f"{key}= selects nothing; allowed: at least one name")
    if len(set(chosen)) != len(chosen):
        raise UserFault(f"{key}={','.join(chosen)} names one twice")
    return chosen


def clashing(into: dict[str, Any], new: dict[str, Any], path: str = "") -> str | None:
    """The first dotted key under which one holds a list and the other keys below it."""
    for key, value in new.items():
        old = into.get(key)
        if {type(value), type(old)} == {dict, list}:
            return f"{path}{key}"
        if isinstance(value, dict) and isinstance(old, dict) and (found := clashing(old, value, f"{path}{key}.")):
            return found
    return None


def merge(into: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Merge nested dictionaries, later ones winning, by OmegaConf's rules. Raises `UserFault` for keys into a list."""
    if (clash := clashing(into, new)) is not None:
        raise UserFault(f"{clash}: a list is overridden whole, e.g. {clash}=[a,b], and only where a list belongs")
    try:
        merged = OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(into), OmegaConf.create(new)), resolve=False)
    except Exception as error:  # as above: a text of a suite that looks like an interpolation, a key of an odd type
        raise UserFault(f"cannot override {', '.join(map(str, new))}: {str(error).splitlines()[0][:300]}") from None
    assert isinstance(merged, dict)
    return {str(k): v for k, v in merged.items()}


def read(tokens: list[str]) -> Tokens:
    """Read all tokens. Later ones win; two budget axes among them are a fault."""
    result = Tokens()
    axes = []
    for token in tokens:
        entry = plain(token)
        key, value = next(iter(entry.items()))
        if key == "suite":
            if not isinstance(value, str):
                raise UserFault(f"suite={value!r} is not a name; see: python -m bench list suites")
            result.suite = value
        elif key in SELECTIONS and not isinstance(value, dict):
            result.selected[key] = names(key, value)
        else:
            if key == "budget" and isinstance(value, dict):
                axes += [a for a in value if a in AXES and a not in axes and value[a] is not None]
            result.overrides = merge(result.overrides, entry)
    if len(axes) > 1:
        raise UserFault(f"two budget axes on the command line ({', '.join(axes)}); allowed: one of {', '.join(AXES)}")
    return result
