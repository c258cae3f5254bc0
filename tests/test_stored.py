"""What a strategy keeps is enough: a fresh base, prepared again and loaded, answers as the trained one did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
from tiny import FAMILIES, STRATEGIES, driven

from bench.budget import Meter
from bench.worker import seed_everything

CELLS = [(n, f, r) for n in sorted(STRATEGIES) for f in FAMILIES for r in STRATEGIES[n].readouts]


@pytest.mark.parametrize(("name", "family", "readout"), CELLS, ids=["-".join(c) for c in CELLS])
def test_stored_and_loaded_it_answers_the_same(name: str, family: str, readout: str, tmp_path: Path) -> None:
    """Prepared under another random state, so that what was not stored cannot come back by chance."""
    done = driven(name, family, readout)
    if done.refused is not None:
        pytest.skip(f"unsupported, as it says: {done.refused}")
    assert done.plan is not None
    done.plan.save(tmp_path)
    seed_everything(12345)
    fresh = STRATEGIES[name].prepare(tiny.base(family), done.context, tiny.options(name))
    assert fresh.load is not None, "what is stored can be loaded"
    fresh.load(tmp_path)
    meter = Meter()
    meter.watch(fresh.seen)  # a probe counts what it asks: what is watched must be what answers
    np.testing.assert_allclose(fresh.answer.predict(tiny.rows_of(name).test.fields, meter), done.scores, atol=1e-5)
    meter.unwatch()
