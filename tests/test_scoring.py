"""Readouts against the slow, obvious computation: one item at a time, full logits, no padding, no cache."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from bench.budget import Meter
from bench.config.schema import Task
from bench.data.prompts import fill
from bench.data.rows import Rows
from bench.models.base import Base
from bench.models.parts import backbone
from bench.score.adapted import Adapted, Calibrated, length_sorted, normalised
from bench.score.batch import PAD_MULTIPLE, Encoded, padded_length
from bench.score.demonstrations import BETWEEN, Demonstrations
from bench.score.heads import HeadReader
from bench.score.readers import VerbalizerReader
from bench.strategy import Unsupported

WORDS = {"single": {"negative": "x", "positive": "y"}, "several": {"negative": " awful", "positive": " good"}}


def task_with(words: dict[str, str], labels: list[str] | None = None) -> Task:
    """The sample's task with other label words (the byte tokenizer: one token a byte)."""
    raw = tiny.task().model_dump()
    raw["labels"] = labels or list(words)
    raw["templates"] = [{"pattern": "Review: {text}\nSentiment:", "verbalizer": words}]
    return Task.model_validate(raw)


def naive(base: Base, prompt: list[int], word: list[int]) -> float:
    """log p(word | prompt), token by token from full logits of one unpadded row."""
    with torch.inference_mode():
        if base.kind == "seq2seq":
            decoder = torch.tensor([[base.module.config.decoder_start_token_id, *word[:-1]]])
            logits, start = base.module(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder).logits[0], 0
        else:
            logits, start = base.module(input_ids=torch.tensor([[*prompt, *word]])).logits[0], len(prompt) - 1
    return sum(math.log(torch.softmax(logits[start + i].double(), -1)[token].item()) for i, token in enumerate(word))


def ids(base: Base, text: str) -> list[int]:
    """Ids without special tokens."""
    found: list[int] = base.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama", "tiny-t5"])
def test_verbalizer_scores_equal_the_naive_ones(family: str, words: str) -> None:
    """Batched, padded, head at few positions: the same log-probabilities to 1e-5."""
    base, context = tiny.base(family), tiny.context("verbalizer", task=task_with(WORDS[words]), sequence=200)
    reader = VerbalizerReader(base, context)
    fields = tiny.rows().test.fields
    scores = Adapted(base.module, reader).predict(fields, Meter())
    end = [base.tokenizer.eos_token_id] if base.kind == "seq2seq" else []
    expected = [
        [
            naive(base, [*ids(base, fill(context.task.templates[0], f)), *end], ids(base, w))
            for w in WORDS[words].values()
        ]
        for f in fields
    ]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert reader.truncated == 0 and reader.single == (words == "single" and family != "tiny-t5")


def test_long_inputs_lose_their_front_and_are_counted() -> None:
    """The question stands at the prompt's end, so that is what stays; each cut input counts once."""
    base = tiny.base("tiny-gpt2")
    reader = VerbalizerReader(base, tiny.context("verbalizer", sequence=30))
    [encoded] = reader.encode([{"text": "word " * 50}])
    assert (
        encoded.length == 30 and base.tokenizer.decode(encoded.ids).endswith("\nSentiment:") and reader.truncated == 1
    )
    longest = VerbalizerReader(base, tiny.context("verbalizer", sequence=4000))
    [encoded] = longest.encode([{"text": "word " * 500}])
    assert encoded.length == 512 - max(map(len, longest.words)), "room for the label's word inside the context"


def test_words_that_tokenise_alike_are_unsupported() -> None:
    """They could not be told apart."""
    task = task_with({"negative": "x", "positive": "y"})
    base = tiny.base("tiny-gpt2")
    base.tokenizer = lambda text, **_: {"input_ids": [7]}
    with pytest.raises(Unsupported, match="choose other words"):
        VerbalizerReader(base, tiny.context("verbalizer", task=task))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_head_scores_equal_the_naive_ones(family: str) -> None:
    """The pooled state of one unpadded item: last token (decoders), mean (T5), first token (BERT)."""
    base, context = tiny.base(family), tiny.context("head", sequence=200)
    torch.manual_seed(0)
    reader = HeadReader(base, context)
    fields = tiny.rows().test.fields
    scores = Adapted(reader.target(), reader).predict(fields, Meter())
    for row, encoded in zip(scores, reader.encode(fields), strict=True):
        with torch.inference_mode():
            hidden = backbone(base)(input_ids=torch.tensor([encoded.ids])).last_hidden_state[0]
            pooled = {"last": hidden[-1], "mean": hidden.mean(0), "first": hidden[0]}[reader.how]
            np.testing.assert_allclose(row, reader.head(pooled).double(), atol=1e-5)
    assert reader.how == {"tiny-bert": "first", "tiny-t5": "mean"}.get(family, "last")


