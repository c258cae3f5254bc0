"""Every way a cell can end is an outcome with a reason and a row of the report; the run goes on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from cli_runs import AS_ZERO_SHOT, records, run_here, times, tokens, write_strategies
from rich.console import Console

from bench import host, plan
from bench.config import load
from bench.errors import UserFault
from bench.events import Events
from bench.job import Job
from bench.process import can_fork
from bench.records import Result, Status
from bench.room import log_end
from bench.run import execute, exit_code
from bench.store import read_probe, read_result

CAP_GIB = 1.2
FAULTY = {
    "kills_itself": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "exits": "import os; os._exit(3)",
    "raises": 'raise RuntimeError("the left half\\nof the shapes does not fit")',
    "out_of_words": 'raise MemoryError("Unable to allocate 9 TiB")',
    "refuses": 'raise Unsupported("this model has no gills: use lora with it")',
    "nan_loss": """
        import torch
        from bench.score.readers import make_reader
        from bench.train.plans import gradient_plan
        reader = make_reader(base, context)
        plan = gradient_plan(base, context, base.module, reader, list(base.module.parameters()), 1e-3, lambda folder: None)
        plan.loss = lambda batch, labels: reader.scores(base.module, batch).sum() * torch.nan
        return plan
    """,
    "no_gradient": """
        from bench.score.readers import make_reader
        from bench.train.plans import Stored, gradient_plan
        reader = make_reader(base, context)
        nothing = Stored(lambda folder: None, lambda folder: None)
        plan = gradient_plan(base, context, base.module, reader, list(base.module.parameters()), 1e-3, nothing)
        plan.loss = lambda batch, labels: reader.scores(base.module, batch).sum() * 0.0
        return plan
    """,
    "trains_nothing": """
        from bench.train.plans import selected_plan
        return selected_plan(base, context, lambda module: {}, 1e-3)
    """,
    "nan_scores": """
        import torch
        from bench.score.adapted import Adapted
        from bench.score.readers import VerbalizerReader
        with torch.no_grad():
            next(base.module.parameters()).fill_(torch.nan)
        return Plan(answer=Adapted(base.module, VerbalizerReader(base, context)), save=lambda folder: None, labels_used=0)
    """,
    "hungry": """
        import time
        held = []
        for _ in range(60):  # at most 2.4 GiB, then it gives up
            held.append(bytearray(b"x") * (40 * 2**20))
            time.sleep(0.03)
        raise RuntimeError("nobody stopped it")
    """,
}
EXPECTED = {
    "kills_itself": (Status.error, "killed"),
    "exits": (Status.error, "exit code 3"),
    "raises": (Status.error, "RuntimeError: the left half of the shapes does not fit"),
    "out_of_words": (Status.out_of_memory, "Unable to allocate 9 TiB"),
    "refuses": (Status.unsupported, "this model has no gills: use lora with it"),
    "nan_loss": (Status.diverged, "loss was nan at step 1"),
    "no_gradient": (Status.unsupported, "no gradient reaches what it trains"),
    "trains_nothing": (Status.unsupported, "no parameter of this model would train"),
    "nan_scores": (Status.diverged, "not finite"),
    "hungry": (Status.out_of_memory, f"over the cap of {CAP_GIB:g} GiB"),
    "zero_shot": (Status.ok, ""),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run of all faulty strategies was."""
    return tmp_path_factory.mktemp("outcomes")


def asked(folder: Path) -> list[str]:
    """Tokens that select every faulty strategy, and last one that works."""
    return [f"adapters_path={write_strategies(folder / 'adapters', FAULTY)}", f"strategies={','.join(EXPECTED)}",
            f"budget.memory_gib={CAP_GIB}"]  # fmt: skip


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[str, Result]:
    """The records of one run of all of them."""
    return {r.cell.strategy: r for r in run_here(folder, *asked(folder))}


