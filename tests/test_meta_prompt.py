"""Automatic prompt engineering: what is asked, what wins, what is counted, and what is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import LABELS, STRATEGIES, base, context, options, question_task, rows, task

from bench.budget import Meter
from bench.config.schema import Budget, Task
from bench.data.rows import Rows
from bench.score.adapted import Adapted
from bench.score.instructed import Instructed, asking, cleaned
from bench.strategy import Plan, Unsupported
from bench.train.loop import adapt

WRITTEN = ["Say how warm it is.", "Judge the film.", "Count the words."]
PLANTED = WRITTEN[1]


def prepared(of: Task | None = None, **more: Any) -> Plan:
    torch.set_num_threads(1)
    return STRATEGIES["meta_prompt"].prepare(
        base("tiny-llama"), context("verbalizer", task=of or task()), options("meta_prompt", **more)
    )


def run(plan: Plan, of: Task | None = None, **budget: Any) -> tuple[Meter, str | None]:
    meter = Meter(Budget(labels=LABELS, **(budget or {"train_examples": 1000})))
    meter.watch(plan.seen)
    done = adapt(plan, context("verbalizer", task=of or task()), meter)
    meter.unwatch()
    return meter, done.ended_by


def scripted(plan: Plan, texts: list[str] = WRITTEN, share: float = 1.0) -> Any:
    """The search of a plan whose model wrote these texts, and is right about `share` of the rows where it is told the
    planted one, about none without, half of the time under the others."""
    search: Any = plan.search
    answer: Instructed = search.answer
    under, gold = answer.under, {f["text"]: y for f, y in zip(*train(search), strict=True)}

    def stub(instruction: str) -> Any:
        asked = under(instruction)
        predict = asked.predict

        def predicted(fields: Any, meter: Meter) -> np.ndarray:
            scores = np.zeros_like(predict(fields, meter))
            for i, row in enumerate(fields):
                at = list(gold).index(row["text"])
                right = {"": False, PLANTED: at < share * len(gold)}.get(instruction, at % 2 == 0)
                scores[i, gold[row["text"]] if right else 1 - gold[row["text"]]] = 1.0
            return scores

        asked.predict = predicted  # type: ignore[method-assign]
        return asked

    answer.under = stub  # type: ignore[method-assign]
    search.write = lambda meter: texts
    return search


def train(search: Any) -> tuple[list[dict[str, str]], list[int]]:
    return search.context.train.fields, search.context.train.labels


def test_an_instruction_that_is_clearly_better_is_kept() -> None:
    """The record says which, and how all of them did on the validation labels."""
    plan = prepared()
    search = scripted(plan)
    meter, ended = run(plan)
    assert isinstance(plan.answer, Instructed)
    assert plan.answer.instruction == PLANTED and ended == "converged"
    ranks = {one.instruction: (one.right, one.of) for one in search.candidates}
    assert ranks[PLANTED] == (10, 10) and ranks[""] == (0, 10) and 0 < ranks[WRITTEN[0]][0] < 10
    [note] = plan.notes
    assert note.startswith(f"instruction kept on validation labels: “{PLANTED}” (10 of 10 right); all 4: “{PLANTED}”")
    assert note.endswith("the task's own prompt 0 of 10 right")
    # 10 validation rows in batches of 4, 4 and 2, for four candidates each; nothing was written here
    assert meter.examples == 4 * 10 and len(meter.steps) == 4 * 3
    assert plan.labels_used == 12, "two shown and ten to choose on"


def test_without_a_better_one_the_tasks_own_prompt_is_kept() -> None:
    """It stands first, so equal ones do not displace it."""
    plan = prepared()
    search = scripted(plan, [PLANTED], share=0.0)
    run(plan)
    assert [one.right for one in search.candidates] == [0, 0]
    assert isinstance(plan.answer, Instructed) and plan.answer.instruction == ""
    assert "kept on validation labels: the task's own prompt (0 of 10 right)" in plan.notes[0]


def test_of_equally_right_ones_the_surer_is_kept() -> None:
    search: Any = prepared().search
    made = type(search.candidates[0])
    unsure, sure = made("a", 3, 4, -3.0), made("b", 3, 4, -2.0)
    assert max([unsure, sure], key=lambda one: one.rank) is sure and made("c").rank < made("d", 0, 4, -99.0).rank


def test_everything_it_executes_is_counted() -> None:
    """By hand: the own prompt on four rows, two instructions of four tokens at most, then these on the four rows."""
    plan = prepared()
    search: Any = plan.search
    meter, ended = run(plan, train_examples=14)
    assert ended == "train_examples" and meter.examples == 4 + 2 + 2 * 4
    reader, first = search.reader, search.held_out.take(range(4))
    behind = sum(len(word) - 1 for word in reader.words)
    assert meter.steps[0].tokens == sum(one.length + behind for one in reader.encode(first.fields))
    assert meter.steps[1].tokens == 2 * len(search.prompt)
    writing = [step.tokens for step in meter.steps[2:-2]]
    assert writing and len(writing) <= 3 and set(writing) == {2}
    assert all(step.flops > 0 for step in meter.steps) and plan.labels_used == 2 + 4


@pytest.mark.parametrize(("examples", "labels"), [(4, 4), (5, 4), (6, 6)])
def test_a_budget_too_small_to_try_one_keeps_the_tasks_own_prompt(examples: int, labels: int) -> None:
    """The demonstrations' labels count once they have been shown."""
    plan = prepared()
    meter, ended = run(plan, train_examples=examples)
    assert ended == "train_examples" and meter.examples <= examples and plan.labels_used == labels
    assert isinstance(plan.answer, Instructed) and plan.answer.instruction == ""
    said = "the budget ended before any was written" if labels == 4 else "kept on validation labels: the task's own"
    assert said in plan.notes[0]


