"""Where the plug-in folders are: inside the package in a wheel, beside it in a checkout."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def bundled(name: str) -> Path:
    """Folder of bundled `adapters` or `suites`: `bench/_<name>` in a wheel, else `<name>/` beside `bench/`."""
    inside = PACKAGE / f"_{name}"
    return inside if inside.is_dir() else PACKAGE.parent / name
