"""What makes two cells the same: everything that can change a result, and nothing else.

Paths, host, commit and folders are not part of it. The digest of our code is kept in the record beside it, so
that cells measured by other code are kept, counted and marked, not silently mixed or thrown away.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from bench.config.schema import Task, Template
from bench.places import PACKAGE, bundled
from bench.records import CellInfo

NUMERICS = 4
"""Version number of our numerics: raised when a change of ours changes results on purpose."""
NUMERICS_BY_AXIS = {"train_flops": 5}
"""The same where it is higher for cells that a certain axis binds. FLOPs: how close to the limit they come hangs on how
a step is bounded that was not yet counted."""

# Parts of the package that only show, list or launch: changing them cannot change a number in a record.
PRESENTATION = (
    "report",
    "compare",
    "paired",
    "selftest",
    "cli.py",
    "live.py",
    "doctor.py",
    "listing.py",
    "shelf",
    "__main__.py",
)


def digest(data: Any, length: int = 64) -> str:
    """Hex SHA-256 of JSON with sorted keys."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def task_digest(task: Task) -> str:
    """Digest of what defines a task, apart from where its bytes come from (the data fingerprint says that)."""
    apart = {"data", "model", "strategies", "batch", "sequence", "precision", "judges", "judged_by", "pairs", "formats",
             "scorer", "type", "role", "harness"}  # fmt: skip
    content = task.model_dump(mode="json", exclude=apart)
    if content["objective"] == "labels":
        del content["objective"]  # it came later: earlier records stand
    later = (
        (content, "label_cut"),
        (content, "number"),
        (content, "cluster"),
        (content, "gap"),
        (content, "reply"),
        (content["splits"], "where"),
    )
    for place, key in later:
        if place[key] is None:
            del place[key]  # so did these
    for key in ("source", "offers"):
        if "reply" in content and content["reply"][key] is None:
            del content["reply"][key]
    if content["drop_overlap"] is None:
        del content["drop_overlap"]
    else:  # where its bytes come from is said by the fingerprint
        content["drop_overlap"] = [{**one, "data": None} for one in content["drop_overlap"]]
    for template in content["templates"]:
        if not template["chat"]:
            del template["chat"]
    return digest(content, 16)


def formats_digest(formats: Mapping[str, Sequence[Template]]) -> str | None:
    """Digest of the prompt formats of each task; None without any."""
    told = {name: [t.model_dump(mode="json") for t in templates] for name, templates in formats.items()}
    return digest(told, 16) if told else None


def cell_id(task: str, strategy: str, seed: int, identity: dict[str, Any]) -> str:
    """`task-strategy-s{seed}-{hash8}`; the hash covers `identity`, which the planner builds."""
    return f"{slug(task)}-{slug(strategy)}-s{seed}-{digest(identity, 8)}"


MEASURED = (
    "base_strategy", "readout", "metric", "seed", "options", "budget", "precision", "device", "model_fingerprint",
    "task_digest", "numerics", "engine", "batch", "micro_batch", "sequence", "checkpointing", "foreach", "sources",
    "formats_digest", "limit", "plant", "plant_items", "sharding", "devices",
)  # fmt: skip
"""Fields of a cell that its id covers, beside the task's and strategy's names and the fingerprint of its data."""
LATER = ("checkpointing", "foreach", "plant", "plant_items", "formats_digest", "engine", "sharding", "devices")
"""Those that came after the first records: left out where they are off, so that earlier records stand."""


def id_of(cell: CellInfo, fingerprint: str) -> str:
    """The id that a cell's own fields and its data's fingerprint give; that of a record unless one was changed."""
    fields = cell.model_dump(mode="json", include=set(MEASURED))
    told = {key: value for key, value in fields.items() if key not in LATER or value}
    return cell_id(cell.task, cell.strategy, cell.seed, {**told, "data": fingerprint})


def slug(name: str) -> str:
    """A name as part of a folder name."""
    return re.sub(r"[^A-Za-z0-9_.]", "_", name)


@cache
def code_digest() -> str:
    """Digest of the source files that can change a measurement: the engine and the bundled strategies."""
    total = hashlib.sha256()
    for root in (PACKAGE, bundled("adapters")):
        for path in sorted(root.rglob("*.py")):
            relative = path.relative_to(root)
            if root == PACKAGE and (relative.parts[0] in PRESENTATION or relative.parts[0].startswith("_adapters")):
                continue
            total.update(f"{relative.as_posix()}\0".encode())
            total.update(path.read_bytes())
    return total.hexdigest()[:16]