def test_what_is_stored_answers_as_the_search_left_it(tmp_path: Path) -> None:
    plan = prepared()
    scripted(plan)
    run(plan)
    plan.save(tmp_path)
    stored = json.loads((tmp_path / "instruction.json").read_text())
    assert stored["kept"] == PLANTED and [one["of"] for one in stored["candidates"]] == [10] * 4
    fresh = prepared()
    assert fresh.load is not None
    fresh.load(tmp_path)
    answer = fresh.answer
    assert isinstance(answer, Instructed) and answer.instruction == PLANTED
    told = task().templates[0].model_copy(update={"pattern": f"{PLANTED}\n\n{task().templates[0].pattern}"})
    plain = STRATEGIES["zero_shot"].prepare(
        base("tiny-llama"),
        context("verbalizer", task=task().model_copy(update={"templates": [told]}), sequence=400),
        options("zero_shot"),
    )
    fields = [{"text": "a film"}, {"text": "no film"}]
    assert np.allclose(answer.predict(fields, Meter()), plain.answer.predict(fields, Meter()), atol=1e-6)
    other = task().templates[0].model_copy(update={"pattern": "Text: {text} It is"})
    assert answer.through(other).inner.reader.template.pattern == f"{PLANTED}\n\nText: {{text}} It is"


def test_an_instruction_takes_no_room_from_the_row() -> None:
    """A text cut to `sequence` without one is cut as far with one."""
    answer = prepared().answer
    assert isinstance(answer, Instructed) and isinstance(answer.plain, Adapted)
    long = [{"text": "word " * 40}]
    front = f"{PLANTED}\n\n"
    [bare], [told] = answer.plain.reader.encode(long), answer.under(PLANTED).reader.encode(long)
    assert told.length == bare.length + len(base("tiny-llama").tokenizer(front)["input_ids"])


