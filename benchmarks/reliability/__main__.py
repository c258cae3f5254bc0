"""Faults made on purpose at random moments, and what became of the records. Writes reports/reliability.md and .json.

    python -m benchmarks.reliability [only=cli,worker,...] [tries=50] [seed=0] [out=reports]

Parts not asked for keep the figures of when they were run last, with the commit they are of. Exit code 1 where anything
was lost, done twice, damaged and believed, or left behind. Tries of a part share nothing but the one reference sweep.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.measure.environment import environment
from benchmarks.reliability import damage, disks, growth, kills, nodes, stores, unruly
from benchmarks.reliability.page import bad, page
from benchmarks.reliability.sweep import ROOT, Cradle, Reference, cradled, reference

Part = Callable[[Cradle, Reference, Path, int, random.Random], dict[str, Any]]
PARTS: dict[str, Part] = {
    **{name: partial(kills.killed, name) for name in kills.VICTIMS},
    "node": nodes.killed,
    "writers": stores.writers,
    "two_runs": stores.two_runs,
    "disk_full": disks.full,
    "read_only": disks.read_only,
    "clock": damage.clock,
    "newer": damage.newer,
    "damage": damage.damaged,
    **{name: partial(unruly.unruly, name) for name in unruly.CELLS},
    **{name: partial(unruly.bereft, name) for name in unruly.BEREFT},
    "growth": growth.growth,
}


def options(words: list[str]) -> tuple[list[str], int, int, Path]:
    """Parts, tries, seed and the folder of the report."""
    given = dict(word.partition("=")[::2] for word in words)
    if unknown := sorted(set(given) - {"only", "tries", "seed", "out"}):
        raise SystemExit(f"benchmarks.reliability: got {unknown[0]}=; allowed: only=, tries=, seed=, out=")
    asked = given.get("only", ",".join(PARTS)).split(",")
    if unknown := sorted(set(asked) - set(PARTS)):
        raise SystemExit(f"benchmarks.reliability: got only={','.join(unknown)}; allowed: {', '.join(PARTS)}")
    tries, seed = int(given.get("tries", "50")), int(given.get("seed", "0"))
    return asked, tries, seed, Path(given.get("out", str(ROOT / "reports")))


def main(words: list[str]) -> int:
    """Run the parts asked for; the exit code."""
    asked, tries, seed, out = options(words)
    out.mkdir(parents=True, exist_ok=True)
    kept, found = out / "reliability.json", dict[str, Any]()
    with cradled() as cradle, tempfile.TemporaryDirectory(prefix="faults-") as folder:
        known = reference(cradle, Path(folder))
        for name in asked:
            begun = time.monotonic()
            # each part draws for itself, so that a part alone has the moments it has among all
            part = PARTS[name](cradle, known, Path(folder) / name, tries, random.Random(f"{name} {seed}"))
            told = part | {"seen": vars(part["seen"])} if "seen" in part else part
            told |= {
                "seconds": round(time.monotonic() - begun, 1),
                "seed": seed,
                "sweep_seconds": round(known.seconds, 2),
            }
            told |= {"commit": environment(1)["commit"], "dirty": environment(1)["dirty"], "load": os.getloadavg()[0]}
            found = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
            found[name] = told
            found = {one: found[one] for one in PARTS if one in found}
            kept.write_text(json.dumps(found) + "\n", encoding="utf-8")
            (out / "reliability.md").write_text(page(found, environment(1)["machine"]), encoding="utf-8")
            print(json.dumps({"part": name, **{key: told[key] for key in told if key != "moments"}}), flush=True)
    return int(any(bad(found[name]) for name in asked))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
