"""The listing: a row a cell, for the table and for `--json`."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from bench.report.collect import STATUS_WORDS
from bench.report.format import plain
from bench.report.summary import peak_memory
from bench.shelf.found import Found


def row(cell: Found) -> dict[str, Any]:
    """A cell as plain data; what is not known is None."""
    info, result = cell.info, cell.result
    score = None if result is None or info is None else (result.scores or {}).get(info.metric)
    adapt = None if result is None else result.phases.get("adapt")
    peak = None if result is None else peak_memory([result])
    return {
        "id": cell.folder.name,
        "run": cell.run,
        **{key: getattr(info, key, None) for key in ("model", "task", "strategy", "seed", "readout", "metric")},
        "labels": None if info is None else info.budget.get("labels"),
        "status": cell.status,
        "reason": cell.reason,
        "score": None if score is None else score.model_dump(include={"value", "low", "high", "n", "chance"}),
        "train_seconds": None if adapt is None else adapt.seconds,
        "peak_bytes": None if peak is None else int(peak.size),
        "peak_kind": None if peak is None else peak.kind,
        "planned": cell.planned,
        "folder": str(cell.folder),
    }  # fmt: skip


def table(rows: list[dict[str, Any]], title: str) -> Table:
    """The rows as a table."""
    several = len({one["run"] for one in rows}) > 1
    made = Table(title=escape(title), title_justify="left")
    for heading in (*(["run"] if several else []), "cell", "outcome", "score", "train s", "peak GiB"):
        made.add_column(heading, overflow="fold")
    for one in rows:
        seconds = "-" if one["train_seconds"] is None else f"{one['train_seconds']:.1f}"
        peak = "-" if one["peak_bytes"] is None else f"{one['peak_bytes'] / 2**30:.2f}"
        texts = [one["id"], STATUS_WORDS[one["status"]], score_text(one), seconds, peak]
        made.add_row(*(escape(plain(text)) for text in ([one["run"]] if several else []) + texts))
    return made


def score_text(one: dict[str, Any]) -> str:
    """`accuracy 0.930 [0.911, 0.945]`; `-` where there is none."""
    score = one["score"]
    if score is None:
        return "-"
    ends = "" if score["low"] is None or score["high"] is None else f" [{score['low']:.3f}, {score['high']:.3f}]"
    return f"{one['metric']} {score['value']:.3f}{ends}"
