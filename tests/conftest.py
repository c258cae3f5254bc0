"""Shared ground rules of the tests."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from forked import Zygote, stand_in

from bench.process import can_fork

pytest.register_assert_rewrite("fault_fixtures", "source_fixtures")

# before anything imports torch: threads that spin while they wait make tests on a busy machine several times slower
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# and as many workers as cores leave none for a second thread of each
os.environ.setdefault("OMP_NUM_THREADS", "1")


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


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """One process for all tests of this worker that has imported the stack."""
    one = Zygote()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def forked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs of this file fork their warm process and predictor: see `forked`."""
    if not can_fork():
        yield
        return
    stands = stand_in(request.getfixturevalue("zygote"))
    with pytest.MonkeyPatch.context() as patch:
        for module in ("bench.warm", "bench.forecast"):
            patch.setattr(f"{module}.subprocess", stands)
        yield
