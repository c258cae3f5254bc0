"""Faults in what the user wrote or laid out: suite files, mirrors, parquet and folders of data."""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_fixtures import Fault

from bench.cli import main

pytest_plugins = ("fault_fixtures",)
pytestmark = pytest.mark.usefixtures("here", "forked")
TASK = """\
name: mine
model: random:tiny-gpt2
tasks:
  own:
    data: {path: DATA}
    splits: {train: train, test: test}
    columns: {text: sentence, label: label}
    labels: ["no", "yes"]
    templates:
      - pattern: "{text}\\nAnswer:"
        verbalizer: {"no": " bad", "yes": " good"}
strategies: {zero_shot: {}, lora: {r: 2}}
budget: {labels: 4, train_examples: 8}
"""


def suite(folder: Path, *changes: tuple[str, str]) -> str:
    """A suite file of the user's with its data, some text replaced; the token that names it."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    for split in ("train", "test"):
        rows = [f'{{"sentence": "{split} text {i}", "label": {i % 2}}}' for i in range(8)]
        (data / f"{split}.jsonl").write_text("\n".join(rows))
    text = TASK.replace("DATA", str(data))
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "mine.yaml").write_text(text)
    return f"suite={folder / 'mine.yaml'}"


def test_the_unchanged_suite_file_is_fine(tmp_path: Path) -> None:
    """What the next tests break works before they do."""
    assert main(["plan", suite(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('{"no": " bad", "yes": " good"}', "{no: bad, yes: good}", "a word was read as a boolean: put it in quotes"),
        ('labels: ["no", "yes"]', "labels: [no, yes]", "a word was read as a boolean: put it in quotes"),
        ('"no": " bad", "yes": " good"', '"no": " bad"', "verbalizer has ['no'], labels has ['no', 'yes']"),
        ('" good"', '" bad"', "verbalizer words must be different"),
        ('"{text}\\nAnswer:"', '"{txt}"', "pattern names ['txt'], columns has ['text']"),
        ('"{text}\\nAnswer:"', '"Answer:"', "pattern has no {field} place"),
        ("text: sentence, ", "", "columns needs 'label' and at least one text field"),
        ('["no", "yes"]', '["no", "no"]', "labels has a name twice"),
        ('["no", "yes"]', '["no"]', "labels: list should have at least 2 items"),
        ("train_examples: 8", "train_examples: 8, train_tokens: 9", "got ['train_examples', 'train_tokens']"),
        ("labels: 4, train_examples: 8", "labels: 4", "exactly one budget axis must bind, got none"),
        (
            "labels: 4, train_examples: 8",
            "labels: 4, train_examples: 12e4567",
            "budget.train_examples: input should be a finite",
        ),
        ("name: mine", "name: ../mine", "name: a name holds letters"),
        ("  own:", "  own task:", "a name holds letters"),
        ("name: mine\n", "", "'name' is missing"),
        ("splits: {train: train, test: test}", "splits: {train: train}", "'tasks.own.splits.test' is missing"),
        ("model: random:tiny-gpt2", "model: ${oc.env:HOME}", "${"),
        ("model: random:tiny-gpt2", "model: [", "suite file mine.yaml cannot be read"),
        (
            "{path: ",
            "{hub: a/b, path: ",
            "names one of 'hub' (with an optional 'sample'), 'path', 'random', 'arithmetic' or 'lm_eval'",
        ),
        ("train: train, test: test", "train: train, test: train", "share rows of 'train'"),
        ("train: train, test: test", "train: train, test: dev", "no dev.parquet|.jsonl|.csv"),
        ("lora: {r: 2}", "lora: {rank: 2}", "unknown key 'strategies.lora.rank'"),
    ],
)
def test_a_broken_suite_file_is_one_worded_line(fault: Fault, tmp_path: Path, old: str, new: str, words: str) -> None:
    """Whatever is wrong in the file is told like a wrong token."""
    assert words in fault("run", suite(tmp_path, (old, new)))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.yaml", None, "suite file gone.yaml does not exist"),
        ("empty.yaml", "", "'name' is missing"),
        ("list.yaml", "- a\n- b\n", "suite file list.yaml is not a mapping"),
        ("word.yaml", "word", "'name' is missing"),
        ("tabs.yaml", "name:\n\t- x", "suite file tabs.yaml cannot be read"),
        ("twice.yaml", "name: a\nname: b\n", "suite file twice.yaml cannot be read"),
        ("bytes.yaml", b"\xff\xfe\x00name", "suite file bytes.yaml cannot be read"),
        ("object.yaml", "name: !!python/object/apply:os.getcwd []\n", "suite file object.yaml cannot be read"),
    ],
)
def test_a_suite_file_that_cannot_be_read(
    fault: Fault, tmp_path: Path, name: str, content: str | bytes | None, words: str
) -> None:
    """One line, whichever of YAML's many errors it is."""
    if content is not None:
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    assert words in fault("run", f"suite={name}")


