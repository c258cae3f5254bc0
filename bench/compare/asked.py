"""What the compare command is asked: runs, and KEY=VALUE tokens. Words that are neither are a fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.compare.speed import FEWEST_PAIRS
from bench.errors import UserFault, unknown

OWN = (
    "base_code",
    "new_code",
    "pairs",
    "work",
    "floors",
    "learn",
    "keep",
    "results_dir",
    "models",
    "tasks",
    "strategies",
)
SELECTIONS = ("models", "tasks", "strategies")
PAIRS = 6
MOST_PAIRS = 200


@dataclass(frozen=True)
class Asked:
    """The command, read."""

    runs: list[str]
    """Folders, names or baseline files: BASE and NEW; one to be kept; three or more to learn from."""
    options: dict[str, str] = field(default_factory=dict)
    rest: list[str] = field(default_factory=list)
    """Tokens for the runs of both checkouts."""
    pairs: int = PAIRS

    @property
    def code(self) -> bool:
        """Whether two checkouts are to be run in turn."""
        return "base_code" in self.options

    @property
    def selected(self) -> dict[str, list[str]]:
        """Selections of cells of recorded runs, by kind."""
        return {key: self.options[key].split(",") for key in SELECTIONS if key in self.options}

    def get(self, key: str) -> str | None:
        """An option's value."""
        return self.options.get(key)


def read(words: Sequence[str]) -> Asked:
    """Runs and options. Raises `UserFault`."""
    runs = [word for word in words if "=" not in word]
    found: dict[str, str] = {}
    tokens = [word for word in words if "=" in word]
    code = any(token.startswith(("base_code=", "new_code=")) for token in tokens)
    rest = []
    for token in tokens:
        key, _, value = token.partition("=")
        if code and key not in OWN[:6]:
            rest.append(token)  # the checkouts' own run command judges it
            continue
        if key not in OWN:
            raise unknown("option", key, OWN)
        if key in found or not value:
            raise UserFault(
                f"option '{key}' is given {'twice' if key in found else 'no value'}; allowed: {key}=VALUE once"
            )
        found[key] = value
    for word in runs:
        if word.startswith("-"):
            raise UserFault(
                f"unknown option '{word}'; allowed: --json, --markdown FILE, and KEY=VALUE with {', '.join(OWN)}"
            )
    asked = Asked(runs, found, rest, pairs(found.get("pairs")))
    fits(asked, code)
    return asked


def pairs(text: str | None) -> int:
    """How many pairs. Raises `UserFault`."""
    if text is None:
        return PAIRS
    number = int(text) if text.isdecimal() else 0
    if not FEWEST_PAIRS <= number <= MOST_PAIRS:
        raise UserFault(f"pairs is '{text}'; allowed: a whole number from {FEWEST_PAIRS} to {MOST_PAIRS}")
    return number


def fits(asked: Asked, code: bool) -> None:
    """Refuse what does not go together. Raises `UserFault`."""
    number, given = len(asked.runs), asked.options
    if code:
        missing = [key for key in ("base_code", "new_code") if key not in given]
        if missing:
            raise UserFault(
                f"{missing[0]} is missing; allowed: base_code=DIR new_code=DIR, two checkouts of this project"
            )
        if asked.runs:
            raise UserFault(
                f"got base_code= and the run '{asked.runs[0]}'; allowed: two checkouts, or two recorded runs"
            )
        return
    for key in ("pairs", "work"):
        if key in given:
            raise UserFault(f"{key}= goes with base_code=DIR new_code=DIR; two recorded runs cannot be measured again")
    if "keep" in given and "learn" in given:
        raise UserFault("got keep= and learn=; allowed: one of them")
    if "keep" in given and number != 1:
        raise UserFault(f"keep= takes one run, got {number}; allowed: compare RUN keep=FILE")
    if "keep" not in given and "learn" not in given and number != 2:
        raise UserFault(
            f"compare takes two runs, got {number}; allowed: compare BASE NEW, each a run's folder or name, or a "
            "baseline .json"
        )
