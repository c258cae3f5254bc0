"""`python -m bench.data.harness_export`: a task of lm-eval becomes rows, by its own code, in a process of its own.

Prompts and options are those that lm-eval would ask a model with (`Task.build_all_requests` of lm-eval 0.4): they are
cut into what stands before every question, the question, and the options, which joined are its strings to the letter.
An order is read from standard input as JSON and one worded line goes to standard error where it cannot be followed.
"""

from __future__ import annotations

import glob
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jinja2.exceptions import SecurityError

from bench.config.harness import Harness
from bench.data import harness_files
from bench.data.wording import did_you_mean, listing
from bench.errors import UserFault

FEWSHOT_SEED = 1234
"""lm-eval's own default: what its demonstrations are drawn by."""
MOST_TRAIN = 10_000
"""Of a longer training split every n-th row is written, so that no more than this are."""
MEASURED = {"acc": None, "acc_norm": "acc_norm", "acc_bytes": "acc_bytes", "f1": "f1", "mcc": "matthews"}
"""lm-eval's metrics -> ours that is measured beside accuracy."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
RESERVED = ("opening", "question", "options", "label")


def export(order: dict[str, Any], out: Path) -> None:
    """Write `train.jsonl` (empty where there is nothing to train on), `validation.jsonl` (where it is a third split),
    `test.jsonl`, `task.json` (labels, and `Harness`) and `inputs.json` (files it was read from) into `out`.

    Raises `UserFault` in words for what is no task, has data that cannot be had, or cannot be scored here.
    """
    code = Path(order["code"]) if order.get("code") else None
    task = loaded(order["spec"], code)
    if getattr(task, "OUTPUT_TYPE", None) != "multiple_choice" or callable(task.config.process_results):
        what = "scores replies by code of its own" if callable(task.config.process_results) else task.OUTPUT_TYPE
        raise UserFault(f"it is {what}; allowed: a task with output_type: multiple_choice")
    if task.multiple_input:
        raise UserFault("its options stand before one same ending; allowed: options that follow one question")
    shots = shots_of(task, order["shots"])
    task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(FEWSHOT_SEED)
    split = {"test": rows(task, task.eval_docs, shots), "train": list(rows(task, training(task), 0))}
    if task.has_test_docs() and task.has_validation_docs() and task.has_training_docs():
        split["validation"] = rows(task, task.validation_docs(), 0)
    whole = {name: list(of) for name, of in split.items()}
    labels, shared = labels_of(whole)
    measures = asked(task)
    told = Harness(
        task=task.task_name, version=order["version"], shots=shots, delimiter=task.config.target_delimiter,
        task_version=None if task.VERSION in (None, "Yaml") else str(task.VERSION), between=between(task),
        shared=shared,
        measures=[one for name in measures if (one := MEASURED.get(name))],
        left_out=[name for name in measures if name not in MEASURED],
    )  # fmt: skip
    for name, of in whole.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in of)
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    known = {"labels": labels, "harness": told.model_dump(mode="json")}
    (out / "task.json").write_text(json.dumps(known, indent=1, sort_keys=True), encoding="utf-8")
    (out / "inputs.json").write_text(json.dumps(list(inputs(order["spec"], task, code))), encoding="utf-8")


def loaded(spec: str, code: Path | None) -> Any:
    """lm-eval's task of that name, or of that file or folder; `code`: the folder whose Python files such a file may
    name."""
    path = Path(spec)
    if own := path.is_absolute():
        harness_files.files(path, code)
    from lm_eval.tasks import TaskManager  # seconds of imports, which a refused file need not wait for

    harness_files.confine()
    manager = TaskManager(include_path=str(path) if path.is_dir() else None, include_defaults=not own)
    if path.is_dir():
        names = [str(one) for one in manager.all_subtasks]
        if len(names) != 1:
            raise UserFault(
                f"the folder holds {len(names)} tasks ({listing(names)}); allowed: one, or the .yaml file of one"
            )
        spec = names[0]
    elif not own and spec not in manager.all_subtasks:
        if spec in manager.all_tasks:
            raise UserFault(f"'{spec}' is a group of lm-eval's tasks; allowed: one of its tasks, a task of ours each")
        raise UserFault(f"lm-eval has no task '{spec}'{did_you_mean(spec, manager.all_subtasks)}")
    try:
        tasks = manager.load([spec])["tasks"]
    except SecurityError:
        raise
    except Exception as error:  # of lm-eval, datasets, jinja, YAML or a user's own code
        first = (str(error).strip() or "no message").splitlines()[0]
        raise UserFault(f"lm-eval cannot read it in {Path.cwd()}: {type(error).__name__}: {first[:300]}") from error
    if len(tasks) != 1:
        raise UserFault(f"it holds {len(tasks)} tasks ({listing(list(tasks))}); allowed: one")
    return next(iter(tasks.values()))


def shots_of(task: Any, wanted: int | None) -> int:
    """Demonstrations before every question; a file that says 0 is not overruled, as lm-eval itself does not."""
    given = task.config.num_fewshot
    if wanted and given == 0:
        raise UserFault(f"its file says num_fewshot: 0, which lm-eval keeps to; got shots={wanted}, allowed: 0")
    return int((given or 0) if wanted is None else wanted)


def training(task: Any) -> list[Any]:
    """What may be trained on: the training split, else one that is neither scored nor missing."""
    few, scored = task.fewshot_cfg.split, task.config.test_split or task.config.validation_split
    if task.has_training_docs():
        docs = task.training_docs()
    elif task.has_test_docs() and task.has_validation_docs():
        docs = task.validation_docs()
    else:
        docs = task.fewshot_docs() if few not in (None, scored) else []
    step = -(-len(docs) // MOST_TRAIN) or 1
    return [docs[i] for i in range(0, len(docs), step)]


def rows(task: Any, docs: Iterable[Any], shots: int) -> Iterator[dict[str, Any]]:
    """Of each document its opening, question and options as lm-eval joins them, and the right option's place.

    In the order given: lm-eval's demonstrations are drawn one document after the other.
    """
    description = task.config.description
    for number, doc in enumerate(docs):
        prefix = task.doc_to_prefix(doc)
        whole = task.fewshot_context(doc, num_fewshot=shots, gen_prefix=prefix)
        options = task.doc_to_choice(doc)
        requests = task.construct_requests(doc=doc, ctx=whole, metadata=(task.task_name, number, 1))
        question = whole
        if description or shots:
            task.set_config(key="description", value="")
            question = task.fewshot_context(doc, num_fewshot=0, gen_prefix=prefix)
            task.set_config(key="description", value=description)
        if not whole.endswith(question):
            raise UserFault(f"row {number}: its question depends on what stands before it, which is not known here")
        opening = whole[: len(whole) - len(question)]
        texts = [one.args[1] for one in requests[: len(options)]]  # others are those of mutual information
        yield {"opening": opening, "question": question, "options": texts, "label": right(task, doc, options, number)}


def right(task: Any, doc: Any, options: list[str], number: int) -> int:
    """Place of the right option, found as lm-eval's `process_results` finds it."""
    gold = task.doc_to_target(doc)
    if isinstance(gold, str):
        gold = options.index(gold) if gold in options else -1
    if isinstance(gold, list):
        raise UserFault(f"row {number} has several right options; allowed: one")
    if not 0 <= int(gold) < len(options):
        raise UserFault(f"row {number} has no right option among its {len(options)}; allowed: labels that are known")
    return int(gold)


