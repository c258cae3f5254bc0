"""Tasks of lm-eval as data: what a suite says of them, the rows lm-eval gives, and what is refused."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

import pytest
import tiny
from data_rows import fault
from harness_runs import needs_lm_eval, rows_of, task_of
from pydantic import ValidationError

from bench.config import DataSettings, load
from bench.config.schema import DataRef, Task
from bench.data import harness, harness_export
from bench.data.sources import locate

pytest_plugins = ("harness_runs",)


@pytest.fixture(autouse=True)
def unconfined(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the export forbids itself, in a process of its own, it would forbid this one for good."""
    monkeypatch.setattr(harness_export.harness_files, "confine", lambda: None)


def test_a_task_of_lm_eval_needs_nothing_but_its_name() -> None:
    task = load(["suite=smoke", "tasks=arc", "tasks.arc.data.lm_eval=arc_easy"]).suite.tasks["arc"]
    assert task.data == DataRef(lm_eval="arc_easy") and task.kind == "choose" and task.harness is None
    assert task.continued and task.spoken and task.data.own and not tiny.task().continued


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"kind": "prefer"},
            "kind of a task of lm-eval is what lm-eval's own file says: leave it out; allowed beside",
        ),
        ({"labels": ["no", "yes"]}, "labels of a task of lm-eval is what lm-eval's own file says"),
        ({"drop_overlap": []}, "drop_overlap of a task of lm-eval is what"),
        (
            {"data": {"lm_eval": "a", "hub": "b/c"}},
            "a task's data names one of 'hub' (with an optional 'sample'), 'path',",
        ),
        (
            {"data": {"path": "a", "shots": 1}},
            "shots are lm-eval's own demonstrations: give data.lm_eval, or use few_shot",
        ),
        ({"data": {"lm_eval": "a", "shots": -1}}, "greater than or equal to 0"),
    ],
)
def test_fault_for_what_lm_eval_says_itself(more: dict, words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Task.model_validate({"data": {"lm_eval": "arc_easy"}, **more})
    assert words in str(caught.value)


@pytest.mark.parametrize("key", ["drop_overlap", "pairs"])
def test_fault_for_prompts_in_place_of_texts(key: str) -> None:
    other = {"data": {"lm_eval": "a"}, "split": "test", "columns": ["x"] if key == "drop_overlap" else {"text": "x"}}
    raw = tiny.task().model_dump(mode="json") | {key: [other] if key == "drop_overlap" else other}
    with pytest.raises(
        ValidationError, match="compares with texts of files, and data.lm_eval has none|read from files"
    ):
        Task.model_validate(raw)


def test_fault_where_lm_eval_is_not_installed(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    said = fault(task_of, cached, "quiz")
    assert said == (
        f"task 'quiz' (data.lm_eval={cached / 'quiz'}): it needs lm-eval, which is not installed: python -m pip install "
        "'lm-eval>=0.4.13' (the extra 'lmeval')"
    )


def test_fault_for_a_file_that_is_not_there(cached: Path) -> None:
    assert "there is no file or folder 'no/such.yaml'; allowed: one that is there, or a name" in fault(
        harness.told, "a", Task.model_validate({"data": {"lm_eval": "no/such.yaml"}}), DataSettings()
    )


# ---- rows, written by lm-eval's own code


@needs_lm_eval
def test_rows_are_lm_evals_to_the_letter(cached: Path) -> None:
    task = task_of(cached, "quiz")
    rows = rows_of("quiz", task)
    assert task.labels == ["A", "B", "C", "D"] and task.harness is not None and not task.harness.shared
    assert rows.test.fields[0] == {
        "opening": "Questions about things.\n\n",
        "question": "Question: What is number 0 of the test, the lamp?\nAnswer: ",
        "A": " a lamp", "B": " the old garden by the door", "C": " naïve",
    }  # fmt: skip
    assert set(rows.test.fields[1]) >= {"D"} and len(rows.test) == 14 and len(rows.train) == 24
    assert rows.test.labels == [i % 3 for i in range(14)] and rows.test.index == list(range(14))
    said = task.harness
    assert (said.task, said.shots, said.delimiter, said.between, said.task_version) == ("quiz", 0, " ", "\n\n", "2.5")
    assert said.measures == ["acc_norm", "acc_bytes"] and said.left_out == ["exact_match"]


@needs_lm_eval
def test_options_that_all_rows_share_name_the_labels(cached: Path) -> None:
    task = task_of(cached, "tickets", metric="f1", positive="yes")
    assert task.labels == ["no", "yes"] and task.harness is not None and task.harness.shared
    assert fault(task_of, cached, "tickets", positive="maybe") == (
        "tasks.tickets: positive is 'maybe', not one of the labels ['no', 'yes']"
    )
    cutting = Task.model_validate(task.model_dump(mode="json") | {"splits": {"train": "dev", "test": "test"}})
    assert "task 'tickets': lm-eval gives no split 'dev'; allowed: train, test, or slices" in fault(
        rows_of, "tickets", cutting
    )
    halves = task_of(cached, "tickets", splits={"train": "test[:50%]", "test": "test[50%:]"})
    both = rows_of("tickets", halves)
    assert sorted(both.train.index + both.test.index) == list(range(14))


@needs_lm_eval
def test_rows_are_written_again_where_their_data_changed(cached: Path) -> None:
    def fingerprint() -> str:
        harness._exported.cache_clear()
        return locate("quiz", task_of(cached, "quiz"), "path", DataSettings()).fingerprint

    before, file = fingerprint(), cached / "quiz-test.jsonl"
    kept = file.read_text()
    assert fingerprint() == before
    file.write_text(kept.replace("number 0 of", "number 0 out of"))
    assert fingerprint() != before
    file.write_text(kept)
    assert fingerprint() == before


GENERATING = "output_type: generate_until"


@needs_lm_eval
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "output_type: multiple_choice",
            GENERATING,
            "it is generate_until; allowed: a task with output_type: multiple_choice",
        ),
        ("doc_to_target: right", "doc_to_target: [0, 1]", "row 0 has several right options; allowed: one"),
        (
            "doc_to_target: right",
            "doc_to_target: '{{right * 5}}'",
            "row 1 has no right option among its 4; allowed: labels that are known",
        ),
        ("quiz-test.jsonl", "quiz-absent.jsonl", "lm-eval cannot read it in "),
        (
            "training_split: train",
            "num_fewshot: 0",
            "its file says num_fewshot: 0, which lm-eval keeps to; got shots=2",
        ),
        (
            "doc_to_target: right\ndoc_to_choice: offered",
            "doc_to_target: 0\ndoc_to_choice: ['one']",
            "its rows have 1 options; allowed: two at least",
        ),
    ],
)
def test_fault_for_a_task_that_cannot_be_scored(cached: Path, tmp_path: Path, old: str, new: str, words: str) -> None:
    text = (cached / "quiz" / "quiz.yaml").read_text()
    assert old in text
    path = tmp_path / "broken.yaml"
    path.write_text(text.replace(old, new))
    assert words in fault(harness_export.export, {"spec": str(path), "shots": 2, "version": "0"}, tmp_path)


@needs_lm_eval
def test_fault_for_a_folder_of_several_tasks_and_for_unknown_names(cached: Path) -> None:
    loaded = harness_export.loaded
    assert "the folder holds 2 tasks (quiz, tickets); allowed: one, or the .yaml" in fault(loaded, str(cached), None)
    assert "lm-eval has no task 'arc_esay'; did you mean 'arc_easy'?" in fault(loaded, "arc_esay", None)
    assert "'mmlu' is a group of lm-eval's tasks; allowed: one of its tasks" in fault(loaded, "mmlu", None)


@needs_lm_eval
def test_a_fault_of_the_process_is_the_planners(cached: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.yaml").write_text(
        (cached / "quiz" / "quiz.yaml").read_text().replace("multiple_choice", "loglikelihood")
    )
    task = Task.model_validate({"data": {"lm_eval": str(tmp_path / "odd.yaml")}})
    assert fault(harness.told, "odd", task, DataSettings()) == (
        f"task 'odd' (data.lm_eval={tmp_path / 'odd.yaml'}): it is loglikelihood; allowed: a task with output_type: multiple_choice"
    )


# ---- scores
