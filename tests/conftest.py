"""Shared ground rules of the tests."""

from __future__ import annotations

import os
from collections import Counter

import pytest

pytest.register_assert_rewrite("fault_fixtures", "source_fixtures")

# before anything imports torch: threads that spin while they wait make tests on a busy machine several times slower
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(autouse=True)
def no_mirror_by_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror named for the tests that want one (they read it at import) must not change what the others run on."""
    monkeypatch.delenv("BENCH_MIRROR", raising=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a slow test first, then those of many tests: a worker that begins a long file last ends alone.

    Workers take whole files in this order (`--no-loadscope-reorder`); within a file the order stays.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -tests[item.path], str(item.path)))
