"""The page of `benchmarks.memory_error`: errors by model, then every cell, then what was not compared and why."""

from __future__ import annotations

import statistics
from typing import Any

STEPS = 2
"""Optimizer steps of a cell."""
MEDIAN, WORST, WORST_BYTES = 0.05, 0.12, 64e6
"""Errors to reach: in the median, and at most one or the other."""
SECONDS, PREDICTOR_BYTES = 8.0, 1e9
"""What a prediction may take."""


def mb(value: float | None) -> str:
    """Megabytes of 10^6 bytes."""
    return "-" if value is None else f"{value / 1e6:,.0f}"


def percent(value: float | None) -> str:
    """A share, signed."""
    return "-" if value is None else f"{value:+.1%}"


def page(rows: list[dict[str, Any]], found: dict[str, Any], command: str, around: dict[str, Any]) -> str:
    """The report in Markdown."""
    versions = ", ".join(f"{name} {v}" for name, v in around["versions"].items() if v)
    lines = [
        "# Predicted against measured resident memory",
        "",
        f"Remade by `{command}`. {STEPS} optimizer steps a cell, fp32, CPU. MB are 10^6 bytes.",
        "Measured: highest resident set of the cell's process in its `adapt` phase, less that at the phase's start;",
        "of a cell run in several processes the median, with the least and the most beside it.",
        "Resident: `resident_bytes` of the prediction, made without weights. Tensors: all of them, the",
        "model's weights too, which lie in the resident set before the phase begins.",
        "",
        f"{found['compared']} of {found['cells']} cells were compared (the others are named below, with "
        "the reason): median error "
        f"{percent(found['median_error'])[1:]}, worst {percent(found['worst_error'])[1:]} (worst in bytes "
        f"{mb(found['worst_error_bytes'])} MB). Beyond {WORST:.0%} and {mb(WORST_BYTES)} MB at once: "
        f"{found['out_of_bounds']}; the aim is none, and a median of at most {MEDIAN:.0%}.",
        f"A prediction took {found['median_seconds']:.1f} s of one core in the median and "
        f"{found['worst_seconds']:.1f} s at most (aim: {SECONDS:g} s, "
        f"the first one holds the imports); the predictor's process held {mb(found['predictor_bytes'])} MB at most "
        f"(aim: {mb(PREDICTOR_BYTES)} MB).",
        *spread_told(rows),
        "",
        "| model | compared | median error | worst error | mean signed error |",
        "|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(r["model"] for r in rows):
        of = [r["error"] for r in rows if r["model"] == model and r["error"] is not None]
        if of:
            sizes = [abs(e) for e in of]
            figures = percent(statistics.median(sizes))[1:], percent(max(sizes))[1:], percent(statistics.mean(of))
            lines.append(f"| {model} | {len(of)} | {' | '.join(figures)} |")
    lines += table(rows)
    lines += ["", f"{versions}. {around['machine']['cpu']}, {around['machine']['cores']} cores.", ""]
    return "\n".join(lines)


def spread_told(rows: list[dict[str, Any]]) -> list[str]:
    """How far measurements of the same cell lie apart, where there are several: no prediction can be nearer to each."""
    apart = [max(each) / min(each) - 1 for r in rows if len(each := r["measured_each"]) > 1]
    if not apart:
        return []
    most, cells = max(len(r["measured_each"]) for r in rows), f"{len(apart)} cell{'s' * (len(apart) > 1)}"
    return [
        f"Of {cells} measured {most} times, each time in a process of another warm one, the most lay "
        f"{percent(statistics.median(apart))[1:]} above the least in the median and {percent(max(apart))[1:]} at most."
    ]


def measured(r: dict[str, Any]) -> str:
    """What was measured of a cell, with its range where there is one."""
    each = r["measured_each"]
    return mb(r["measured_bytes"]) + (f" ({mb(min(each))}-{mb(max(each))})" if len(each) > 1 else "")


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Every cell compared, then every cell that was not, with the reason."""
    heads = ("model", "strategy", "sequence", "batch", "measured MB", "resident MB", "tensors MB", "error", "s")
    lines = ["", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for r in rows:
        if r["error"] is not None:
            sizes = " | ".join([measured(r), mb(r["resident_bytes"]), mb(r["tensor_bytes"])])
            what = f"{r['model']} | {r['strategy']} | {r['sequence']} | {r['batch']}"
            lines.append(f"| {what} | {sizes} | {percent(r['error'])} | {r['seconds']:.1f} |")
    missing = [r for r in rows if r["error"] is None]
    if missing:
        lines += ["", "Not compared:", ""]
    for reason in dict.fromkeys(r["reason"] for r in missing):
        of = [f"{r['model']} {r['strategy']} {r['sequence']}x{r['batch']}" for r in missing if r["reason"] == reason]
        lines.append(f"- {reason}: {', '.join(of)}")
    return lines
