"""The record of one cell in the making: whatever is known when it ends, however it ends, is in it."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bench.budget import Meter
from bench.config.harness import Harness
from bench.config.task import TARGET, Task
from bench.data.rows import Rows
from bench.job import Job, foreign
from bench.measure.environment import cores, environment
from bench.measure.phases import Ledger
from bench.models.catalog import parse
from bench.models.parts import count
from bench.records import NEAR_TIE, STOPPED_BY, DataInfo, Outcome, Parameters, Result, Score, Status, Training, Used
from bench.score.continued import ABSENT, measures
from bench.score.marks import columns, marked
from bench.stats.metrics import score
from bench.store import SCORED, write_atomically, write_record
from bench.strategy import Plan, TaskContext
from bench.train.loop import Trained, still_improving


class Recorder:
    """Takes down what a cell gave and cost."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.ledger = Ledger(job.cell.device)
        self.fields: dict[str, Any] = {}
        located = job.located
        self.data = DataInfo(source=located["source"], fingerprint=located["fingerprint"], labels=job.task.labels)
        self.predictions: dict[str, Any] | None = None
        self.notes: list[str] = [*job.notes]
        if job.task.harness is not None:
            self.notes.append(from_lm_eval(job.task.harness))

    def record_training(self, plan: Plan, trained: Trained, meter: Meter, context: TaskContext) -> None:
        self.notes += plan.notes
        self.fields["curated"] = plan.curated
        own = sum(task == context.name for task, _ in trained.read)
        read = own if trained.losses else len(context.train)
        if "tuning" in self.fields:
            read = len(context.train)
        elif plan.labels_used is not None:
            read = plan.labels_used
        used = meter.used(read, trained.ended_by, bool(plan.groups))
        self.fields["used"] = used.model_copy(update={"source_labels": len(trained.read) - own})
        if trained.losses:
            self.fields["training"] = Training(
                losses=trained.losses,
                learning_rate=trained.learning_rate,
                still_improving=still_improving(trained.losses),
                batch=context.batch,
                micro_batch=context.micro_batch,
                told=trained.told,
            )

    def record_scores(self, scores: np.ndarray, test: Rows, plan: Plan) -> None:
        """The task's metric and those beside it, each with its interval; a constant answer is said in words."""
        predicted, task = scores.argmax(-1), self.job.task
        self.fields["scores"] = self.scored(scores, test)
        self.data = self.data.model_copy(update={"truncated": plan.answer.truncated})
        clusters = self.clusters(test)
        shared = {} if clusters is None else {"cluster": clusters}
        if task.kept:
            kept = {name: column.tolist() for name, column in columns(scores, task).items()}
            self.predictions = {"row": test.index, **shared, **kept}
            if not scores[:, :2].any():  # spans found and right, or words in common
                named = "no entity was named in any item"
                self.notes.append(named if task.kind == "tag" else "no reply shares a word with its reference")
            return
        best = np.sort(scores, axis=-1)[:, -2:]
        self.fields["near_ties"] = int((best[:, 1] - best[:, 0] < NEAR_TIE).sum())
        if len(set(predicted.tolist())) == 1 and task.kind != "generate":
            self.notes.append(f"answered '{task.labels[predicted[0]]}' for every item")
        self.predictions = {"row": test.index, "label": test.labels, "predicted": predicted.tolist(), **shared}
        for i, column in enumerate(scores.T.tolist()):
            # an option that a row does not have has no score
            self.predictions[f"score_{i}"] = [None if value == ABSENT else value for value in column]

    def clusters(self, test: Rows) -> list[int] | None:
        """One integer a test row, equal where the text of the task's `cluster` field is; numbered as they turn up."""
        field = self.job.task.cluster
        if field is None:
            return None
        numbers: dict[str, int] = {}
        return [numbers.setdefault(fields[field], len(numbers)) for fields in test.fields]

    def scored(self, scores: np.ndarray, test: Rows) -> dict[str, Score]:
        """The task's metric and accuracy of the likeliest labels, or what written answers are measured by."""
        if self.job.task.kept:
            return marked(scores, test, self.job.task, self.clusters(test))
        task, predicted = self.job.task, scores.argmax(-1).tolist()
        positive = task.labels.index(task.positive) if task.positive else len(task.labels) - 1
        metrics, clusters = dict.fromkeys((task.metric, "accuracy")), self.clusters(test)
        found: dict[str, Score] = {
            m: score(m, test.labels, predicted, positive=positive, clusters=clusters) for m in metrics
        }
        if task.kind == "generate":
            known = by_chance(test, task)
            found = {m: one.model_copy(update=known) for m, one in found.items()}
        return found if task.harness is None else measures(scores, test, task) | found

    def record_parameters(self, plan: Plan, base_parameters: int) -> None:
        """Sizes, and what `save` wrote."""
        stored = Path(self.job.folder) / "adapted"
        shutil.rmtree(stored, ignore_errors=True)
        stored.mkdir(parents=True)
        plan.save(stored)
        trainable = plan.trained if plan.trained is not None else count([p for g in plan.groups for p in g.params])
        self.fields["parameters"] = Parameters(
            trainable=trainable,
            total=base_parameters + plan.created,
            stored_bytes=sum(f.stat().st_size for f in stored.rglob("*") if f.is_file()),
            created=plan.created,
        )
        if not self.job.keep_adapters or not any(stored.iterdir()):
            shutil.rmtree(stored)

    def used_so_far(self, status: Status) -> Used:
        """What a cell that failed had used of its budget, and the limit that ended it, if one did.

        Before adapting is done the phase tells; which of the labels had been read by then is not known.
        """
        known: Used | None = self.fields.get("used")
        if known is None:
            begun = self.ledger.phases.get("adapt")
            figures = (
                {} if begun is None else {f"train_{n}": getattr(begun, n) or 0 for n in ("examples", "tokens", "flops")}
            )
            seconds = 0.0 if begun is None else begun.step_seconds or 0.0
            known = Used(labels=0 if begun is None else None, train_seconds=seconds, **figures)
        return known.model_copy(update={"ended_by": STOPPED_BY.get(status, known.ended_by)})

    def write(self, status: Status, reason: str | None, name: str = "result.json") -> None:
        """Predictions first, the record last, as `name`: a record that exists is complete."""
        folder = Path(self.job.folder)
        ok = status == Status.ok
        if ok and self.predictions is not None:
            written = parquet(self.predictions)
            write_atomically(folder / "predictions.parquet", written)
            self.fields["predictions_sha256"] = hashlib.sha256(written).hexdigest()
        if not ok:
            self.fields.pop("scores", None)
            self.fields["used"] = self.used_so_far(status)
        result = Result(
            cell=self.job.cell,
            outcome=Outcome(status=status, reason=reason),
            phases=self.ledger.phases,
            predicted=self.job.predicted,
            data=self.data,
            model_note=parse(self.job.model).note or None,
            notes=self.notes,
            environment=environment(self.job.threads or cores()) | foreign(self.job),
            **self.fields,
        )
        write_record(folder / name, result)
        if name != SCORED:
            (folder / SCORED).unlink(missing_ok=True)


