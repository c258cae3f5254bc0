"""The child: runs one cell from load to record. Every way it can end is an outcome."""

from __future__ import annotations

import random
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch

from bench import registry
from bench.budget import Meter
from bench.config.schema import Budget, Task
from bench.data.rows import Rows, TaskRows, draw_labels, read
from bench.data.sources import Located
from bench.errors import UserFault
from bench.measure.environment import cores, environment
from bench.measure.phases import Ledger
from bench.models.catalog import parse
from bench.models.parts import checkpointed, count, touch
from bench.models.piecewise import place
from bench.plan import Job
from bench.records import DataInfo, Outcome, Parameters, Result, Status, Training
from bench.stats.metrics import score
from bench.store import write_atomically, write_record
from bench.strategy import Diverged, Plan, Strategy, TaskContext, Unsupported
from bench.train.loop import Trained, adapt, still_improving

if TYPE_CHECKING:
    from bench.models.base import Base

Load = Callable[[], "Base"]
Tell = Callable[[str, float], None]
NEAR_TIE = 1e-3
"""Nats between the best two labels below which rounding may decide."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Cell:
    """One cell in progress; what is known when it ends, however it ends, is in its record."""

    def __init__(self, job: Job, load: Load, tell: Tell) -> None:
        self.job, self.load, self.tell = job, load, tell
        self.strategy = registry.load(job.adapters_path)[job.cell.base_strategy]
        self.ledger = Ledger(job.cell.device)
        self.fields: dict[str, Any] = {}
        located = job.located
        self.data = DataInfo(source=located["source"], fingerprint=located["fingerprint"], labels=job.task.labels)
        self.predictions: dict[str, Any] | None = None
        self.notes: list[str] = []

    def run(self) -> None:
        """Load, adapt, predict, save."""
        cell = self.job.cell
        with self.ledger.phase("load"):
            base = self.prepare_base()
            context, rows = self.opened(base)
        base_parameters = count(list(base.module.parameters()))
        meter = Meter(Budget.model_validate(cell.budget), cell.device, tick=lambda share: self.tell("adapt", share))
        with self.ledger.phase("adapt", meter):
            plan = self.prepared(base, context)
            meter.watch(plan.seen)
            trained = adapt(plan, context, meter)
        meter.unwatch()
        self.record_training(plan, trained, meter, context)
        watch = Meter(None, cell.device, tick=lambda _: self.tell("predict", 0.0))
        watch.watch(plan.seen)
        with self.ledger.phase("predict", watch):
            scores = plan.answer.predict(rows.test.fields, watch)
        watch.unwatch()
        self.record_scores(scores, rows.test, plan)
        self.record_parameters(plan, base_parameters)

    def prepare_base(self) -> Base:
        """The base on the cell's device, unless the strategy itself puts it there."""
        base = self.load()
        if self.job.cell.device == "cuda":
            limit_device_memory(self.job.memory_gib)
        if not self.strategy.places_base:
            place(base.module, torch.device(self.job.cell.device))
        touch(base.module)
        return base

    def opened(self, base: Base) -> tuple[TaskContext, TaskRows]:
        """What the strategy may see, and all rows. Raises `Unsupported` where the strategy's needs are not met."""
        rows = rows_of(self.job.cell.task, self.job.task, self.job.located)
        context = self.context(rows)
        refuse_what_is_missing(self.strategy, base, context)
        return context, rows

    def prepared(self, base: Base, context: TaskContext) -> Plan:
        """The strategy's plan. Raises `Unsupported` where it cannot work here or on these tasks."""
        plan = self.strategy.prepare(base, context, self.strategy.Options.model_validate(self.job.options))
        if self.job.wants_sources and not context.sources:
            raise Unsupported("it trains on other tasks too, and this run has none: choose two tasks or more")
        if context.sources and not plan.mixed:
            raise Unsupported(
                f"{self.strategy.name} trains on one task only: take away its sources, or use lora or full"
            )
        if self.job.cell.checkpointing and plan.groups:
            checkpointed(base)
        return plan

    def context(self, rows: TaskRows) -> TaskContext:
        """What the strategy may see: the labels of the budget, drawn by seed, and those of its source tasks."""
        cell = self.job.cell
        budget = Budget.model_validate(cell.budget)
        train = draw_labels(rows.train, budget.labels, cell.seed, len(self.job.task.labels))
        if len(train) < budget.labels:
            self.notes.append(f"only {len(train)} distinct labelled rows exist; the budget allows {budget.labels}")
        counts = [rows.test.labels.count(c) for c in range(len(self.job.task.labels))]
        update: dict[str, Any] = {"train_rows": len(rows.train), "test_rows": len(rows.test), "label_counts": counts}
        update["train_matches"] = rows.train_matches
        self.data = self.data.model_copy(update=update)
        own = self.seen(cell.task, self.job.task, train)
        sources = []
        for source in self.job.sources:
            pool = rows_of(source.name, source.task, source.located).train
            drawn = draw_labels(pool, budget.labels, cell.seed, len(source.task.labels))
            sources.append(self.seen(source.name, source.task, drawn))
        return replace(own, sources=tuple(sources), position=self.job.position)

    def seen(self, name: str, task: Task, train: Rows) -> TaskContext:
        """A task and its labelled rows, read as this cell reads."""
        cell, readout = self.job.cell, cast(Literal["head", "verbalizer"], self.job.cell.readout)
        return TaskContext(
            name,
            task,
            train,
            cell.seed,
            readout,
            cell.batch,
            cell.sequence,
            cell.micro_batch,
            device=cell.device,
            foreach=cell.foreach,
        )

    def record_training(self, plan: Plan, trained: Trained, meter: Meter, context: TaskContext) -> None:
        self.notes += plan.notes
        own = sum(task == context.name for task, _ in trained.read)
        whole = own if trained.losses else len(context.train)
        used = meter.used(whole if plan.labels_used is None else plan.labels_used, trained.ended_by, bool(plan.groups))
        self.fields["used"] = used.model_copy(update={"source_labels": len(trained.read) - own})
        if trained.losses:
            self.fields["training"] = Training(
                losses=trained.losses,
                learning_rate=trained.learning_rate,
                still_improving=still_improving(trained.losses),
                batch=context.batch,
            )

    def record_scores(self, scores: np.ndarray, test: Rows, plan: Plan) -> None:
        """The task's metric and accuracy, each with its interval; a constant answer is said in words."""
        predicted = scores.argmax(-1)
        task = self.job.task
        positive = task.labels.index(task.positive) if task.positive else len(task.labels) - 1
        metrics = dict.fromkeys((task.metric, "accuracy"))
        self.fields["scores"] = {m: score(m, test.labels, predicted.tolist(), positive=positive) for m in metrics}
        best = np.sort(scores, axis=-1)[:, -2:]
        self.fields["near_ties"] = int((best[:, 1] - best[:, 0] < NEAR_TIE).sum())
        if len(set(predicted.tolist())) == 1:
            self.notes.append(f"answered '{task.labels[predicted[0]]}' for every item")
        if plan.answer.truncated:
            self.data = self.data.model_copy(update={"truncated": plan.answer.truncated})
        self.predictions = {"row": test.index, "label": test.labels, "predicted": predicted.tolist()}
        self.predictions |= {f"score_{i}": scores[:, i].tolist() for i in range(scores.shape[1])}

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

    def write(self, status: Status, reason: str | None) -> None:
        """Predictions first, the record last: a record that exists is complete."""
        folder = Path(self.job.folder)
        ok = status == Status.ok
        if ok and self.predictions is not None:
            write_atomically(folder / "predictions.parquet", parquet(self.predictions))
        if not ok:
            self.fields.pop("scores", None)
        result = Result(
            cell=self.job.cell,
            outcome=Outcome(status=status, reason=reason),
            phases=self.ledger.phases,
            data=self.data,
            model_note=parse(self.job.model).note or None,
            notes=self.notes,
            environment=environment(self.job.threads or cores()) | foreign(self.job),
            **self.fields,
        )
        write_record(folder / "result.json", result)


