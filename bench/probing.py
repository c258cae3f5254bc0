"""The child that asks a finished cell more than its score: on what it has stored, so that nothing is trained again."""

from __future__ import annotations

import sys
import tempfile
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench import identity, registry
from bench.budget import Meter
from bench.data.rows import Rows, TaskRows, limited
from bench.job import Job, asked_of
from bench.measure.environment import cores, environment
from bench.models.build import build
from bench.models.cache import cache_dir
from bench.models.piecewise import place
from bench.outcomes import outcome_of
from bench.probed import ContaminationFindings, FormatFindings, ProbeRecord, RetentionFindings, WritingFindings
from bench.recording import Recorder, foreign
from bench.records import Outcome, Result, Status
from bench.score.adapted import Adapted, Calibrated
from bench.score.demonstrations import Demonstrations
from bench.score.readers import make_reader
from bench.store import probe_file, read_result, write_record
from bench.strategy import Plan, TaskContext, Unsupported
from bench.worker import Cell, Load, Tell, drawn_test, rows_of, seed_everything

if TYPE_CHECKING:
    from bench.probes.scorer import Scorer


class Asked(Cell):
    """A finished cell, prepared again and asked."""

    def ask(self) -> dict[str, Any]:
        """What the probe found, by its field of `ProbeRecord`. Raises `Unsupported` where it cannot be asked."""
        cell, folder = self.job.cell, Path(self.job.folder)
        result = read_result(folder / "result.json")
        options = self.options.model_copy(update=chosen(result))
        with self.ledger.phase("load"):
            base = self.prepare_base()
            context, rows = self.opened(base)
            seed_everything(cell.seed)
            plan = self.prepared(base, context, options)
            restore(plan, folder / "adapted")
        # the prompt the cell was asked through is the one that others are held against
        context = context.with_template(getattr(options, "template", 0))
        meter = Meter(None, cell.device, tick=lambda _: self.tell("probe", 0.0))
        meter.watch(plan.seen)
        with self.ledger.phase("probe", meter):
            if self.job.probe == "formats":
                return {"formats": self.formats(plan, context, rows, meter)}
            if self.job.probe == "writing":
                return {"writing": self.writing(plan, context, rows, meter)}
            if self.job.probe == "retention":
                return {"retention": self.retention(plan, meter)}
            return {"contamination": self.contamination(plan, context, rows, meter)}

    def formats(self, plan: Plan, context: TaskContext, rows: TaskRows, meter: Meter) -> FormatFindings:
        """The cell in other prompt formats."""
        from bench.probes.formats import ask

        asked = self.job.probes.formats
        assert asked is not None
        return ask(plan, context, rows.test, asked, meter)

    def contamination(self, plan: Plan, context: TaskContext, rows: TaskRows, meter: Meter) -> ContaminationFindings:
        """Whether the cell has seen its test items; the base, where it is asked, is a fresh one."""
        from bench.probes.contamination import Subject, examine, rows_read
        from bench.probes.remembered import Base, Remembered, folder_of

        job, asked = self.job, self.job.probes.contamination
        assert asked is not None
        trained = bool(plan.groups) or plan.search is not None
        if (shown := demonstrated(plan)) is not None:
            context = replace(context, train=shown)
        # zero-shot reads no row, so none can hold a test item; but its trials were judged by all of them
        reads = plan.labels_used != 0 or job.cell.budget.get("trials") is not None
        own = context if reads else replace(context, train=Rows([], [], []))
        pools = [rows.train] if reads else []
        pools += [rows_of(source.name, source.task, source.located).train for source in job.sources]
        template = context.task.templates[0]
        base = Remembered(Base(lambda: self.base_answer(context, meter)), folder_of(job, job.task.labels), template)
        subject = Subject(
            plan.answer,
            context,
            rows,
            base=base if trained and context.readout == "verbalizer" else None,
            trained=trained,
            read=rows_read(own, drawn_test(job, rows) if job.cell.plant else None),
            pool=[fields for pool in pools for fields in pool.fields],
            dose=job.cell.plant,
        )
        return examine(subject, asked, meter)

    def retention(self, plan: Plan, meter: Meter) -> RetentionFindings:
        """What became of tasks the cell was not tuned for. Raises `Unsupported` where nothing can have been lost."""
        from bench.probes.remembered import Base, Remembered, folder_of
        from bench.probes.retention import elsewhere, retained

        asked = self.job.probes.retention
        assert asked is not None
        if not plan.groups and plan.search is None:
            raise Unsupported("nothing was trained, so nothing can have been forgotten: ask a tuned strategy")
        if self.job.cell.readout == "head":
            raise Unsupported("under a head no other task's prompt can be answered: use readout=verbalizer")
        found = []
        for other in self.job.others:
            context = self.seen(other.name, other.task, Rows([], [], []))
            test = limited(rows_of(other.name, other.task, other.located).test, asked.items)
            base = Remembered(
                Base(partial(self.base_answer, context, meter)),
                folder_of(self.job, other.task.labels),
                other.task.templates[0],
            )
            found.append(retained(elsewhere(plan.answer, context), base, context, test, meter))
        return RetentionFindings(tasks=found)

    def writing(self, plan: Plan, context: TaskContext, rows: TaskRows, meter: Meter) -> WritingFindings:
        """What the policy writes, judged by a scorer that learned from other pairs."""
        from bench.probes.writing import Writing, policies

        asked = self.job.probes.writing
        assert asked is not None
        found = policies(plan.answer)  # one that writes nothing is told before a scorer is trained
        pairs = self.others_pairs()
        scorer = self.scorer(replace(context, train=pairs), rows.test, meter)
        data = [text for of in (rows.train, rows.pool, pairs) for row in of.fields for text in row.values()]
        return Writing(found, scorer, rows.test, asked, meter).ask(data)

    def others_pairs(self) -> Rows:
        """The pairs of the task's `scorer` slice, which lies beside those of training and test."""
        task = self.job.task
        splits = task.splits.model_copy(update={"train": task.scorer})
        return rows_of(self.job.cell.task, task.model_copy(update={"splits": splits}), self.job.located).train

    def scorer(self, context: TaskContext, test: Rows, meter: Meter) -> Scorer:
        """The scorer of this model, these pairs and this much training: one for all cells that want it."""
        from bench.probes.scorer import SEED, STRATEGY, scorer_of

        job, cell, asked = self.job, self.job.cell, self.job.probes.writing
        assert asked is not None
        base = build(job.model, cell.precision)
        place(base.module, torch.device(cell.device))
        model = [cell.model_fingerprint, cell.precision, cell.device, cell.sequence, cell.batch]
        learned = [job.located["fingerprint"], identity.task_digest(job.task), job.task.scorer, asked.examples]
        name = identity.digest([model, learned, STRATEGY, SEED, identity.NUMERICS], 24)
        given = replace(context, seed=SEED, readout="head", sources=(), formats=())
        strategy = registry.load(job.adapters_path)[STRATEGY]
        seed_everything(SEED)
        return scorer_of(strategy, base, given, test, cache_dir() / "scorers" / name, asked.examples, meter)

    def base_answer(self, context: TaskContext, meter: Meter) -> Adapted:
        """The base without adaptation, asked in the cell's own readout and watched by the probe's meter."""
        base = build(self.job.model, self.job.cell.precision)
        place(base.module, torch.device(self.job.cell.device))
        meter.watch([base.module])
        return Adapted(base.module, make_reader(base, context))


