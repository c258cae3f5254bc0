"""Trackers hear of finished records, in processes of their own; whatever they do costs a line and no cell."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_runs import ROOT, run_here
from records_factory import Fake, write_run

from bench import trackers
from bench.cli import main
from bench.config import load
from bench.errors import UserFault
from bench.records import Result, Status
from bench.run import exit_code
from bench.store import read_result
from bench.trackers import Hooks, Told, told_of

pytestmark = pytest.mark.usefixtures("forked")

WRITES = '''
import json, os
from pathlib import Path


def say(**what):
    with open(os.environ["TOLD"], "a") as out:
        out.write(json.dumps(what) + "\\n")


def recorded(name):
    """Whether the record is on disk by now."""
    return [str(p.parent.name) for p in Path(os.environ["TOLD"]).parent.glob(f"results/*/{name}/result.json")] == [name]
'''
FAKES = {
    "trackio": WRITES + '''
class Run:
    def log(self, metrics, step=None):
        say(log=metrics, step=step)

    def finish(self):
        say(finished=True)


def init(project, name=None, group=None, config=None, embed=True, auto_log_cpu=None, auto_log_gpu=None):
    print("chatter on standard output")
    say(project=project, name=name, group=group, config=config, own=[embed, auto_log_cpu, auto_log_gpu], recorded=recorded(name))
    return Run()
''',
    "wandb": WRITES + '''
class Settings:
    def __init__(self, **given):
        self.given = given


class Run:
    def log(self, data, step=None):
        say(log=data, step=step)

    def finish(self, exit_code=None):
        say(finished=exit_code)


def init(project=None, name=None, group=None, config=None, settings=None):
    say(project=project, name=name, group=group, config=config, own=settings.given)
    return Run()
''',
    "mlflow": "",
}  # fmt: skip
MLFLOW = {
    "mlflow/entities.py": """
class Metric:
    def __init__(self, key, value, timestamp, step):
        self.said = [key, value, timestamp, step]


class Param:
    def __init__(self, key, value):
        assert isinstance(value, str)
        self.said = [key, value]
""",
    "mlflow/tracking.py": WRITES
    + """
from types import SimpleNamespace as Space


class MlflowClient:
    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        say(project=name)
        return "7"

    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        say(place=experiment_id, begun=start_time, tags=tags, name=run_name)
        return Space(info=Space(run_id="r1"))

    def log_batch(self, run_id, metrics=(), params=()):
        assert run_id == "r1" and len(params) <= 100 and len(metrics) <= 1000
        say(metrics=[one.said for one in metrics], params=[one.said for one in params])

    def set_terminated(self, run_id, status=None, end_time=None):
        say(ended=end_time, status=status)
""",
}


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small modules in the libraries' place, for this process and those it starts; what they are told is a file."""
    place = tmp_path / "fakes"
    for name, text in {**{f"{name}/__init__.py": text for name, text in FAKES.items()}, **MLFLOW}.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(place), str(ROOT)]))
    monkeypatch.setenv("TOLD", str(tmp_path / "told.jsonl"))
    return place


def heard(folder: Path) -> list[dict[str, Any]]:
    """What the fakes were told, in order."""
    path = folder / "told.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def record(folder: Path, status: Status = Status.ok) -> Result:
    """A made-up record."""
    fake = Fake(tasks=("sst2",), strategies=("lora",), statuses={("sst2", "lora", 0): status})
    [path] = write_run(folder, fake).glob("*/result.json")
    return read_result(path)


def test_what_is_told(tmp_path: Path) -> None:
    """Numbers are figures, the rest says what the cell was; what is absent is left out."""
    result = record(tmp_path)
    told = told_of(result, "mine")
    assert (told.project, told.name, told.group, told.ok) == ("mine", result.cell.id, "sst2", True)
    assert told.figures["scores/accuracy/value"] == result.scores["accuracy"].value
    assert told.figures["phases/adapt/flops"] == 4.1e12 and told.figures["parameters/trainable"] == 2_442_240
    assert told.settings["cell/options/r"] == 8 and told.settings["environment/versions/torch"] == "2.13.0"
    assert told.settings["data/labels"] == '["negative", "positive"]' and told.settings["outcome/status"] == "ok"
    assert "cell/budget/memory_gib" not in told.settings and "phases/adapt/peak_allocated_bytes" not in told.figures
    assert told.losses == [0.7, 0.4]
    assert told.ended == 1782900000.0  # 2026-07-01T10:00:00 UTC
    assert told.seconds == pytest.approx(sum(phase.seconds for phase in result.phases.values()))
    failed = told_of(record(tmp_path / "failed", Status.diverged), "mine")
    assert not failed.ok and failed.losses == [] and "NaN" in str(failed.settings["outcome/reason"])
    assert told_of(result.model_copy(update={"environment": {"time": "teatime"}}), "mine").ended == 0


