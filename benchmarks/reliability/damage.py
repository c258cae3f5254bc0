"""Records and predictions that are changed behind the store's back, records of a newer version, a clock set back."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from pathlib import Path
from typing import Any

from bench.report.predictions import DAMAGED, read_predictions
from bench.store import read_record
from benchmarks.reliability.sweep import Cradle, Reference, Seen, Sweep, fsck, looked, made

KINDS = ("result.json", "predictions.parquet", "plan.json")


def copied(known: Reference, folder: Path) -> Sweep:
    """The finished sweep again, to be damaged; nothing of it ran here."""
    sweep = made(folder)
    shutil.copytree(known.sweep.folder / "results", folder / "results")
    return sweep


def damaged(cradle: Cradle, known: Reference, folder: Path, tries: int, draw: random.Random) -> dict[str, Any]:
    """A random bit flipped, or a file cut short: of a record, of predictions, of the plan in turn."""
    seen, moments, harmless, named = Seen(), [], 0, 0
    for number in range(tries):
        sweep = copied(known, folder / f"damage-{number}")
        path = draw.choice(sorted(sweep.run_dir.rglob(KINDS[number % 3])))
        right, told = content(path), spoiled(path, draw)
        moments.append([number, f"{path.name} {told}"])
        if (now := content(path)) == right:
            harmless += 1  # the same number in other words: nothing is wrong with what is read
        elif now is not None:
            seen.damaged += 1
            seen.other.append(f"{told} of {path} is believed")
        findings = [one for one in fsck(sweep).findings if one.kind in ("damaged", "newer")]
        if not findings and now != right:
            seen.other.append(f"{told} of {path} is not found by the check")
        named += bool(findings)
        seen.add(repaired(cradle, known, sweep, path, any(one.kind == "newer" for one in findings), now == right))
    says = f"a bit flipped or a file cut short, in turn {', '.join(KINDS)} ({named} found, {harmless} changed nothing)"
    return {"says": says, "tries": tries, "moments": moments, "seen": seen}


def content(path: Path) -> Any:
    """What readers believe a file says; None where they refuse it."""
    try:
        if path.suffix != ".parquet":
            return read_record(path)
        read_predictions(path, json.loads(path.with_name("result.json").read_text())["predictions_sha256"])
        return path.read_bytes()
    except DAMAGED:
        return None


def spoiled(path: Path, draw: random.Random) -> str:
    """Damage a file; how."""
    data = bytearray(path.read_bytes())
    if draw.random() < 0.3:
        size = draw.randrange(len(data))
        path.write_bytes(data[:size])
        return f"cut to {size} of {len(data)} bytes"
    place, bit = draw.randrange(len(data)), draw.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {place} flipped"


def repaired(cradle: Cradle, known: Reference, sweep: Sweep, path: Path, newer: bool, harmless: bool) -> Seen:
    """The same command on a damaged store: it does the damaged cell again and no other, or says that it is newer's."""
    found, code = Seen(), cradle.run(sweep)
    if newer:  # the version itself was hit: nobody can tell it from a newer version's record, so it is named
        if code != 2 or "written by a newer version" not in sweep.output.read_text():
            found.other.append(f"{path}: a version that is not ours, and the command ended with {code}")
        return found
    if code != 0:
        found.other.append(f"{path}: the command ended with {code}")
    ran = sum(sweep.ran().values())
    wanted = 0 if path.name == "plan.json" or harmless else 1
    found.twice += max(0, ran - wanted)
    if ran < wanted:
        found.other.append(f"{path}: its cell did not run again")
    found.add(looked(sweep, known))
    return found


def newer(cradle: Cradle, known: Reference, folder: Path, tries: int, draw: random.Random) -> dict[str, Any]:
    """A record or the plan as a newer version writes it: a run refuses and changes nothing, the report names it."""
    seen, moments = Seen(), []
    for number in range(tries):
        sweep = copied(known, folder / f"newer-{number}")
        path = draw.choice([sweep.run_dir / "plan.json", *sorted(sweep.run_dir.glob("*/result.json"))])
        moments.append([number, path.name])
        path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": 2, "unheard_of": [1]}))
        before = {one: one.read_bytes() for one in sweep.run_dir.rglob("*.*") if one.is_file()}
        plan = path.name == "plan.json"
        ended = {word: cradle.run(sweep, command=word) for word in ("run", "report")}
        if ended != {"run": 2, "report": 2 if plan else 0}:
            seen.other.append(f"{path}: {ended}")
        if sum(one.kind == "newer" for one in fsck(sweep).findings) != 1:
            seen.other.append(f"{path}: the check does not name it")
        pages = sweep.folder / "reports" / "smoke.md"
        if not plan and "record of a newer version" not in pages.read_text():
            seen.other.append(f"{path}: the report does not name it")
        seen.damaged += sum(not one.is_file() or one.read_bytes() != data for one, data in before.items())
        seen.twice += sum(sweep.ran().values())
    return {"says": "a record written by a newer version", "tries": tries, "moments": moments, "seen": seen}


def clock(cradle: Cradle, known: Reference, folder: Path, tries: int, draw: random.Random) -> dict[str, Any]:
    """The time of day jumps back by half a second up to a year, at every other look at it; then in a second run."""
    seen, moments = Seen(), []
    for number in range(tries):
        sweep = made(folder / f"clock-{number}")
        codes = [cradle.run(sweep, clock=draw.randrange(2**32)) for _ in range(2)]
        if codes != [0, 0]:
            seen.other.append(f"{sweep.folder.name}: the commands ended with {codes}")
        paths = sorted(sweep.run_dir.glob("*/result.json"), key=lambda path: path.stat().st_mtime_ns)
        records = [json.loads(path.read_text()) for path in paths]
        times = [record["environment"]["time"] for record in records]
        moments.append([sum(late < early for early, late in itertools.pairwise(times)), len(times)])
        phases = [phase["seconds"] for record in records for phase in record["phases"].values()]
        if min(phases) < 0 or max(phases) > 600:
            seen.other.append(f"{sweep.folder.name}: phases of {min(phases)} to {max(phases)} s")
        if not moments[-1][0]:
            seen.other.append(f"{sweep.folder.name}: the clock was not set back")
        seen.add(looked(sweep, known))
        seen.twice += sum(sweep.ran().values()) - len(known.answers)
    return {
        "says": "the clock goes backwards (how often between two records)",
        "tries": tries,
        "moments": moments,
        "seen": seen,
    }