def demonstrated(plan: Plan) -> Rows | None:
    """The rows that stand in every prompt of a few-shot cell; None for any other."""
    answer = plan.answer.inner if isinstance(plan.answer, Calibrated) else plan.answer
    return answer.rows if isinstance(answer, Demonstrations) else None


def chosen(result: Result) -> dict[str, Any]:
    """The options that tuning took, where the cell was tuned."""
    tuning = result.tuning
    return {} if tuning is None else tuning.trials[tuning.chosen].values


def restore(plan: Plan, stored: Path) -> None:
    """Give a freshly prepared plan what its cell learned. Raises `Unsupported` where that is not there."""
    if plan.load is None:
        raise Unsupported("this strategy cannot be loaded from what it stores, so a finished cell cannot be asked")
    if stored.is_dir():
        plan.load(stored)
        return
    if plan.groups or plan.search is not None:
        raise Unsupported("its adapted weights were not kept: run it again with keep_adapters=true rerun=all")
    with tempfile.TemporaryDirectory() as nothing:
        plan.load(Path(nothing))


def run_probe(job: Job, load: Load, tell: Tell) -> int:
    """Ask one cell and write the probe's record. 0: a record was written; 1: it could not be written."""
    torch.set_num_threads(job.threads or cores())
    assert job.probe is not None
    cell, found = Recorder(job), dict[str, Any]()
    try:
        cell = asked = Asked(job, load, tell)
        found = asked.ask()
        status, reason = Status.ok, None
    except BaseException as error:
        traceback.print_exc()
        status, reason = outcome_of(error, job)
    record = ProbeRecord(
        cell=job.cell.id,
        probe=job.probe,
        asked=asked_of(job),
        outcome=Outcome(status=status, reason=reason),
        phase=cell.ledger.phases.get("probe"),
        environment=environment(job.threads or cores()) | foreign(job),
        **found,
    )
    try:
        write_record(probe_file(Path(job.folder), job.probe), record)
    except OSError as error:
        print(f"cannot write the record: {error}", file=sys.stderr)
        return 1
    return 0
