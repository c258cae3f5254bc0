"""Choices of several tokens side by side in one row: the plain path's scores, the prompt forwarded once, exact FLOPs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from bench.budget import Meter
from bench.config.schema import Task
from bench.measure.allocators import is_shortage
from bench.measure.flops import counting
from bench.measure.phases import metered
from bench.score.adapted import Adapted, Asking, scored
from bench.score.answers import AnswerReader
from bench.score.batch import Encoded
from bench.score.beside import Beside, can_stand_beside, side_by_side
from bench.score.demonstrations import Demonstrations
from bench.score.fronts import read_front
from bench.score.readers import VerbalizerReader
from bench.strategy import Diverged

CAUSAL = ("tiny-gpt2", "tiny-llama")
WORDS = {"bad": " awful", "so so": " aw", "good": " very good", "x": "x"}
"""Two that share their first tokens, one of which begins the other, and one of a single token."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As a cell has here."""
    torch.set_num_threads(1)


def task_of_words(words: dict[str, str]) -> Task:
    """The sample's task with other label words; its rows have the first two labels."""
    raw = tiny.task().model_dump()
    raw |= {"labels": list(words), "templates": [{"pattern": "Review: {text}\nSentiment:", "verbalizer": words}]}
    return Task.model_validate(raw)


def reader_of(family: str, sequence: int = 200) -> VerbalizerReader:
    """Reads four words of one to ten tokens."""
    return VerbalizerReader(tiny.base(family), tiny.context("verbalizer", task=task_of_words(WORDS), sequence=sequence))


