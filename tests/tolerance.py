"""How close two computed numbers must be."""

from __future__ import annotations

from typing import Any

import pytest


def close(value: float | list[float]) -> Any:
    """Equal to 1e-6, relative to values above 1."""
    return pytest.approx(value, rel=1e-6, abs=1e-6)
