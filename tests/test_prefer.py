"""Kind prefer: pairs of answers from three shapes of data, and the two readers that score them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from data_rows import fault, here, jsonl
from pydantic import ValidationError
from rich.console import Console
from tiny import STRATEGIES, base, context, options

from bench.budget import Meter
from bench.config import load
from bench.config.schema import Budget, Task
from bench.data.formats import candidates
from bench.data.rows import Rows, TaskRows, read
from bench.errors import UserFault
from bench.identity import task_digest
from bench.outcomes import refuse_what_is_missing
from bench.records import Status
from bench.run import execute
from bench.score.answers import AnswerReader, RewardReader
from bench.score.readers import make_reader
from bench.store import probe_file, read_probe
from bench.strategy import Unsupported
from bench.train.loop import adapt

pytestmark = pytest.mark.usefixtures("forked")

PROMPTED = {"prompt": "q", "chosen": "good", "rejected": "bad"}


def prefer(columns: dict[str, str] | None = None, pattern: str = "{prompt}\n", **more: Any) -> Task:
    """A task of pairs; columns as given."""
    return Task.model_validate(
        {
            "data": {"path": "x"},
            "splits": {"train": "train", "test": "validation"},
            "kind": "prefer",
            "columns": columns or PROMPTED,
            "templates": [{"pattern": pattern}],
            **more,
        }
    )


def pair(n: int, **more: Any) -> dict[str, Any]:
    return {"q": f"question {n}", "good": f"yes {n} indeed", "bad": f"no {n}", **more}


def pairs(tmp_path: Path, task: Task, given: list[dict], other: list[dict] | None = None) -> TaskRows:
    located = here(train=jsonl(tmp_path, "train", given), validation=jsonl(tmp_path, "validation", other or given))
    return read("a", task, located)


# ---- rows


def test_half_of_the_pairs_show_the_preferred_answer_first(tmp_path: Path) -> None:
    task = prefer()
    got = pairs(tmp_path, task, [pair(n) for n in range(9)]).train
    assert task.fields == ["prompt", "first", "second"] == list(got.fields[0]) and task.labels == ["first", "second"]
    assert sorted(got.labels).count(0) == 5 and got.index == list(range(9))
    for n, (fields, label) in enumerate(zip(got.fields, got.labels, strict=True)):
        assert fields["prompt"] == f"question {n}"
        assert fields[("first", "second")[label]] == f"yes {n} indeed"
        assert fields[("second", "first")[label]] == f"no {n}"
    (tmp_path / "b").mkdir()
    again = pairs(tmp_path / "b", task, [pair(n) for n in reversed(range(9))]).train
    assert dict(zip([f["prompt"] for f in again.fields], again.labels, strict=True)) == {
        f["prompt"]: label for f, label in zip(got.fields, got.labels, strict=True)
    }, "which stands first depends on the texts alone"


def test_answers_that_read_the_same_are_no_pair(tmp_path: Path) -> None:
    got = pairs(tmp_path, prefer(), [pair(0, bad="Yes 0  INDEED "), pair(1)]).train
    assert got.index == [1]
    assert fault(pairs, tmp_path, prefer(), [pair(0, bad="yes 0 indeed")]).endswith(
        "row by row: the two answers of every row read the same; allowed with kind prefer: at least one pair"
    )


def test_judgements_say_which_answer_is_preferred(tmp_path: Path) -> None:
    """A file of judgements made by others: labels by position or by name."""
    task = prefer({"prompt": "q", "first": "good", "second": "bad", "label": "winner"})
    got = pairs(tmp_path, task, [pair(0, winner=1), pair(1, winner="first"), pair(2, winner=0)]).train
    assert got.labels == [1, 0, 0] and got.fields[0]["first"] == "yes 0 indeed"
    told = fault(pairs, tmp_path, task, [pair(0, winner="frist")])
    assert "column 'winner' holds label 'frist'" in told and "did you mean 'first'?" in told


def test_texts_whose_ratings_lie_apart_make_pairs(tmp_path: Path) -> None:
    task = prefer({"text": "t", "label": "r"}, "A review:", gap=2)
    given = [{"t": f"text {n}", "r": (n % 7) - 3.0} for n in range(60)]
    given += [{"t": "TEXT 5 ", "r": 3.0}]  # the same text again: only its first rating counts
    got = pairs(tmp_path, task, given).train
    rating = {row["t"]: row["r"] for row in given}
    used = [fields[name] for fields in got.fields for name in ("first", "second")]
    assert len(used) == len(set(used)) and 20 <= len(got) <= 30, "each text in one pair at most"
    for fields, label in zip(got.fields, got.labels, strict=True):
        chosen, rejected = fields[("first", "second")[label]], fields[("second", "first")[label]]
        assert rating[chosen] - rating[rejected] >= 2
    assert abs(got.labels.count(0) - got.labels.count(1)) <= 1 and got.index == sorted(set(got.index))


def test_slices_of_pairs_share_no_text(tmp_path: Path) -> None:
    splits = {"train": "train[:70%]", "test": "train[70%:]"}
    task = prefer({"text": "t", "label": "r"}, "A review:", gap=2, splits=splits)
    given = [{"t": f"text {n}", "r": (n % 7) - 3.0} for n in range(80)]
    got = pairs(tmp_path, task, given)
    texts = [{f[name] for f in part.fields for name in ("first", "second")} for part in (got.train, got.test)]
    assert texts[0] and texts[1] and not texts[0] & texts[1]


@pytest.mark.parametrize(
    ("rating", "words"),
    [
        ("high", "row 0: column 'r' holds 'high'; allowed with gap: a number"),
        (None, "row 0: column 'r' holds null; allowed with gap: a number"),
        (1, "no two ratings differ by 2 or more; allowed with kind prefer: at least one pair"),
    ],
)
def test_ratings_that_make_no_pair(tmp_path: Path, rating: Any, words: str) -> None:
    task = prefer({"text": "t", "label": "r"}, "A review:", gap=2)
    assert words in fault(pairs, tmp_path, task, [{"t": "a", "r": rating}, {"t": "b", "r": 1}])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"columns": {"chosen": "a"}}, "kind prefer needs columns chosen and rejected, or first, second and label, or gap"),
        ({"columns": {"text": "t", "label": "r", "x": "y"}, "gap": 1}, "gap needs two columns, 'label' (the rating)"),
        ({"labels": ["good", "bad"]}, "with kind prefer labels are ['first', 'second'], got ['good', 'bad']"),
        ({"metric": "f1"}, "kind prefer has metric accuracy"),
        ({"pattern": "{chosen}"}, "pattern names ['chosen']; allowed with kind prefer: ['prompt']"),
        ({"templates": [{"pattern": "x", "verbalizer": {"first": "a", "second": "b"}}]}, "leave the verbalizer out"),
        ({"kind": "classify", "labels": ["a", "b"], "gap": 1, "columns": {"text": "t", "label": "l"},
          "templates": [{"pattern": "{text}", "verbalizer": {"a": "x", "b": "y"}}]}, "gap makes pairs of rated texts"),
    ],
)  # fmt: skip
def test_what_is_no_pair_of_answers(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as error:
        prefer(**more)
    assert words in str(error.value)


def test_a_gap_is_part_of_a_task(tmp_path: Path) -> None:
    columns = {"text": "t", "label": "r"}
    assert task_digest(prefer(columns, "x", gap=1)) != task_digest(prefer(columns, "x", gap=2))


# ---- readers

TASK = prefer()
GIVEN = Rows(
    [
        {"prompt": "What now?", "first": "Rest a little, then go on.", "second": "Who cares"},
        {"prompt": "And then?", "first": "No.", "second": "Then we write it down, slowly."},
        {"prompt": "Why?", "first": "Because it is asked for.", "second": "Because"},
    ],
    [0, 1, 0],
    [0, 1, 2],
)


def of(readout: str, family: str = "tiny-llama", **update: Any) -> Any:
    model = base(family)
    return model, make_reader(model, context(readout, task=TASK, train=GIVEN, **update))


@pytest.mark.parametrize("family", ["tiny-llama", "tiny-gpt2"])
def test_an_answer_scores_the_log_probability_of_its_tokens(family: str) -> None:
    """Against one plain forward an answer, without padding or picked positions."""
    model, reader = of("verbalizer", family)
    assert isinstance(reader, AnswerReader)
    model.module.eval()
    with torch.no_grad():
        scores = reader.scores(model.module, reader.collate(reader.encode(GIVEN.fields)))
        for row, fields in enumerate(GIVEN.fields):
            for column, name in enumerate(("first", "second")):
                prompt = model.tokenizer(f"{fields['prompt']}\n", add_special_tokens=False)["input_ids"]
                answer = model.tokenizer(fields[name], add_special_tokens=False)["input_ids"]
                answer = [*answer, model.tokenizer.eos_token_id]
                ids = [*reader.bos, *prompt, *answer]
                logp = torch.log_softmax(model.module(torch.tensor([ids])).logits.float()[0], -1)
                at = len(ids) - len(answer)
                want = sum(float(logp[at + i - 1, token]) for i, token in enumerate(answer))
                assert float(scores[row, column]) == pytest.approx(want, abs=1e-4)


def test_supervised_fine_tuning_sees_the_preferred_answer_only() -> None:
    model, reader = of("verbalizer")
    taught = reader.encode_training(GIVEN)
    assert all(len(e.answers) == 1 for e in taught)
    both = reader.encode(GIVEN.fields)
    assert [e.answers[0] for e in taught] == [both[i].answers[label] for i, label in enumerate(GIVEN.labels)]
    with torch.no_grad():
        model.module.eval()
        loss = reader.loss(model.module, reader.collate(taught), torch.tensor(GIVEN.labels))
        scores = reader.scores(model.module, reader.collate(both))
    each = [-float(scores[i, label]) / len(both[i].answers[label]) for i, label in enumerate(GIVEN.labels)]
    assert float(loss) == pytest.approx(sum(each) / 3, abs=1e-5)


def test_what_is_too_long_is_cut_and_counted() -> None:
    """A prompt loses its front, an answer its end; an answer always has something before it."""
    model, reader = of("verbalizer", sequence=12)
    short, long = {"prompt": "Go on?", "first": "Yes.", "second": "No."}, "and so on " * 20
    assert reader.encode([short])[0].length <= 12 and reader.truncated == 0
    cut = reader.encode([short | {"prompt": long}, short | {"first": long}])
    assert reader.truncated == 2 and all(e.length <= 12 for e in cut)
    whole = model.tokenizer("Yes.", add_special_tokens=False)["input_ids"]
    assert list(cut[0].answers[0]) == [*whole, model.tokenizer.eos_token_id], (
        "the answer is whole where the prompt is long"
    )
    assert len(reader.bos) + len(reader.eos) + len(cut[1].ids) >= 1


@pytest.mark.parametrize("family", ["tiny-llama", "tiny-bert", "tiny-t5"])
def test_a_head_on_pairs_is_a_reward_model(family: str) -> None:
    """One reward an answer, and the loss is Bradley and Terry's on their difference."""
    _, reader = of("head", family)
    assert isinstance(reader, RewardReader) and reader.head.out_features == 1
    target = reader.target().eval()
    with torch.no_grad():
        batch = reader.collate(reader.encode(GIVEN.fields))
        rewards = reader.scores(target, batch)
        loss = reader.loss(target, batch, torch.tensor(GIVEN.labels))
    assert rewards.shape == (3, 2)
    right = rewards[torch.arange(3), GIVEN.labels]
    wrong = rewards[torch.arange(3), [1 - label for label in GIVEN.labels]]
    assert float(loss) == pytest.approx(float(-torch.nn.functional.logsigmoid(right - wrong).mean()), abs=1e-6)
    swapped = [f | {"first": f["second"], "second": f["first"]} for f in GIVEN.fields]
    with torch.no_grad():
        other = reader.scores(target, reader.collate(reader.encode(swapped)))
    assert torch.allclose(other, rewards.flip(1), atol=1e-5), "a reward is of one answer, wherever it stands"


