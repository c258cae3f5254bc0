"""The bag of words: a linear model that is what scikit-learn and arithmetic say, on labels and on pairs, and no model."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import STRATEGIES, base, context, options, pair_rows, pair_task, rows, rows_of

from bench import plan as planning
from bench.budget import Meter
from bench.config import load
from bench.config.schema import Budget, Task
from bench.data.draws import draw_labels
from bench.data.rows import Rows, read
from bench.data.sources import Located
from bench.models.catalog import parse
from bench.predict.fakes import fake_base
from bench.predict.rehearse import rehearse
from bench.strategy import Plan, Unsupported
from bench.train.loop import adapt

MIRROR = os.environ.get("BENCH_MIRROR")
GOOD = Rows(
    [{"text": "good film"}, {"text": "bad film"}, {"text": "good food"}, {"text": "bad food"}],
    [1, 0, 1, 0],
    [0, 1, 2, 3],
)


def fit(train: Rows, task: Task | None = None, meter: Meter | None = None, **more: Any) -> tuple[Plan, Meter]:
    """A fitted bag of words on the tiny decoder."""
    given = context("head", train=train, **({} if task is None else {"task": task}))
    plan = STRATEGIES["bag_of_words"].prepare(base("tiny-gpt2"), given, options("bag_of_words", **more))
    meter = meter or Meter(Budget(labels=len(train), train_examples=64))
    meter.watch(plan.seen)
    adapt(plan, given, meter)
    meter.unwatch()
    return plan, meter


def pairs(*found: tuple[str, str, int]) -> Rows:
    """Pairs of answers with the place of the preferred one."""
    return Rows(
        [{"first": a, "second": b} for a, b, _ in found], [label for *_, label in found], list(range(len(found)))
    )


def test_tfidf_by_hand() -> None:
    """Two texts, "a b" and "a c": idf is ln(3/3) + 1 = 1 for a and ln(3/2) + 1 for b and c, then length 1."""
    plan, _ = fit(Rows([{"text": "a b"}, {"text": "a c"}], [0, 1], [0, 1]), runs=1, c=1.0)
    rare = math.log(3 / 2) + 1
    norm = math.hypot(1, rare)
    found = dict(
        zip(
            plan.answer.vectorizer.get_feature_names_out(),
            plan.answer.vectors([{"text": "A, b!"}])[0].toarray()[0],
            strict=True,
        )
    )  # type: ignore[attr-defined]
    assert found == pytest.approx({"text: a": 1 / norm, "text: b": rare / norm, "text: c": 0.0})


def test_the_linear_model_by_hand() -> None:
    """Texts "up" (1) and "down" (0), each one word, so vectors are (1, 0) and (0, 1); c=1.

    By symmetry the weights are a and -a and there is no intercept; the loss a^2 + 2 ln(1 + exp(-a)) is least where
    a = 1 / (1 + exp(a)).
    """
    plan, _ = fit(Rows([{"text": "up"}, {"text": "down"}], [1, 0], [0, 1]), runs=1, c=1.0)
    a = 0.0
    for _ in range(200):
        a = 0.5 * a + 0.5 / (1 + math.exp(a))
    scores = plan.answer.predict([{"text": "up"}, {"text": "down"}, {"text": "sideways"}], Meter())
    np.testing.assert_allclose(scores[:, 1] - scores[:, 0], [a, -a, 0.0], atol=1e-6)


def test_bradley_terry_by_hand() -> None:
    """ "up" preferred to "down" once, c=1: difference (1, -1), reward difference 2v with v = sigmoid(-2v)."""
    plan, _ = fit(pairs(("down", "up", 1)), pair_task(), runs=1, c=1.0)
    v = 0.0
    for _ in range(200):
        v = 0.5 * v + 0.5 / (1 + math.exp(2 * v))
    scores = plan.answer.predict([{"first": "up", "second": "down"}, {"first": "down", "second": "up"}], Meter())
    np.testing.assert_allclose(scores, [[v, -v], [-v, v]], atol=1e-6)


def test_exchanged_answers_exchange_the_verdict() -> None:
    """Antisymmetric exactly, also where all labelled pairs show the preferred answer first."""
    plan, _ = fit(pairs(("a good one", "a bad one", 0), ("good food", "bad food", 0), ("fine", "poor", 0)), pair_task())
    fields = pair_rows().test.fields
    swapped = [f | {"first": f["second"], "second": f["first"]} for f in fields]
    assert np.array_equal(plan.answer.predict(swapped, Meter()), plan.answer.predict(fields, Meter())[:, ::-1])
    same = plan.answer.predict([{"first": "good", "second": "good"}], Meter())
    assert same[0, 0] == same[0, 1]
    assert plan.answer.predict([{"first": "a good day", "second": "a bad day"}], Meter()).argmax() == 0


def test_word_runs_stay_within_their_field() -> None:
    """Pairs of neighbours are counted, never over the edge of a field; the same word in two fields is two."""
    runs_of = sys.modules[type(STRATEGIES["bag_of_words"]).__module__].runs_of
    assert runs_of({"a": "It isn't", "b": "is n't it"}, 2) == [
        "a: it", "a: is", "a: nt", "a: it is", "a: is nt", "b: is", "b: nt", "b: it", "b: is nt", "b: nt it"
    ]  # fmt: skip


def test_no_model_is_run() -> None:
    """Every labelled row is one example; there are seconds, and neither tokens nor FLOPs."""
    plan, meter = fit(GOOD)
    assert plan.seen == [] and meter.examples == 4 and len(meter.steps) == 1
    assert (meter.tokens, meter.flops) == (0, 0.0) and meter.seconds > 0 and plan.labels_used == 4
    features = len(plan.answer.vectorizer.get_feature_names_out())  # type: ignore[attr-defined]
    assert plan.trained == plan.created == 2 * features + 2 == 2 * 8 + 2, "4 words, 4 pairs; 2 labels"


def test_an_example_budget_below_the_labels_ends_it() -> None:
    plan, meter = fit(GOOD, meter=Meter(Budget(labels=4, train_examples=2)))
    assert meter.examples == plan.labels_used == 2
    with pytest.raises(Unsupported, match="before labels of two kinds were read: raise it"):
        fit(GOOD, meter=Meter(Budget(labels=4, train_examples=1)))


def test_the_penalty_is_chosen_within_the_labels() -> None:
    """By 5 folds, or as few as the rarest label has rows; one given is taken; too few labels take the plain one."""
    [note] = fit(rows().train.take(range(60)))[0].notes
    assert "converged after" in note and "chosen by 5-fold cross-validation" in note
    assert "(C=3)" in fit(GOOD, c=3.0)[0].notes[0]
    assert "by 2-fold" in fit(GOOD)[0].notes[0]
    assert "(C=1: too few labels to choose it)" in fit(GOOD.take([0, 1]))[0].notes[0]


def test_it_learns() -> None:
    """Sentiment of the sample's sentences, from 128 labels: its README promises under 0.85, and it is above 0.55."""
    plan, _ = fit(rows().train, meter=Meter(Budget(labels=128, train_examples=128)))
    sst2 = read("sst2", load(["suite=smoke"]).suite.tasks["sst2"].model_copy(update={"limit": None}), sample("sst2"))
    hits = plan.answer.predict(sst2.test.fields, Meter()).argmax(-1) == sst2.test.labels
    assert 0.55 < hits.mean() < 0.85


