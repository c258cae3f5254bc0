"""The gate over two checkouts, for real: what is planted in a copy of this code closes it, each by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_runs import ROOT
from fault_fixtures import Fault

from bench.cli import main

pytest_plugins = ("fault_fixtures",)
CELL = "random:tiny-gpt2 sst2 lora s0"
TOKENS = ["suite=smoke", "model=random:tiny-gpt2", "strategies=lora", "data.source=sample", "device=cpu", "threads=1",
          "batch=4", "sequence=48", "budget.labels=12", "budget.train_examples=12", "pairs=4"]  # fmt: skip
PLANTS = {
    "bench/train/loop.py": (
        "            self.optimizer.step(middle)\n",
        "            self.optimizer.step(middle)\n            __import__('time').sleep(0.3)\n",
    ),
    "adapters/lora.py": (
        "        plan = peft_plan(base, context, factors(options), options.lr)\n",
        "        plan = peft_plan(base, context, factors(options), options.lr)\n"
        "        for layer in plan.module.modules():\n"
        "            layer.register_forward_hook(lambda m, i, o: setattr(m, 'kept', o.clone()) if hasattr(o, 'clone') else None)\n",
    ),
    "bench/score/adapted.py": (
        "values: np.ndarray = score(batch).double().cpu().numpy()\n",
        "values: np.ndarray = score(batch).double().cpu().numpy()[:, ::-1].copy()\n",
    ),
}
"""File -> a line of it, and what is made of it: a sleep in the loop, a kept copy of every activation, a label map turned
round."""


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with all three planted."""
    root = tmp_path_factory.mktemp("worse")
    for name in ("bench", "adapters", "suites"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file, (line, planted) in PLANTS.items():
        text = (root / file).read_text()
        assert text.count(line) == 1, f"{file} has moved on: plant it anew"
        (root / file).write_text(text.replace(line, planted))
    return root


@pytest.mark.slow
def test_each_planted_regression_is_named(worse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sleep, an extra copy of activations, a wrong label map: all found by one command, and nothing else is slower
    by as much. The same code on both sides passes, and teaches the floor."""
    page, work = tmp_path / "gate.md", tmp_path / "work"
    code = main(["compare", f"base_code={ROOT}", f"new_code={worse}", f"work={work}", "--json", "--markdown", str(page),
                 *TOKENS])  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert code == 1, told
    found = {f["figure"]: f for f in told["regressions"]}
    assert {f["cell"] for f in told["regressions"]} == {CELL}
    assert found["predicted peak bytes"]["after"] > found["predicted peak bytes"]["before"]
    assert found["answers changed"]["after"] == "16 of 16"
    assert "again in fresh pairs" in found["adapt seconds a token"]["says"]
    headline = page.read_text().splitlines()[0]
    assert all(f"{figure} of {CELL}" in headline
               for figure in ("predicted peak bytes", "answers changed", "adapt seconds a token"))  # fmt: skip
    slower = {one["figure"]: one["ratio"] for one in told["speed"]["pairs"]}
    assert slower["adapt seconds a token"] > 2
    # the pairs are runs like any other, and can be compared again
    assert main(["compare", *(str(work / side / "first" / "smoke") for side in ("base", "new")), "--json"]) == 1
    again = {f["figure"] for f in json.loads(capsys.readouterr().out)["regressions"]}
    assert {"predicted peak bytes", "answers changed"} <= again and "adapt seconds a token" not in again


@pytest.mark.slow
def test_the_same_code_passes_and_teaches_the_floor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    floors = tmp_path / "noise.json"
    both = [f"base_code={ROOT}", f"new_code={ROOT}", "predict=false", *TOKENS]
    assert main(["compare", *both, f"learn={floors}"]) == 0
    [session] = json.loads(floors.read_text())["sessions"]
    assert session["how"] == "pairs" and session["of"] == 4
    assert set(session["means"]) == {f"{p} seconds{t}" for p in ("adapt", "predict") for t in ("", " a token")}
    assert "no regression in 1 cell" in capsys.readouterr().out


@pytest.mark.usefixtures("here")
def test_what_a_checkout_cannot_do_is_one_line(here: Path, fault: Fault, tmp_path: Path) -> None:
    both = ("compare", f"base_code={ROOT}", f"new_code={ROOT}")
    assert fault(*both, "suite=smok") == "base_code: unknown suite 'smok'; did you mean 'smoke'?"
    assert fault(*both, "batchh=3").startswith("base_code: unknown key 'batchh'; did you mean 'batch'?")


def test_code_that_is_no_harness_is_told(tmp_path_factory: pytest.TempPathFactory, fault: Fault) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "bench").mkdir()
    (other / "bench" / "__init__.py").write_text("")
    said = fault("compare", f"base_code={other}", f"new_code={ROOT}", "suite=smoke")
    assert said.startswith(f"base_code={other} cannot run these cells: ") and "No module named 'bench.errors'" in said
