"""Every user's fault on the command line: exit code 2, one line `error: ...` that says what is wrong, nothing written."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from fault_fixtures import Fault
from filelock import FileLock

from bench.cli import main

pytest_plugins = ("fault_fixtures",)
pytestmark = pytest.mark.usefixtures("here", "forked")
SMOKE = ["suite=smoke", "model=random:tiny-gpt2", "data.source=sample"]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        # names that do not exist, with the nearest
        ("suite=smok", "unknown suite 'smok'; did you mean 'smoke'?"),
        ("tasks=sts2", "unknown task 'sts2'; did you mean 'sst2'?"),
        ("strategies=lroa", "unknown strategy 'lroa'; did you mean 'lora'?"),
        ("strategies=x strategies.x.base=lroa", "unknown strategy 'lroa'; did you mean 'lora'?"),
        ("tasks.sst2.strategies.lroa.r=3", "unknown strategy 'lroa'; did you mean 'lora'?"),
        ("model=random:tiny-gtp2", "unknown model 'random:tiny-gtp2'; did you mean 'random:tiny-gpt2'?"),
        ("model=gpt2", "unknown model 'gpt2'; did you mean 'random:gpt2'"),
        ("budget.secnds=60", "unknown key 'budget.secnds'; did you mean 'train_seconds'?"),
        ("budgte.labels=3", "unknown key 'budgte'; did you mean 'budget'?"),
        ("run.cell_secnds=3", "unknown key 'run.cell_secnds'; did you mean 'cell_seconds'?"),
        ("data.mirorr=x", "unknown key 'data.mirorr'; did you mean 'mirror'?"),
        ("tasks.sst2.metrc=f1", "unknown key 'tasks.sst2.metrc'; did you mean 'metric'?"),
        ("tasks.sst2.data.sampel=x", "unknown key 'tasks.sst2.data.sampel'; did you mean 'sample'?"),
        ("tasks.sst2.splits.tset=x", "unknown key 'tasks.sst2.splits.tset'; did you mean 'test'?"),
        ("strategies.lora.lora_alhpa=3", "unknown key 'strategies.lora.lora_alhpa'; did you mean 'lora_alpha'?"),
        ("probes=fromats", "unknown key 'probes.fromats'; did you mean 'formats'?"),
        ("probes.formats.itms=3", "unknown key 'probes.formats.itms'; did you mean 'items'?"),
        ("probes.formats.number=1", "probes.formats.number: input should be greater than or equal to 2, got 1"),
        ("probes.contamination.plant=0", "probes.contamination: plant holds doses of 1 or more, each once"),
        ("probes.contamination.plant=[2,2]", "plant holds doses of 1 or more, each once (the clean cell is dose 0)"),
        ("probes.contamination.strategies=lroa probes.contamination.plant=2", "unknown strategy in probes."),
        ("probes.contamination.strategies=zero_shot", "zero_shot trains nothing, so nothing can be planted in it"),
        ("probes.formats.number=100000000", "prompt formats are asked for, and this task's material makes"),
        ("probes=formats keep_adapters=false", "keep_adapters=false stores nothing; allowed: keep_adapters=true"),
        # tokens that are none
        ("labels", "'labels' is not an override: got no '=', allowed key=value"),
        ("=3", "'=3' is not an override"),
        ("--batch=3", "'--batch=3' is not an override"),
        ("batch=[1", "cannot read 'batch=[1'"),
        ("batch=${oc.env:HOME}", "holds '${': interpolation is not allowed"),
        ("suite=3", "suite=3 is not a name"),
        ("suite=", "is not a name; see: python -m bench list suites"),
        ("name=x", "'name' cannot be overridden; use run.name="),
        # values
        ("budget.labels=-3", "budget.labels: input should be greater than or equal to 0, got -3"),
        ("budget.labels=12e4567", "budget.labels: input should be a finite number, got inf"),
        ("budget.labels=many", "budget.labels: input should be a valid integer"),
        ("budget.labels=yes", "budget.labels: "),
        ("budget.train_seconds=12e4567", "budget.train_seconds: input should be a finite number, got inf"),
        ("budget.memory_gib=nan", "budget.memory_gib: input should be a finite number"),
        ("budget.memory_gib=1e300", "budget.memory_gib: input should be less than 1000000, got 1e+300"),
        (
            "budget.ladder=[8,1e30]",
            "budget: ladder holds numbers of train_examples below 9223372036854775808, got [8.0, 1e+30]",
        ),
        ("budget=3", "budget: input should be a valid dictionary"),
        ("seeds=[]", "seeds: list should have at least 1 item"),
        ("seeds=0", "seeds: list should have at least 1 item"),
        ("seeds=[3,3]", "seeds has an entry twice: [3, 3]"),
        ("seeds=[a]", "seeds.0: input should be a valid integer"),
        ("seeds.0=1", "seeds"),
        ("model=", "model: "),
        ("model=random:tiny-gpt2,random:tiny-gpt2", "model has an entry twice"),
        ("batch=0", "batch: input should be greater than or equal to 1, got 0"),
        ("sequence=3", "sequence: input should be greater than or equal to 8, got 3"),
        ("readout=haed", "readout: input should be 'auto', 'head' or 'verbalizer', got 'haed'"),
        ("precision=fp8", "precision: input should be 'auto', 'fp32', 'bf16' or 'fp16', got 'fp8'"),
        ("device=tpu", "device: input should be 'auto', 'cpu' or 'cuda', got 'tpu'"),
        ("threads=0", "threads: input should be greater than or equal to 1, got 0"),
        ("rerun=al", "rerun: input should be 'none', 'changed', 'failed' or 'all', got 'al'"),
        ("executor=slurm", "executor: input should be 'local' or 'ray', got 'slurm'"),
        ("keep_adapters=maybe", "keep_adapters: input should be a valid boolean"),
        ("run.cell_seconds=-1", "run.cell_seconds: input should be greater than 0, got -1"),
        ("run.name=../x", "run.name: a name holds letters, digits, '_', '.' and '-' only"),
        ("adapters_path=nowhere", "adapters_path=nowhere is not a folder"),
        ("strategies.lora.r=0", "strategies.lora.r: input should be greater than or equal to 1, got 0"),
        ("strategies.lora.lr=inf", "strategies.lora.lr: "),
        ("strategies.lora=3", "strategies.lora: input should be a valid dictionary, got 3"),
        ("strategies=x strategies.x.base=[1]", "strategy"),
        ("tasks.sst2=3", "tasks.sst2: input should be a valid dictionary"),
        ("tasks.sst2.labels.0=x", "labels"),
        ("tasks.sst2.templates.0.pattern=x", "templates"),
        ("tasks.sst2.limit=0", "tasks.sst2.limit: input should be greater than or equal to 1, got 0"),
        (
            "tasks.sst2.kind=regress",
            "tasks.sst2.kind: input should be 'classify', 'choose', 'prefer', 'generate' or 'tag', got 'regress'",
        ),
        (
            "tasks.sst2.metric=f2",
            "tasks.sst2.metric: input should be 'accuracy', 'f1', 'matthews', 'rouge1', 'rouge2', 'rouge_l', 'chrf' or "
            "'span_f1', got 'f2'",
        ),
        (
            "tasks.sst2.metric=f1 tasks.sst2.labels=[a,b,c]",
            "metric f1 is for two labels, got 3; allowed: accuracy, matthews",
        ),
        ("tasks.sst2.labels=[no,yes]", "a word was read as a boolean: put it in quotes"),
        ("tasks.sst2.positive=x", "positive is 'x', not one of the labels"),
        ("tasks.sst2.cluster=txt", "cluster is 'txt', not one of the text fields ['text']; did you mean 'text'?"),
        ("tasks.sst2.splits.test=tset", "has no split 'tset'"),
        ("tasks.sst2.splits.test=train[", "cannot read the split 'train['"),
        ("tasks.sst2.columns.text=nope", "has no column 'nope'"),
        ("tasks.sst2.data.sample=sts2.jsonl", "no bundled sample"),
        # selections and axes
        ("tasks=sst2,sst2", "tasks=sst2,sst2 names one twice"),
        ("strategies=3", "strategies=3 is not a selection"),
        ("strategies=[]", "strategies= selects nothing"),
        (
            "budget.train_tokens=5 budget.train_seconds=5",
            "two budget axes on the command line (train_tokens, train_seconds)",
        ),
        ("budget.train_examples=null", "exactly one budget axis must bind, got none"),
        ("budget.curve=[8,32] budget.labels=8", "labels and curve both say how many labels"),
        ("budget.curve=[8,8]", "each once"),
        ("gpu=t5", "unknown gpu 't5'; did you mean 't4'?"),
        ("tasks.sst2.data.random=9", "a task's data names one of"),
        ("budget.ladder=[8,8]", "ladder holds values of the axis above 0, each once"),
        ("budget.ladder=[0,8]", "ladder holds values of the axis above 0, each once"),
        ("budget.ladder=[8.5]", "ladder holds whole numbers of train_examples"),
        ("budget.lader=[8]", "did you mean 'ladder'"),
        ("strategies.lora.sources=[rte]", "unknown task in strategies.lora.sources 'rte'"),
        ("strategies.lora.sources=rte", "strategies.lora.sources: a list of task names or 'all', got 'rte'"),
        ("micro_batch=0", "micro_batch: rows per forward are a whole number from 1 on, or auto, got 0"),
        ("micro_batch=atuo", "or auto; did you mean 'auto'?, got 'atuo'"),
        ("predict=maybe", "predict: input should be a valid boolean"),
        ("budget.epochs=0", "budget.epochs: input should be greater than or equal to 1, got 0"),
        ("strategies=few_shot strategies.few_shot.k=alll", "strategies.few_shot.k"),
        ("strategies=full strategies.lora.r=2", "override for strategies.lora, which is not selected; selected: full"),
        ("strategies.loar.r=2", "unknown strategy in an override 'loar'; did you mean 'lora'?"),
        ("tasks.sts2.limit=5", "unknown task in an override 'sts2'; did you mean 'sst2'?"),
        # sources and models
        ("data.source=mirror", "data.source=mirror needs data.hub"),
        ("data.source=mirorr", "data.source: input should be 'auto', 'mirror', 'hub' or 'sample', got 'mirorr'"),
        ("model=hub:a/b@main", "must be pinned"),
        ("model=path:nowhere", "model folder 'nowhere' does not exist"),
        ("model=path:.", "has no config.json"),
    ],
)
def test_a_bad_request_is_one_worded_line(fault: Fault, tokens: str, words: str) -> None:
    """It is refused before anything is loaded or written."""
    assert words in fault("plan", *SMOKE, *tokens.split(" "))


def test_a_cap_above_the_machine(fault: Fault) -> None:
    """It would cap nothing; a plan for another machine may have it."""
    assert "budget.memory_gib: got 100000, this machine has" in fault("run", *SMOKE, "budget.memory_gib=100000")


def test_a_micro_batch_without_predictions(fault: Fault) -> None:
    """It is found from them; a plan predicts in any case."""
    assert "micro_batch=auto is found from predictions" in fault("run", *SMOKE, "micro_batch=auto", "predict=false")


def test_a_selection_that_no_task_lists(fault: Fault) -> None:
    """Tasks with strategies of their own ignore a selected one that they do not list: no cell is no result."""
    words = fault("plan", "suite=memory-claims", "tasks=gpt2-small-seq128", "strategies=lora")
    assert "no cell to run: the tasks list their own strategies, none of which is among those selected (lora)" in words


@pytest.mark.parametrize(
    "tokens", ["suite=smok", "labels", "budget.labels=-3", "strategies=lroa", "model=gpt2", "tasks=x"]
)
@pytest.mark.parametrize("command", ["run", "report"])
def test_run_and_report_refuse_it_too(fault: Fault, command: str, tokens: str) -> None:
    """Every command that reads a request reads it the same way."""
    if command == "report" and tokens in ("strategies=lroa", "model=gpt2"):
        assert "nothing to report" in fault(command, *SMOKE, tokens)  # a report needs no strategy and no model
        return
    assert fault(command, *SMOKE, tokens) == fault("plan", *SMOKE, tokens)


def test_an_override_for_a_task_that_is_not_selected(fault: Fault) -> None:
    """It would silently do nothing."""
    words = fault("plan", "suite=glue-small", "data.source=sample", "tasks=rte", "tasks.sst2.limit=5")
    assert words == "override for tasks.sst2, which is not selected; selected: rte"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("list sutes", "unknown kind to list 'sutes'; did you mean 'suites'?"),
        ("list", "Missing argument"),
        ("rnu", "No such command 'rnu'"),
        ("report suite=smoke", "nothing to report: results/smoke/plan.json does not exist; run the suite first"),
        ("report suite=smok", "unknown suite 'smok'"),
        ("doctor what", "what"),
    ],
)
def test_a_bad_command_is_one_worded_line(fault: Fault, arguments: str, words: str) -> None:
    """Usage errors of the command line itself look like every other fault."""
    assert words in fault(*shlex.split(arguments))


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_results_dir_that_cannot_be_one(fault: Fault, tmp_path: Path, place: str) -> None:
    """A file in its place works for root too."""
    (tmp_path / "file").write_text("x")
    told = fault("run", *SMOKE, "strategies=zero_shot", f"results_dir={place}")
    assert told.startswith("results_dir: cannot write into") and "allowed: a writable folder" in told


def test_a_results_dir_that_is_read_only(fault: Fault, tmp_path: Path) -> None:
    """Without permission to write, the same fault; root may write anywhere, so there a sealed file system serves."""
    place = tmp_path / "sealed"
    place.mkdir()
    place.chmod(0o555)
    if os.access(place, os.W_OK):
        place = Path("/proc/sealed")
    assert "results_dir: cannot write into" in fault("run", *SMOKE, "strategies=zero_shot", f"results_dir={place}")


def test_a_run_name_too_long_for_a_folder(fault: Fault, tmp_path: Path) -> None:
    """The file system's limit is told before anything is made, and like any other folder that cannot be."""
    (tmp_path / "results").mkdir()
    told = fault("run", *SMOKE, "strategies=zero_shot", f"run.name={'x' * 300}")
    assert told.startswith("run.name: a name has 100 letters at most, got 300")
    told = fault("run", *SMOKE, "strategies=zero_shot", f"results_dir=results/{'x' * 300}")
    assert "results_dir: cannot write into" in told