def sample(task: str) -> Located:
    """A task of the smoke suite in the bundled sample."""
    from bench.config import DataSettings
    from bench.data.sources import locate

    return locate(task, load(["suite=smoke"]).suite.tasks[task], "sample", DataSettings(source="sample"))


def test_it_is_stored_as_numbers_and_words(tmp_path: Path) -> None:
    """JSON and safetensors; what is loaded answers bit by bit the same, on pairs too."""
    plan, _ = fit(pair_rows().train, pair_task())
    plan.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs.json", "weights.safetensors"]
    assert json.loads((tmp_path / "runs.json").read_text())["longest"] == 2
    given = context("head", train=pair_rows().train, task=pair_task())
    fresh = STRATEGIES["bag_of_words"].prepare(base("tiny-bert"), given, options("bag_of_words", runs=1))
    assert fresh.load is not None
    fresh.load(tmp_path)
    fields = pair_rows().test.fields
    assert np.array_equal(fresh.answer.predict(fields, Meter()), plan.answer.predict(fields, Meter()))
    assert fresh.answer.predict([], Meter()).shape == (0, 2)


@pytest.mark.parametrize(("kind", "why"), [("choose", "each row has options of its own"), ("generate", "is written")])
def test_other_kinds_are_refused_in_words(kind: str, why: str) -> None:
    given = context("head", task=rows_task().model_copy(update={"kind": kind}), train=GOOD)
    with pytest.raises(Unsupported, match=f"labels that all rows share, and here .*{why}: use zero_shot or lora"):
        STRATEGIES["bag_of_words"].prepare(base("tiny-gpt2"), given, options("bag_of_words"))


