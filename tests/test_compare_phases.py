"""The speed gate over phases that are timed as a whole: loading, tuning, and the defaults beside a tuned cell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_compare_speed import CODE, FLOORS, STEP, Played, speedy

from bench.cli import main
from bench.compare import floors as noise
from bench.compare.speed import FIGURES, PHASES, SHORTEST, TOKEN, WHOLE, gathered, judged, without_short
from bench.paired.measure import confirmed
from bench.records import Phase, Result


def loading(**seconds: float) -> Callable[[float], Callable[[Result], Result]]:
    """Records with these phases beside the steps', each taking so many times the seconds; 0: there is none."""

    steps = speedy(1.0)

    def edited(factor: float) -> Callable[[Result], Result]:
        def edit(result: Result) -> Result:
            more = {name: Phase(seconds=factor * took) for name, took in seconds.items() if factor}
            return result.model_copy(update={"phases": {**steps(result).phases, **more}})

        return edit

    return edited


@pytest.mark.parametrize(
    ("seconds", "factor", "worse"),
    [
        ({"load": 0.2}, 10.0, {"load seconds": "x10.00"}),
        ({"load": 0.01}, 10.0, {"load seconds": "x10.00"}),  # short in the base, and long now
        ({"load": 0.004}, 10.0, {}),  # a few milliseconds are noise
        ({"load": 0.2}, 1.0, {}),
        ({"tune": 3.0, "default": 1.0}, 2.0, {"tune seconds": "x2.00", "default seconds": "x2.00"}),
        ({"load": 0.2}, 0.0, {"load seconds": "0 pairs"}),
    ],
)
def test_whole_phases_beside_the_steps_are_gated_too(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: dict[str, float],
    factor: float,
    worse: dict[str, str],
) -> None:
    monkeypatch.setattr("bench.paired.measure.Checkout", Played)
    monkeypatch.setattr("test_compare_speed.speedy", loading(**seconds))
    away = staticmethod(lambda key, repeat: factor if key == "new_code" and repeat else 1.0)
    monkeypatch.setattr(Played, "factors", away)
    assert main([*CODE, "--json"]) == bool(worse)
    told = json.loads(capsys.readouterr().out)
    assert {f["figure"]: f["after"] for f in told["regressions"]} == worse
    shown = {one["figure"] for one in told["speed"]["pairs"]} - {f"{p} {w}" for p in PHASES for w in (TOKEN, WHOLE)}
    assert shown == {f"{name} seconds" for name, took in seconds.items() if factor and took * max(1, factor) >= 0.05}


def test_loading_at_the_edge_of_what_is_timed_raises_no_alarm() -> None:
    """Whole comparisons of equals, their loads drawn about the bound: choosing by the longer side must not tell."""
    random, alarms = np.random.default_rng(1), 0

    def drawn_pairs() -> list[tuple[str, Result, Result]]:
        took = SHORTEST * np.exp(0.2 * random.standard_t(3, (10, 6, 2)))
        sides = [[[loaded(s) for s in pair] for pair in cell] for cell in took]
        return [(f"cell {i}", *pair) for i, cell in enumerate(sides) for pair in cell]  # type: ignore[misc]

    def loaded(seconds: float) -> SimpleNamespace:
        return SimpleNamespace(phases={"load": Phase(seconds=seconds)})

    judged_ones = 0
    for _ in range(200):
        first = drawn_pairs()
        paced = judged(without_short(gathered(first), first), FLOORS)
        judged_ones += len(paced)
        alarms += any(one.slower for one in confirmed(paced, gathered(drawn_pairs()), FLOORS))
    assert 200 < judged_ones < 2000, "some are long enough, and some are not"
    assert alarms <= 1


def test_floors_learned_before_a_figure_was_gated_still_serve(tmp_path: Path) -> None:
    """A file knows the figures of its day; any other has the floor that nobody learned."""
    path = tmp_path / "noise.json"
    means = {STEP: [0.2, -0.1], "predict seconds": [0.3]}
    session = {"how": "pairs", "machine": "me", "of": 3, "means": means}
    path.write_text(json.dumps({"floor_version": 1, "sessions": [session]}))
    floors = noise.known(str(path), "pairs", "me").floors
    assert {name for name, value in floors.items() if value == noise.DEFAULT} == set(FIGURES) - set(means)
    noise.learn(path, noise.of_pairs({("a", "load seconds"): [0.1, 0.2, 0.3]}, "me"))
    assert noise.known(str(path), "pairs", "me").floors["load seconds"] == pytest.approx(0.2)
