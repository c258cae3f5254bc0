"""A cell over several processes is the cell of one: losses, weights, answers and counts, by DDP and by FSDP2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runs import ROOT
from rank_cases import CASES

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="torch is built without gloo there")

COUNTS = ("examples", "tokens", "flops", "rows", "steps")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks found, case by case: one start of torchrun for all of them."""
    out = tmp_path_factory.mktemp("ranks")
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    place = ["--standalone", "--nproc-per-node=2", "--local-addr=127.0.0.1", f"--log-dir={out / 'log'}"]
    lo = {"GLOO_SOCKET_IFNAME": "lo"} if Path("/sys/class/net/lo").exists() else {}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *place, str(ROOT / "tests" / "ranks_child.py"), str(out)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **lo},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in (0, 1)]


def both(found: list[dict[str, Any]], name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A case trained by one process and by two, as the first rank saw it."""
    assert "error" not in found[0][name], found[0][name]["error"]
    return found[0][name]["alone"], found[0][name]["together"]


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_two_processes_train_as_one(found: list[dict[str, Any]], name: str) -> None:
    """Each step's loss within 1e-5 (the issue asks for 1e-4), and as many of them; weights differ by less than a
    twentieth of what training moved them by, label scores by less than 1e-4 nats."""
    alone, together = both(found, name)
    np.testing.assert_allclose(together["losses"], alone["losses"], rtol=0, atol=1e-5)
    assert together["weights"].keys() == alone["weights"].keys()
    for key, weights in alone["weights"].items():
        difference = np.abs(np.subtract(together["weights"][key], weights)).max(initial=0)
        if key in alone["began"]:
            assert difference <= 0.05 * np.abs(np.subtract(weights, alone["began"][key])).max(), key
        else:  # what the method itself keeps: log-probabilities of whole answers, and the reference's weights
            assert difference <= 1e-4, key
    np.testing.assert_allclose(together["scores"], alone["scores"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_the_budget_counts_the_work_of_all_once(found: list[dict[str, Any]], name: str) -> None:
    """Rows, real tokens and steps are those of one process; FLOPs too, up to the padding that smaller batches do not
    have. Every rank counts the same."""
    alone, together = both(found, name)
    for count in COUNTS:
        if count == "flops":
            assert 0.9 * alone["flops"] < together["flops"] <= alone["flops"]
        else:
            assert together[count] == alone[count], count
    other = found[1][name]["together"]
    assert {n: other[n] for n in (*COUNTS, "losses")} == {n: together[n] for n in (*COUNTS, "losses")}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_the_ranks_hold_together(found: list[dict[str, Any]], case: Any) -> None:
    """DDP holds every trained parameter twice; FSDP2 once, but for a head, which both hold whole."""
    _, together = both(found, case.name)
    held, trainable = together["held"][0], together["trainable"]
    if case.sharding == "ddp":
        assert held == 2 * trainable
    elif case.readout == "verbalizer":
        assert held == trainable
    else:
        assert held == trainable + 2 * 32 + 2  # two labels from 32 numbers, and their biases


def test_a_batch_of_one_row_was_among_them(found: list[dict[str, Any]]) -> None:
    """The last step of 21 rows in batches of 4 has one: the second rank took it without a row of its own."""
    alone, together = both(found, CASES[0].name)
    assert alone["examples"] % 4 == 1 and alone["steps"] == together["steps"] == 6


def test_what_the_method_watches_is_of_all_ranks(found: list[dict[str, Any]]) -> None:
    """dpo's log-ratios: the mean over ranks is that over rows wherever ranks have as many, so up to the cut last step."""
    for name in (case.name for case in CASES if case.strategy == "dpo"):
        alone, together = both(found, name)
        assert len(alone["told"]) == 2 and together["told"].keys() == alone["told"].keys()
        for key, values in alone["told"].items():
            assert len(values) > 1
            np.testing.assert_allclose(together["told"][key][:-1], values[:-1], rtol=0, atol=1e-4)
