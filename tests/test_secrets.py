"""What the environment holds in secret stays there, and foreign code is named where it ran."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from cli_runs import AS_ZERO_SHOT, result, run_there, tokens, write_strategies
from fault_fixtures import Fault

from bench import plan as planning
from bench.config import load
from bench.config.tokens import merge
from bench.errors import UserFault
from bench.job import foreign
from bench.records import Status

pytest_plugins = ("fault_fixtures",)
NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD",
         "OPENAI_API_KEY", "GITHUB_TOKEN")  # fmt: skip
SECRETS = {name: f"sentinel-{number}-of-{name.lower()}" for number, name in enumerate(NAMES)}
FAILS = "raise RuntimeError('a library gave up')"


def holding(folder: Path) -> list[str]:
    """Files below a folder that hold a sentinel, in their name or content."""
    found = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        content = str(path).encode() + path.read_bytes()
        found += [f"{path}: {name}" for name, secret in SECRETS.items() if secret.encode() in content]
    return found


def test_a_sentinel_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text(f"... {SECRETS['HF_TOKEN']} ...")
    assert holding(tmp_path) == [f"{tmp_path / 'log.txt'}: HF_TOKEN"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run by the command line with secrets around it: a cell that answers and one that fails, both foreign code."""
    folder = tmp_path_factory.mktemp("secrets")
    adapters = write_strategies(folder / "mine", {"answers": AS_ZERO_SHOT, "fails": FAILS})
    own = [f"adapters_path={adapters}", "strategies=answers,fails"]
    done = run_there("run", *tokens(folder, *own), cwd=folder, **SECRETS)
    assert done.returncode == 1, done.stdout + done.stderr
    (folder / "output.txt").write_text(done.stdout + done.stderr)
    return folder


def test_no_secret_reaches_a_file_or_the_screen(ran: Path) -> None:
    written = {path.suffix for path in ran.rglob("*") if path.is_file()}
    assert {".json", ".txt", ".html", ".md", ".log", ".parquet"} <= written
    assert "a library gave up" in "".join(path.read_text() for path in ran.rglob("log.txt"))
    assert holding(ran) == []


def test_a_record_names_the_foreign_code_that_ran(ran: Path) -> None:
    """By the folder's name and each file's hash, never by a path of the machine."""
    for name, status in (("answers", Status.ok), ("fails", Status.error)):
        record = result(ran, name)
        assert record.outcome.status == status
        assert record.environment["adapters_path"] == "mine"
        assert record.environment["adapters"] == {
            path.name: f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in (ran / "mine").glob("*.py")
        }
        assert set(record.environment["adapters"]) == {"answers.py", "fails.py"}
        assert str(ran) not in record.model_dump_json()


def test_foreign_code_is_told_only_where_it_ran(tmp_path: Path) -> None:
    [plain] = planning.make(load(tokens(tmp_path, "strategies=zero_shot"))).jobs
    assert foreign(plain) == {}
    adapters = write_strategies(tmp_path / "mine", {"answers": AS_ZERO_SHOT})
    (adapters / "_help.py").write_text("X = 1\n")
    (adapters / "notes.txt").write_text("no code")
    [job] = planning.make(load(tokens(tmp_path, "strategies=answers", f"adapters_path={adapters}"))).jobs
    assert set(foreign(job)["adapters"]) == {"answers.py", "_help.py"}
    (adapters / "_help.py").unlink()
    (adapters / "_help.py").symlink_to(tmp_path / "gone")
    assert foreign(job)["adapters"]["_help.py"] is None


@pytest.mark.parametrize(
    "value", ["${oc.env:HF_TOKEN}", "${oc.env:HF_TOKEN,x}", "a${oc.env:HF_TOKEN}b", "${oc.decode:${oc.env:HF_TOKEN}}",
              "${env:HF_TOKEN}", "${model}"]
)  # fmt: skip
def test_interpolation_is_refused_and_never_resolved(
    fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """On the command line as anywhere in a suite file."""
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    for token in (
        f"model={value}",
        f"tasks.sst2.labels=[{value},b]",
        f"strategies.lora.target_modules={value}",
        f"run.name={value}",
    ):
        told = fault("plan", "suite=smoke", token)
        assert "interpolation is not allowed" in told and SECRETS["HF_TOKEN"] not in told
    for key in ("model", "description", "name", "gpu") if ":" in value else ():
        (tmp_path / "mine.yaml").write_text(SUITE.replace(f"{key}: plain", f"{key}: '{value}'"))
        told = fault("plan", "suite=mine.yaml")
        assert told.endswith("interpolation is not allowed in values") and SECRETS["HF_TOKEN"] not in told
    assert os.environ["HF_TOKEN"] == SECRETS["HF_TOKEN"]


SUITE = """\
name: plain
description: plain
model: plain
gpu: plain
tasks: {}
strategies: {zero_shot: {}}
budget: {labels: 4, train_examples: 8}
"""


def test_a_merge_looks_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver's name may come out of the file itself, and an override below such a text has OmegaConf follow it."""
    monkeypatch.setenv("HF_TOKEN", SECRETS["HF_TOKEN"])
    value = "${${description}:HF_TOKEN}"
    (tmp_path / "mine.yaml").write_text(SUITE.replace("tasks: {}", f"tasks: {{t: '{value}'}}"))
    with pytest.raises(UserFault, match="interpolation is not allowed in values"):
        load([f"suite={tmp_path / 'mine.yaml'}", "tasks.t.limit=20"])
    made = '${${made}:"{labels: [a, ' + f"'{value}']}}" + '"}'
    raw = {"description": "oc.env", "made": "oc.create", "tasks": {"t": made}}
    assert merge(raw, {"tasks": {"t": {"limit": 20}}})["tasks"] == {"t": {"limit": 20}}


def test_a_key_of_a_suite_file_is_no_interpolation_either(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SUITE.replace("tasks: {}", "tasks: {'${oc.env:HF_TOKEN}': {}}"))
    with pytest.raises(UserFault, match=r"mine.yaml holds '\$\{oc.env:HF_TOKEN\}': interpolation is not allowed"):
        load([f"suite={tmp_path / 'mine.yaml'}"])


def test_a_dollar_before_a_field_is_a_dollar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that says what something costs; overriding what such a text stands for is refused."""
    task = """tasks:
  price:
    data: {sample: sst2.jsonl}
    splits: {train: train, test: validation}
    columns: {text: sentence, label: label}
    labels: [a, b]
    templates: [{pattern: "It costs ${text}", verbalizer: {a: a, b: b}}]"""
    path = tmp_path / "mine.yaml"
    path.write_text(SUITE.replace("tasks: {}", task))
    request = load([f"suite={path}", "budget.labels=3", "tasks.price.limit=5"])
    assert request.suite.tasks["price"].templates[0].pattern == "It costs ${text}"
    path.write_text(
        SUITE.replace("tasks: {}", task).replace("budget: {labels: 4, train_examples: 8}", "budget: ${nothing}")
    )
    with pytest.raises(UserFault, match="budget"):
        load([f"suite={path}", "budget.labels=3"])
