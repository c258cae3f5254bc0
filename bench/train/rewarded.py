"""Plans of policies trained by rewards, made of a plan that fine-tunes low-rank factors (see `stages.py`)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.models.base import Base
from bench.models.parts import count
from bench.score.adapted import Adapted
from bench.score.answers import AnswerReader, LabelRewardReader, RewardReader
from bench.score.readers import VerbalizerReader
from bench.score.replies import ReplyReader, Told
from bench.strategy import ParamGroup, Plan, TaskContext, Unsupported
from bench.train.acting import Acts, Speech, Words
from bench.train.plans import HEAD_LR, head_of
from bench.train.policies import weighed_by_rows_later, without_dropout
from bench.train.rewards import REWARD, Learned, LearnedOfLabels, Reward, RightLabel, RightReply
from bench.train.rollouts import Rolling
from bench.train.stages import BestOf, Rewarded, Shares, Stages
from bench.train.versions import REFERENCE, Versions, answered, stored_beside


def staged(base: Base, context: TaskContext, plan: Plan, shares: Shares, learned: bool) -> Stages:
    """The stages of a plan that fine-tunes low-rank factors, the last one still to come.

    Raises `Unsupported` where a learned reward has no pairs to learn from.
    """
    assert plan.module is not None and isinstance(plan.answer, Adapted | Told)
    if learned and context.task.written:
        raise Unsupported(
            f"a reward is learned from pairs of answers or labels, and {context.name} has none: use reward=verifiable"
        )
    without_dropout(plan.module)
    versions = Versions(list(plan.groups[0].params))
    reader = RewardReader if context.task.kind == "prefer" else LabelRewardReader
    judge = reader(base, replace(context, readout="head")) if learned else None
    stages = Stages(plan, context, shares, versions, judge)
    first = plan.groups[0]
    first.ends = shares.supervised
    first.later = ((shares.reward_lr, shares.supervised, shares.rolls), (shares.lr, shares.rolls, 1.0))
    assert plan.examples is not None and plan.loss is not None and plan.collate is not None
    plan.examples, plan.loss = partial(stages.examples, plan.examples), partial(stages.loss, plan.loss)
    plan.collate = partial(stages.collate, plan.collate)
    weighed_by_rows_later(plan)
    plan.wants, plan.enter, plan.ready, plan.finish = shares.wants, stages.enter, stages.ready, stages.finish
    plan.own_state, plan.restore = stages.state, stages.restore
    plan.reread, plan.mixed, plan.formats = None, 0, 1  # a planted leak is one of labels
    if judge is not None:
        head = ParamGroup(list(judge.head.parameters()), max(shares.reward_lr, HEAD_LR))
        head.begins, head.ends = shares.supervised, shares.rolls
        plan.groups.append(head)
        plan.created += count(head.params)
        plan.seen = [judge.target()]
    return stages


def acting(context: TaskContext, plan: Plan, tokens: int, temperature: float) -> Acts:
    """How the policy acts on this kind of task. Raises `Unsupported` where it has nothing to say."""
    assert isinstance(plan.answer, Adapted | Told) and plan.module is not None
    reader = plan.answer.reader
    if isinstance(reader, AnswerReader):
        return Speech(reader, plan.module, context.train, tokens, temperature)
    if isinstance(reader, VerbalizerReader):
        return Words(reader, plan.module, context.train, temperature)
    raise Unsupported("a policy says labels or writes, and a head does neither: use readout=verbalizer")


def rewarding(stages: Stages, acts: Acts) -> Reward:
    """What responses are worth on this kind of task."""
    context = stages.context
    if isinstance(stages.judge, LabelRewardReader):
        return LearnedOfLabels(stages.judge, stages.versions, context.train)
    if stages.judge is not None:
        assert isinstance(acts, Speech)
        return Learned(stages.judge, stages.versions, acts.reader.base.tokenizer.eos_token_id)
    if isinstance(acts, Words):
        return RightLabel(context.train)
    if isinstance(acts, Speech) and isinstance(acts.reader, ReplyReader):
        return RightReply(Told(acts.module, acts.reader), context.train)
    raise Unsupported("nothing can be verified of an answer to a pair: use reward=learned")


def rolled(stages: Stages, rolling: Rolling) -> Plan:
    """The plan with its last stage, the policy's."""
    plan, stages.rolling = stages.plan, rolling
    if rolling.value is not None:
        rate = max(stages.shares.lr, HEAD_LR)
        value = ParamGroup(list(rolling.value.parameters()), rate, begins=stages.shares.rolls)
        plan.groups.append(value)
        plan.created += count(value.params)
    plan.told = lambda: rolling.told
    stored_beside(plan, stages.versions, [REFERENCE])
    answered(plan, lambda inner: Rewarded(inner, stages))
    return plan


def best_of(stages: Stages, number: int) -> Plan:
    """The plan whose policy stays what supervision made it, beside a reward model that chooses."""
    plan, judge = stages.plan, stages.judge
    assert judge is not None
    stored_beside(plan, stages.versions, [REFERENCE, REWARD])
    head, save, load = head_of(judge), plan.save, plan.load
    assert load is not None

    def kept(folder: Path) -> None:
        save(folder)
        head.save(folder)

    def loaded(folder: Path) -> None:
        load(folder)
        head.load(folder)

    plan.save, plan.load = kept, loaded

    def choosing(inner: Any) -> BestOf:
        assert isinstance(inner, Adapted)
        return BestOf(inner, stages, number)

    answered(plan, choosing)
    return plan


def value_head(base: Base, device: torch.device) -> nn.Linear:
    """Foretells nothing at first: a random one would only add noise to the first advantages."""
    head = nn.Linear(base.width, 1, device=device)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