def from_lm_eval(harness: Harness) -> str:
    """Where a task's prompts, options and right answers come from."""
    version = f" (version {harness.task_version})" if harness.task_version else ""
    shots = f", with {harness.shots} demonstrations of its own that no budget counts," if harness.shots else ""
    missing = f"; of its metrics {', '.join(harness.left_out)} is not measured" if harness.left_out else ""
    return f"prompts{shots} and options as lm-eval {harness.version} writes {harness.task}{version}{missing}"


def by_chance(test: Rows, task: Task) -> dict[str, Any]:
    """Fields of the score of written answers that say what chance reaches: the best constant answer, or guessing among
    those that the questions offer if that is better."""
    assert task.reply is not None
    best, offers = constant(test), task.reply.offers
    if offers is not None:
        asked = ["\n".join(fields[name] for name in task.prompt_fields) for fields in test.fields]
        offered = [len(re.findall(offers, text, re.MULTILINE)) for text in asked]
        guess = sum(1 / n for n in offered if n) / len(offered)
        if guess > best:
            return {"chance": guess, "chance_is": "guessing among the answers offered"}
    return {"chance": best}


def constant(test: Rows) -> float:
    """The share of free replies that the best constant one gets right: that of the commonest target."""
    targets = [fields[TARGET].casefold() for fields in test.fields]
    return Counter(targets).most_common(1)[0][1] / len(targets)


def parquet(columns: dict[str, Any]) -> bytes:
    """Columns as the bytes of a parquet file."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()
