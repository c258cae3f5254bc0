"""Tasks in lm-eval's own form for tests: files and rows written for this project, and what lm-eval itself says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from bench.models.base import Base

NOUNS = (
    "lamp",
    "river",
    "ladder",
    "garden",
    "kettle",
    "bridge",
    "violin",
    "anchor",
    "basket",
    "mirror",
    "pillow",
    "saddle",
)
QUIZ = """
task: quiz
dataset_path: json
dataset_kwargs: {{data_files: {{train: {folder}/quiz-train.jsonl, test: {folder}/quiz-test.jsonl}}}}
output_type: multiple_choice
training_split: train
test_split: test
fewshot_config: {{sampler: first_n}}
description: "Questions about things.\\n\\n"
doc_to_text: "Question: {{{{asked}}}}\\nAnswer: "
doc_to_target: right
doc_to_choice: offered
metric_list: [{{metric: acc}}, {{metric: acc_norm}}, {{metric: acc_bytes}}, {{metric: exact_match}}]
metadata: {{version: 2.5}}
"""
TICKETS = """
task: tickets
dataset_path: json
dataset_kwargs: {{data_files: {{train: {folder}/tickets-train.jsonl, validation: {folder}/tickets-test.jsonl}}}}
output_type: multiple_choice
training_split: train
validation_split: validation
doc_to_text: "{{{{body}}}}\\nUrgent?"
doc_to_target: "{{{{['no', 'yes'][urgent]}}}}"
doc_to_choice: ["no", "yes"]
metric_list: [{{metric: acc}}, {{metric: f1}}, {{metric: mcc}}]
"""


def quiz(number: int, split: str) -> dict[str, Any]:
    """A question with three or four options of unlike lengths, one with letters of two bytes."""
    noun, other = NOUNS[number % len(NOUNS)], NOUNS[(number * 5 + 3) % len(NOUNS)]
    offered = [f"a {noun}", f"the old {other} by the door", "naïve", f"no {noun} at all"][: 3 + number % 2]
    return {"asked": f"What is number {number} of the {split}, the {noun}?", "offered": offered, "right": number % 3}


def ticket(number: int, split: str) -> dict[str, Any]:
    """A message with a yes or no."""
    noun = NOUNS[number % len(NOUNS)]
    return {
        "body": f"The {noun} of {split} room {number} is {'on fire' if number % 3 else 'blue'}.",
        "urgent": int(number % 3 > 0),
    }


def write(folder: Path) -> Path:
    """Both tasks and their data in a folder."""
    for name, text, row in (("quiz", QUIZ, quiz), ("tickets", TICKETS, ticket)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{name}.yaml").write_text(text.format(folder=folder))
        for split, number in (("train", 24), ("test", 14)):
            lines = [json.dumps(row(i, split)) + "\n" for i in range(number)]
            (folder / f"{name}-{split}.jsonl").write_text("".join(lines))
    return folder


def by_lm_eval(base: Base, name: str, folder: Path, shots: int, samples: list[int] | None = None) -> dict[str, Any]:
    """What `lm_eval.simple_evaluate` says of a task with this model: metrics, and log-likelihoods by document."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    torch.set_num_threads(1)
    model = HFLM(pretrained=base.module, tokenizer=base.tokenizer, batch_size=4)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model=model, tasks=[name], task_manager=manager, num_fewshot=shots, bootstrap_iters=0, log_samples=True,
        samples=None if samples is None else {name: samples},
    )  # fmt: skip
    assert found is not None
    said = {one["doc_id"]: [float(reply[0][0]) for reply in one["resps"]] for one in found["samples"][name]}
    return {"metrics": found["results"][name], "said": said}
