"""Where the time of a finished run went: seconds of every phase by strategy, and what no cell's phase holds.

    python -m benchmarks.phases RUN [results_dir=results] [seconds=WALL]

`seconds` is what the whole command took (`time python -m bench run ...`): what is left after all phases is planning,
foretelling memory, starting processes and drawing the report. Of the training phase the part outside optimizer steps
(building what trains, tokenising, saving) stands apart. The last line is JSON.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.store import read_plan, read_result

COLUMNS = ("load", "steps", "around steps", "predict", "probe")


def spent(run: Path) -> dict[str, dict[str, float]]:
    """Seconds by strategy and column, over the cells last asked for."""
    table: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(COLUMNS, 0.0))
    for cell in read_plan(run / "plan.json").cells:
        row = table[cell.strategy]
        for name, phase in read_result(run / cell.id / "result.json").phases.items():
            if name in ("load", "predict", "probe"):
                row[name] += phase.seconds
            else:
                row["steps"] += phase.step_seconds or 0.0
                row["around steps"] += phase.seconds - (phase.step_seconds or 0.0)
    return dict(table)


def lines(table: dict[str, dict[str, float]], wall: float | None) -> list[str]:
    """A Markdown table, the dearest strategy first."""
    total = {name: sum(row[name] for row in table.values()) for name in COLUMNS}
    whole = wall or sum(total.values())

    def line(name: str, row: dict[str, float]) -> str:
        cells = " | ".join(f"{row[column]:.1f}" for column in COLUMNS)
        return f"| {name} | {cells} | {sum(row.values()):.1f} | {sum(row.values()) / whole:.1%} |"

    order = sorted(table, key=lambda name: -sum(table[name].values()))
    told = [f"| strategy | {' | '.join(COLUMNS)} | all, s | share |", "|---" * (len(COLUMNS) + 3) + "|"]
    told += [line(name, table[name]) for name in order] + [line("all cells", total)]
    if wall is not None:
        rest = wall - sum(total.values())
        told.append(f"| outside of cells |{' |' * len(COLUMNS)} {rest:.1f} | {rest / wall:.1%} |")
    return told


def main(run: str, *options: str) -> None:
    """Print the table, then its figures as JSON."""
    asked: dict[str, Any] = {"results_dir": "results"} | dict(o.split("=", 1) for o in options)
    wall = float(asked["seconds"]) if "seconds" in asked else None
    table = spent(Path(asked["results_dir"]) / run)
    print("\n".join(lines(table, wall)))
    print(json.dumps({"run": run, "wall": wall, "seconds": table}))


if __name__ == "__main__":
    main(*sys.argv[1:])
