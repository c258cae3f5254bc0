"""FLOPs by shape: what a few counted passes tell of all others, and how much an uncounted one may take at most."""

from __future__ import annotations

import random
from itertools import product

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.budget import Meter
from bench.config.schema import Budget
from bench.data.rows import Rows
from bench.measure.book import Book, Flops
from bench.measure.flops import counting
from bench.score.decode import Writer
from bench.train.loop import adapt

Size = tuple[int, int, int]
WORDS = ["the", "a", "model", "learns", "small", "words", "from", "many", "texts", "and", "answers", "with", "care"]
NUMBER = st.integers(0, 10**9)
SIZE = st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(1, 90))


def truth(numbers: tuple[int, ...], size: Size) -> Flops:
    """Work on weights, a row's, a token's, a read token's; attention's on nothing, a row, a token, a pair of tokens."""
    weights, row, token, read, nothing, own, linear, square = numbers
    rows, width, length = size
    attention = nothing + rows * (own + linear * length + square * length**2)
    return Flops(weights + rows * (row + token * length + read * width) + attention, attention)


@given(st.tuples(*[NUMBER] * 8), st.lists(SIZE, min_size=1, max_size=6, unique=True), SIZE)
def test_what_is_told_is_exact_and_bounds_hold(numbers: tuple[int, ...], seen: list[Size], asked: Size) -> None:
    """Whatever was counted: FLOPs given are those, in whole numbers, and none are more than their bound."""
    book = Book()
    assert book.most(("kind", *asked)) is None and book.get(("kind", *asked)) is None
    for size in seen:
        book.add(("kind", *size), truth(numbers, size))
    flops, most, got = truth(numbers, asked), book.most(("kind", *asked)), book.get(("kind", *asked))
    assert got in (None, flops) and (asked not in seen or got == flops)
    assert most is not None and most >= flops.total * (1 - 1e-12)
    assert book.most(("other", *asked)) is None, "another kind of pass tells nothing"


def test_how_many_passes_tell_the_others() -> None:
    """Three lengths in batches of one size, and a fourth that shows it; one pass more where rows differ too, and one
    where widths do."""
    book, numbers = Book(), (500, 20, 70, 40, 0, 0, 0, 3)

    def told(*sizes: Size) -> list[bool]:
        return [book.get(size) == truth(numbers, size) for size in sizes]

    asked = (4, 1, 60), (7, 1, 60), (4, 5, 60)
    for size, tells in (
        ((4, 1, 10), [False, False, False]),
        ((4, 1, 20), [False, False, False]),
        ((4, 1, 30), [False, False, False]),
        ((4, 1, 40), [True, False, False]),
        ((4, 2, 30), [True, False, True]),
        ((5, 1, 10), [True, True, True]),
    ):
        book.add(size, truth(numbers, size))
        assert told(*asked) == tells, size