def both(answer: Any, fields: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Scores as they are given, and as the plain path gives them."""
    told = answer.predict(fields, Meter())
    with tiny.plainly(monkeypatch):
        return told, answer.predict(fields, Meter())


# ---- the row by hand


def test_the_row_by_hand() -> None:
    """Prompt 5 6, choices (1 2 3), (4), (1 9): what is forwarded, who sees whom, where, and what is read."""
    row = Beside.of([5, 6], [[1, 2, 3], [4], [1, 9]])
    assert row.ids == [5, 6, 1, 2, 1] and row.length == 5 and row.blocks == [0, 0, 1, 1, 3]
    assert row.places == [0, 1, 2, 3, 2] and row.read == [[0, 1, 2], [0], [0, 3]]
    other = Beside.of([7, 7, 7], [[1], [4], [2]])
    batch = side_by_side([row, other], 0, torch.device("cpu"), before=2)
    seen = batch.inputs["attention_mask"].int()
    assert seen.shape == (2, 1, 5, 7)
    assert seen[0, 0].tolist() == [
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0, 0, 1],
    ]
    assert seen[1, 0, 3:].tolist() == [[1, 1, 1, 1, 1, 0, 0]] * 2, "padding sees the prompt and not itself"
    assert batch.inputs["position_ids"].tolist() == [[2, 3, 4, 5, 4], [2, 3, 4, 0, 0]]
    assert batch.extra["positions"].tolist() == [[1, 2, 3, 4], [2, 0, 0, 0]]
    assert batch.extra["by"][0].tolist() == [[0, 1, 2], [0, 0, 0], [0, 3, 0]]
    assert batch.extra["targets"][0].tolist() == [[1, 2, 3], [4, 0, 0], [1, 9, 0]]
    assert batch.extra["real"].sum(-1).tolist() == [[3, 1, 2], [1, 1, 1]]
    assert batch.shape == ("beside", 0, 2, 0, 2, 4, 5)


# ---- equal scores


@pytest.mark.parametrize("family", CAUSAL)
def test_words_of_unlike_lengths_score_as_on_the_plain_path(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four words, one token to ten, prompts of unlike lengths in one padded batch."""
    reader = reader_of(family)
    told, plain = both(Adapted(reader.base.module, reader), tiny.rows().train.fields[:20], monkeypatch)
    assert told.shape == (20, 4)
    np.testing.assert_allclose(told, plain, atol=1e-4)


@pytest.mark.parametrize("given", ["shared", "an item's own"])
@pytest.mark.parametrize("family", CAUSAL)
def test_behind_demonstrations_too(family: str, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind keys and values computed once, and behind demonstrations that each item has of its own."""
    reader = reader_of(family, sequence=100)
    context = tiny.context("verbalizer", task=task_of_words(WORDS))
    shown, rows = Demonstrations(reader, reader.base.module, context), context.train.take(range(3))
    if given == "shared":
        shown.rows = rows
    else:
        shown.choose = lambda _: rows
    told, plain = both(shown, tiny.rows().test.fields, monkeypatch)
    np.testing.assert_allclose(told, plain, atol=1e-4)


@pytest.mark.parametrize("family", CAUSAL)
def test_answers_of_a_rows_own(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two texts to a prompt, each to its end; a row longer than the context holds none that is."""
    base = tiny.base(family)
    reader = AnswerReader(base, tiny.context("verbalizer", task=tiny.pair_task(), sequence=512))
    fields = tiny.pair_rows().test.fields
    fields = [*fields, {**fields[0], **dict.fromkeys(list(fields[0])[-2:], "word " * 90)}]
    asking = Asking(base.module, reader)
    assert max(row.length for row in asking.rows(reader.encode(fields))) > 512
    told, plain = both(Adapted(base.module, reader), fields, monkeypatch)
    np.testing.assert_allclose(told, plain, atol=2e-4)


# ---- who shares


@pytest.mark.parametrize(
    ("name", "shares"),
    [("zero_shot", True), ("lora", True), ("ia3", True), ("full", True), ("bitfit", True), ("adapter", True),
     ("prompt_tuning", False), ("p_tuning", False), ("prefix_tuning", False)],
)  # fmt: skip
def test_virtual_tokens_take_the_plain_path(name: str, shares: bool) -> None:
    done = tiny.driven(name, "tiny-gpt2", "verbalizer")
    assert done.plan is not None
    answer: Any = done.plan.answer
    assert (Asking(answer.module, answer.reader).beside is not None) == shares


def test_whoever_cannot_stand_beside_takes_the_plain_path() -> None:
    """Encoder-decoders, masked models, windows, no fused attention, tables of positions of another kind, other modules."""
    for family in ("tiny-t5", "tiny-bert"):
        base = tiny.base(family)
        assert not can_stand_beside(base, base.module)
    base = tiny.base("tiny-llama")
    assert can_stand_beside(base, base.module) and not can_stand_beside(base, torch.nn.Sequential(base.module))
    config: Any = base.module.config
    for key, value in {
        "sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"], "rope_parameters": None,
        "alibi": True, "_attn_implementation": "eager",
    }.items():  # fmt: skip
        before = getattr(config, key, None)
        setattr(config, key, value)
        assert not can_stand_beside(base, base.module), key
        setattr(config, key, before)
    assert can_stand_beside(base, base.module)


def test_labels_of_one_token_and_training_stay_as_they_were() -> None:
    """One token: the prompt's row is all there is. Training batches have a row a label."""
    base = tiny.base("tiny-gpt2")
    single = VerbalizerReader(base, tiny.context("verbalizer", task=task_of_words({"a": "x", "b": "y"})))
    assert Asking(base.module, single).beside is None
    reader = reader_of("tiny-gpt2")
    batch = reader.collate(reader.encode(tiny.rows().test.fields[:2]))
    assert batch.inputs["input_ids"].shape[0] == 8 and batch.inputs["attention_mask"].dim() == 2


# ---- what is forwarded and counted


@pytest.mark.parametrize("family", CAUSAL)
def test_a_prompt_is_forwarded_once(family: str) -> None:
    """Real tokens: each prompt, and each word but its last token; rows: the items."""
    reader, fields, meter = reader_of(family), tiny.rows().test.fields, Meter()
    meter.watch([reader.base.module])
    Adapted(reader.base.module, reader).predict(fields, meter)
    meter.unwatch()
    prompts = sum(e.length for e in reader.encode(fields))
    behind = sum(len(word) - 1 for word in reader.words)
    assert behind == 5 + 2 + 9 + 0
    assert meter.tokens == prompts + len(fields) * behind and meter.rows == meter.examples == len(fields)


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("before", [0, 37])
def test_flops_of_a_row_of_choices_are_exact(family: str, before: int) -> None:
    """Three counted lengths and one that shows it give the others; of another number of tokens read nothing is known."""
    reader, meter = reader_of(family), Meter()
    module = reader.base.module
    asking = Asking(module, reader, read_front(module, [1] * before, Meter()) if before else None)
    assert asking.before == before

    def batch_of(length: int) -> Any:
        return asking.batch(asking.rows([Encoded([9] * length), Encoded([9] * (length - 3))]))

    with torch.inference_mode():
        for length in (11, 40, 90, 77):
            batch = batch_of(length)
            with meter.step(batch.shape, 2):
                asking.scores(batch)
        batch = batch_of(64)
        with counting() as counted:
            asking.scores(batch)
    assert meter.book.get(batch.shape) == counted.once and counted.flops > counted.attention > 0
    fewer = replace(batch, extra={**batch.extra, "positions": batch.extra["positions"][:, :3]})
    assert meter.book.get(fewer.shape) is None


# ---- memory


class Greedy:
    """A scorer that runs out of memory above so many rows."""

    def __init__(self, most: int, error: Exception, module: torch.nn.Module | None = None) -> None:
        self.most, self.error, self.module = most, error, module
        self.tried: list[int] = []

    def collate(self, part: list[Encoded]) -> tuple[torch.Tensor, tuple[int, ...]]:
        return torch.tensor([[e.ids[0]] for e in part], dtype=torch.float32), (len(part), 0, 1)

    def score(self, batch: torch.Tensor) -> torch.Tensor:
        self.tried.append(len(batch))
        out = batch if self.module is None else self.module(batch)
        if len(batch) > self.most:
            raise self.error
        return torch.cat([out, -batch], dim=1)


CPU_OUT = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to ...")
OUT = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), CPU_OUT]
ROWS = [Encoded([i]) for i in (5, 3, 9, 1, 7)]


