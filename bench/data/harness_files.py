"""A user's own files of a task of lm-eval: YAML and templates, which are data. What would run code in them is refused,
but for functions in the folder that `adapters_path` names: it is the one way to code of a user's own, and records hold
its files' hashes. lm-eval's own tasks may name functions of lm-eval's own: they are part of an installed library."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bench.errors import UserFault

PLAIN = "tag:yaml.org,2002:"
"""What the tags of YAML's own types begin with; those of Python objects go on with `python/`."""
UNPICKLES = "pandas"
"""A `dataset_path` whose files `datasets` unpickles."""
VALUES = (str, int, float, bool, list, tuple, dict, type(None))
FUNCTION = "!function"
WAY_OUT = (
    "allowed: functions of a file there whose name begins with _ (adapters_path=DIR), templates in Jinja, or a task of "
    "lm-eval's own by its name"
)


def files(given: Path, code: Path | None) -> list[Path]:
    """The task's file, or all those of a folder, those they include, and the Python files their functions are in, each
    once. Raises `UserFault` for one that cannot be read as YAML, and for one that is not lm-eval's own and names code
    outside of the folder `code`."""
    waiting = sorted(given.rglob("*.y*ml")) if given.is_dir() else [given]
    found: dict[Path, None] = {}
    while waiting:
        path = waiting.pop(0).resolve()
        if path in found or not path.is_file():
            continue
        found[path] = None
        root = tree(path)
        if not library(path):
            found |= dict.fromkeys(functions(path, root, code))
        waiting += [path.parent / name for name in included(root)]
    return list(found)


def tree(path: Path) -> yaml.Node | None:
    """The file's YAML as nodes: nothing in it is made into an object."""
    try:
        return yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = " ".join(str(error).split())[:200]
        raise UserFault(f"{path} cannot be read as YAML: {first}") from None


def library(path: Path) -> bool:
    """Whether it is a file of the installed lm-eval."""
    found = importlib.util.find_spec("lm_eval")
    return found is not None and found.origin is not None and path.is_relative_to(Path(found.origin).resolve().parent)


def functions(path: Path, root: yaml.Node | None, code: Path | None) -> Iterator[Path]:
    """The Python files that its functions are in. Raises `UserFault` for one outside of the folder `code`, for whatever
    else is to be looked up in Python, and where data are to be unpickled."""
    for key, node in values(root):
        if key == "dataset_path" and node.value == UNPICKLES:
            raise UserFault(f"{path}: dataset_path: {UNPICKLES} unpickles its files, which runs code; allowed: parquet")
        if node.tag.startswith(PLAIN) and "python/" not in node.tag:
            continue
        named = node.value if isinstance(node, yaml.ScalarNode) else ""
        module = (path.parent / named.rpartition(".")[0].replace(".", "/")).with_suffix(".py").resolve()
        if node.tag != FUNCTION or code is None or module.parent != code or not module.is_file():
            what = f"{key}: {node.tag} {named}".strip()[:100]
            raise UserFault(
                f"{path} names Python code ({what}), which may stand in the folder of adapters_path only; {WAY_OUT}"
            )
        yield module


def included(root: yaml.Node | None) -> list[str]:
    """Names of the files it includes, wherever it says so."""
    named = [node for key, node in values(root) if key == "include"]
    each = [one for node in named for one in (node.value if isinstance(node, yaml.SequenceNode) else [node])]
    return [one.value for one in each if isinstance(one, yaml.ScalarNode)]


def values(root: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    """All nodes below a node, itself and keys among them, each with the key it stands under; a node that others refer
    to comes once for each key."""
    waiting, seen = [("", root)] if root is not None else [], set[tuple[str, int]]()
    while waiting:
        key, node = waiting.pop()
        if (key, id(node)) in seen:
            continue
        seen.add((key, id(node)))
        yield key, node
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                waiting += [("", name), (str(name.value), value)]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [(key, one) for one in node.value]


def confine() -> None:
    """From here on lm-eval's templates reach attributes of plain values only, whatever rows hold (an image could write
    files), and metrics that it does not have are not fetched: both would be code."""
    import lm_eval.utils
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Plain(ImmutableSandboxedEnvironment):
        """Text, numbers, lists, and what a template is made of."""

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            known = type(obj) in VALUES or type(obj).__module__.startswith("jinja2.")
            return known and super().is_safe_attribute(obj, attr, value)

    free = lm_eval.utils.env
    options: dict[str, Any] = {
        "loader": free.loader,
        "undefined": free.undefined,
        "keep_trailing_newline": free.keep_trailing_newline,
    }
    lm_eval.utils.env = Plain(**options)
    lm_eval.utils.env.filters.update(free.filters)
    sys.modules["evaluate"] = None  # type: ignore[assignment]
