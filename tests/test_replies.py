"""Kind generate: decoding with a shared beginning, replies and their votes, chain of thought, refusals, a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_rows import jsonl
from rich.console import Console
from tiny import STRATEGIES, base, context, options
from written_tasks import generate, question

from bench.budget import Meter
from bench.config import load
from bench.config.schema import Budget
from bench.data.rows import Rows
from bench.models.base import Base
from bench.outcomes import refuse_what_is_missing
from bench.records import Status
from bench.run import execute
from bench.score import replies
from bench.score.decode import Sampling, Writer
from bench.score.readers import make_reader
from bench.score.replies import MARK, STEP_BY_STEP, ReplyReader, Told
from bench.strategy import Unsupported
from bench.train.loop import adapt

pytestmark = pytest.mark.usefixtures("forked")


# ---- decoding


def plainly(model: Base, ids: list[int], most: int) -> list[int]:
    """Greedy, one row, the whole text through the model at every step."""
    new: list[int] = []
    with torch.no_grad():
        for _ in range(most):
            token = int(model.module(torch.tensor([[*ids, *new]])).logits[0, -1].argmax())
            if token == model.tokenizer.eos_token_id:
                break
            new.append(token)
    return new


def writer(model: Base, prefix: list[int] | None = None, rows: int = 8) -> Writer:
    model.module.eval()
    ends = frozenset((model.tokenizer.eos_token_id,))
    return Writer(model.module, model.tokenizer.pad_token_id, ends, tuple(prefix or ()), rows)


PROMPTS = ["One", "A much longer beginning of a text, all in all", "Then two"]


@pytest.mark.parametrize("family", ["tiny-llama", "tiny-gpt2"])
@pytest.mark.parametrize("shared", ["", "Shared by all of them. "])
def test_batches_with_padding_and_a_shared_beginning_write_what_one_row_does(family: str, shared: str) -> None:
    model = base(family)
    encode = lambda text: model.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    prefix, prompts = encode(shared) if shared else [], [encode(text) for text in PROMPTS]
    meter = Meter()
    meter.watch([model.module])
    written = writer(model, prefix, rows=2).write(prompts, 12, meter)
    assert written == [plainly(model, [*prefix, *ids], 12) for ids in prompts]
    # every prompt once, the beginning once, and one token a row and step after the first
    steps = sum(max(len(new) for new in part) for part in ([written[0], written[2]], [written[1]]))
    assert meter.examples == 3 and meter.tokens >= len(prefix) + sum(map(len, prompts))
    assert len(meter.steps) <= steps + 2 + bool(prefix) and all(step.flops > 0 for step in meter.steps)


def test_a_text_ends_where_it_is_over() -> None:
    model = base("tiny-llama")
    ids = [model.tokenizer("One two", add_special_tokens=False)["input_ids"]]
    whole = writer(model).write(ids, 10, Meter())[0]
    assert writer(model).write(ids, 10, Meter(), finished=lambda new: len(new) == 3)[0] == whole[:3]
    stopped = Writer(model.module, 0, frozenset((whole[4],))).write(ids, 10, Meter())[0]
    assert stopped == whole[: whole.index(whole[4])], "the token that ends it is not part of it"


def test_sampling_depends_on_its_seed_alone() -> None:
    model = base("tiny-llama")
    ids = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in PROMPTS]

    def drawn(seed: int) -> list[list[int]]:
        return writer(model).write(ids, 8, Meter(), Sampling(5.0, torch.Generator().manual_seed(seed)))

    assert drawn(1) == drawn(1) and drawn(1) != drawn(2)


def test_virtual_tokens_are_refused() -> None:
    task, train = generate(), questions(3)
    given = context("verbalizer", task=task, train=train)
    plan = STRATEGIES["prompt_tuning"].prepare(base("tiny-llama"), given, options("prompt_tuning"))
    with pytest.raises(Unsupported, match="writing on from virtual tokens is not offered"):
        plan.answer.predict(train.fields, Meter())


# ---- answering


def questions(n: int) -> Rows:
    fields = [{"question": f"q{i}?", "rationale": f"It is {i}.", "target": str(i)} for i in range(n)]
    return Rows(fields, [1] * n, list(range(n)))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """A model that replies from a list, and what it was asked."""
    asked: list[Any] = []

    def write(self: Writer, prompts: Any, most: int, meter: Meter, sampling: Any, finished: Any) -> list[list[int]]:
        asked.append((self.prefix, prompts, most, sampling.temperature))
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in asked[0][len(asked) - 2]]

    tokenizer = base("tiny-llama").tokenizer
    monkeypatch.setattr(replies.Writer, "write", write)
    yield asked


def told(**more: Any) -> Told:
    model = base("tiny-llama")
    reader = make_reader(model, context("verbalizer", task=generate(), train=questions(4), sequence=200))
    assert isinstance(reader, ReplyReader)
    return Told(model.module, reader, **more)


def test_replies_become_scores(said: list[Any]) -> None:
    said.append([[" 0\nQ: next", " It is 7."]])
    answer = told()
    assert answer.predict(questions(2).fields, Meter()).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    prefix, prompts, most, temperature = said[1]
    decode = answer.reader.base.tokenizer.decode
    assert (
        prefix == ()
        and most == 32
        and temperature == 0
        and decode(prompts[1][len(answer.reader.bos) :]) == "Q: q1?\nA:"
    )


def test_demonstrations_stand_in_front_once(said: list[Any]) -> None:
    said.append([[" 0"]])
    answer = told(shown=questions(2))
    answer.predict(questions(1).fields, Meter())
    prefix, prompts, _, _ = said[1]
    decode = answer.reader.base.tokenizer.decode
    assert decode(list(prefix[len(answer.reader.bos) :])) == "Q: q0?\nA: 0\n\nQ: q1?\nA: 1\n\n"
    assert decode(prompts[0]) == "Q: q0?\nA:"


def test_reasoning_is_shown_or_asked_for(said: list[Any]) -> None:
    said.append([[" It is 0. The answer is 0.\n\nQ: 5"], [" Let me think. 0"]])
    shown = told(shown=questions(1), reasons=True)
    assert shown.predict(questions(1).fields, Meter())[0, 1] == 1, "what follows the end is another question"
    asked = told(reasons=True)
    assert asked.predict(questions(1).fields, Meter())[0, 1] == 1
    decode = shown.reader.base.tokenizer.decode
    assert decode(list(said[1][0][len(shown.reader.bos) :])) == f"Q: q0?\nA: It is 0. {MARK} 0.\n\n"
    assert decode(said[2][1][0][len(shown.reader.bos) :]) == f"Q: q0?\nA:{STEP_BY_STEP}" and said[2][2] == 192


def test_several_replies_vote(said: list[Any]) -> None:
    said.append([[" 1"], [" 0"], [" so 0"]])
    assert told(reasons=True, samples=3, temperature=0.7).predict(questions(1).fields, Meter())[0, 1] == 1
    assert [one[3] for one in said[1:]] == [0.7] * 3


def test_a_rationale_that_is_not_there_is_told() -> None:
    bare = Rows([{"question": "q?", "target": "1"}], [1], [0])
    with pytest.raises(Unsupported, match="hold no rationale to show: name its column 'rationale', or use k=0"):
        told(shown=bare, reasons=True).prefix()


def test_what_does_not_fit_the_context_is_told() -> None:
    with pytest.raises(Unsupported, match="do not fit the model's context of .*: use fewer demonstrations"):
        told(shown=questions(80), reasons=True).predict(questions(1).fields, Meter())


def test_fine_tuning_learns_to_reply() -> None:
    """A full model over-fitted to three questions answers them; its head and its labels are not asked."""
    model, train = base("tiny-llama"), questions(3)
    given = context("verbalizer", task=generate({"tokens": 4}), train=train, batch=3)
    plan = STRATEGIES["full"].prepare(model, given, options("full", lr=0.01))
    meter = Meter(Budget(labels=3, train_examples=300))
    meter.watch(plan.seen)
    done = adapt(plan, given, meter)
    meter.unwatch()
    assert done.losses[-1] < 0.1 < done.losses[0]
    assert np.array_equal(plan.answer.predict(train.fields, Meter()), [[0.0, 1.0]] * 3)


# ---- strategies


@pytest.mark.parametrize("strategy", ["autoprompt", "frozen", "dpo"])
def test_what_cannot_write_is_refused(strategy: str) -> None:
    given = context("head" if strategy == "frozen" else "verbalizer", task=generate(), train=questions(3))
    with pytest.raises(
        Unsupported, match=f"{strategy} (needs labels that all rows share|learns which of several answers)"
    ):
        refuse_what_is_missing(STRATEGIES[strategy], base("tiny-llama"), given)


def test_a_head_cannot_reply() -> None:
    with pytest.raises(Unsupported, match="a head answers with labels, and this task wants a reply"):
        make_reader(base("tiny-llama"), context("head", task=generate(), train=questions(3)))


def test_reasoning_about_labels_is_refused() -> None:
    with pytest.raises(Unsupported, match="cot reasons in words of its own, and sst2 has labels"):
        refuse_what_is_missing(STRATEGIES["cot"], base("tiny-llama"), context("verbalizer"))


@pytest.mark.parametrize("more", [{"calibrate": True}, {"selection": "retrieved"}, {"demonstration_labels": "random"}])
def test_few_shot_options_that_need_labels_are_refused(more: dict[str, Any]) -> None:
    given = context("verbalizer", task=generate(), train=questions(4))
    with pytest.raises(Unsupported, match="few_shot has random demonstrations with their own answers only"):
        STRATEGIES["few_shot"].prepare(base("tiny-llama"), given, options("few_shot", k=2, **more))


def test_a_run_of_questions(tmp_path: Path) -> None:
    """Through the command: prompted, reasoned and tuned; labels counted, chance that of the commonest target."""
    data = tmp_path / "sums"
    data.mkdir()
    jsonl(data, "train", [question(n) for n in range(12)])
    jsonl(data, "test", [question(n % 5, q=f"And {n}?") for n in range(24)])
    task = generate({"tokens": 4, "rationale_tokens": 6}).model_dump(mode="json", exclude_none=True)
    task |= {"data": {"path": str(data)}, "splits": {"train": "train", "test": "test"}}
    suite = {"name": "sums", "model": "random:tiny-llama", "tasks": {"sums": task}, "sequence": 96, "batch": 4,
             "strategies": {"zero_shot": {}, "few_shot": {"k": 2}, "cot": {"k": 2}, "asked": {"base": "cot", "k": 0},
                            "vote": {"base": "cot", "k": 1, "samples": 2}, "lora": {"r": 2}},
             "budget": {"labels": 8, "train_examples": 8}}  # fmt: skip
    path = tmp_path / "sums.yaml"
    path.write_text(json.dumps(suite))
    where = [f"results_dir={tmp_path / 'results'}", f"reports_dir={tmp_path / 'reports'}", "threads=1", "device=cpu"]
    with (tmp_path / "output.txt").open("w") as out:
        done = execute(load([f"suite={path}", "probes=formats,contamination", *where]), Console(file=out, width=200))
    found = {r.cell.strategy: r for r in done}
    for name, result in found.items():
        assert result.outcome.status == Status.ok, (name, result.outcome.reason)
        assert result.scores is not None and result.scores["accuracy"].n == 24
        assert result.scores["accuracy"].chance == pytest.approx(5 / 24), "24 questions, five targets"
        assert result.predicted.peak_bytes, result.predicted.reason
        assert result.phases["predict"].flops and result.used is not None
        labels = {"zero_shot": 0, "few_shot": 2, "cot": 2, "asked": 0, "vote": 1, "lora": 8}[name]
        assert result.used.labels == labels
    assert "no probe" not in (tmp_path / "output.txt").read_text()
    assert "sums" in (tmp_path / "reports" / "sums.md").read_text()
