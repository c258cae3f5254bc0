"""Training through TRL's own trainers in place of our loop: an independent check of it (`engine=trl`), never matched.

TRL reads the texts, pads, computes losses and steps. What is given to it: the model as our plan prepared it, which rows
make which step, and the learning rate of each step. So the number of steps and examples is that of our own loop; what a
step costs, and how much of any other axis is spent, is TRL's.
"""

from __future__ import annotations

import copy
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch

from bench.budget import Meter
from bench.config.schema import Budget
from bench.config.task import ANSWERS, TARGET
from bench.data.prompts import fill
from bench.models.base import Base
from bench.score.replies import Told
from bench.strategy import Examples, Plan, TaskContext, Unsupported
from bench.train.loop import Trained, checked
from bench.train.optimizer import CLIP, schedule
from bench.train.order import Order
from bench.train.policies import ImplicitReward
from bench.train.versions import REFERENCE

MISSING = "engine=trl needs TRL, which is not installed: python -m pip install 'trl>=1.16', or use engine=own"
REFERENCE_ADAPTER = "ref"
"""TRL's name for its copy of the factors, as they were when its trainer began."""


@dataclass(frozen=True)
class Stage:
    """What trains one group of examples."""

    trainer: Literal["SFT", "DPO", "Reward"]
    options: dict[str, Any] = field(default_factory=dict)
    """Options of TRL's configuration."""


def by_trl(base: Base, context: TaskContext, plan: Plan, stages: dict[int, Stage]) -> Plan:
    """The plan, trained by TRL: one trainer for each group of its examples, in the order they are wanted.

    Raises `Unsupported` where TRL is not installed or cannot train this task.
    """
    if importlib.util.find_spec("trl") is None:
        raise Unsupported(MISSING)
    rewards = context.readout == "head" and context.task.kind == "prefer"
    answers = context.readout == "verbalizer" and context.task.spoken and not context.task.continued
    if base.kind != "causal" or not (rewards or answers):
        raise Unsupported(
            "engine=trl trains decoders on answers that follow a prompt, or rewards of pairs: use engine=own, or a "
            "task of kind prefer or generate"
        )
    if context.task.templates[0].chat:
        raise Unsupported("engine=trl is given plain prompts, and this template is a turn of a chat: use engine=own")
    if context.micro_batch is not None:
        raise Unsupported("engine=trl takes every step in one pass: take away micro_batch or use engine=own")
    plan.mixed, plan.formats, plan.reread = 0, 1, None
    plan.drive = lambda meter: drive(base, context, plan, stages, meter)
    return plan


@dataclass(frozen=True)
class Step:
    """One optimizer step."""

    group: int
    rows: list[int]
    """Rows of the task's training rows."""
    progress: float
    """Share of the budget in the middle of it."""


def steps_of(plan: Plan, examples: Examples, context: TaskContext, budget: Budget) -> list[Step]:
    """The steps our own loop would take. Raises `Unsupported` for an axis that is not counted in examples."""
    if budget.axis != "train_examples":
        raise Unsupported(
            f"engine=trl takes a known number of steps, and budget.{budget.axis} leaves it open: use "
            "budget.train_examples or budget.epochs"
        )
    limit, spent = budget.train_examples or 0, 0
    groups, found = examples.groups, []
    first = {group: groups.index(group) for group in set(groups)}
    order = Order(examples.lengths, context.batch, context.seed, groups, plan.enter is not None)
    while spent < limit and (rows := order.draw(partial(wanted, plan, spent / limit))):
        group = groups[rows[0]]
        taken = [i - first[group] for i in rows[: limit - spent]]
        found.append(Step(group, taken, (spent + len(taken) / 2) / limit))
        spent += len(taken)
    return found


def wanted(plan: Plan, progress: float, group: int) -> bool:
    """Whether the plan trains on this group now."""
    return plan.wants is None or plan.wants(group, progress)


def drive(base: Base, context: TaskContext, plan: Plan, stages: dict[int, Stage], meter: Meter) -> Trained:
    """Train every stage. Raises `Diverged` on a loss that is not finite."""
    assert plan.examples is not None and plan.module is not None and meter.budget is not None
    examples = plan.examples()
    steps = steps_of(plan, examples, context, meter.budget)
    done = Trained(ended_by=meter.budget.axis, learning_rate=plan.groups[0].lr)
    for group, stage in stages.items():
        own = [step for step in steps if step.group == group]
        if not own:
            continue
        if stage.trainer == "DPO" and isinstance(plan.answer, ImplicitReward):
            plan.answer.stage.versions.keep(REFERENCE)
        with tempfile.TemporaryDirectory() as folder, as_it_was(base, plan):
            trainer = trainer_of(base, context, plan, stage, own, folder, meter, done.losses)
            if len(trainer.train_dataset) != len(context.train):
                lost = len(context.train) - len(trainer.train_dataset)
                raise Unsupported(f"TRL leaves out {lost} rows whose prompt fills the sequence: raise sequence")
            trainer.train()
        done.read.update((context.name, context.train.index[i]) for step in own for i in step.rows)
    plan.module.eval()
    return done


