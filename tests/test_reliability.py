"""Every fault of `benchmarks.reliability` a few times, and that its own eyes see what they are to see."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.reliability import growth
from benchmarks.reliability.__main__ import PARTS, options
from benchmarks.reliability.page import bad, page
from benchmarks.reliability.stores import overlaps
from benchmarks.reliability.sweep import Cradle, Reference, Seen, Sweep, cradled, fsck, looked, made, reference

TRIES = {"worker": 3, "warm": 3, "cli": 3, "damage": 3}
"""How often a fault is made here; once for the others."""


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cradle, Reference]]:
    """A process to start commands from, and a sweep that nothing happened to."""
    with cradled() as cradle:
        yield cradle, reference(cradle, tmp_path_factory.mktemp("reference"))


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name in PARTS if name != "growth"])
def test_nothing_is_lost_repeated_believed_or_left(name: str, known: tuple[Cradle, Reference], tmp_path: Path) -> None:
    """Whatever the moment, the same command finishes the sweep: every cell is there once, as if nothing had happened."""
    tries = TRIES.get(name, 1)
    told = PARTS[name](*known, tmp_path / name, tries, random.Random(name))
    if "skipped" in told:
        pytest.skip(told["skipped"])
    assert told["seen"] == Seen() and told["tries"] == len(told["moments"]) == tries


@pytest.fixture
def sweep(known: tuple[Cradle, Reference], tmp_path: Path) -> Sweep:
    """The finished sweep, to be spoiled."""
    one = made(tmp_path / "sweep")
    shutil.copytree(known[1].sweep.folder / "results", one.folder / "results")
    return one


@pytest.mark.long
def test_what_is_wrong_is_seen(known: tuple[Cradle, Reference], sweep: Sweep) -> None:
    """Worked by hand: nothing, then a record that is gone, one that is there twice, one whose predictions are changed,
    and one that is half."""
    assert len(known[1].answers) == 20 and looked(sweep, known[1]) == Seen()
    first, second, third, fourth = sorted(path.parent for path in sweep.run_dir.glob("*/result.json"))[:4]
    (first / "result.json").unlink()
    shutil.copytree(second, sweep.run_dir / "twin")
    data = (third / "predictions.parquet").read_bytes()
    (third / "predictions.parquet").write_bytes(data[:-1])
    found = looked(sweep, known[1])
    # the twin is of no planned cell either, and its record says another id than its folder
    assert (found.lost, found.twice, found.damaged) == (1, 1, 3) and not found.left
    assert [line.partition(":")[0] for line in found.other].count("damaged") == 2
    shutil.rmtree(sweep.run_dir / "twin")
    (fourth / "result.json").write_text("{")
    assert [one.kind for one in fsck(sweep).findings].count("damaged") == 2


@pytest.mark.long
def test_a_process_left_behind_is_seen(known: tuple[Cradle, Reference], tmp_path: Path) -> None:
    """A command that is still at work counts as left, and is ended."""
    cradle, _ = known
    body = {"waits": "import time\n(open(__file__ + '.now', 'w').close(), time.sleep(600))"}
    sweep = made(tmp_path / "waiting", body)
    pid = cradle.begin(sweep, sweep.words("strategies=waits", "seeds=1"))
    left = cradle.left(3)
    assert left and str(pid) in {one.partition(":")[0] for one in left}
    assert cradle.end(pid) == -9 and cradle.alive() == {}


def test_two_holders_at_once_are_seen(tmp_path: Path) -> None:
    """Worked by hand: one after another; one amid another; one after another that was killed while it held."""
    for text, number in (("+1 -1 ? +2 -2", 0), ("+1 +2 -1 -2", 1), ("+1 ? +2 -2", 0)):
        (tmp_path / "held.txt").write_text(text)
        assert overlaps(tmp_path) == number


def test_ten_cells_are_planned_found_finished_and_shown(tmp_path: Path) -> None:
    """The smallest size of the growth table, through all of its steps."""
    told = growth.measured(tmp_path, 10)
    assert told["cells"] == 10 and 0 < told["plan"] + told["resume"] < growth.LIMIT
    assert told["page_bytes"] > 10_000 and (told["browser"] is None or told["browser"] > 0)
    assert len(list(tmp_path.glob("results/glue-small/*/result.json"))) == 10


def test_the_page_and_its_exit_code() -> None:
    """A line a fault; what is not as expected in words; what was not run says so and counts as nothing."""
    common = {"seconds": 12.3, "seed": 0, "commit": "0123456789", "dirty": False}
    fine = {"says": "kills", "tries": 2, "moments": [[0.5, 3], [1.25, 17]], "seen": vars(Seen()), **common}
    poor = {"says": "disks", "tries": 1, "moments": [[0, "x"]], "seen": vars(Seen(lost=2, other=["odd"])), **common}
    none = {"says": "mounts", "skipped": "needs root", **common}
    text = page({"cli": fine, "disk_full": poor, "read_only": none}, {"cpu": "A", "cores": 2})
    assert "| kills | 2 | 0.5 to 1.25, with 3 to 17 records | 0 | 0 | 0 | 0 | 0 | 12 | 0 | 0123456 |" in text
    assert "| disks | 1 |  | 2 | 0 | 0 | 0 | 1 | 12 | 0 | 0123456 |" in text and "- disks: odd" in text
    assert "| mounts | 0 | not run: needs root |" in text
    assert not bad(fine) and bad(poor) and not bad(none)
    json.dumps([fine, poor, none])


@pytest.mark.parametrize(
    ("word", "says"),
    [("only=clu", "got only=clu; allowed: worker, warm, cli, "), ("trys=3", "got trys=; allowed: only=, tries=, ")],
)
def test_options_that_are_none(word: str, says: str) -> None:
    with pytest.raises(SystemExit, match=says):
        options([word])
