"""What is kept of a PEFT method is PEFT's own: plain PEFT loads it, switches it off, and merges it into the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from peft import PeftModel
from safetensors.torch import load_file
from tiny import FAMILIES, STRATEGIES, drive, driven

from bench.budget import Meter
from bench.models.base import Base
from bench.models.parts import backbone
from bench.score.adapted import Adapted
from bench.score.heads import HeadReader
from bench.score.readers import make_reader

OURS = sorted(
    n for n in STRATEGIES if n in ("lora", "adalora", "ia3", "peft", "p_tuning", "prefix_tuning", "prompt_tuning")
)
MERGED: list[tuple[str, dict[str, Any]]] = [
    ("lora", {}),
    ("lora", {"use_dora": True}),
    ("lora", {"use_rslora": True}),
    ("lora", {"init_lora_weights": "gaussian"}),
    ("adalora", {}),
    ("ia3", {}),
]
CELLS = [(n, f, r) for n in OURS for f in FAMILIES for r in STRATEGIES[n].readouts]
every_cell = pytest.mark.parametrize(("name", "family", "readout"), CELLS, ids=["-".join(c) for c in CELLS])


def kept(name: str, family: str, readout: str, folder: Path, **more: Any) -> tiny.Driven:
    """A finished cell whose files lie in `folder`."""
    done = drive(name, family, readout, more=more) if more else driven(name, family, readout)
    if done.refused is not None:
        pytest.skip(f"unsupported, as it says: {done.refused}")
    assert done.plan is not None
    done.plan.save(folder)
    return done


def answers(base: Base, done: tiny.Driven, folder: Path, wrap: Any) -> np.ndarray:
    """Scores of a fresh base wrapped by `wrap`, with the head that was kept."""
    reader = make_reader(base, done.context)
    target = base.module
    if isinstance(reader, HeadReader):
        reader.head.load_state_dict(load_file(folder / "head.safetensors"))
        target = backbone(base)
    return Adapted(wrap(target), reader).predict(tiny.rows().test.fields, Meter())


@every_cell
def test_plain_peft_loads_it(name: str, family: str, readout: str, tmp_path: Path) -> None:
    """A fresh base and `PeftModel.from_pretrained` answer as the trained model did."""
    done = kept(name, family, readout, tmp_path)
    loaded = answers(tiny.base(family), done, tmp_path, lambda target: PeftModel.from_pretrained(target, str(tmp_path)))
    np.testing.assert_allclose(loaded, done.scores, atol=1e-5)


@every_cell
def test_switched_off_it_is_the_base(name: str, family: str, readout: str, tmp_path: Path) -> None:
    """With the adapter disabled the trained model answers as the base does, to the last bit."""
    done = kept(name, family, readout, tmp_path)
    assert done.plan is not None and isinstance(done.plan.answer, Adapted)
    module: Any = done.plan.module
    if module.peft_config["default"].is_prompt_learning:  # PEFT cannot switch these off on models that do not generate
        off = Adapted(module.get_base_model(), done.plan.answer.reader).predict(tiny.rows().test.fields, Meter())
    else:
        with module.disable_adapter():
            off = done.plan.answer.predict(tiny.rows().test.fields, Meter())
    base = answers(tiny.base(family), done, tmp_path, lambda target: target)
    assert np.array_equal(off, base)


@pytest.mark.parametrize(("name", "more"), MERGED, ids=["-".join([n, *map(str, m)]) for n, m in MERGED])
@pytest.mark.parametrize("family", FAMILIES)
def test_merged_it_answers_the_same(name: str, more: dict[str, Any], family: str, tmp_path: Path) -> None:
    """Factors and vectors multiplied into the base: equal to 1e-5 in fp32, and no PEFT layer is left."""
    done = kept(name, family, STRATEGIES[name].readouts[0], tmp_path, **more)

    def merge(target: Any) -> Any:
        module = PeftModel.from_pretrained(target, str(tmp_path)).merge_and_unload()
        assert not any("lora_" in n or "ia3_" in n for n, _ in module.named_parameters())
        return module

    np.testing.assert_allclose(answers(tiny.base(family), done, tmp_path, merge), done.scores, atol=1e-5)