def test_a_reports_dir_that_cannot_be_one(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told before the first cell, not after the last one."""
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr("bench.run.run_all", lambda *_: pytest.fail("cells ran before the fault was told"))
    assert "reports_dir: cannot write into file" in fault("run", *SMOKE, "strategies=zero_shot", "reports_dir=file")


def test_a_host_log_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A disk that fills up as the warm process starts ends in one line too (a folder in the log's place serves)."""
    (tmp_path / "results" / "smoke" / "host.log").mkdir(parents=True)
    assert main(["run", *SMOKE, "strategies=zero_shot", "predict=false"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_that_is_already_in_progress(fault: Fault, tmp_path: Path) -> None:
    """Two runs under one name would overwrite each other's cells: the second is refused with what to do."""
    (tmp_path / "results" / "smoke").mkdir(parents=True)
    with FileLock(tmp_path / "results" / "smoke" / ".lock"):
        told = fault("run", *SMOKE, "strategies=zero_shot")
    assert told == "another run is writing results/smoke; wait for it, or use run.name= for another folder"


def test_a_damaged_plan_cannot_be_reported(fault: Fault, tmp_path: Path) -> None:
    """`report` names the file and what to do."""
    (tmp_path / "results" / "smoke").mkdir(parents=True)
    (tmp_path / "results" / "smoke" / "plan.json").write_text('{"run": "smo')
    assert "results/smoke/plan.json is damaged" in fault("report", "suite=smoke")


def test_a_suite_of_samples_needs_no_mirror(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """BENCH_MIRROR in the environment (CI sets it) does not break the bundled suite whose tasks are samples only."""
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("BENCH_MIRROR", str(tmp_path / "mirror"))
    assert main(["plan", "suite=smoke", "model=random:tiny-gpt2"]) == 0, capsys.readouterr().err
