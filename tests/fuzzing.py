"""What the fuzz tests share: values of every kind, and trees with something else at some places.

By default the examples are few and the same each time. `BENCH_FUZZ=50 python -m pytest tests/test_fuzz.py
tests/test_fuzz_records.py -n0 --timeout=0` tries 50 times as many, new ones on every run; what fails is printed small
enough to become a test.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

TIMES = int(os.environ.get("BENCH_FUZZ", "1"))


def tries(number: int) -> settings:
    """So many examples, or as many times as asked for."""
    return settings(
        max_examples=number * TIMES, deadline=None, derandomize=TIMES == 1, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


TEXTS = st.text(max_size=12) | st.sampled_from(
    ["", "no", "yes", "null", "~", "???", "${model}", "${oc.env:HF_TOKEN}", "${", "}", "{text}", "{text.__class__}", "{0}",
     "../x", "a\0b", "\ud800", "nan", "inf", "12e4567", "-1", "1e400", "9" * 5000, "[1", "a,b", "all", "auto", "!!python/x",
     "*a", "&a", "=", "\t", "\n", "\u202e", "lora", "sst2", "0x10", "1_000", "1:30", "2026-01-01"]
)  # fmt: skip
SINGLE = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS
ANY = st.recursive(
    SINGLE, lambda one: st.lists(one, max_size=3) | st.dictionaries(TEXTS, one, max_size=3), max_leaves=5
)


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values inside."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield (*path, key)
        yield from places(value, (*path, key))


def changed(draw: st.DrawFn, tree: Any, times: int = 2) -> Any:
    """The tree with some values gone, replaced, or joined by others."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, times))):
        known = list(places(tree))
        if not known:
            return tree
        *way, last = draw(st.sampled_from(known))
        place = tree
        for key in way:
            place = place[key]
        what = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "nest"]))
        if what == "remove":
            del place[last]
        elif what == "add" and isinstance(place, dict):
            place[draw(TEXTS)] = draw(ANY)
        else:
            place[last] = {draw(TEXTS): place[last]} if what == "nest" else draw(ANY)
    return tree
