"""What a plan foretells, as printed tables: its cells, and claims of the literature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from bench.claims import GB, Tested

COLUMNS = ("cell", "model", "peak GiB", "of GiB", "fits", "FLOPs", "seconds")
ANSWER = {True: "yes", False: "no", None: "?"}


def cells_table(run: str, rows: Sequence[dict[str, Any]], about: str) -> Table:
    """The cells, as `bench.outlook.row` tells them. A model that all share stands in the title, and seconds that nobody
    knows nowhere: the names of cells need the room."""
    models = {row["model"] for row in rows}
    left_out = {"model"} if len(models) == 1 else set()
    left_out |= {"seconds"} if all(row["predicted"]["seconds"] is None for row in rows) else set()
    of = f" of {models.pop()}" if left_out & {"model"} else ""
    table = titled(f"{run}: {len(rows)} cells{of}, {about}", [name for name in COLUMNS if name not in left_out])
    for row in rows:
        figures = dict(zip(COLUMNS, planned(row), strict=True))
        table.add_row(*(figures[name] for name in COLUMNS if name not in left_out))
    return table


def planned(row: dict[str, Any]) -> tuple[str, ...]:
    """A cell in words, one a column; "?" where nothing is known."""
    known = row["predicted"]
    peak, limit = (f"{b / 2**30:.2f}" if b is not None else "?" for b in (known["peak_bytes"], row["limit_bytes"]))
    flops = "?" if known["flops"] is None else f"{known['flops']:.1e}"
    seconds = "?" if known["seconds"] is None else f"{known['seconds']:.0f}"
    return row["id"], row["model"], peak, limit, ANSWER[row["fits"]], flops, seconds


def claims_table(claims: Sequence[Tested]) -> Table:
    """Claims with what is predicted of each."""
    table = titled("claims", ["claim", "strategy", "expected", "predicted GB", "holds"])
    for one in claims:
        peak = "?" if one.peak is None else f"{one.peak / GB:.2f}"
        table.add_row(one.name, one.claim.strategy, one.expected, peak, ANSWER[one.holds])
    return table


def titled(title: str, columns: Sequence[str]) -> Table:
    """An empty table."""
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table