@pytest.mark.parametrize(("readout", "strategy"), [("head", "lora"), ("head", "full"), ("verbalizer", "lora")])
def test_strategies_train_on_pairs_as_on_labels(readout: str, strategy: str) -> None:
    """A reward model learns the pairs it sees; fine-tuning on the preferred answers makes them likelier."""
    model = base("tiny-llama")
    given = context(readout, task=TASK, train=GIVEN, batch=3)
    plan = STRATEGIES[strategy].prepare(model, given, options(strategy, lr=0.02))
    before = plan.answer.predict(GIVEN.fields, Meter())
    meter = Meter(Budget(labels=3, train_examples=120))
    meter.watch(plan.seen)
    done = adapt(plan, given, meter)
    meter.unwatch()
    after = plan.answer.predict(GIVEN.fields, Meter())
    assert sum(done.losses[-5:]) < sum(done.losses[:5])
    if readout == "head":
        assert (after.argmax(-1) == GIVEN.labels).all()
    else:
        at = range(3), GIVEN.labels
        assert (after[at] > before[at]).all()


@pytest.mark.parametrize("strategy", ["few_shot", "autoprompt", "frozen"])
def test_what_needs_labels_is_refused_in_words(strategy: str) -> None:
    readout = "head" if strategy == "frozen" else "verbalizer"
    with pytest.raises(
        Unsupported, match=f"{strategy} needs labels that all rows share, .* use zero_shot, lora or full"
    ):
        refuse_what_is_missing(STRATEGIES[strategy], base("tiny-llama"), context(readout, task=TASK, train=GIVEN))


