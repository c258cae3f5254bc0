"""The child: runs one cell from load to record. Every way it can end is an outcome."""

from __future__ import annotations

import random
import sys
import tempfile
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
from bench.data.draws import draw_labels
from bench.data.formats import spoken
from bench.data.rows import Rows, TaskRows, read
from bench.data.sources import Located
from bench.job import Job
from bench.measure.allocators import is_shortage, limit_device_memory, release
from bench.measure.environment import cores
from bench.models.build import build
from bench.models.parts import checkpointed, count, touch
from bench.models.piecewise import place
from bench.outcomes import outcome_of, refuse_what_is_missing, unsharded
from bench.probes.membership import members
from bench.recording import Recorder
from bench.records import Apart, Status
from bench.score.chat import speaks
from bench.score.features import folder_of
from bench.shortage import gave_up
from bench.stats.agreement import judged
from bench.store import SCORED
from bench.strategy import Diverged, Options, Plan, TaskContext, Unsupported
from bench.train.loop import Trained, adapt
from bench.train.plant import plant, planting_budget
from bench.tune.choose import Tuner, untunable

if TYPE_CHECKING:
    from bench.models.base import Base

Load = Callable[[], "Base"]
Tell = Callable[[str, float], None]


class Cell(Recorder):
    """One cell in progress."""

    def __init__(self, job: Job, load: Load, tell: Tell) -> None:
        super().__init__(job)
        self.load, self.tell = load, tell
        self.strategy = registry.load(job.adapters_path)[job.cell.base_strategy]
        self.budget = Budget.model_validate(job.cell.budget)
        self.options = self.strategy.Options.model_validate(job.options)

    def run(self) -> None:
        """Tune where trials are allowed, load, adapt, predict, save."""
        cell, defaults = self.job.cell, self.options
        self.refuse_sharding()
        if self.budget.trials is not None:
            self.tune()
        with self.ledger.phase("load"):
            base = self.prepare_base()
            context, rows = self.opened(base)
        test = drawn_test(self.job, rows) if cell.plant else rows.test
        base_parameters = count(list(base.module.parameters()))
        seed_everything(cell.seed)
        plan = self.planted(base, context, test) if cell.plant else None
        meter = self.meter()
        with self.ledger.phase("adapt", meter):
            plan = plan or self.prepared(base, context)
            meter.watch(plan.seen)
            trained = self.adapted(plan, context, meter)
        meter.unwatch()
        self.record_training(plan, trained, meter, context)
        if (plan := self.answering(plan, context)) is None:
            return
        watch = Meter(None, cell.device, tick=lambda _: self.tell("predict", 0.0))
        watch.watch(plan.seen)
        with self.ledger.phase("predict", watch):
            scores = plan.answer.predict(test.fields, watch)
        watch.unwatch()
        self.record_scores(scores, test, plan)
        self.record_parameters(plan, base_parameters)
        if self.options != defaults:
            self.write(Status.ok, None, SCORED)
            del plan, base
            release(cell.device)
            self.score_defaults(defaults, context, test)

    def refuse_sharding(self) -> None:
        """Raise `Unsupported` where the cell is one for several processes: this is one alone."""
        if self.job.cell.sharding is not None:
            raise Unsupported(unsharded(self.job) or "it was to be trained by several processes, and this is one alone")

    def meter(self) -> Meter:
        """What adapting is watched by."""
        return Meter(self.budget, self.job.cell.device, tick=lambda share: self.tell("adapt", share))

    def adapted(self, plan: Plan, context: TaskContext, meter: Meter) -> Trained:
        """Carry the plan out."""
        return adapt(plan, context, meter)

    def answering(self, plan: Plan, context: TaskContext) -> Plan | None:
        """The plan that answers once `plan` is trained; None where another process asks it."""
        return plan

    def planted(self, base: Base, context: TaskContext, test: Rows) -> Plan:
        """A plan that has been trained on its test items already: a phase of its own, outside the budget."""
        dose, device = self.job.cell.plant, self.job.cell.device
        meter = Meter(planting_budget(test, dose), device, tick=lambda share: self.tell("plant", share))
        with self.ledger.phase("plant", meter):
            plan = self.prepared(base, context)
            meter.watch(plan.seen)
            plant(plan, context, test, meter)
            meter.unwatch()
        self.notes.append(f"planted: trained on its {len(test)} test items {dose} times before its normal training")
        return plan

    def tune(self) -> None:
        """Choose the options by cross-validation within the labels; the record tells how."""
        cell, total = self.job.cell, Meter(None, self.job.cell.device)
        if cell.engine is not None:
            raise Unsupported(f"engine={cell.engine} is not tuned: take away budget.trials or use engine=own")
        limit_device_memory(cell.device, self.job.memory_gib)
        with self.ledger.phase("tune", total), tempfile.TemporaryDirectory(dir=self.job.folder) as files:
            context, _ = self.opened(self.load())
            space = self.strategy.space(self.options, self.job.task)
            if why := untunable(self.budget, context, space):
                self.notes.append(why)
                return
            tuner = Tuner(self.fresh, context, self.options, space, Path(files))
            try:
                tuning = tuner.choose(self.budget, cell.device, lambda share: self.tell("tune", share))
            finally:
                tuner.spent(total)
        self.fields["tuning"] = tuning
        self.options = self.options.model_copy(update=tuning.trials[tuning.chosen].values)

    def fresh(self, context: TaskContext, options: Options) -> Plan:
        """A plan on a base of its own, prepared as that of any cell of this seed."""
        base = build(self.job.model, self.job.cell.precision)
        seed_everything(self.job.cell.seed)
        self.placed(base)
        return self.prepared(base, context, options)

    def score_defaults(self, defaults: Options, context: TaskContext, test: Rows) -> None:
        """What the strategy scores with its defaults, for the comparison: a phase of its own, beside the cell's.
        Where they get no score, for want of memory too, a note says so and the cell's own score stands."""
        device, tuning = self.job.cell.device, self.fields["tuning"]
        meter = Meter(self.budget, device, tick=lambda share: self.tell("default", share))
        with self.ledger.phase("default", meter):
            try:
                plan = self.fresh(context, defaults)
                meter.watch(plan.seen)
                adapt(plan, context, meter)
                meter.unwatch()
                scores = plan.answer.predict(test.fields, Meter(None, device))
            except Exception as error:
                short = is_shortage(error)
                if not (short or isinstance(error, Unsupported | Diverged)):
                    raise
                why = gave_up(str(error), self.job) if short else str(error)
                self.notes.append(f"the defaults have no score: {why}")
                return
        self.fields["tuning"] = tuning.model_copy(update={"default_scores": self.scored(scores, test)})

    def placed(self, base: Base) -> None:
        """Put a base on the cell's device, unless the strategy itself does."""
        if not self.strategy.places_base:
            place(base.module, torch.device(self.job.cell.device))

    def prepare_base(self) -> Base:
        """The base on the cell's device, unless the strategy itself puts it there."""
        base = self.load()
        limit_device_memory(self.job.cell.device, self.job.memory_gib)
        self.placed(base)
        touch(base.module)
        return base

    def opened(self, base: Base) -> tuple[TaskContext, TaskRows]:
        """What the strategy may see, and all rows. Raises `Unsupported` where the strategy's needs are not met."""
        rows = rows_of(self.job.cell.task, self.job.task, self.job.located)
        context = self.in_formats(self.context(rows), base)
        refuse_what_is_missing(self.strategy, base, context)
        return context, rows

    def in_formats(self, context: TaskContext, base: Base) -> TaskContext:
        """With the prompt formats to train on that this model can read, of the task and of its sources."""
        wanted = self.options.formats_in_training
        if wanted == 1 and not self.strategy.other_types:
            return context
        of = {s.name: s.formats for s in self.job.sources} | {context.name: self.job.formats}
        read = {name: spoken(templates, wanted, speaks(base)) for name, templates in of.items()}
        sources = tuple(replace(s, formats=read[s.name]) for s in context.sources)
        return replace(context, sources=sources, formats=read[context.name])

    def prepared(self, base: Base, context: TaskContext, options: Options | None = None) -> Plan:
        """The strategy's plan. Raises `Unsupported` where it cannot work here or on these tasks."""
        plan = self.strategy.prepare(base, context, options or self.options)
        if self.job.wants_sources and not context.sources:
            raise Unsupported("it trains on other tasks too, and this run has none: choose two tasks or more")
        if context.sources and not plan.mixed:
            raise Unsupported(
                f"{self.strategy.name} trains on one task only: take away its sources, or use lora or full"
            )
        if len(context.formats) > plan.formats:
            raise Unsupported(
                f"{self.strategy.name} does not train on several prompt formats: take away formats_in_training, or use "
                "lora or full"
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
            few = f"only {len(train)} distinct labelled rows exist; the budget allows {budget.labels}"
            self.notes = [*(note for note in self.notes if note != few), few]
        update: dict[str, Any] = {"train_rows": len(rows.train), "test_rows": len(rows.test)}
        if not self.job.task.kept:
            update["label_counts"] = [rows.test.labels.count(c) for c in range(len(self.job.task.labels))]
        update["train_matches"] = rows.train_matches
        if rows.judgements is not None:
            by_people = any(human is not None for human, _ in rows.test.judged)
            update["judged"] = judged(rows.judgements, self.job.task.judged_by, by_people, rows.unasked)
        update["apart"] = rows.apart and Apart(**vars(rows.apart))
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
            self.job.micro_batch,
            device=cell.device,
            foreach=cell.foreach,
            features=self.features(),
        )

    def features(self) -> Path | None:
        """Where cells of this model share what it gives for a batch while nothing has touched it."""
        cell, shared = self.job.cell, self.job.features
        return None if shared is None else folder_of(shared, cell.model_fingerprint, cell.precision, cell.device)


def rows_of(name: str, task: Task, located: dict[str, Any]) -> TaskRows:
    """A task's rows from the files its job names."""
    files = {k: tuple(Path(p) for p in v) for k, v in located["files"].items()}
    return read(name, task, Located(located["source"], files, located["fingerprint"]))


def drawn_test(job: Job, rows: TaskRows) -> Rows:
    """The test items that a planted cell is trained and scored on, drawn by its seed from all of the split."""
    assert job.cell.plant_items is not None
    drawn, _ = members(len(rows.pool), job.cell.plant_items, job.cell.seed)
    return rows.pool.take(drawn)


def seed_everything(seed: int) -> None:
    """Every generator a strategy might draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def run_cell(job: Job, load: Load, tell: Tell) -> int:
    """Run one cell and write its record. 0: a record was written; 1: it could not be written."""
    torch.set_num_threads(job.threads or cores())
    seed_everything(job.cell.seed)
    cell = Recorder(job)  # tells of a cell that cannot even be set up, such as one whose plug-ins fail to import here
    try:
        cell = whole = Cell(job, load, tell)
        whole.run()
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
