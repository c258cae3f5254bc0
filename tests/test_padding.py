"""Batches of like length hold little padding on the tasks of glue-small, and a cell tokenises every text once."""

from __future__ import annotations

import os
from collections import Counter
from functools import cache
from itertools import islice
from typing import Any

import pytest
import tiny

from bench.config import DataSettings, load
from bench.data.draws import draw_labels
from bench.data.prompts import fill
from bench.data.rows import Rows, read
from bench.data.sources import locate
from bench.models.cache import ensure, is_ready
from bench.models.catalog import parse
from bench.score.batch import padded_length
from bench.score.readers import VerbalizerReader
from bench.train.order import batches

MIRROR = os.environ.get("BENCH_MIRROR")
MODEL = "smollm2-135m-instruct"
TASKS = ("sst2", "cola", "mrpc", "rte")
MOST = 1.10
"""Padded tokens over real ones of an epoch."""


@cache
def lengths(name: str, source: Any, labels: int, seed: int) -> list[int]:
    """Tokens of a task's training prompts; without the suite's model in the cache those of the sample are bytes."""
    task = load(["suite=glue-small"]).suite.tasks[name]
    rows = read(name, task, locate(name, task, source, DataSettings(source=source, mirror=MIRROR)))
    train: Rows = draw_labels(rows.train, labels, seed, len(task.labels))
    texts = [fill(task.templates[0], fields) for fields in train.fields]
    if not is_ready(parse(MODEL)):
        if source == "mirror":
            pytest.skip(f"needs the tokenizer of {MODEL} in the model cache")
        return [len(text.encode()) for text in texts]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(ensure(parse(MODEL))))
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]


def padding(of: list[int], seed: int, device: str) -> float:
    """Padded over real tokens of one epoch in the suite's batches."""
    size = load(["suite=glue-small"]).suite.batch
    epoch = list(islice(batches(of, size, seed), -(-len(of) // size)))
    assert sorted(i for rows in epoch for i in rows) == list(range(len(of)))
    return sum(len(rows) * padded_length(max(of[i] for i in rows), None, device) for rows in epoch) / sum(of)


@pytest.mark.parametrize("name", TASKS)
def test_little_padding_on_the_bundled_sample(name: str) -> None:
    """128 labels, three seeds, at most a tenth more tokens than there are."""
    for seed in range(3):
        assert 1 < padding(lengths(name, "sample", 128, seed), seed, "cpu") <= MOST


@pytest.mark.skipif(MIRROR is None, reason="needs the data mirror (BENCH_MIRROR)")
@pytest.mark.parametrize(("name", "labels"), [*((name, 128) for name in TASKS), ("sst2", 1024)])
def test_little_padding_on_the_real_tasks(name: str, labels: int) -> None:
    """As many labels as the suite has, and where lengths vary most, eight times as many."""
    for seed in range(3):
        assert 1 < padding(lengths(name, "mirror", labels, seed), seed, "cpu") <= MOST


def test_without_batches_of_like_length_there_is_more() -> None:
    """Rows in the order they were drawn: what the order saves."""
    of = lengths("sst2", "sample", 128, 0)
    plain = sum(8 * max(of[i : i + 8]) for i in range(0, 128, 8)) / sum(of)
    assert plain > 1.15 > padding(of, 0, "cpu")


def test_a_cell_tokenises_a_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs of training and all test items: every prompt is turned into ids once."""
    seen: Counter[str] = Counter()
    inner = VerbalizerReader.tokens

    def tokens(reader: VerbalizerReader, text: str) -> list[int]:
        seen[text] += 1
        return inner(reader, text)

    monkeypatch.setattr(VerbalizerReader, "tokens", tokens)
    done = tiny.drive("lora", "tiny-llama", "verbalizer", train_examples=2 * tiny.LABELS)
    texts = [fill(tiny.task().templates[0], f) for f in (*done.context.train.fields, *tiny.rows().test.fields)]
    assert done.meter.examples == 2 * tiny.LABELS and seen == Counter(set(texts))
