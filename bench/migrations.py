"""Records of older schema versions brought to the present one: raw JSON in, raw JSON out, a version at a time.

Every reader reads an old record through this table; `python -m bench results --migrate` rewrites the files, so that a
later version may drop old steps. A step is never changed once records of its version are out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

Raw = dict[str, Any]
Kind = Literal["result", "probe", "plan"]

STEPS: dict[Kind, dict[int, Callable[[Raw], Raw]]] = {"result": {}, "probe": {}, "plan": {}}
"""Kind of record -> schema version -> what makes its raw JSON that of the next version (`schema_version` apart, which
is set here). Empty so far: every record has version 1, and optional fields were added without a new one."""


class Newer(ValueError):
    """A record whose schema version is above the one this code reads. Nobody believes it, changes it or removes it."""


def raised(raw: Any, kind: Kind, wanted: int) -> Raw:
    """A record's JSON at version `wanted`; the input itself is left as it is.

    Raises `Newer` for a later version, `ValueError` for JSON that says no version or an old one without a step.
    """
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if not isinstance(version, int) or isinstance(version, bool):
        raise ValueError(f"schema_version {version!r}, this version reads {wanted}")
    if version > wanted:
        raise Newer(
            f"written by a newer version (schema_version {version}, this version reads {wanted}): update adaptbench"
        )
    while version < wanted:
        step = STEPS[kind].get(version)
        if step is None:
            raise ValueError(f"schema_version {version}, this version reads {wanted} and knows no way from there")
        try:
            raw = {**step(dict(raw)), "schema_version": version + 1}
        except Exception as error:  # a step trusts its version's shape, which a damaged record has not
            told = f"{type(error).__name__}: {error}"
            raise ValueError(f"cannot be brought from schema_version {version} to {version + 1} ({told})") from None
        version += 1
    assert isinstance(raw, dict)
    return raw
