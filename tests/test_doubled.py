"""The model in double precision that scoring is held against."""

from __future__ import annotations

import torch
from torch import nn

from bench.models.build import build
from benchmarks.scoring import doubled, far


def test_norms_are_doubled_too() -> None:
    """A Llama's norms take any input as float32, so they are others in the copy, which says what float32 says to its
    last digits. The model itself stays what it was."""
    model = build("random:tiny-llama", "fp32").module.eval()
    ids = torch.arange(1, 33).view(4, 8)
    with torch.inference_mode():
        single, exact = model(ids).logits, doubled(model)(ids).logits
        again = model(ids).logits
    assert torch.equal(single, again) and {p.dtype for p in model.parameters()} == {torch.float32}
    assert exact.dtype == torch.float64
    assert 0 < float((single - exact).abs().max()) < 1e-5
    norms = [m for m in doubled(model).modules() if type(m).__name__.endswith("RMSNorm")]
    assert len(norms) > 2 and all(isinstance(m, nn.RMSNorm) and m.weight.dtype == torch.float64 for m in norms)


def test_norms_keep_their_weights_and_epsilon() -> None:
    model = build("random:tiny-llama", "fp32").module.eval()
    with torch.no_grad():
        for norm in (m for m in model.modules() if type(m).__name__.endswith("RMSNorm")):
            norm.weight.uniform_(0.5, 2.0)
            norm.variance_epsilon = 0.1
        ids = torch.arange(1, 17).view(2, 8)
        assert float((model(ids).logits - doubled(model)(ids).logits).abs().max()) < 1e-5


def test_what_was_measured_before_is_told_as_it_is() -> None:
    assert far({"apart": 2.4e-4}) == "at most 2.4e-04 apart"
    exact = {"items": 4, "ours": 3.8e-5, "theirs": 2.3e-4}
    assert far({"apart": 2.4e-4, "apart_itself": 3.1e-5, "from_double": exact}) == (
        "at most 2.4e-04 apart (lm-eval from itself in other batches 3.1e-05; from double precision ours 3.8e-05, "
        "lm-eval's 2.3e-04)"
    )