def test_calibration_is_refused_in_words() -> None:
    with pytest.raises(Unsupported, match="calibrate divides by what an empty prompt gives each label"):
        STRATEGIES["zero_shot"].prepare(
            base("tiny-llama"), context("verbalizer", task=TASK, train=GIVEN), options("zero_shot", calibrate=True)
        )


def test_training_in_several_formats_is_refused() -> None:
    with pytest.raises(UserFault) as error:
        candidates(TASK, 2, 0)
    assert str(error.value) == (
        "prompt formats vary label words, and with kind prefer rows hold the answers; allowed: 1 format"
    )


@pytest.mark.parametrize("family", ["tiny-bert", "tiny-t5"])
def test_only_a_causal_model_goes_on_after_a_prompt(family: str) -> None:
    with pytest.raises(Unsupported, match="use readout=head"):
        of("verbalizer", family)


def test_a_run_on_pairs(tmp_path: Path) -> None:
    """Through the command: a prompted, a fine-tuned and a reward model, with records, probes and predictions of memory."""
    data = tmp_path / "pairs"
    data.mkdir()
    for split, n in (("train", 40), ("test", 24)):
        jsonl(
            data,
            split,
            [{"q": f"q {split} {i}", "good": f"fine {i} {split}", "bad": f"bad {i} {split}"} for i in range(n)],
        )
    task = {"data": {"path": str(data)}, "splits": {"train": "train", "test": "test"}, "kind": "prefer",
            "columns": PROMPTED, "templates": [{"pattern": "{prompt}\n"}], "metric": "accuracy"}  # fmt: skip
    suite = {"name": "pairs", "model": "random:tiny-llama", "tasks": {"pairs": task}, "sequence": 48, "batch": 4,
             "strategies": {"zero_shot": {}, "lora": {"r": 2}, "reward": {"base": "lora", "r": 2, "readout": "head"}},
             "budget": {"labels": 16, "train_examples": 32}}  # fmt: skip
    path = tmp_path / "pairs.yaml"
    path.write_text(json.dumps(suite))
    where = [f"results_dir={tmp_path / 'results'}", f"reports_dir={tmp_path / 'reports'}", "threads=1", "device=cpu"]
    with (tmp_path / "output.txt").open("w") as out:
        done = execute(load([f"suite={path}", "probes=contamination,formats", *where]), Console(file=out, width=200))
    found = {r.cell.strategy: r for r in done}
    for name, result in found.items():
        assert result.outcome.status == Status.ok, (name, result.outcome.reason)
        assert result.scores is not None and result.scores["accuracy"].n == 24
        assert result.scores["accuracy"].chance == 0.5
        assert result.predicted.peak_bytes, result.predicted.reason
        folder = tmp_path / "results" / "pairs" / result.cell.id
        assert read_probe(probe_file(folder, "contamination")).outcome.status == Status.ok
        assert not probe_file(folder, "formats").exists(), "rows hold the answers: there is no format to vary"
    assert found["reward"].cell.readout == "head"
    assert found["lora"].used is not None and found["lora"].used.labels == 16
    assert "pairs" in (tmp_path / "reports" / "pairs.md").read_text()
