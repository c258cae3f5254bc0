"""The speed table: what scoring, training and a sweep cost here beside what a user would use instead.

    python -m benchmarks.speed MIRROR [only=scoring,training,sweep,frozen]

Every part is a command of its own (`python -m benchmarks.scoring` and so on) whose last line is JSON. Writes
reports/benchmarks/speed.md and speed.json after each part, so that one that fails costs itself only; parts not asked
for now keep their earlier figures, with the commit they are of. Ends with the JSON on one line; exit 1 where a part
failed or a ratio lies below what it is to reach.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.measure.environment import environment
from benchmarks.paired import described
from benchmarks.scoring import far

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "reports" / "benchmarks"
PARTS = ("scoring", "training", "sweep", "frozen")
INTRODUCTION = """# Speed beside what one would use instead

`python -m benchmarks.speed MIRROR` writes this page. Ratios are of processor seconds on one thread, both sides in turn
in one process (the sweep: one run against a process a cell), medians over rounds with a 95% bootstrap interval; the
ratio on the wall stands beside, which other processes on the machine move. Above 1 we are faster. {machine}.

| what | at least | measured | on the wall | same work? | commit |
| :--- | ---: | ---: | ---: | :--- | :--- |
"""


def part(name: str, mirror: str) -> dict[str, Any]:
    """One part's figures, from its last line; or why there are none."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *([] if name == "training" else [mirror])]
    own = {"BENCH_MIRROR": mirror, "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **own}, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    try:
        found: dict[str, Any] = json.loads(last)
    except json.JSONDecodeError:
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1], "code": done.returncode}
    return found | {"commit": environment(1).get("commit")}


def rows(name: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of the table: what, at least, ratio with interval, on the wall, what shows that it is the same work."""
    if "failed" in found:
        return [{"what": name, "wanted": None, "same": f"failed: {found['failed']}"}]
    if name == "scoring":
        return [
            {"what": f"items/s against lm-eval: {one['name']}", **one,
             "same": f"same option in {one['same']} of {one['items']}, {far(one)}"}
            for one in found["rows"]
        ]  # fmt: skip
    if name == "training":
        return [
            {"what": f"training tokens/s against a bare loop: {cell}", "wanted": 0.97, **one["cpu"],
             "wall_ratio": one["wall"]["ratio"],
             "same": f"losses at most {one['largest_difference_of_losses']:.1e} apart"}
            for cell, one in found["cells"].items()
        ]  # fmt: skip
    what = "backbone passes a (task, model) over seeds, `frozen` (at most)"
    if name == "sweep":
        what = f"sweep of {found['cells']} cells against a process a cell"
    return [{"what": what, **found, "same": f"{len(found['other'])} cells with other predictions"}]


def missed(row: dict[str, Any]) -> bool:
    """Whether a line does not reach what it is to reach."""
    if row["wanted"] is None:
        return True
    return bool(row["ratio"] > row["wanted"] if row.get("at_most") else row["ratio"] < row["wanted"])


def line(row: dict[str, Any], commit: str | None) -> str:
    """One line of Markdown."""
    if row["wanted"] is None:
        return f"| {row['what']} | | not measured | | {row['same']} | |"
    spread = ""
    if row.get("low") is not None:
        spread = f" [{row['low']:.2f}, {row['high']:.2f}]" if row["low"] < row["high"] else " (one round)"
    wall = "" if row.get("wall_ratio") is None else f"{row['wall_ratio']:.2f}"
    measured = f"{row['ratio']:.2f}{spread}" + (", **missed**" if missed(row) else "")
    return f"| {row['what']} | {row['wanted']:g} | {measured} | {wall} | {row['same']} | {(commit or '')[:7]} |"


def page(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    machine = found["machine"]
    told = f"{machine['name']}, {machine['cores']} cores, load {found['load']:.1f} when it ended"
    lines = [line(row, found[name].get("commit")) for name in PARTS if name in found for row in rows(name, found[name])]
    return INTRODUCTION.format(machine=told) + "\n".join(lines) + "\n"


def main(mirror: str, *options: str) -> int:
    """Measure the parts asked for; 0 where all of them reach what they are to reach."""
    asked = dict(o.split("=", 1) for o in options).get("only", ",".join(PARTS)).split(",")
    if unknown := sorted(set(asked) - set(PARTS)):
        raise SystemExit(f"benchmarks.speed: got only={','.join(unknown)}; allowed: {', '.join(PARTS)}")
    found: dict[str, Any] = {}
    for name in asked:
        measured = part(name, str(Path(mirror).resolve()))
        kept = REPORT / "speed.json"  # read now: another part may have been measured beside this one
        found = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        found |= {"load": os.getloadavg()[0], "machine": described(), name: measured}
        kept.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        (REPORT / "speed.md").write_text(page(found), encoding="utf-8")
    print(page(found))
    print(json.dumps(found))
    return 1 if any(missed(row) for name in asked for row in rows(name, found[name])) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
