"""Answers scored by what they share with a text (reads: free) and entities (kind tag): from rows to report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from data_rows import fault, here, jsonl
from pydantic import ValidationError
from rich.console import Console
from tiny import STRATEGIES, base, context, options

from bench.budget import Meter
from bench.config import load
from bench.config.schema import Budget, Task
from bench.data.rows import Rows
from bench.data.rows import read as read_rows
from bench.identity import task_digest
from bench.outcomes import refuse_what_is_missing
from bench.probes.retention import elsewhere
from bench.records import Result, Status
from bench.refusals import unasked
from bench.report.collect import collect
from bench.report.predictions import over_seeds, read_predictions
from bench.run import execute
from bench.score import replies
from bench.score.adapted import Adapted
from bench.score.decode import Writer
from bench.score.marks import baseline, capitals, lead, marked, marks
from bench.score.readers import make_reader
from bench.score.replies import ReplyReader, Told
from bench.stats.ratios import ratio_left_out
from bench.stats.seeds import seeds_interval
from bench.strategy import Unsupported
from bench.train.loop import adapt

pytestmark = pytest.mark.usefixtures("forked")


def task(kind: str = "tag", pattern: str = "T: {text}\nE:\n", **more: Any) -> Task:
    raw: dict[str, Any] = {
        "data": {"path": "x"},
        "splits": {"train": "train", "test": "validation"},
        "kind": kind,
        "columns": {"text": "t", "label": "e"},
        "templates": [{"pattern": pattern}],
    }
    if kind == "tag":
        raw["labels"] = ["person", "place"]
    else:
        raw |= {"reply": {"reads": "free"}, "metric": "rouge_l"}
    return Task.model_validate(raw | more)


ANN = {"type": "person", "text": "Ann Lee"}
ROWS = [
    {"t": "Then Ann Lee left Rome.", "e": [ANN, {"type": "place", "text": "Rome"}]},
    {"t": "Nothing at all.", "e": []},
]


def rows_of(tmp_path: Path, one: Task, given: list[dict]) -> Rows:
    located = here(train=jsonl(tmp_path, "train", given), validation=jsonl(tmp_path, "validation", given))
    return read_rows("a", one, located).train


# ---- rows and tasks


def test_entities_become_lines(tmp_path: Path) -> None:
    one = task()
    got = rows_of(tmp_path, one, ROWS)
    assert got.fields[0] == {"text": "Then Ann Lee left Rome.", "target": "person: Ann Lee\nplace: Rome"}
    assert got.fields[1]["target"] == "none" and one.kept == ("hits", "found", "gold")
    assert (one.metric, one.reply and one.reply.reads, one.prompt_fields) == ("span_f1", "spans", ["text"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "row 0: column 'e' holds null; allowed: a list of entities such as"),
        ("Ann", "row 0: column 'e' holds 'Ann'; allowed: a list of entities such as"),
        (["Ann"], "column 'e' lists 'Ann'; allowed: an entity with 'type' and 'text', both texts"),
        ([{"type": "person", "text": " "}], "allowed: an entity with 'type' and 'text', both texts"),
        ([{"type": "peson", "text": "Ann"}], "has the type 'peson'; allowed: person, place; did you mean 'person'?"),
        ([{"type": "place", "text": "Paris"}], "has the entity 'Paris', which stands in none of the row's texts"),
        ([{"type": "person", "text": "None"}], "holds entities that cannot be read back from lines: 'person: None'"),
    ],
)
def test_what_is_no_list_of_entities_is_told(tmp_path: Path, given: Any, words: str) -> None:
    assert words in fault(rows_of, tmp_path, task(), [{"t": "Ann met None", "e": given}])


def test_a_reference_without_words_or_with_an_empty_line_is_told(tmp_path: Path) -> None:
    for text in ("…", "one\n \ntwo"):
        said = fault(rows_of, tmp_path, task("generate"), [{"t": "a", "e": text}])
        assert said.endswith(
            "allowed: a text with a letter a-z or a digit and without an empty line, which ends a reply"
        )
    assert rows_of(tmp_path, task("generate"), [{"t": "a", "e": "one\ntwo"}]).fields[0]["target"] == "one\ntwo"


TWO = {"text": "t", "more": "m", "label": "e"}


@pytest.mark.parametrize(
    ("kind", "more", "words"),
    [
        ("tag", {"metric": "accuracy"}, "kind tag has metric span_f1 (of entities, over all items) and no other"),
        (
            "tag",
            {"reply": {"reads": "free"}},
            "kind tag and reply.reads: spans go together, got kind tag with reads: free",
        ),
        ("tag", {"reply": {"finds": "(x)"}}, "with kind tag the label's column lists entities"),
        ("tag", {"labels": ["a: b"]}, "a label is the type written before a colon, got 'a: b'"),
        ("tag", {"labels": ["A", "a"]}, "labels are compared without case, got ['A', 'a']"),
        ("tag", {"reply": {"source": "text"}}, "reply.source is for reads: free"),
        ("tag", {"pattern": "List:"}, "pattern has no {field} place"),
        ("generate", {"metric": "accuracy"}, "reads: free has metric rouge1, rouge2, rouge_l or chrf"),
        ("generate", {"reply": {"reads": "spans"}}, "kind tag and reply.reads: spans go together, got kind generate"),
        ("generate", {"reply": {"reads": "text"}}, "kind generate has metric accuracy"),
        ("generate", {"columns": TWO}, "several texts needs reply.source, one of ['text', 'more']"),
        (
            "generate",
            {"columns": TWO, "reply": {"reads": "free", "source": "mor"}},
            "reply.source is 'mor', not one of",
        ),
        ("classify", {"labels": ["a", "b"], "metric": "chrf", "reply": None}, "metric chrf is for kind generate with"),
        ("classify", {"labels": ["a", "b"], "metric": "span_f1", "reply": None}, "metric span_f1 is for kind tag"),
        ("classify", {"labels": ["a"], "metric": "accuracy", "reply": None}, "list should have at least 2 items"),
    ],
)
def test_what_is_no_such_task(kind: str, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as error:
        task(kind, **more)
    assert words in str(error.value)


def test_one_type_of_entity_is_enough() -> None:
    assert task(labels=["disease"]).labels == ["disease"]


def test_the_identity_of_older_tasks_stands() -> None:
    """Digests as they were before replies had a source and labels could be entities."""
    known = {
        "reasoning-small": {"gsm8k": "9fa146255cfa610b", "strategyqa": "7de9945779840c3f"},
        "glue-small": {"sst2": "cdd89cfa796b12e0", "mrpc": "78f49cd5b9a94279"},
    }
    for suite, tasks in known.items():
        found = load([f"suite={suite}"]).suite.tasks
        assert {name: task_digest(found[name]) for name in tasks} == tasks
    several = {"columns": TWO, "pattern": "{text}"}
    first, second = (task("generate", **several, reply={"reads": "free", "source": s}) for s in ("text", "more"))
    assert task_digest(first) != task_digest(second) != task_digest(task("generate"))


# ---- marks


def test_marks_are_those_of_the_libraries() -> None:
    scorer, chrf = pytest.importorskip("rouge_score.rouge_scorer"), pytest.importorskip("sacrebleu.metrics")
    reply, target = "The cats sat on a mat.", "A cat sat quietly on the mat"
    words = scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(target, reply)
    assert marks(reply, target, task("generate")) == pytest.approx(
        (*(one.fmeasure for one in words.values()), chrf.CHRF().sentence_score(reply, [target]).score / 100)
    )
    assert marks("", target, task("generate")) == (0, 0, 0, 0)


def test_marks_of_entities_by_hand() -> None:
    target = "person: Ann Lee\nplace: Rome"
    reply = "- Person: ann lee\n- Person: Rome\nplace: Rome\nplace: none\nHere it ends."
    assert marks(reply, target, task()) == (2, 3, 2)
    assert marks("none", target, task()) == (0, 0, 2) and marks("none", "none", task()) == (0, 0, 0)


def test_the_first_sentence_is_the_baseline_of_texts() -> None:
    assert lead("It is 5 p.m. now! And then?", 20) == "It is 5 p.m."
    assert lead("No stop at all", 2) == "No stop" and lead("One. Two.", 9) == "One."
    fields = [{"text": "The boat sails far. It rains.", "target": "the boat"}, {"text": "A b c", "target": "x y z v"}]
    found, told = baseline(Rows(fields, [1, 1], [0, 1]), task("generate"))
    assert told == "the first sentence of the text, at most 3 words of it"  # the median of 2 and 4
    assert found[0] == pytest.approx(marks("The boat sails", "the boat", task("generate"))) and found[1, 0] == 0


def test_capitalised_words_are_the_baseline_of_entities() -> None:
    assert capitals("Then Ann Lee of New York, Bob and I met. Nobody left Rome") == [
        "Then Ann Lee",
        "New York",
        "Bob",
        "I",
        "Rome",
    ]
    assert capitals("Ann Lee saw it.") == ["Ann Lee"] and capitals("Rome fell") == [] and capitals("") == []
    fields = [
        {"text": "In May we saw Ann Lee", "target": "person: Ann Lee"},
        {"text": "She left Rome and Bath", "target": "place: Rome\nplace: Bath"},
    ]
    found, told = baseline(Rows(fields, [1, 1], [0, 1]), task())
    assert told == "every run of capitalised words, each called place"
    assert found.tolist() == [[0, 2, 1], [2, 2, 2]], "called person it would hit once"


def test_scores_hold_their_baseline() -> None:
    fields = [{"text": "We met Ann Lee", "target": "person: Ann Lee"}, {"text": "so", "target": "none"}]
    found = marked(np.array([[1.0, 2, 1], [0, 1, 0]]), Rows(fields, [1, 1], [0, 1]), task(), None)
    assert list(found) == ["span_f1", "span_precision", "span_recall"]
    assert found["span_f1"].value == pytest.approx(2 / 4) and found["span_f1"].chance == 1
    assert found["span_f1"].chance_is == "every run of capitalised words, each called person"
    assert found["span_precision"].value == pytest.approx(1 / 3) and found["span_recall"].value == 1


# ---- answering


def rows(n: int) -> Rows:
    fields = [{"text": f"So Ann{i} left.", "target": f"person: Ann{i}" if i % 2 == 0 else "none"} for i in range(n)]
    return Rows(fields, [1] * n, list(range(n)))


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


def run(
    tmp_path: Path, one: Task, given: list[dict], *tokens: str, **strategies: Any
) -> tuple[list[Result], str, Path]:
    data = tmp_path / "rows"
    data.mkdir()
    jsonl(data, "train", given)
    jsonl(data, "test", given[: len(given) // 2])
    raw = one.model_dump(mode="json", exclude_none=True)
    raw |= {"data": {"path": str(data)}, "splits": {"train": "train[:50%]", "test": "train[50%:]"}}
    suite = {"name": "mine", "model": "random:tiny-llama", "tasks": {"mine": raw}, "sequence": 96, "batch": 4,
             "strategies": strategies, "budget": {"labels": 8, "train_examples": 8}}  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(suite))
    where = [f"results_dir={tmp_path / 'results'}", f"reports_dir={tmp_path / 'reports'}", "threads=1", "device=cpu"]
    with (tmp_path / "output.txt").open("w") as out:
        done = execute(load([f"suite={path}", *tokens, *where]), Console(file=out, width=300))
    return done, (tmp_path / "reports" / "mine.md").read_text(), tmp_path / "results" / "mine"


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