@pytest.mark.parametrize("name", EXPECTED)
def test_how_it_ends(results: dict[str, Result], name: str) -> None:
    """The outcome and a reason in one sentence; a score only where it is ok."""
    status, words = EXPECTED[name]
    outcome = results[name].outcome
    assert outcome.status is status, outcome
    assert words in (outcome.reason or "") and "\n" not in (outcome.reason or "")
    assert (results[name].scores is not None) == (status is Status.ok)
    assert (outcome.reason is None) == (status is Status.ok)


def test_reasons_hold_figures_and_the_remedy(results: dict[str, Result]) -> None:
    """Running out names the bytes held and the key to raise; divergence the rate; an error where it was."""
    hungry = results["hungry"].outcome.reason or ""
    assert "resident memory reached 1." in hungry and "GiB" in hungry and "budget.memory_gib" in hungry
    assert "learning rate" in (results["nan_loss"].outcome.reason or "")
    assert "raises.py:" in (results["raises"].outcome.reason or "")
    assert "SIGKILL" in (results["kills_itself"].outcome.reason or "")


def test_a_failed_cell_keeps_what_was_measured(results: dict[str, Result]) -> None:
    """The phases up to the failure are in the record, the failed one too."""
    assert {"load", "adapt"} <= set(results["raises"].phases)
    assert results["raises"].phases["adapt"].peak_rss_bytes


def test_the_exit_code_is_1_for_an_error(results: dict[str, Result]) -> None:
    """Some cell is `error`: 1. Without those: 0, for the other outcomes are recorded ones."""
    assert exit_code(list(results.values())) == 1
    assert exit_code([r for r in results.values() if r.outcome.status is not Status.error]) == 0


def test_every_outcome_is_a_row_of_the_report(results: dict[str, Result], folder: Path) -> None:
    """Both pages name every strategy, whatever became of it, and what became of it."""
    for page in ("smoke.html", "smoke.md"):
        text = (folder / "reports" / page).read_text()
        for name, (status, _) in EXPECTED.items():
            assert name in text.replace("\\_", "_"), (page, name)
            assert status.value.replace("_", " ") in text, (page, status)


def test_only_errors_run_again(results: dict[str, Result], folder: Path) -> None:
    """The same command once more: cells that ended in `error` are done again, all other records stay untouched."""
    before = times(folder)
    run_here(folder, *asked(folder))
    after = times(folder)
    again = {name for name in after if after[name] != before[name]}
    assert again == {name for name, (status, _) in EXPECTED.items() if status is Status.error}


def test_a_cell_that_runs_too_long_is_a_timeout(tmp_path: Path) -> None:
    """It is ended with what it started, and the next cell runs; the reason names the key to raise."""
    sleeper = """
        import subprocess, time
        child = subprocess.Popen(["sleep", "600"])
        open("%s", "w").write(str(child.pid))
        time.sleep(600)
    """ % (tmp_path / "pid")
    adapters = write_strategies(tmp_path / "adapters", {"sleeper": sleeper, "after": AS_ZERO_SHOT})
    results = run_here(tmp_path, f"adapters_path={adapters}", "strategies=sleeper,after", "run.cell_seconds=6")
    assert [r.outcome.status for r in results] == [Status.timeout, Status.ok], [r.outcome for r in results]
    assert "6 s" in (results[0].outcome.reason or "") and "run.cell_seconds" in (results[0].outcome.reason or "")
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
    assert all(path.is_file() for path in records(tmp_path).values())


