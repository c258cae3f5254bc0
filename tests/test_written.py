"""Entities (kind tag) and texts scored by what they share (reads: free): answering, refusals, and runs to the report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tiny import STRATEGIES, base, context, options
from written_tasks import rows, run, task

from bench.budget import Meter
from bench.config import load
from bench.config.schema import Budget, Task
from bench.data.rows import Rows
from bench.outcomes import refuse_what_is_missing
from bench.probes.retention import elsewhere
from bench.records import Status
from bench.refusals import unasked
from bench.report.collect import collect
from bench.report.predictions import over_seeds, read_predictions
from bench.score import replies
from bench.score.adapted import Adapted
from bench.score.decode import Writer
from bench.score.readers import make_reader
from bench.score.replies import ReplyReader, Told
from bench.stats.ratios import ratio_left_out
from bench.stats.seeds import seeds_interval
from bench.strategy import Unsupported
from bench.train.loop import adapt

pytestmark = pytest.mark.usefixtures("forked")


# ---- answering


def told(one: Task, **more: Any) -> Told:
    model = base("tiny-llama")
    reader = make_reader(model, context("verbalizer", task=one, train=rows(4), sequence=120))
    assert isinstance(reader, ReplyReader)
    return Told(model.module, reader, **more)


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A model that replies from a list."""
    given: list[str] = []
    tokenizer = base("tiny-llama").tokenizer

    def write(self: Writer, prompts: Any, *rest: Any) -> list[list[int]]:
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in given]

    monkeypatch.setattr(replies.Writer, "write", write)
    yield given


def test_a_list_of_entities_ends_at_an_empty_line(says: list[str]) -> None:
    says += ["person: Ann0\nplace: Rome\n\nT: next\nperson: Bob", "\n\nnone"]
    assert told(task()).predict(rows(2).fields, Meter()).tolist() == [[1, 2, 1], [0, 0, 0]]


def test_a_free_reply_may_have_lines(says: list[str]) -> None:
    says += ["person:\nAnn0\n\nperson: Ann0", "none"]
    got = told(task("generate")).predict(rows(2).fields, Meter())
    assert got.shape == (2, 4) and got[:, 0].tolist() == [1, 1], "what follows the empty line is not read"


def test_demonstrations_show_the_format() -> None:
    answer = told(task(), shown=rows(2))
    text = answer.reader.base.tokenizer.decode(answer.prefix()[len(answer.reader.bos) :])
    assert text == "T: So Ann0 left.\nE:\nperson: Ann0\n\nT: So Ann1 left.\nE:\nnone\n\n"


@pytest.mark.parametrize("shown", [None, rows(2)])
def test_the_likelihood_of_what_should_be_written(shown: Rows | None) -> None:
    """Token by token through the whole text, the end of text included."""
    answer = told(task(), shown=shown)
    reader, fields = answer.reader, rows(3).fields
    found = answer.likelihoods(fields, Meter())
    answer.module.eval()
    for one, value in zip(fields, found[:, 0], strict=True):
        prompt = [*(answer.prefix() or reader.bos), *reader.tokens(f"T: {one['text']}\nE:\n")]
        target = [*reader.tokens(one["target"]), reader.base.tokenizer.eos_token_id]
        with torch.no_grad():
            logp = answer.module(torch.tensor([[*prompt, *target]])).logits[0].log_softmax(-1)
        expected = sum(float(logp[len(prompt) + i - 1, token]) for i, token in enumerate(target))
        assert value == pytest.approx(expected, abs=1e-3)
    assert found.shape == (3, 1) and (found < 0).all()


def test_fine_tuning_learns_to_list() -> None:
    """A full model over-fitted to four texts lists their entities; loaded again it still does."""
    model, train = base("tiny-llama"), rows(4)
    given = context("verbalizer", task=task(reply={"tokens": 12}), train=train, batch=4)
    plan = STRATEGIES["full"].prepare(model, given, options("full", lr=0.01))
    meter = Meter(Budget(labels=4, train_examples=400))
    meter.watch(plan.seen)
    adapt(plan, given, meter)
    meter.unwatch()
    assert plan.answer.predict(train.fields, Meter()).tolist() == [[1, 1, 1], [0, 0, 0], [1, 1, 1], [0, 0, 0]]


# ---- refusals


@pytest.mark.parametrize("kind", ["tag", "generate"])
@pytest.mark.parametrize("strategy", ["autoprompt", "frozen", "dpo", "cot"])
def test_what_cannot_answer_so_is_refused(strategy: str, kind: str) -> None:
    given = context("head" if strategy == "frozen" else "verbalizer", task=task(kind), train=rows(3))
    words = {
        "dpo": "dpo learns which of several answers is preferred, and sst2 is answered by writing",
        "cot": "cot reasons before a short answer that is right or wrong, and sst2 is scored by (span_f1|rouge_l)",
    }.get(strategy, f"{strategy} needs labels that all rows share, and sst2 (is answered by writing|names entities of)")
    with pytest.raises(Unsupported, match=words):
        refuse_what_is_missing(STRATEGIES[strategy], base("tiny-llama"), given)


def test_only_a_causal_model_writes() -> None:
    with pytest.raises(Unsupported, match="a head answers with labels, and this task wants a reply"):
        make_reader(base("tiny-llama"), context("head", task=task("generate"), train=rows(3)))
    with pytest.raises(Unsupported, match="this model is masked: use a causal one, or readout=head"):
        make_reader(base("tiny-bert"), context("verbalizer", task=task(), train=rows(3)))
    with pytest.raises(Unsupported, match="this model is seq2seq: use a causal one"):
        make_reader(base("tiny-t5"), context("verbalizer", task=task(), train=rows(3)))


