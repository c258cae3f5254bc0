"""The speed gate: its test on drawn and on planted ratios, floors learned from equals, and the order of the turns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from records_factory import Fake, write_run

from bench.cli import main
from bench.compare import floors as noise
from bench.compare.sides import read_side
from bench.compare.speed import FIGURES, Ratios, judged, log_ratio, pace, paced
from bench.errors import UserFault
from bench.paired.measure import confirmed, suspects
from bench.records import Phase, Result
from bench.store import read_plan

FLOORS = dict.fromkeys(FIGURES, 0.05)
STEP = "adapt seconds a token"


def drawn(
    random: np.random.Generator, cells: int = 10, pairs: int = 6, slower: float = 0.0, noise: float = 0.1
) -> Ratios:
    """Log ratios on a busy machine: t with three degrees of freedom, this scale; the first cell slower by so much."""
    noisy = noise * random.standard_t(3, (cells, pairs))
    return {(f"cell {i}", STEP): (noisy[i] + slower * (i == 0)).tolist() for i in range(cells)}


def gate(random: np.random.Generator, **how: float) -> list[str]:
    """Cells that the whole gate, its rerun included, calls slower."""
    first = judged(drawn(random, **how), FLOORS)  # type: ignore[arg-type]
    again = confirmed(first, drawn(random, **how), FLOORS)  # type: ignore[arg-type]
    return [one.cell for one in again if one.slower]


def test_equals_pass_on_a_busy_machine_and_a_slow_cell_does_not() -> None:
    """400 comparisons of equals: ten in a row pass with a chance far above 99%."""
    random = np.random.default_rng(0)
    assert sum(bool(gate(random)) for _ in range(400)) <= 1
    found = [gate(random, slower=math.log(2)) for _ in range(100)]
    assert sum(one == ["cell 0"] for one in found) >= 75, "twice as slow, at 10% noise and six pairs"
    found = [gate(random, slower=math.log(2), pairs=12) for _ in range(100)]
    assert sum(one == ["cell 0"] for one in found) >= 95
    quiet = [gate(random, slower=math.log(1.1), noise=0.01) for _ in range(100)]
    assert sum(one == ["cell 0"] for one in quiet) >= 75, "a tenth slower, at 1% noise and six pairs"


def test_a_figure_by_hand() -> None:
    """Log ratios 0.1, 0.2, 0.3: mean 0.2, error 0.1 / sqrt(3), t(2) at 95% 2.92: from 0.0314 on."""
    one = paced(("a", STEP), [0.1, 0.2, 0.3], 0.05)
    assert one.ratio == pytest.approx(math.exp(0.2)) and one.floor == pytest.approx(math.exp(0.05))
    assert math.log(one.low) == pytest.approx(0.2 - 2.91999 * 0.1 / math.sqrt(3), abs=1e-4)
    assert one.p == pytest.approx(0.0608, abs=1e-3)  # t = 0.15 / 0.0577 = 2.598 at two degrees of freedom
    same = judged({("a", STEP): [0.2, 0.2, 0.2], ("b", STEP): [0.0, 0.0, 0.0]}, FLOORS)
    assert [one.slower for one in same] == [True, False]
    assert judged({("a", STEP): [9.0, 9.0]}, FLOORS) == []


def test_pace_is_of_timed_steps_where_there_are_any() -> None:
    assert pace(Phase(seconds=9.0, tokens_per_second=50.0, step_seconds=9.0, tokens=9)) == 0.02
    assert pace(Phase(seconds=9.0, step_seconds=3.0, tokens=6)) == 0.5
    assert pace(Phase(seconds=9.0, step_seconds=3.0, steps=2)) == 1.5  # no token: a bag of words
    assert pace(Phase(seconds=9.0)) is None and pace(None) is None


def result(folder: Path, **adapt: float) -> Result:
    """A record with one trained phase."""
    run = write_run(folder, Fake(tasks=("sst2",), strategies=("lora",), items=5))
    [cell] = read_side(str(run)).cells
    assert cell.result is not None
    return cell.result.model_copy(update={"phases": {"adapt": Phase(**adapt)}})  # type: ignore[arg-type]


def test_ratios_of_steps_and_of_the_whole_phase(tmp_path: Path) -> None:
    base = result(tmp_path / "a", seconds=10, tokens_per_second=100)
    new = result(tmp_path / "b", seconds=30, tokens_per_second=50)
    assert log_ratio(base, new, STEP) == pytest.approx(math.log(2))
    assert log_ratio(base, new, "adapt seconds") == pytest.approx(math.log(3))
    assert log_ratio(base, new, "predict seconds") is None
    other = result(tmp_path / "c", seconds=30, step_seconds=3, tokens=3)
    assert log_ratio(base, other, STEP) is None, "with warm-up and without: no ratio"


def test_only_what_fails_twice_is_slower() -> None:
    slow, fast = [0.5, 0.51, 0.52], [0.0, 0.01, 0.02]
    first = judged({("a", STEP): slow, ("b", STEP): slow, ("c", STEP): fast}, FLOORS)
    assert [one.slower for one in first] == [True, True, False]
    after = confirmed(first, {("a", STEP): fast, ("b", STEP): slow, ("c", STEP): slow}, FLOORS)
    assert [one.slower for one in after] == [False, True, False], "c passed and is not tried again"
    unheard = confirmed(first, {}, FLOORS)
    assert [one.slower for one in unheard] == [True, True, False]
    assert suspects(first, []) == []


def test_a_floor_is_what_equals_showed() -> None:
    assert noise.floor([0.02, -0.03], "runs") == 0.03 and noise.floor([0.001], "runs") == noise.SMALLEST
    assert noise.floor(np.linspace(-0.1, 0.1, 201).tolist(), "pairs") == pytest.approx(0.095, abs=1e-3)


def test_floors_are_of_this_machine_and_way(tmp_path: Path) -> None:
    path = tmp_path / "noise.json"
    session = noise.of_pairs({("a", STEP): [0.1, 0.2, 0.3], ("b", STEP): [0.0, 0.0, -0.3]}, "me")
    assert session.means == {STEP: [0.2, -0.1]} and session.of == 3
    noise.learn(path, session)
    noise.learn(path, session)
    known = noise.known(str(path), "pairs", "me")
    assert known.learned and known.floors[STEP] == pytest.approx(0.2) and known.floors["predict seconds"] == 0.05
    assert "learned from 2 comparisons of equals" in known.says
    for how, machine in (("runs", "me"), ("pairs", "other")):
        other = noise.known(str(path), how, machine)  # type: ignore[arg-type]
        assert not other.learned and other.floors == FLOORS and "holds nothing of" in other.says
    with pytest.raises(UserFault, match="learn: 2 pairs of timed cells are too few; allowed: 3 or more"):
        noise.of_pairs({("a", STEP): [0.1, 0.2]}, "me")
    with pytest.raises(UserFault, match="learn: cannot write"):
        noise.learn(path / "below.json", session)


def speedy(factor: float) -> Callable[[Result], Result]:
    """Records so many times slower, with a little of each cell's own."""

    def edit(result: Result) -> Result:
        own = 1 + 0.001 * (len(result.cell.strategy) % 3)
        phases = {name: p.model_copy(update={"tokens_per_second": 280 / factor / own, "step_seconds": 1.0, "tokens": 280})
                  for name, p in result.phases.items() if name != "load"}  # fmt: skip
        return result.model_copy(update={"phases": phases})

    return edit