def demonstrations(family: str, words: str) -> tuple[Demonstrations, Rows]:
    """Answers with four demonstrations of the sample in front."""
    base, context = tiny.base(family), tiny.context("verbalizer", task=task_with(WORDS[words]), sequence=100)
    shown = Demonstrations(VerbalizerReader(base, context), base.module, context)
    return shown, context.train.take(range(4))


@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama"])
def test_the_shared_cache_changes_no_score(family: str, words: str) -> None:
    """The demonstrations' keys and values computed once, against prefix and question joined in one row."""
    shown, rows = demonstrations(family, words)
    fields = tiny.rows().test.fields
    shown.rows = rows
    shared = shown.predict(fields, Meter())
    shown.rows, shown.choose = None, lambda _: rows
    np.testing.assert_allclose(shared, shown.predict(fields, Meter()), atol=1e-4)
    base, prefix = shown.reader.base, shown.prefix(rows)
    prompt = [*prefix, *ids(base, fill(shown.template, fields[0]))]
    np.testing.assert_allclose(shared[0], [naive(base, prompt, w) for w in shown.reader.words], atol=1e-4)


def test_demonstrations_read_as_the_questions_do() -> None:
    """Pattern, the label's word, an empty line; in the order given."""
    shown, rows = demonstrations("tiny-gpt2", "several")
    text = shown.reader.base.tokenizer.decode(shown.prefix(rows))
    parts = [fill(shown.template, f) + shown.labels[y] for f, y in zip(rows.fields, rows.labels, strict=True)]
    assert text == BETWEEN.join(parts) + BETWEEN


def test_demonstrations_that_do_not_fit_are_unsupported() -> None:
    """Nothing is cut silently: the sentence names lengths and the option to lower."""
    shown, _ = demonstrations("tiny-gpt2", "single")
    shown.rows = shown.reader and tiny.context("verbalizer").train.take(range(12))
    with pytest.raises(Unsupported, match=r"do not fit the model's context of 512: use fewer demonstrations"):
        shown.predict(tiny.rows().test.fields, Meter())


class Fixed:
    """An answerer with given scores: for content-free inputs one row each, for anything else its own."""

    truncated = 0

    def __init__(self, blank: list[list[float]], row: list[float]) -> None:
        self.blank, self.row, self.asked = blank, row, []

    asked: list[dict[str, str]]

    def predict(self, fields: Any, meter: Meter) -> np.ndarray:
        if {tuple(f.values()) for f in fields} == {("N/A",), ("[MASK]",), ("",)}:
            self.asked += fields
            return np.log(np.array(self.blank))
        return np.log(np.array([self.row for _ in fields]))


def test_contextual_calibration_by_hand() -> None:
    """Blank prompts say 0.9 : 0.1 on average (0.8, 0.9, 1.0); an item at 0.6 : 0.4 is then 0.6/0.9 to 0.4/0.1."""
    inner = Fixed([[0.08, 0.02], [0.45, 0.05], [1.0, 1e-30]], [0.3, 0.2])
    scores = Calibrated(inner, ["text"]).predict([{"text": "fine"}], Meter())
    np.testing.assert_allclose(np.exp(scores[0]), [0.6 / 0.9, 0.4 / 0.1], rtol=1e-9)
    assert scores.argmax() == 1 and len(inner.asked) == 3


def test_normalised_scores_are_log_probabilities() -> None:
    """Rows sum to one, also far below zero."""
    out = normalised(np.array([[-1000.0, -1001.0], [0.0, 0.0]]))
    np.testing.assert_allclose(np.exp(out).sum(-1), 1)
    np.testing.assert_allclose(np.exp(out[1]), 0.5)