def test_trackio_and_wandb_are_told(fakes: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    result = record(tmp_path)
    told = told_of(result, "mine")
    for name, finished in (("trackio", True), ("wandb", 0)):
        (tmp_path / "told.jsonl").unlink(missing_ok=True)
        Hooks([name], "mine", lines.append).tell(result)
        begun, *steps, last, end = heard(tmp_path)
        assert (begun["project"], begun["name"], begun["group"]) == ("mine", result.cell.id, "sst2")
        assert begun["config"] == told.settings
        assert steps == [{"log": {"training/loss": loss}, "step": i} for i, loss in enumerate((0.7, 0.4))]
        assert last == {"log": told.figures, "step": 2} and end == {"finished": finished}
        if name == "trackio":
            assert begun["own"] == [False, False, False], "it watches nothing by itself"
        else:
            assert begun["own"]["console"] == "off" and begun["own"]["x_disable_stats"] and begun["own"]["disable_git"]
    assert lines == [] and name not in sys.modules, "the parent imports no tracker"


def test_mlflow_is_told(fakes: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    result = record(tmp_path, Status.diverged)
    Hooks(["mlflow"], "mine", lines.append).tell(result)
    project, begun, *batches, end = heard(tmp_path)
    assert lines == [] and project == {"project": "mine"}
    assert (begun["place"], begun["name"], begun["tags"]) == ("7", result.cell.id, {"task": "sst2"})
    assert end == {"ended": 1782900000000, "status": "FAILED"} and begun["begun"] == 1782900000000 - 2100
    params = dict(one for batch in batches for one in batch["params"])
    assert params["cell/seed"] == "0" and params["environment/dirty"] == "False"
    assert ["phases/load/seconds", 2.1, 1782900000000, 0] in [m for batch in batches for m in batch["metrics"]]
    assert trackers.plain("scores/p, Holm (é)") == "scores/p_ Holm _é_"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('no such\\nproject')", "ValueError: no such"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        ("import os; os._exit(3)", "it ended with code 3"),
        ("raise OSError('refused by https://me:hunter2@host with key ' + __import__('os').environ['X_API_KEY'])",
         "OSError: refused by https://***@host with key ***"),
    ],
)  # fmt: skip
def test_a_tracker_that_fails_costs_a_line(
    fakes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    monkeypatch.setenv("X_API_KEY", "sentinel-of-a-key")
    (fakes / "trackio/__init__.py").write_text(f"def init(**given):\n    {body}\n")
    lines: list[str] = []
    result = record(tmp_path)
    Hooks(["trackio"], "mine", lines.append).tell(result)
    assert lines == [f"tracker trackio was not told of {result.cell.id}: {words}; the record is whole"]


def test_a_tracker_that_hangs_is_left_alone_in_the_end(
    fakes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "SECONDS", 0.01)
    lines: list[str] = []
    hooks, result = Hooks(["wandb"], "mine", lines.append), record(tmp_path)
    for _ in range(5):
        hooks.tell(result)
    assert len(lines) == 3 and all("it took longer than 0.01 s; the record is whole" in line for line in lines)
    assert [("is not asked again" in line) for line in lines] == [False, False, True]


def test_a_library_that_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before anything is planned; a folder of its name, such as wandb's own of runs, is no library."""
    found = {
        "trackio": None,
        "mlflow": type("Spec", (), {"origin": None})(),
        "wandb": type("Spec", (), {"origin": "x"})(),
    }
    monkeypatch.setattr(trackers.importlib.util, "find_spec", found.get)
    for name in ("trackio", "mlflow"):
        with pytest.raises(UserFault, match=rf"trackers: {name} is not installed: python -m pip install {name} \(the "):
            Hooks([name], "mine", print)
    Hooks(["wandb"], "mine", print)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "suite=smoke", "trackers=trackio"]) == 2 and not list(tmp_path.iterdir())


def test_the_setting() -> None:
    """It is how a run is carried out, so no cell's identity knows of it."""
    assert load([]).settings.trackers == []
    assert load(["trackers=trackio,wandb"]).settings.trackers == ["trackio", "wandb"]
    assert load(["trackers=[mlflow]"]).suite == load([]).suite
    with pytest.raises(UserFault, match="trackers.0: input should be 'trackio', 'mlflow' or 'wandb', got 'wandbb'"):
        load(["trackers=wandbb"])
    with pytest.raises(UserFault, match="trackers: names a tracker twice"):
        load(["trackers=mlflow,mlflow"])


def test_every_tracker_has_a_name_an_extra_and_a_hook() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for name in trackers.TRACKERS:
        assert [requirement.partition(">=")[0] for requirement in extras[name]] == [name]
        assert load([f"trackers={name}"]).settings.trackers == [name]


def test_a_run_tells_of_each_cell_when_its_record_is_on_disk(fakes: Path, tmp_path: Path) -> None:
    """One tracker listens, the other fails: cells and exit code are those of a run without."""
    (fakes / "wandb/__init__.py").write_text("raise RuntimeError('no network')")
    done = run_here(tmp_path, "strategies=zero_shot,lora", "trackers=trackio,wandb")
    assert [result.outcome.status for result in done] == [Status.ok, Status.ok] and exit_code(done) == 0
    begun = [one for one in heard(tmp_path) if "name" in one]
    assert [one["name"] for one in begun] == [result.cell.id for result in done]
    assert all(one["recorded"] for one in begun)
    printed = (tmp_path / "output.txt").read_text()
    for result in done:
        assert (
            f"tracker wandb was not told of {result.cell.id}: RuntimeError: no network; the record is whole" in printed
        )
        assert "track" not in result.model_dump_json().lower()
    run_here(tmp_path, "strategies=zero_shot,lora", "trackers=trackio")
    assert [one["name"] for one in heard(tmp_path) if "name" in one] == [one["name"] for one in begun], "told once"


def test_told_travels_whole(tmp_path: Path) -> None:
    """What the parent sends is what the hook gets."""
    from dataclasses import asdict

    told = told_of(record(tmp_path), "mine")
    assert Told(**json.loads(json.dumps(asdict(told)))) == told