def test_a_kind_that_is_told_wrong_is_counted_each_time() -> None:
    """Work in chunks of 16 tokens is no polynomial of the length: the first shape that shows it is the last believed."""

    def chunks(size: Size) -> Flops:
        rows, _, length = size
        return Flops(100 * rows * -(-length // 16), 0)

    book = Book()
    for length in (16, 32, 48):
        book.add((2, 0, length), chunks((2, 0, length)))
    assert book.get((2, 0, 40)) is None, "it is told, and tried"
    book.add((2, 0, 40), chunks((2, 0, 40)))
    book.add((2, 0, 64), chunks((2, 0, 64)))
    assert book.get((2, 0, 80)) is None and book.get((2, 0, 40)) == chunks((2, 0, 40))
    assert book.most((2, 0, 50)) == chunks((2, 0, 64)).total, "the dearest that was seen near it"


def test_two_lengths_bound_the_rest_closely() -> None:
    """What is not attention is known then: only attention is taken for as much as its square."""
    book, numbers = Book(), (500, 20, 70, 0, 0, 0, 0, 3)
    for size in ((4, 1, 20), (4, 1, 30)):
        book.add(size, truth(numbers, size))
    flops, shorter = truth(numbers, (4, 1, 60)), truth(numbers, (4, 1, 25))
    assert book.most((4, 1, 60)) == flops.total
    assert book.most((4, 1, 25)) == pytest.approx(shorter.rest + truth(numbers, (4, 1, 20)).attention * 1.25**2)


@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama", "tiny-bert", "tiny-t5"])
def test_flops_of_other_shapes_follow_from_four(family: str) -> None:
    """What the book says of a shape it did not count is what counting it gives, forward and backward. Two lengths bound
    the others, and closely: only attention is not yet known. Three tell them, one more shows it, and a fifth tells the other numbers of rows."""
    book, model = Book(), tiny.base(family).module.eval()

    def counted(rows: int, length: int) -> Flops:
        ids = torch.full((rows, length), 9)
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if family == "tiny-t5":
            inputs["decoder_input_ids"] = torch.full((rows, 4), 9)
        with counting() as count:
            model(**inputs).logits.sum().backward()
        return count.once

    for length in (8, 24, 16):
        assert book.get((3, 0, length)) is None
        if length == 16:
            for other in (5, 16, 31, 64):
                flops, most = counted(3, other), book.most((3, 0, other))
                assert most is not None and flops.total <= most <= flops.total + 10 * flops.attention
        book.add((3, 0, length), counted(3, length))
    book.add((3, 0, 40), counted(3, 40))
    for length in (16, 31, 64, 200):
        assert book.get((3, 0, length)) == counted(3, length)
    assert book.get((5, 0, 16)) is None, "how much is a row's and how much the weights' is not known yet"
    book.add((4, 0, 16), counted(4, 16))
    for rows, length in product((1, 2, 5), (9, 64)):
        assert book.get((rows, 0, length)) == counted(rows, length)


@pytest.mark.parametrize("readout", ["verbalizer", "head"])
@pytest.mark.parametrize("name", sorted(n for n in tiny.STRATEGIES if tiny.STRATEGIES[n].readouts != ("verbalizer",)))
def test_flops_of_a_cell_do_not_depend_on_what_was_looked_up(
    name: str, readout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cell's training FLOPs are those of counting every single step."""
    if readout not in tiny.STRATEGIES[name].readouts:
        pytest.skip("a readout it does not have")
    looked_up = tiny.drive(name, "tiny-gpt2", readout, train_examples=40)
    monkeypatch.setattr(Book, "get", lambda *_: None)
    counted = tiny.drive(name, "tiny-gpt2", readout, train_examples=40)
    assert [s.flops for s in looked_up.meter.steps] == [s.flops for s in counted.meter.steps]


@pytest.mark.parametrize("micro", [None, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_answers_of_unlike_length_are_told_apart(seed: int, micro: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The LM head reads as many tokens as the longest answer has, whatever the prompts' lengths: a cell's FLOPs are
    those of counting every pass, and a budget of them holds as many examples."""
    draw = random.Random(seed)
    words = [" ".join(draw.choices(WORDS, k=draw.randint(1, 30))) for _ in range(80)]
    fields = [
        {"text": text, "target": answer, "rationale": "x"} for text, answer in zip(words, words[40:], strict=False)
    ]

    def spent(**axis: float) -> Meter:
        base = tiny.base("tiny-llama")
        rows = Rows(fields, [1] * 40, list(range(40)))
        context = tiny.context("verbalizer", 40, task=tiny.question_task(), train=rows, sequence=400, micro_batch=micro)
        torch.manual_seed(0)
        plan = tiny.STRATEGIES["lora"].prepare(base, context, tiny.options("lora"))
        meter = Meter(Budget(labels=40, **axis))  # type: ignore[arg-type]
        meter.watch(plan.seen)
        adapt(plan, context, meter)
        return meter

    told = spent(train_examples=40)
    bound = spent(train_flops=told.flops * 1.02)
    monkeypatch.setattr(Book, "get", lambda *_: None)
    assert [step.flops for step in told.steps] == [step.flops for step in spent(train_examples=40).steps]
    assert bound.flops == told.flops


def test_writing_on_is_counted_by_the_tokens_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each further token sees one more: a short prompt's steps say exactly what a long one's take."""

    def spent() -> Meter:
        base, meter = tiny.base("tiny-llama"), Meter()
        meter.watch([base.module])
        prompts = [[9 + i % 90 for i in range(length)] for length in [26] * 8 + [200] * 3]
        Writer(base.module, 0, frozenset()).write(prompts, 12, meter)
        return meter

    told = spent()
    assert sum(not step.timed for step in told.steps) < len(told.steps) / 2, "few are counted"
    monkeypatch.setattr(Book, "get", lambda *_: None)
    assert [step.flops for step in told.steps] == [step.flops for step in spent().steps]
