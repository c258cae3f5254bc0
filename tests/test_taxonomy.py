"""The taxonomy page is what the strategy files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import registry
from bench.taxonomy import entry, page

STRATEGIES = registry.load()


def test_the_page_is_up_to_date() -> None:
    """`python -m bench.taxonomy > docs/taxonomy.md` after a change of a strategy file."""
    written = (Path(__file__).parent.parent / "docs" / "taxonomy.md").read_text(encoding="utf-8")
    assert written == page(STRATEGIES)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_says_what_it_costs(name: str) -> None:
    """Parameters, memory and, where it learns by gradients, a published rate with its source."""
    text = entry(STRATEGIES[name])
    assert all(f"- {part}: " in text for part in ("Trains", "Parameters", "Memory", "Learning rate", "Paper"))
    if "lr" in STRATEGIES[name].Options.model_fields:
        lr = STRATEGIES[name].Options.model_fields["lr"].description or ""
        assert "ublished" in lr or "No one rate is published" in lr


def test_what_is_not_offered_stands_there_with_its_reason() -> None:
    text = page(STRATEGIES)
    assert all(name in text for name in ("Compacter", "FISH mask", "Intrinsic SAID"))