def rows_of(name: str, task: Task, located: dict[str, Any]) -> TaskRows:
    """A task's rows from the files its job names."""
    files = {k: tuple(Path(p) for p in v) for k, v in located["files"].items()}
    return read(name, task, Located(located["source"], files, located["fingerprint"]))


def foreign(job: Job) -> dict[str, Any]:
    """The folder a user's own strategies came from, by name: a record must tell that foreign code ran."""
    return {"adapters_path": Path(job.adapters_path).name} if job.adapters_path else {}


def parquet(columns: dict[str, Any]) -> bytes:
    """Columns as the bytes of a parquet file."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def limit_device_memory(gib: float | None) -> None:
    """Hold this process to `gib` of the card."""
    if gib is not None:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gib * 2**30 / total))


def refuse_what_is_missing(strategy: Strategy, base: Base, context: TaskContext) -> None:
    """Raise `Unsupported` in words where the strategy's needs are not met."""
    name, needs = strategy.name, strategy.needs
    if base.kind not in needs.kinds:
        allowed = " or ".join(sorted(needs.kinds))
        heads = {"encoder": "it has no LM head", "masked": "its LM head fills blanks and cannot continue a prompt"}
        why = heads.get(base.kind, "its encoder reads the prompt and its decoder answers")
        raise Unsupported(f"{name} needs a {allowed} model; this one is {base.kind} ({why}): use frozen, lora or full")
    if context.readout not in strategy.readouts:
        raise Unsupported(f"{name} has no {context.readout} readout: use readout={' or '.join(strategy.readouts)}")
    if len(context.train) < needs.train_labels:
        raise Unsupported(
            f"{name} needs at least {needs.train_labels} label(s), got {len(context.train)}: raise budget.labels"
        )


def seed_everything(seed: int) -> None:
    """Every generator a strategy might draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def run_cell(job: Job, load: Load, tell: Tell) -> int:
    """Run one cell and write its record. 0: a record was written; 1: it could not be written."""
    torch.set_num_threads(job.threads or cores())
    seed_everything(job.cell.seed)
    cell = Cell(job, load, tell)
    try:
        cell.run()
        status, reason = Status.ok, None
    except BaseException as error:
        traceback.print_exc()
        status, reason = outcome_of(error, job)
    try:
        cell.write(status, reason)
    except OSError as error:
        print(f"cannot write the record: {error}", file=sys.stderr)
        return 1
    return 0


def outcome_of(error: BaseException, job: Job) -> tuple[Status, str]:
    """Which outcome an exception is, in a sentence with the remedy."""
    if isinstance(error, Unsupported):
        return Status.unsupported, str(error)
    if isinstance(error, Diverged):
        return Status.diverged, str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
        detail = " ".join(str(error).split())[:300]
        return Status.out_of_memory, f"memory ran out: {detail}; lower batch or sequence, or raise budget.memory_gib"
    if isinstance(error, KeyboardInterrupt):
        return Status.interrupted, "interrupted by Ctrl-C; it runs again next time"
    where = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(where[-1].filename).name}:{where[-1].lineno}" if where else ""
    detail = " ".join(str(error).split())[:400]
    kind = "" if isinstance(error, UserFault) else f"{type(error).__name__}: "
    return Status.error, f"{kind}{detail}{place}; the end of log.txt beside this record has the traceback"