def test_two_recorded_runs_are_gated_only_by_what_repeated_runs_taught(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, factor in {"a": 1.0, "b": 1.04, "c": 0.98, "same": 1.05, "slow": 1.3}.items():
        write_run(tmp_path, Fake(name=name, tasks=("sst2",), items=5, edit=speedy(factor)))
    floors = tmp_path / "noise.json"
    path = {name: str(tmp_path / name) for name in ("a", "b", "c", "same", "slow")}
    assert main(["compare", path["a"], path["slow"]]) == 0
    assert "speed: shown, not gated: two runs at two times differ by what else" in capsys.readouterr().out
    assert main(["compare", path["a"], path["b"], path["c"], f"learn={floors}"]) == 0
    assert "learned from 3 runs of equals: adapt seconds a token x1.061" in capsys.readouterr().out
    assert main(["compare", path["a"], path["same"], f"floors={floors}"]) == 0
    capsys.readouterr()
    assert main(["compare", path["a"], path["slow"], f"floors={floors}", "--json"]) == 1
    worse = json.loads(capsys.readouterr().out)["regressions"]
    assert [(f["cell"], f["figure"], f["after"]) for f in worse] == [
        ("all cells", STEP, "x1.30"), ("all cells", "predict seconds a token", "x1.30")]  # fmt: skip


def test_runs_of_two_machines_are_not_compared_in_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def away(result: Result) -> Result:
        machine = {**result.environment["machine"], "id": "another"}
        return result.model_copy(update={"environment": {**result.environment, "machine": machine}})

    base = write_run(tmp_path / "a", Fake(tasks=("sst2",), items=5))
    new = write_run(tmp_path / "b", Fake(tasks=("sst2",), items=5, edit=away))
    assert main(["compare", str(base), str(new)]) == 0
    assert "speed: not gated: the runs are of two machines" in capsys.readouterr().out


@dataclass
class Played:
    """A checkout that writes fake records: its cells are slower by `factor` from the named repeat on."""

    key: str
    folder: str
    work: Path
    tokens: list[str]
    cells: list[str] = field(default_factory=list)
    orders = staticmethod(lambda key, repeat: None)
    factors = staticmethod(lambda key, repeat: 1.0)
    codes = staticmethod(lambda key: "digest-now")

    def __enter__(self) -> Played:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def first(self) -> Path:
        return self.work / "0" / "run"

    def begin(self) -> None:
        self.cells = [c.id for c in read_plan(self.written(0) / "plan.json").cells]

    def written(self, repeat: int) -> Path:
        folder = self.work / str(repeat)
        factor = type(self).factors(self.key, repeat)
        code = type(self).codes(self.key)
        fake = Fake(
            name="run", tasks=("sst2",), strategies=("lora", "full"), items=5, edit=speedy(factor), code_digest=code
        )
        return folder / "run" if folder.is_dir() else write_run(folder, fake)

    def run(self, cell: int, repeat: int) -> Path:
        type(self).orders(self.key, repeat)
        return self.written(repeat) / self.cells[cell]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Checkouts that are played; the orders they got."""
    orders: list[tuple[str, int]] = []
    monkeypatch.setattr("bench.paired.measure.Checkout", Played)
    monkeypatch.setattr(Played, "orders", staticmethod(lambda key, repeat: orders.append((key[:1], repeat))))
    return orders


CODE = ["compare", "base_code=a", "new_code=b", "pairs=3"]


def test_turns_are_taken_in_pairs_the_first_going_second_in_the_next(
    played: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(CODE) == 0
    assert played[:4] == [("b", 0), ("b", 0), ("n", 0), ("n", 0)], "once each for counts and scores"
    assert played[4:] == [
        *[("b", 1), ("n", 1)] * 2, *[("n", 2), ("b", 2)] * 2, *[("b", 3), ("n", 3)] * 2]  # fmt: skip
    printed = capsys.readouterr().out
    assert "no regression in 2 cells" in printed and "speed: 3 pairs a cell in turn, 8 figures" in printed


def test_what_is_slower_is_measured_again_once(
    played: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Played, "factors", staticmethod(lambda key, repeat: 1.5 if key == "new_code" else 1.0))
    assert main([*CODE, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert {f["figure"] for f in told["regressions"]} == {STEP, "predict seconds a token"}
    assert told["regressions"][0]["after"] == "x1.50" and "again in fresh pairs" in told["regressions"][0]["says"]
    assert max(repeat for _, repeat in played) == 6
    played.clear()
    once = staticmethod(lambda key, repeat: 1.5 if key == "new_code" and 0 < repeat <= 3 else 1.0)
    monkeypatch.setattr(Played, "factors", once)
    assert main(CODE) == 0
    assert "measured again in as many fresh pairs, for they seemed slower: 2 cells" in capsys.readouterr().out
    assert max(repeat for _, repeat in played) == 6


def test_pairs_of_equals_teach_the_floor_and_a_floor_excuses(
    played: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Played, "factors", staticmethod(lambda key, repeat: 1.2 if key == "new_code" else 1.0))
    floors = tmp_path / "noise.json"
    assert main([*CODE, f"learn={floors}"]) == 1
    assert "learned from 3 pairs of equals: adapt seconds a token x1.200, adapt s" in capsys.readouterr().out
    monkeypatch.setattr(Played, "factors", staticmethod(lambda key, repeat: 1.15 if key == "new_code" else 1.0))
    assert main(CODE) == 1
    assert main([*CODE, f"floors={floors}"]) == 0
    assert (
        f"floors of {floors}, learned from 1 comparison of equals: adapt seconds a token x1.20"
        in capsys.readouterr().out
    )


def test_only_equals_teach(
    played: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Played, "codes", staticmethod(lambda key: key))
    assert main([*CODE, f"learn={tmp_path / 'noise.json'}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "error: learn: the two checkouts hold different code, so they are no equals; allowed: the same"
    )
    assert not (tmp_path / "noise.json").exists()


def test_no_cell_to_time(
    played: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("test_compare_speed.speedy", lambda factor: lambda r: r.model_copy(update={"phases": {}}))
    assert main(CODE) == 0
    assert "speed: not gated: no cell has a step to time" in capsys.readouterr().out


@pytest.mark.parametrize("how", ["untimed", "ended"])
def test_steps_that_are_not_timed_any_more_are_a_regression(
    played: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """Without a ratio there is nothing to test, and a cell that fails in every pair would pass."""

    def edited(factor: float) -> Callable[[Result], Result]:
        def edit(result: Result) -> Result:
            adapt = result.phases["adapt"]
            slower = {"step_seconds": 99.0, "steps": 32, "tokens_per_second": None}
            gone = adapt.model_copy(update=slower if how == "untimed" else dict.fromkeys(slower))
            return result if factor == 1 else result.model_copy(update={"phases": {**result.phases, "adapt": gone}})

        return edit

    monkeypatch.setattr("test_compare_speed.speedy", edited)
    away = staticmethod(lambda key, repeat: 0.0 if key == "new_code" and repeat else 1.0)
    monkeypatch.setattr(Played, "factors", away)
    assert main([*CODE, "--json"]) == 1
    worse = json.loads(capsys.readouterr().out)["regressions"]
    assert {(f["figure"], f["before"], f["after"]) for f in worse} == {(STEP, "3 pairs", "0 pairs")} and len(worse) == 2
    assert worse[0]["says"] == "its steps are not timed any more, so nothing guards their speed"
    monkeypatch.setattr(
        Played, "factors", staticmethod(lambda key, repeat: 0.0 if key == "base_code" and repeat else 1)
    )
    assert main(CODE) == 0, "what the base did not time cannot be compared"
