"""Shared ground rules of the tests."""

from __future__ import annotations

import os

import pytest

pytest.register_assert_rewrite("fault_fixtures", "source_fixtures")

# before anything imports torch: threads that spin while they wait make tests on a busy machine several times slower
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@pytest.fixture(autouse=True)
def no_mirror_by_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror named for the tests that want one (they read it at import) must not change what the others run on."""
    monkeypatch.delenv("BENCH_MIRROR", raising=False)
