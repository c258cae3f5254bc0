"""Prompt chains: outputs become fields of later prompts, every token written is counted, bad names are told."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from tiny import STRATEGIES, base, context, options, question_task, rows, task

from bench.budget import Meter
from bench.config import load
from bench.config.schema import Task
from bench.errors import UserFault
from bench.listing import strategies
from bench.plan import make
from bench.score.chains import Chained, room_for
from bench.score.decode import Writer
from bench.strategy import Plan

CHAIN = (
    {"name": "summary", "pattern": "Sum up: {text}\nSummary:", "tokens": 4},
    {"name": "mood", "pattern": "{summary}! {text} Mood of {summary}:", "tokens": 3, "ends": "."},
)
ANSWER = "{mood}; {summary}; {task_prompt}"
FIELDS = [{"text": "a fine film"}, {"text": "dull {summary} and long"}]


def prepared(of: Task | None = None, **more: Any) -> Plan:
    torch.set_num_threads(1)
    given = {"chain": CHAIN, "answer": ANSWER, **more}
    return STRATEGIES["prompt_chain"].prepare(
        base("tiny-llama"), context("verbalizer", task=of or task()), options("prompt_chain", **given)
    )


class Scripted(Writer):
    """Writes the next of these texts after every prompt, and notes the prompts."""

    asked: list[str] = []
    texts: list[str] = []
    tokenizer: Any = None

    def write(self, prompts: Any, most: int, *_: Any, **__: Any) -> list[list[int]]:
        type(self).asked += [self.tokenizer.decode(ids) for ids in prompts]
        return [self.tokenizer(self.texts.pop(0), add_special_tokens=False)["input_ids"] for _ in prompts]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    monkeypatch.setattr("bench.score.chains.Writer", Scripted)
    Scripted.asked, Scripted.texts, Scripted.tokenizer = [], [], base("tiny-llama").tokenizer
    return Scripted


def test_each_output_is_a_field_of_the_prompts_after_it(scripted: type[Scripted]) -> None:
    """Up to where it ends, without white space around it; a row's text and an output are never expanded again."""
    scripted.texts = [" good one\nNext", "\nbad {mood}", "glad. or not", " sad"]
    plan = prepared()
    answer = plan.answer
    assert isinstance(answer, Chained)
    read: list[list[dict[str, str]]] = []
    predict = answer.last.predict
    answer.last.predict = lambda fields, meter: read.append(fields) or predict(fields, meter)  # type: ignore
    scores = answer.predict(FIELDS, Meter())
    assert scores.shape == (2, 2) and np.isfinite(scores).all()
    assert scripted.asked == [
        "Sum up: a fine film\nSummary:",
        "Sum up: dull {summary} and long\nSummary:",
        "good one! a fine film Mood of good one:",
        "bad {mood}! dull {summary} and long Mood of bad {mood}:",
    ]
    own = task().templates[0].pattern
    for row, fields, summary, mood in zip(read[0], FIELDS, ("good one", "bad {mood}"), ("glad", "sad"), strict=True):
        assert row == fields | {
            "summary": summary, "mood": mood, "task_prompt": own.replace("{text}", fields["text"])
        }  # fmt: skip


def test_the_answer_is_the_verbalizers_on_the_last_prompt(scripted: type[Scripted]) -> None:
    """The same scores as zero-shot's on a template that says what the chain came to."""
    scripted.texts = ["one", "two"]
    plan = prepared()
    got = plan.answer.predict(FIELDS[:1], Meter())
    told = task().templates[0].model_copy(update={"pattern": f"two; one; {task().templates[0].pattern}"})
    plain = STRATEGIES["zero_shot"].prepare(
        base("tiny-llama"),
        context("verbalizer", task=task().model_copy(update={"templates": [told]}), sequence=200),
        options("zero_shot"),
    )
    assert np.allclose(got, plain.answer.predict(FIELDS[:1], Meter()), atol=1e-6)


def test_without_a_pattern_the_last_output_stands_above_the_task_s_own_prompt(scripted: type[Scripted]) -> None:
    chain = ({"name": "notes", "pattern": "{task_prompt} Why?", "tokens": 4},)
    answer = prepared(chain=chain, answer=None).answer
    assert isinstance(answer, Chained) and answer.answer == "{notes}\n\n{task_prompt}"


def test_every_token_written_and_read_is_counted() -> None:
    """By hand: both prompts of both rows, each token written but a row's last, and the last prompts with their words."""
    plan = prepared()
    meter, answer = Meter(), plan.answer
    assert isinstance(answer, Chained)
    lengths: list[int] = []
    prompt = answer.prompt

    def watched(text: str, most: int) -> list[int]:
        ids = prompt(text, most)
        lengths.append(len(ids))
        return ids

    answer.prompt = watched  # type: ignore[method-assign]
    meter.watch(plan.seen)
    scores = answer.predict(FIELDS, meter)
    meter.unwatch()
    assert scores.shape == (2, 2) and all(step.flops > 0 for step in meter.steps)
    tokens = [step.tokens for step in meter.steps]
    # a random model ends no text early, so both rows go on to the limit in one batch: 4 tokens, then 3
    assert tokens[:-1] == [lengths[0] + lengths[1], 2, 2, 2, lengths[2] + lengths[3], 2, 2]
    assert tokens[-1] > 2 * len(ANSWER), "the last prompts with their words"
    assert meter.examples == 2 * 3, "rows of three prompts"