@pytest.mark.parametrize("error", OUT, ids=["python", "card", "cpu"])
def test_out_of_memory_halves_the_batch(error: Exception) -> None:
    """Five rows, room for two: 5, then 3 and 2, then 2 and 1; scores in order, and the meter counts what finished."""
    seen = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(seen.weight)
    greedy, meter = Greedy(2, error, seen), Meter()
    meter.watch([seen])
    scores = scored(ROWS, meter, greedy.collate, greedy.score)
    assert greedy.tried == [5, 3, 2, 1, 2] and meter.halved == 2
    np.testing.assert_array_equal(scores, [[e.ids[0], -e.ids[0]] for e in ROWS])
    assert (len(meter.steps), meter.examples, meter.tokens, meter.rows, meter.padded_tokens) == (3, 5, 5, 5, 5)
    assert sum(step.tokens for step in meter.steps) == 5
    total = Meter()
    total.absorb(meter)
    assert metered(total)["halved"] == 2 and metered(Meter()) == {}


def test_one_row_that_does_not_fit_says_so() -> None:
    """What the allocator said is raised; so is any other error at once."""
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        scored(ROWS, Meter(), (greedy := Greedy(0, CPU_OUT)).collate, greedy.score)
    assert greedy.tried == [5, 3, 2, 1]
    other = Greedy(0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        scored(ROWS, Meter(), other.collate, other.score)
    assert other.tried == [5] and not is_shortage(other.error) and all(map(is_shortage, OUT))


def test_halves_give_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real model whose forward gives up above three rows."""
    reader, fields = reader_of("tiny-llama"), tiny.rows().test.fields
    answer, meter = Adapted(reader.base.module, reader), Meter()
    whole = answer.predict(fields, Meter())

    def gives_up(_: Any, __: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].shape[0] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = reader.base.module.register_forward_pre_hook(gives_up, with_kwargs=True)
    np.testing.assert_allclose(answer.predict(fields, meter), whole, atol=1e-5)
    handle.remove()
    assert meter.halved > 0 and meter.examples == len(fields)


def test_a_score_that_is_not_finite_still_says_so() -> None:
    """Halving hides nothing."""
    with pytest.raises(Diverged, match="not finite"):
        scored(ROWS, Meter(), Greedy(9, MemoryError()).collate, lambda batch: batch * torch.nan)


def test_a_step_that_fails_counts_for_nothing() -> None:
    """Tokens, rows, FLOPs and seconds of it are taken back; the next one is counted as ever."""
    reader, meter = reader_of("tiny-gpt2"), Meter()
    module = reader.base.module
    meter.watch([module])
    ids = torch.ones(2, 7, dtype=torch.int64)

    def ask(fails: bool) -> None:
        with torch.inference_mode(), meter.step((2, 0, 7), 2):
            module(input_ids=ids, attention_mask=torch.ones_like(ids))
            if fails:
                raise MemoryError

    with pytest.raises(MemoryError):
        ask(True)
    assert (meter.tokens, meter.rows, meter.padded_tokens, meter.examples, meter.flops) == (0, 0, 0, 0, 0.0)
    assert not meter.steps and meter.seconds == 0 and not meter.book.kinds
    ask(False)
    assert (meter.tokens, meter.rows, meter.padded_tokens) == (14, 2, 14) and meter.flops > 0