def test_one_name_in_two_folders_is_a_fault(tmp_path: Path) -> None:
    """A user's `lora.py` does not silently replace ours: both folders are named."""
    adapters = write_strategies(tmp_path / "mine", {"lora": "return None"})
    with pytest.raises(UserFault, match="strategy 'lora' is in two folders: .*adapters and .*mine"):
        execute(load(tokens(tmp_path, f"adapters_path={adapters}")), Console(quiet=True))
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("import no_such_package", "fails to import: ModuleNotFoundError: No module named 'no_such_package'"),
        ("def broken(:\n", "fails to import: SyntaxError"),
        ("raise ValueError('two\\nlines')", "fails to import: ValueError: two lines"),
        ("import sys; sys.exit(5)", "fails to import: SystemExit: 5"),
        ("x = 1", "has no attribute `strategy` holding a bench.strategy.Strategy"),
        ("strategy = 'lora'", "has no attribute `strategy` holding a bench.strategy.Strategy"),
    ],
)
def test_a_file_that_offers_no_strategy_is_a_fault(tmp_path: Path, content: str, words: str) -> None:
    """The fault names the file and says why; nothing was written."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "odd_one.py").write_text(content)
    with pytest.raises(UserFault) as fault:
        execute(load(tokens(tmp_path, f"adapters_path={tmp_path / 'mine'}")), Console(quiet=True))
    assert f"strategy file {tmp_path}/mine/odd_one.py {words}" in str(fault.value)
    assert not (tmp_path / "results").exists()


def test_helpers_beside_a_strategy_can_be_imported(tmp_path: Path) -> None:
    """A file starting with `_` is no strategy; the others import it relatively."""
    from bench import registry

    adapters = write_strategies(tmp_path / "mine", {"helped": "return None"})
    (adapters / "_help.py").write_text("FAMILY = 'helped'\n")
    source = (
        (adapters / "helped.py")
        .read_text()
        .replace("strategy = Faulty()", "from ._help import FAMILY\nstrategy = Faulty()")
    )
    (adapters / "helped.py").write_text(source)
    found = registry.load(str(adapters))
    assert "helped" in found and "_help" not in found


def test_the_exit_code_counts_probes(results: dict[str, Result]) -> None:
    """A probe that ended in an error is one, whatever its cell did."""
    from bench.probed import ProbeRecord
    from bench.records import Outcome

    fine = [r for r in results.values() if r.outcome.status is not Status.error]
    probe = ProbeRecord(cell="x", probe="formats", asked={}, outcome=Outcome(status=Status.error, reason="it broke"))
    assert exit_code([*fine, probe]) == 1


@pytest.mark.parametrize("probe", [None, "formats"])
def test_a_plug_in_that_fails_where_the_cell_runs_is_told_in_its_record(tmp_path: Path, probe: str | None) -> None:
    """As on a node of a cluster that lacks a library: the words are in the record, and no path of the machine."""
    from bench.probing import run_probe
    from bench.worker import run_cell

    adapters = write_strategies(tmp_path / "mine", {"odd_one": "return None"})
    [job] = plan.make(load(tokens(tmp_path, "strategies=odd_one", f"adapters_path={adapters}", "probes=formats"))).jobs
    (adapters / "odd_one.py").write_text("import no_such_package\n")
    Path(job.folder, "probes").mkdir(parents=True)
    run = run_cell if probe is None else run_probe
    order = job.model_copy(update={"probe": probe})
    assert run(order, lambda: pytest.fail("a model was loaded"), lambda phase, share: None) == 0
    path = Path(job.folder) / ("result.json" if probe is None else "probes/formats.json")
    record = (read_result if probe is None else read_probe)(path)
    words = "strategy file mine/odd_one.py fails to import: ModuleNotFoundError: No module named 'no_such_package' at "
    assert record.outcome.status is Status.error and (record.outcome.reason or "").startswith(words)
    assert str(tmp_path) not in path.read_text()


@pytest.mark.skipif(not can_fork(), reason="cells are forked where fork is safe")
def test_whatever_a_forked_cell_ends_in_is_in_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that no record took up: the traceback is in the cell's log, whose end the launcher tells."""
    [job] = plan.make(load(tokens(tmp_path, "strategies=zero_shot"))).jobs

    def serve_one(job: Job, *given: object) -> int:
        host.redirect_to_log(job)
        raise RuntimeError("nobody expected this")

    monkeypatch.setattr(host, "serve_one", serve_one)
    monkeypatch.setattr(host, "loads_here", lambda job: False)
    monkeypatch.setattr(host, "sweep", lambda: None)  # what else is below this process is not the cell's
    monkeypatch.setattr(sys, "stderr", open(2, "w", 1, closefd=False))  # noqa: SIM115
    nobody = os.open(os.devnull, os.O_WRONLY)
    code = host.fork_one(job, host.Models(), Events(nobody))
    os.close(nobody)
    assert code == 70 and log_end(job).endswith("RuntimeError: nobody expected this")