def labels_of(split: dict[str, list[dict[str, Any]]]) -> tuple[list[str], bool]:
    """Names of the options, and whether all rows have the same ones: then these are the names, else letters."""
    found = {tuple(row["options"]) for of in split.values() for row in of}
    most = max(map(len, found), default=0)
    if most < 2:
        raise UserFault(f"its rows have {most} options; allowed: two at least")
    names = [option.strip() for option in next(iter(found))]
    fit = all(re.fullmatch(r"\w+", name) and name not in RESERVED for name in names)
    if len(found) == 1 and fit and len(set(names)) == len(names):
        return names, True
    return [LETTERS[i] if most <= len(LETTERS) else f"option{i}" for i in range(most)], len(found) == 1


def between(task: Any) -> str | None:
    """What follows a demonstration, where lm-eval writes one as a question, its right option and this."""
    docs = training(task)[:1] or [task.eval_docs[0]]
    [row] = rows(task, docs, 0)
    config, doc = task.fewshot_cfg, docs[0]
    messages = task.build_qa_turn(
        q=task.doc_to_text(doc, config.doc_to_text),
        c=task.doc_to_choice(doc, config.doc_to_choice) if config.doc_to_choice else None,
        a=task.doc_to_target(doc, config.doc_to_target),
        gen_prefix=task.resolve_field(doc, config.gen_prefix),
        tgt_delim=config.target_delimiter,
        few_delim=config.fewshot_delimiter,
    )
    shown = "".join(message.to_text() for message in messages)
    plain = row["question"] + row["options"][row["label"]]
    return shown[len(plain) :] if shown.startswith(plain) else None


def asked(task: Any) -> list[str]:
    """Names of lm-eval's metrics of the task."""
    return [str(name) for name in task.aggregation()]


def inputs(spec: str, task: Any, code: Path | None) -> Iterator[tuple[str, int, int]]:
    """Local files that the rows were read from, each with bytes and time of change: files of the task, then its data.

    Data of the hub lies in its cache under a commit; those of lm-eval's own tasks change with lm-eval's version.
    """
    config = task.config
    files = harness_files.files(Path(spec), code) if Path(spec).is_absolute() else []
    for text in texts_in([config.dataset_path, config.dataset_kwargs or {}]):
        for found in sorted(glob.glob(text)):
            files += (
                [p for p in sorted(Path(found).rglob("*")) if p.is_file()] if Path(found).is_dir() else [Path(found)]
            )
    for path in dict.fromkeys(path.resolve() for path in files if path.is_file()):
        yield str(path), path.stat().st_size, path.stat().st_mtime_ns


def texts_in(value: Any) -> Iterator[str]:
    """All texts in nested lists and mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts_in(one)


def main() -> int:
    """Exit code 0, or 2 with one worded line on standard error."""
    order = json.load(sys.stdin)
    try:
        export(order, Path(order["out"]))
    except UserFault as fault:
        print(fault, file=sys.stderr)
        return 2
    except SecurityError as error:
        print(f"a template of it wants what no template may have: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
