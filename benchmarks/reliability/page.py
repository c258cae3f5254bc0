"""The report as Markdown: a line a fault, what was found wrong in words, and the cost of many cells."""

from __future__ import annotations

from typing import Any

INTRODUCTION = """# What becomes of the records when something goes wrong

`python -m benchmarks.reliability` writes this page (`only=` a part, `tries=` how often, `seed=`). Each try is a sweep
of 20 cells that end at once, run by the product's own command, launcher, warm process and cells. The fault comes at a
moment drawn at random over the length of an undisturbed sweep (or as the line says), then the same command runs again.
Counted is what is wrong after that: planned cells without a record (lost), cells with two records and finished ones
that ran again (twice), records and predictions that are not those of the undisturbed sweep (damaged), processes that
were still there (left). Every moment, and whatever else was not as expected, stands in reliability.json. {machine}.

| fault | tries | when | lost | twice | damaged | left | other | seconds | seed | commit |
| :--- | ---: | :--- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | :--- |
"""
GROWTH = """
## Many cells

Processor seconds of one process, except where the clock is said. `plan` and `resume`: laying out the cells and finding
that all are finished (every record and all predictions are read, their hashes checked). `again`: the whole `run`
command with nothing to do, report included.

| cells | imports | plan | resume | report | again | again, on the clock | page | opens in a browser |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""


def bad(part: dict[str, Any]) -> bool:
    """Whether a part found anything wrong."""
    return any(part.get("seen", {}).values())


def page(found: dict[str, Any], machine: dict[str, Any]) -> str:
    """The whole page."""
    text = INTRODUCTION.format(machine=f"Machine: {machine['cpu']}, {machine['cores']} cores")
    text += "".join(line(part) for name, part in found.items() if "rows" not in part)
    wrong = [f"- {part['says']}: {one}\n" for part in found.values() for one in part.get("seen", {}).get("other", [])]
    wrong += [
        f"- {part['says']}: left {one}\n" for part in found.values() for one in part.get("seen", {}).get("left", [])
    ]
    if wrong:
        text += "\n## Not as expected\n\n" + "".join(wrong)
    if "growth" in found:
        text += GROWTH + "".join(row(one) for one in found["growth"]["rows"])
    return text


def line(part: dict[str, Any]) -> str:
    """One fault."""
    if "skipped" in part:
        return f"| {part['says']} | 0 | not run: {part['skipped']} | | | | | | | | {commit(part)} |\n"
    seen = part["seen"]
    counts = [seen["lost"], seen["twice"], seen["damaged"], len(seen["left"]), len(seen["other"])]
    cells = [part["says"], part["tries"], when(part), *counts, f"{part['seconds']:.0f}", part["seed"], commit(part)]
    return f"| {' | '.join(map(str, cells))} |\n"


def when(part: dict[str, Any]) -> str:
    """The spread of the moments, where they are numbers."""
    numbers = [moment for moment in part["moments"] if all(isinstance(value, int | float) for value in moment)]
    if not numbers or len(numbers) < len(part["moments"]):
        return ""
    firsts, records = zip(*numbers, strict=True)
    return f"{min(firsts):g} to {max(firsts):g}, with {min(records)} to {max(records)} records"


def commit(part: dict[str, Any]) -> str:
    """The commit a part was run at."""
    return (part.get("commit") or "")[:7] + ("+" if part.get("dirty") else "")


def row(one: dict[str, Any]) -> str:
    """One size."""
    browser = "no browser here" if one["browser"] is None else f"{one['browser']:.1f} s"
    seconds = " | ".join(f"{one[name]:.2f}" for name in ("imports", "plan", "resume", "report", "again", "again_wall"))
    return f"| {one['cells']:,} | {seconds} | {one['page_bytes'] / 2**20:.2f} MiB | {browser} |\n"