def test_calibration_has_no_labels_to_divide_by() -> None:
    given = context("verbalizer", task=task(), train=rows(3))
    with pytest.raises(Unsupported, match="calibrate divides by what an empty prompt gives each label"):
        STRATEGIES["zero_shot"].prepare(base("tiny-llama"), given, options("zero_shot", calibrate=True))
    with pytest.raises(Unsupported, match="few_shot has random demonstrations with their own answers only"):
        STRATEGIES["few_shot"].prepare(base("tiny-llama"), given, options("few_shot", k=2, selection="retrieved"))


def test_a_model_tuned_to_write_can_be_asked_about_labels() -> None:
    assert isinstance(elsewhere(told(task()), context("verbalizer")), Adapted)


# ---- a run


def test_a_run_of_entities(tmp_path: Path) -> None:
    """Prompted and tuned, three seeds: scores, costs, foretold peaks, comparisons; no text in any record."""
    given = [{"t": f"It was Zuleika{n} in Quito.", "e": [{"type": "person", "text": f"Zuleika{n}"}]} for n in range(40)]
    one = task(reply={"tokens": 4})
    done, page, folder = run(tmp_path, one, given, "seeds=3", zero_shot={}, few_shot={"k": 2}, lora={"r": 2})
    assert len(done) == 7
    for result in done:
        assert result.outcome.status == Status.ok, result.outcome.reason
        assert result.scores is not None and list(result.scores) == ["span_f1", "span_precision", "span_recall"]
        assert result.scores["span_f1"].n == 20 == result.data.test_rows and result.data.label_counts is None
        assert result.scores["span_recall"].chance == 1 and result.scores["span_f1"].chance == pytest.approx(2 / 3)
        assert result.predicted.peak_bytes, result.predicted.reason
        assert result.phases["predict"].flops and result.near_ties is None and result.used is not None
        assert result.used.labels == {"zero_shot": 0, "few_shot": 2, "lora": 8}[result.cell.strategy]
        assert "Zuleika" not in (folder / result.cell.id / "result.json").read_text()
        table = pq.read_table(folder / result.cell.id / "predictions.parquet")
        assert table.column_names == ["row", "hits", "found", "gold"] and set(table["gold"].to_pylist()) == {1.0}
    assert "Chance 0.667: the baseline that reads no label (every run of capitalised words, each called person)" in page
    assert page.count("It cannot be asked: this check is of labels") == 2 and "probes=formats asks" not in page
    assert "span_precision" in page and "accuracy" not in page.split("How it was measured")[0].split("| outcome")[0]
    loras = [cell for cell in collect(folder).cells if cell.info.strategy == "lora"]
    items = [read_predictions(cell.folder / "predictions.parquet") for cell in loras]
    values, left_out = zip(*((i.value("span_f1"), i.left_out("span_f1")) for i in items), strict=True)
    assert over_seeds(loras, "span_f1") == seeds_interval(values, left_out)
    assert np.array_equal(left_out[0], ratio_left_out("span_f1", items[0].kept)) and items[0].correct is None


def test_a_run_of_summaries(tmp_path: Path) -> None:
    """Tuned by the likelihood of held-out texts; one run is compared by a t test; probes say what they leave out."""
    given = [{"t": f"The boat {n} sails far. It rains on it.", "e": f"Boat {n} sails in rain"} for n in range(40)]
    one = task("generate", "T: {text}\nS:", reply={"reads": "free", "tokens": 6}, metric="chrf")
    tokens = ("budget.trials=2", "probes=formats,contamination,retention", "predict=false")
    done, page, folder = run(
        tmp_path, one, given, *tokens, zero_shot={}, few_shot={"k": 2}, lora={"r": 2}, cot={"k": 0}
    )
    found = {result.cell.strategy: result for result in done}
    assert found.pop("cot").outcome.status == Status.unsupported
    for name, result in found.items():
        assert result.outcome.status == Status.ok, (name, result.outcome.reason)
        assert result.scores is not None and list(result.scores) == ["chrf", "rouge1", "rouge2", "rouge_l"]
        chance = result.scores["chrf"]
        assert chance.chance_is == "the first sentence of the text, at most 5 words of it" and chance.chance > 0.3
        table = pq.read_table(folder / result.cell.id / "predictions.parquet")
        assert table.column_names == ["row", "rouge1", "rouge2", "rouge_l", "chrf"] and table.num_rows == 20
        assert result.scores["chrf"].value == pytest.approx(np.mean(table["chrf"].to_pylist()))
    tuning = found["lora"].tuning
    assert tuning is not None and all(trial.halts[-1].log_likelihood < -1 for trial in tuning.trials)  # type: ignore[operator]
    assert "a t test on the difference of the metric" in page and "how differently they do on each" in page
    output = (tmp_path / "output.txt").read_text()
    assert "probes.formats leaves out mine" in output and "probes.contamination leaves out mine" in output
    assert not list(folder.glob("*/probes/*.json"))


def test_probes_of_labels_leave_nothing_out() -> None:
    assert unasked(load(["suite=smoke", "probes=formats,contamination"]).suite) == []
    assert unasked(load(["suite=extraction-small"]).suite) == []
    planted = load(["suite=extraction-small", "probes.contamination.plant=[1]"]).suite
    assert unasked(planted) == [
        "probes.contamination leaves out entities: its statistic is of labels' likelihoods, and answers there are texts"
    ]