def test_the_same_chain_goes_around_another_prompt(scripted: type[Scripted]) -> None:
    scripted.texts = ["one", "two"]
    other = task().templates[0].model_copy(update={"pattern": "Say: {text}"})
    answer = prepared().answer.through(other)
    assert isinstance(answer, Chained)
    answer.predict(FIELDS[:1], Meter())
    assert answer.reader.template.pattern == "Say: {text}" and answer.last.reader.template.pattern == ANSWER  # type: ignore


def test_a_written_answer_follows_a_chain_too() -> None:
    """Kind generate: the last prompt is replied to, and the target is in no prompt."""
    chain = ({"name": "notes", "pattern": "{text} is about", "tokens": 3},)
    plan = prepared(question_task(), chain=chain, answer="{notes} {text}\nNumber:")
    fields = [row | {"target": "1", "rationale": "x"} for row in rows().test.fields[:2]]
    scores = plan.answer.predict(fields, Meter())
    assert scores.shape == (2, 2) and set(scores.ravel()) <= {0.0, 1.0}


def test_a_prompt_that_leaves_no_room_loses_its_front() -> None:
    answer = prepared().answer
    assert isinstance(answer, Chained)
    ids = answer.prompt("x" * 2000, 4)
    assert len(ids) == room_for(answer.reader, 4) <= 512 - 4 and answer.truncated == 1


@pytest.mark.parametrize(
    ("chain", "answer", "words"),
    [
        ([{"name": "a", "pattern": "{txt}"}], "{a}{text}", "unknown strategies.prompt_chain.chain.0 on task 'sst2': field in the pattern: 'txt'; did you mean 'text'?"),
        ([{"name": "a", "pattern": "{b}"}, {"name": "b", "pattern": "{a}"}], "{b}", "chain.0 on task 'sst2': field in the pattern: 'b'; allowed: task_prompt, text"),
        ([{"name": "a", "pattern": "{text}"}], "{summry}{a}", "unknown strategies.prompt_chain.answer on task 'sst2': field in the pattern: 'summry'"),
        ([{"name": "text", "pattern": "{text}"}], None, "chain.0 on task 'sst2': the output is called 'text', which is a field already; allowed: a new name"),
        ([{"name": "a", "pattern": "{text}"}, {"name": "a", "pattern": "{a}"}], None, "chain.1 on task 'sst2': the output is called 'a', which is a field already"),
        ([{"name": "a", "pattern": "{text}"}, {"name": "b", "pattern": "{text}"}], None, "chain.0 on task 'sst2': no later prompt holds {a}"),
        ([{"name": "a b", "pattern": "{text}"}], None, "strategies.prompt_chain.chain.0.name: string should match pattern"),
        ([{"name": "a", "pattern": "{text}", "tokns": 3}], None, "unknown key 'strategies.prompt_chain.chain.0.tokns'; did you mean 'tokens'?"),
        ([], None, "strategies.prompt_chain.chain: tuple should have at least 1 item"),
    ],
)  # fmt: skip
def test_a_chain_that_cannot_be_is_told_before_anything_runs(chain: Any, answer: str | None, words: str) -> None:
    tokens = ["suite=smoke", "strategies=prompt_chain", f"strategies.prompt_chain.chain={json.dumps(chain)}",
              "model=random:tiny-llama", "data.source=sample", "device=cpu"]  # fmt: skip
    tokens += [] if answer is None else [f"strategies.prompt_chain.answer={json.dumps(answer)}"]
    with pytest.raises(UserFault) as error:
        make(load(tokens))
    assert words in str(error.value)


def test_targets_and_reasoning_are_no_fields_of_a_chain() -> None:
    with pytest.raises(UserFault, match="field in the pattern: 'target'; did you mean 'text'"):
        given = options("prompt_chain", chain=({"name": "notes", "pattern": "{text}"},), answer="{target} {notes}")
        STRATEGIES["prompt_chain"].check("prompt_chain", "q", question_task(), given)


def test_a_chain_is_listed_as_it_would_be_written() -> None:
    """`list strategies --json` gives what a suite may hold, not a text of it."""
    [row] = [row for row in strategies() if row["name"] == "prompt_chain"]
    [step] = json.loads(json.dumps(row["options"]["chain"]))
    assert set(step) == {"name", "pattern", "tokens", "ends"} and step["tokens"] == 32