def rows_task() -> Task:
    """A task of labels."""
    return load(["suite=smoke"]).suite.tasks["sst2"]


def test_what_cannot_be_fitted_says_so() -> None:
    with pytest.raises(Unsupported, match="labels of at least two kinds: raise budget.labels"):
        fit(GOOD.take([0, 2]))
    with pytest.raises(Unsupported, match="no labelled text holds a word, .*: use lora or frozen"):
        fit(Rows([{"text": "!!"}, {"text": "??"}], [0, 1], [0, 1]))
    plan, _ = fit(GOOD)
    with pytest.raises(Unsupported, match="which no prompt can change: use zero_shot or lora"):
        plan.answer.through(rows_task().templates[0])
    assert rows_of("bag_of_words").test.fields


@pytest.mark.skipif(MIRROR is None, reason="needs the data mirror (BENCH_MIRROR)")
def test_it_is_a_real_floor_on_reviews() -> None:
    """512 pairs of product reviews, 200 held out: well above chance."""
    tokens = ["suite=preference-small", "strategies=bag_of_words", "model=random:tiny-gpt2", "device=cpu"]
    tokens += ["data.source=mirror", f"data.mirror={MIRROR}"]
    [job] = planning.make(load(tokens)).jobs
    files = {k: tuple(Path(p) for p in v) for k, v in job.located["files"].items()}
    found = read("reviews", job.task, Located(job.located["source"], files, job.located["fingerprint"]))
    plan, _ = fit(draw_labels(found.train, 512, 0, 2), job.task, Meter(Budget(labels=512, train_examples=1024)))
    hits = plan.answer.predict(found.test.fields, Meter()).argmax(-1) == found.test.labels
    assert len(hits) == 200 and 0.68 < hits.mean() < 0.92


def test_its_memory_is_that_of_the_weights_it_does_not_use() -> None:
    """No operator runs in a rehearsal, so the weights, which stand loaded, are all of the prediction; no FLOPs."""
    tokens = ["suite=preference-small", "strategies=bag_of_words", "model=random:tiny-gpt2", "device=cpu"]
    [job] = planning.make(load([*tokens, "data.source=sample"])).jobs
    found = rehearse(job, fake_base(parse("random:tiny-gpt2"), None, torch.float32), on_card=False)
    weights = sum(p.numel() for p in base("tiny-gpt2").module.parameters())
    [peak] = found.peaks.values()
    assert 4 * weights <= peak.parts["parameters"] <= peak.size < 4 * weights * 1.5
    assert found.flops == 0.0 and found.trainable > 100