def test_a_mirror_that_does_not_exist_or_lacks_a_file(
    fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Named by key or environment, the fault says which; and what the mirror lacks is named in full."""
    assert "the mirror 'nowhere' named by data.mirror is not a folder" in fault(
        "run", "data.mirror=nowhere", "tasks=sst2"
    )
    (tmp_path / "mirror" / "nyu-mll").mkdir(parents=True)
    lacking = fault("run", "tasks=sst2", "data.mirror=mirror")
    assert "task 'sst2': the mirror lacks mirror/nyu-mll/glue/sst2/train.parquet" in lacking
    monkeypatch.setenv("BENCH_MIRROR", str(tmp_path / "gone"))
    assert "named by BENCH_MIRROR is not a folder" in fault("run", "tasks=sst2")


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"sentence": ["a", "b"]}, "train.parquet has no column 'label'; columns there: sentence"),
        (
            {"sentnce": ["a", "b"], "label": [0, 1]},
            "has no column 'sentence'; columns there: sentnce, label; did you mean 'sentnce'?",
        ),
        ({"sentence": ["a", "b"], "label": [0, 7]}, "row 1: column 'label' holds label 7; allowed: 0 to 1"),
        ({"sentence": ["a", "b"], "label": ["negative", "postive"]}, "did you mean 'positive'?"),
        ({"sentence": ["a", "b"], "label": [-1, -1]}, "hidden"),
        ({"sentence": ["a", None], "label": [0, 1]}, "row 1: column 'sentence' holds null"),
    ],
)
def test_parquet_that_does_not_fit_the_task(
    fault: Fault, tmp_path: Path, columns: dict[str, list[object]], words: str
) -> None:
    """Missing columns and unknown labels are told by the planner, naming task, file and row, before anything runs."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "mirror/nyu-mll/glue/sst2"
    folder.mkdir(parents=True)
    for split in ("train", "validation"):
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    told = fault("run", "tasks=sst2", "model=random:tiny-gpt2", "data.mirror=mirror")
    assert words in told and "train.parquet" in told


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("path: ", "path: /nowhere", "is not a folder"),
        ("text: sentence", "text: sentense", "has no column 'sentense'"),
        ('["no", "yes"]', '["off", "on"]', "verbalizer has"),
    ],
)
def test_a_path_task_that_does_not_fit(fault: Fault, tmp_path: Path, old: str, new: str, words: str) -> None:
    """A user's own data: the same faults."""
    assert words in fault("plan", suite(tmp_path, (old, new)))


def test_labels_of_a_path_task_that_are_unknown(fault: Fault, tmp_path: Path) -> None:
    """A label word that is not in the task's list, with file, row and the nearest."""
    token = suite(tmp_path)
    (tmp_path / "data" / "train.jsonl").write_text('{"sentence": "x", "label": "yess"}\n')
    told = fault("run", token)
    assert "row 0" in told and "'yess'" in told and "did you mean 'yes'?" in told