def test_retrieved_demonstrations_are_balanced_and_most_alike_last() -> None:
    """Each label's most alike rows, as even as k allows, ordered so that the nearest stands next to the question."""
    import sys

    retriever = sys.modules[type(tiny.STRATEGIES["few_shot"]).__module__].Retriever
    texts = ["the cat sat", "the cat sat down", "a dog ran", "the cat", "stocks fell", "the cat sat on the mat"]
    rows = Rows([{"text": t} for t in texts], [0, 0, 1, 1, 1, 0], [10, 11, 12, 13, 14, 15])
    found = retriever(rows, 4, 2)({"text": "the cat sat down"})
    assert Counter(found.labels) == {0: 2, 1: 2}
    assert found.fields[-1] == {"text": "the cat sat down"} and 13 in found.index
    odd = retriever(rows, 3, 2)({"text": "the cat sat down"})
    assert len(odd) == 3 and set(odd.labels) == {0, 1} and odd.index[-1] == 11
    everything = retriever(rows, 6, 2)({"text": "the cat sat down"})
    assert sorted(everything.index) == rows.index


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("present", ["all", "two of them"])
def test_the_probe_is_scikit_learns(classes: int, present: str) -> None:
    """Folded into the head, the solution predicts what the fitted pipeline does, also where a class was never seen."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    names = ["a", "b", "c"][:classes]
    task = task_with({n: f" {n}" for n in names}, names)
    shown = [0, classes - 1] if present == "two of them" else list(range(classes))
    pool = tiny.rows().train.take(range(30))
    train = Rows(pool.fields, [shown[i % len(shown)] for i in range(30)], pool.index)
    context = tiny.context("head", task=task, train=train, sequence=100)
    base, frozen = tiny.base("tiny-gpt2"), tiny.STRATEGIES["frozen"]
    plan = frozen.prepare(base, context, frozen.Options(c=0.5))
    from bench.config.schema import Budget

    meter = Meter(Budget(labels=30, train_examples=100))
    assert plan.search is not None
    plan.search(meter)
    reader = plan.answer.reader  # type: ignore[attr-defined]
    fields = tiny.rows().train.take(range(30, 60)).fields

    def features(rows: list[dict[str, str]]) -> np.ndarray:
        with torch.inference_mode():
            one = [reader.features(reader.target(), reader.collate([e]))[0] for e in reader.encode(rows)]
        return torch.stack(one).double().numpy()

    scaler = StandardScaler().fit(features(train.fields))
    oracle = LogisticRegression(C=0.5, max_iter=10_000, tol=1e-8).fit(
        scaler.transform(features(train.fields)), train.labels
    )
    scores = plan.answer.predict(fields, Meter())
    expected = oracle.predict(scaler.transform(features(fields)))
    assert (scores.argmax(-1) == expected).all() and plan.labels_used == 30 and meter.examples == 30
    mine, theirs = np.exp(normalised(scores))[:, shown], oracle.predict_proba(scaler.transform(features(fields)))
    np.testing.assert_allclose(mine, theirs, atol=2e-3)


def test_scoring_batches_are_sorted_and_bounded() -> None:
    """Every row once, ascending lengths, padded size within the budget of 1,024 tokens; a longer row goes alone."""
    encoded = [Encoded([1] * n) for n in (500, 3, 2000, 400, 3, 90, 600)]
    groups = list(length_sorted(encoded))
    flat = [i for group in groups for i in group]
    assert sorted(flat) == list(range(7)) and [encoded[i].length for i in flat] == sorted(e.length for e in encoded)
    assert all(len(g) == 1 or len(g) * max(encoded[i].length for i in g) <= 1024 for g in groups)


@pytest.mark.parametrize("device", sorted(PAD_MULTIPLE))
def test_padded_lengths(device: str) -> None:
    """The least multiple of the device's that holds the row, never past the context, never shorter than the row."""
    multiple = PAD_MULTIPLE[device]
    for n in range(1, 40):
        assert n <= padded_length(n, None, device) < n + multiple and padded_length(n, None, device) % multiple == 0
        assert n <= padded_length(n, max(n, 20), device) <= max(n, 20)


def test_a_long_prefix_makes_batches_smaller() -> None:
    """Every row holds a copy of the prefix's keys and values: 128 demonstrations must not take many GiB."""
    encoded = [Encoded([0] * 25) for _ in range(100)]
    assert max(map(len, length_sorted(encoded))) == 1024 // 25
    assert max(map(len, length_sorted(encoded, cached=300))) == 1024 // 25, "eight demonstrations change nothing"
    assert max(map(len, length_sorted(encoded, cached=4500))) == 16 * 1024 // 4525
    assert [len(b) for b in length_sorted(encoded[:2], cached=10**6)] == [1, 1], "one row always goes"