def test_what_is_asked() -> None:
    given = Rows([{"text": "so dull"}, {"text": "a joy"}], [0, 1], [3, 4])
    assert asking(task(), task().templates[0], given) == (
        "All of these outputs follow from their inputs by one and the same instruction.\n\n"
        "Input: so dull\nOutput: bad\n\nInput: a joy\nOutput: good\n\nThe instruction, in one sentence:"
    )
    question = Rows([{"text": "two", "rationale": "r", "target": "2"}], [1], [0])
    assert "Input: two\nOutput: 2\n" in asking(question_task(), question_task().templates[0], question)
    pair = task().model_copy(update={"columns": {"a": "x", "b": "y", "label": "label"}})
    two = Rows([{"a": "one", "b": "other"}], [0], [0])
    assert "Input: a: one; b: other\n" in asking(pair, task().templates[0], two)


@pytest.mark.parametrize(
    ("text", "kept"),
    [('  "Say {text} again."  ', "Say (text) again."), ("one\n  two\x00", "one two"), (" ' ", "")],
)
def test_a_written_instruction_names_no_field(text: str, kept: str) -> None:
    assert cleaned(text) == kept


def test_the_same_instruction_twice_and_an_empty_one_are_no_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    search: Any = prepared(candidates=4).search
    texts = ["Judge it.", "", "judge it.", "Say it."]
    monkeypatch.setattr("bench.score.chains.texts_after", lambda *_: texts)
    assert search.write(Meter(Budget(labels=2, train_examples=9))) == ["Judge it.", "Say it."]


def test_a_model_that_chats_is_asked_in_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others go on with the bare text; how the task's own prompt stands is another matter."""
    bare: Any = prepared().search
    tokenizer = base("tiny-llama").tokenizer
    said = asking(task(), task().templates[0], bare.shown)
    assert tokenizer.decode(bare.prompt) == said
    monkeypatch.setattr("bench.score.chat.speaks", lambda base: True)
    monkeypatch.setattr(
        "bench.score.chat.around", lambda base: (tokenizer("<")["input_ids"], tokenizer(">")["input_ids"])
    )
    chatting: Any = prepared().search
    assert tokenizer.decode(chatting.prompt) == f"<{said}>" and not chatting.answer.template.chat


def test_the_seed_decides_what_is_written() -> None:
    first, again = (prepared(candidates=3, tokens=8).search for _ in range(2))
    written = [search.write(Meter()) for search in (first, again)]  # type: ignore[union-attr]
    assert written[0] == written[1] and len(written[0]) > 1, "sampled, not the likeliest three times"


def test_written_answers_have_instructions_too() -> None:
    """Kind generate: validation rows are right or wrong as their replies are."""
    plan = prepared(question_task())
    meter, ended = run(plan, question_task())
    search: Any = plan.search
    assert ended == "converged" and {one.of for one in search.candidates} == {10} and meter.examples > 0
    fields = [row | {"target": "1", "rationale": "x"} for row in rows().test.fields[:2]]
    assert plan.answer.predict(fields, Meter()).shape == (2, 2)


@pytest.mark.parametrize("axis", [{"train_tokens": 900}, {"train_flops": 1e8}])
def test_written_answers_hold_every_axis(axis: dict[str, float]) -> None:
    plan = prepared(question_task())
    try:
        meter, ended = run(plan, question_task(), **axis)
    except Unsupported as error:
        assert "too small for one step" in str(error)
        return
    [(name, limit)] = axis.items()
    largest = max(getattr(step, name.removeprefix("train_")) for step in meter.steps)
    assert ended == name and meter.spent() <= limit + (0 if name == "train_tokens" else largest)


def test_what_leaves_no_label_to_choose_on_is_refused() -> None:
    with pytest.raises(Unsupported, match="demonstrations=12 leave none of 12 labels to choose an instruction on"):
        prepared(demonstrations=12)


def test_demonstrations_that_do_not_fit_are_refused() -> None:
    with pytest.raises(Unsupported, match="11 demonstrations take .* context of 512: lower demonstrations"):
        prepared(demonstrations=11)