@contextmanager
def as_it_was(base: Base, plan: Plan) -> Iterator[None]:
    """Take off what TRL puts on a model: its second set of factors and its own way through the LM head."""
    module: Any = plan.module
    try:
        yield
    finally:
        if REFERENCE_ADAPTER in getattr(module, "peft_config", {}):
            module.delete_adapter(REFERENCE_ADAPTER)
        base.module.__dict__.pop("forward", None)


def model_of(base: Base, plan: Plan, stage: Stage) -> Any:
    """What TRL trains: the plan's module, or for rewards that module and the plan's head in transformers' own model of
    one output, made without weights of its own."""
    if stage.trainer != "Reward":
        return plan.module
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(base.module.config)
    config.num_labels, config.pad_token_id = 1, base.tokenizer.pad_token_id  # type: ignore[union-attr]
    with torch.device("meta"):
        whole: Any = AutoModelForSequenceClassification.from_config(config)
    setattr(whole, whole.base_model_prefix, plan.module)
    whole.score = plan.answer.reader.head  # type: ignore[attr-defined]
    return whole


def texts_of(context: TaskContext, plan: Plan, stage: Stage) -> list[dict[str, Any]]:
    """The training rows in TRL's columns. For rewards they are our ids: TRL would put an end of text behind every
    answer, and the reward would be read there, where our reader does not look."""
    found: list[dict[str, Any]] = []
    if stage.trainer == "Reward":
        encoded = plan.answer.reader.encode(context.train.fields)  # type: ignore[attr-defined]
        for ids, label in zip((one.answers for one in encoded), context.train.labels, strict=True):
            found.append({"chosen_ids": list(ids[label]), "rejected_ids": list(ids[1 - label])})
        return found
    for fields, label in zip(context.train.fields, context.train.labels, strict=True):
        prompt = {"prompt": fill(context.task.templates[0], fields)}
        if isinstance(plan.answer, Told):
            found.append(prompt | {"completion": plan.answer.reader.spaced(fields[TARGET])})
            continue
        chosen, rejected = fields[ANSWERS[label]], fields[ANSWERS[1 - label]]
        both = {"chosen": chosen, "rejected": rejected}
        found.append(prompt | (both if stage.trainer == "DPO" else {"completion": chosen}))
    return found


def trainer_of(
    base: Base,
    context: TaskContext,
    plan: Plan,
    stage: Stage,
    steps: list[Step],
    folder: str,
    meter: Meter,
    losses: list[float],
) -> Any:
    """TRL's trainer of a stage, which takes these steps, is timed and counted by `meter` and notes its losses."""
    import trl
    from datasets import Dataset

    config = getattr(trl, f"{stage.trainer}Config")(
        output_dir=folder,
        max_steps=len(steps),
        per_device_train_batch_size=context.batch,
        max_length=context.sequence,
        max_grad_norm=CLIP,
        seed=context.seed % 2**32,
        use_cpu=context.device == "cpu",
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **stage.options,
    )
    clock = timed(steps, meter)
    kind = watched(getattr(trl, f"{stage.trainer}Trainer"), steps, clock, losses)
    return kind(
        model=model_of(base, plan, stage),
        args=config,
        train_dataset=Dataset.from_list(texts_of(context, plan, stage)),
        processing_class=base.tokenizer,
        optimizers=optimizer_of(plan, steps),
        callbacks=[clock],
    )


def optimizer_of(plan: Plan, steps: list[Step]) -> tuple[Any, Any]:
    """AdamW over the plan's groups and its rate at each of the steps, as our own loop has it."""
    groups = [{"params": g.params, "lr": 1.0, "weight_decay": g.weight_decay} for g in plan.groups]
    optimizer = torch.optim.AdamW(groups)
    spans = [[(g.lr, g.begins, g.ends), *g.later] for g in plan.groups]
    rates = [[sum(lr * schedule(s.progress, *at) for lr, *at in span) for s in steps] for span in spans]
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, [table(own) for own in rates])


def table(values: list[float]) -> Callable[[int], float]:
    """A step's number -> its value; torch asks for one step more than there are."""
    return lambda number: values[min(number, len(values) - 1)]


def watched(trainer: Any, steps: list[Step], clock: Any, losses: list[float]) -> Any:
    """A trainer that takes its batches in our order, counts each pass and notes the loss of every step."""

    class Watched(trainer):
        def get_train_dataloader(self) -> Any:
            from torch.utils.data import DataLoader

            return DataLoader(
                self.train_dataset, batch_sampler=[step.rows for step in steps], collate_fn=self.data_collator
            )

        def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
            # only positions of answers go through TRL's LM head, so a shape does not tell a step's FLOPs: each counts
            with clock.passed(("trl", len(losses), 1, 0, 0)):
                loss: torch.Tensor = super().training_step(*args, **kwargs)
            losses.append(checked(float(loss), len(losses)))
            return loss

    return Watched


def timed(steps: list[Step], meter: Meter) -> Any:
    """What opens a step of the meter where TRL begins one, and closes it after the optimizer's."""
    from transformers import TrainerCallback

    class Timed(TrainerCallback):
        """Its `passed` counts a pass of the step that is open."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.step = meter.accumulating(len(steps[self.number].rows))
            self.passed = self.step.__enter__()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.step.__exit__(None, None, None)
            self.number += 1

        number = 0

    return Timed()
