"""Entities tagged by an encoder: words and their tags, what is counted, and that it learns; refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import STRATEGIES, base, context, options
from written_tasks import rows, run, task

from bench.budget import Meter
from bench.config.schema import Budget, Task
from bench.data.rows import Rows
from bench.records import Status
from bench.score.readers import make_reader
from bench.score.replies import answering
from bench.score.tags import UNJUDGED, Tagged, TagReader, Words, first_tokens
from bench.strategy import Unsupported
from bench.train.loop import adapt

pytestmark = pytest.mark.usefixtures("forked")


def reader(one: Task | None = None, sequence: int = 120, family: str = "tiny-bert") -> TagReader:
    found = make_reader(base(family), context("head", task=one or task(), train=rows(4), sequence=sequence))
    assert isinstance(found, TagReader)
    return found


FIELDS = {"text": "Rome saw Ann Lee-Ray leave Rome.", "target": "person: Ann Lee-Ray\nplace: Rome"}


def test_words_have_tags_and_their_first_tokens() -> None:
    one = reader()
    [encoded] = one.encode([FIELDS])
    assert isinstance(encoded, Words) and one.names == ["O", "B-person", "I-person", "B-place", "I-place"]
    # Rome, saw, Ann, Lee, -, Ray, leave, Rome, stop: the place is the one that comes first
    assert encoded.tags == (3, 0, 1, 2, 2, 2, 0, 0, 0)
    # one token a byte, after the token that begins a text
    assert encoded.places == (1, 6, 10, 14, 17, 18, 22, 28, 32)


def test_a_token_with_the_space_before_it_begins_its_word() -> None:
    assert first_tokens("Ann Lee", [(0, 0), (0, 3), (3, 5), (5, 7), (0, 0)]) == [1, 2]
    assert first_tokens("Ann Lee", [(0, 0), (0, 3)]) == [1], "what was cut off has none"


def test_what_is_cut_off_is_found_nowhere() -> None:
    short = reader(sequence=16)
    [encoded] = short.encode([FIELDS])
    assert isinstance(encoded, Words) and encoded.length == 16 and short.truncated == 1
    assert len(encoded.places) == len(encoded.tags) == 4 and max(encoded.places) < 16


def test_the_entities_of_tags_stand_as_in_the_text() -> None:
    answer = Tagged(torch.nn.Identity(), reader())
    tags = ["B-place", "O", "B-person", "I-person", "I-person", "I-person", "O", "I-place"]
    assert answer.entities(FIELDS["text"], tags) == [("place", "Rome"), ("person", "Ann Lee-Ray"), ("place", "Rome")]


def test_batches_of_words() -> None:
    one = reader()
    batch = one.collate(one.encode([FIELDS, {"text": "Hm", "target": "none"}]))
    tags = batch.extra["tags"]
    assert (
        (tags[0] != UNJUDGED).sum() == 9 and tags[0, 10] == 1 and tags[1].tolist().count(UNJUDGED) == tags.shape[1] - 1
    )
    assert one.logits(one.target(), batch).shape == (2, batch.padded, 5) and one.scores(one.target(), batch).shape == (
        2,
        120,
    )


def test_an_encoder_learns_to_tag(tmp_path: Path) -> None:
    """Over-fitted to four texts it finds their names, also stored and loaded; its likelihood rises to near 0."""
    train, one = rows(4), task()
    given = context("head", task=one, train=train, batch=4)

    def prepared() -> tuple:
        model = base("tiny-bert")
        return model, STRATEGIES["full"].prepare(model, given, options("full", lr=0.005))

    _, plan = prepared()
    assert isinstance(plan.answer, Tagged)
    before = plan.answer.likelihoods(train.fields, Meter())
    meter = Meter(Budget(labels=4, train_examples=400))
    meter.watch(plan.seen)
    done = adapt(plan, given, meter)
    meter.unwatch()
    right = [[1, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert plan.answer.predict(train.fields, Meter()).tolist() == right and done.losses[-1] < 0.05
    after = plan.answer.likelihoods(train.fields, Meter())
    assert before.shape == (4, 1) and (before < after).all() and (after > -0.5).all()
    plan.save(tmp_path)
    _, fresh = prepared()
    assert fresh.load is not None
    fresh.load(tmp_path)
    assert np.allclose(fresh.answer.likelihoods(train.fields, Meter()), after)


def test_what_cannot_tag_is_told() -> None:
    with pytest.raises(Unsupported, match="by what stands on both sides of it, and this model is causal: use"):
        make_reader(base("tiny-llama"), context("head", task=task(), train=rows(3)))
    two = task(columns={"text": "t", "more": "m", "label": "e"})
    with pytest.raises(Unsupported, match=r"tags are of one text, and this task has \['text', 'more'\]"):
        make_reader(base("tiny-bert"), context("head", task=two, train=rows(3)))
    found = reader()
    with pytest.raises(Unsupported, match="tags are of the bare text, which no prompt can change"):
        answering(found.target(), found).through(task().templates[0])


def test_a_run_of_tags(tmp_path: Path) -> None:
    """Tuned within the labels, predicted, recorded; prompting says why it cannot."""
    given = [{"t": f"It was Bo{n} here.", "e": [{"type": "person", "text": f"Bo{n}"}]} for n in range(40)]
    tokens = ("model=random:tiny-bert", "readout=head", "budget.trials=2")
    done, page, _ = run(tmp_path, task(), given, *tokens, few_shot={"k": 2}, lora={"r": 2})
    shot, lora = done
    assert shot.outcome.status == Status.unsupported and "few_shot" in (shot.outcome.reason or "")
    assert lora.outcome.status == Status.ok, lora.outcome.reason
    assert lora.scores is not None and lora.scores["span_f1"].n == 20 and lora.tuning is not None
    assert lora.predicted.peak_bytes, lora.predicted.reason
    assert "head readout" in page


def test_rows_of_the_other_tests_can_be_tagged() -> None:
    one: Rows = rows(4)
    found = reader()
    assert [e.tags for e in found.encode(one.fields) if isinstance(e, Words)] == [(0, 1, 0, 0), (0, 0, 0, 0)] * 2
