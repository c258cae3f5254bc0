"""The grammar of prompt formats: distinct, decided by the seed, worded where it cannot be met, and no id moved by it."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import identity
from bench import plan as planning
from bench.config import load
from bench.config.schema import Task, Template
from bench.data.formats import Format, candidates, sample, spoken
from bench.data.prompts import fill
from bench.errors import UserFault
from bench.identity import task_digest

GLUE = load(["suite=glue-small"]).suite.tasks
IDS_BEFORE = [
    "sst2-zero_shot-s0-27f05cdf",
    "sst2-lora-s0-21c16b43",
    "rte-zero_shot-s0-f077c1dc",
    "rte-lora-s0-7e6429b2",
]


def keys(formats: list[Format]) -> list[tuple[Any, ...]]:
    """What a format is, comparable."""
    return [(f.template.pattern, tuple(sorted(f.template.verbalizer.items())), f.template.chat) for f in formats]


def small(**material: Any) -> Task:
    """The tiny task with material of its own."""
    return Task.model_validate(tiny.task().model_dump() | {"formats": material})


@pytest.mark.parametrize("name", sorted(GLUE))
@pytest.mark.parametrize("chat", [False, True])
def test_formats_are_distinct_and_the_first_is_the_tasks_own(name: str, chat: bool) -> None:
    """Fifty at once, each with a word for every label and a place for every text."""
    task = GLUE[name]
    found = sample(task, 50, 0, chat)
    assert len(set(keys(found))) == 50 and [f.number for f in found] == list(range(50))
    assert found[0].template == task.templates[0]
    for one in found:
        assert chat or not one.template.chat
        assert set(one.template.verbalizer) == set(task.labels)
        filled = fill(one.template, {field: f"<{field}>" for field in task.fields})
        assert all(f"<{field}>" in filled for field in task.fields)
        assert {"words", "chat", "pattern"} <= set(one.described)
    assert chat == any(f.template.chat for f in found)


@pytest.mark.parametrize("name", sorted(GLUE))
def test_a_word_has_a_leading_space_unless_white_space_or_a_turn_precedes_it(name: str) -> None:
    """And no pattern ends in a space, which a tokenizer makes a token of its own."""
    for one in sample(GLUE[name], 200, 1)[1:]:
        bare = one.template.chat or one.template.pattern[-1].isspace()
        assert all(word[0].isspace() != bare for word in one.template.verbalizer.values())
        assert not one.template.pattern.endswith(" ")


@settings(max_examples=20, deadline=None)
@given(st.integers(-5, 2**33), st.integers(2, 12), st.booleans())
def test_the_seed_decides_and_fewer_are_the_beginning_of_more(seed: int, number: int, chat: bool) -> None:
    """So that the formats trained on are the first ones asked."""
    task = GLUE["rte"]
    assert sample(task, number, seed, chat) == sample(task, 12, seed, chat)[:number]


def test_another_seed_draws_other_formats() -> None:
    assert keys(sample(GLUE["sst2"], 10, 0)) != keys(sample(GLUE["sst2"], 10, 1))


def test_without_chat_the_other_formats_stay() -> None:
    """What a model without a chat template is asked, one with it is asked too, in the same order."""
    with_chat, without = sample(GLUE["sst2"], 40, 0), sample(GLUE["sst2"], 10, 0, chat=False)
    plain = [f.template for f in with_chat if not f.template.chat]
    assert [f.template for f in without] == plain[:10]


def test_every_axis_varies() -> None:
    """Over two hundred formats each part takes more than one value."""
    found = sample(GLUE["mrpc"], 200, 0)[1:]
    for part in ("separator", "casing", "names", "order", "spacing", "words", "instruction", "place", "lead", "chat"):
        assert len({f.described[part] for f in found}) > 1, part


def test_order_stays_where_the_material_says_so() -> None:
    """RTE's instructions tell which text comes first."""
    assert {f.described["order"] for f in sample(GLUE["rte"], 100, 0)[1:]} == {"premise, hypothesis"}


def test_without_material_the_grammar_follows_from_the_task() -> None:
    """Every verbalizer of its templates is a set of words, its columns name the fields."""
    task = GLUE["mrpc"].model_copy(update={"formats": None})
    found = sample(task, 300, 0)
    spoken_words = {tuple(w.strip() for w in f.template.verbalizer.values()) for f in found}
    assert spoken_words == {("no", "yes"), ("No", "Yes"), ("different", "identical")}
    assert {"First", "Sentence 1"} <= {f.described["names"].split(", ")[0] for f in found[1:]}


def test_more_than_the_grammar_holds_is_a_fault() -> None:
    """One worded line with the number there is; exactly that many can be had."""
    words = {"negative": "bad", "positive": "good"}
    task = small(fields={"text": ["It"]}, wordings=[{"words": words, "leads": ["A"]}])
    with pytest.raises(
        UserFault, match=r"9999 prompt formats are asked for, and this task's material makes (\d+); allo"
    ) as told:
        sample(task, 9999, 0)
    number = int(str(told.value).split(" makes ")[1].split(";")[0])
    assert len(sample(task, number, 5)) == number
    with pytest.raises(UserFault, match="without a chat template; allowed"):
        sample(task, number, 0, chat=False)


@pytest.mark.parametrize(
    ("material", "says"),
    [
        ({"fields": {"txt": ["A"]}}, r"formats.fields names \['txt'\], columns has \['text'\]"),
        ({"fields": {"text": []}}, r"fields.text lists one name or more, none of them empty, got \[\]"),
        ({"wordings": [{"words": {"good": "a", "bad": "b"}}]}, r"formats.wordings has words for \['bad', 'good'\], labels"),
        ({"wordings": [{"words": {"negative": "a", "positive": " a"}}]}, "words must be different from each other"),
        ({"wordings": [{"words": {"negative": "a", "positive": "b"}, "leads": [" "]}]}, "a lead-in is a word or more"),
        ({"fields": {"text": ["{text}"]}}, r"a row's text would be put into '\{text\}': no braces there"),
    ],
)  # fmt: skip
def test_material_that_cannot_be_used_is_a_fault(material: dict[str, Any], says: str) -> None:
    """Said when the suite is read."""
    with pytest.raises(ValueError, match=says):
        small(**material)


def test_material_from_the_command_line_names_the_nearest_key() -> None:
    with pytest.raises(UserFault, match=r"unknown key 'tasks\.sst2\.formats\.wordngs'; did you mean 'wordings'"):
        load(["suite=glue-small", "tasks.sst2.formats.wordngs=[]"])


def test_what_a_model_can_speak_is_taken_from_the_candidates() -> None:
    """The same templates as the probe draws, with a chat template or without."""
    task = GLUE["cola"]
    found = candidates(task, 6, 3)
    for chat in (True, False):
        assert list(spoken(found, 6, chat)) == [f.template for f in sample(task, 6, 3, chat)]


def test_ids_from_before_formats_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded on the commit before: material, `chat: false` and one format in training are not part of an id."""
    monkeypatch.setattr(identity, "NUMERICS", 3)  # as it was then
    tokens = ["suite=glue-small", "data.source=sample", "device=cpu", "predict=false", "tasks=sst2,rte"]
    tokens += ["strategies=zero_shot,lora"]
    ids = [job.cell.id for job in planning.make(load(tokens)).jobs]
    assert ids == IDS_BEFORE
    task = GLUE["sst2"]
    assert task_digest(task) == task_digest(task.model_copy(update={"formats": None}))
    turned = [t.model_copy(update={"chat": True}) for t in task.templates]
    assert task_digest(task) != task_digest(task.model_copy(update={"templates": turned}))


def test_formats_in_training_are_part_of_the_identity() -> None:
    """Number and templates, not the probe's seed; `formats_in_training=1` written out is the cell it was."""
    common = ["suite=glue-small", "data.source=sample", "device=cpu", "predict=false", "tasks=sst2", "strategies=lora"]
    jobs = lambda *more: planning.make(load([*common, *more])).jobs  # noqa: E731
    [plain], [one] = jobs(), jobs("strategies.lora.formats_in_training=1")
    [four], [other] = (jobs("strategies.lora.formats_in_training=4", f"probes.formats.seed={s}") for s in (0, 1))
    assert plain.cell.id == one.cell.id and plain.cell.formats_digest is None and plain.formats == []
    assert four.cell.id == other.cell.id != plain.cell.id, "asking in other formats later must not train anew"
    assert four.cell.options["formats_in_training"] == 4 and "formats_in_training" not in plain.cell.options
    assert len(spoken(four.formats, 4, chat=False)) == len(spoken(four.formats, 4, chat=True)) == 4
    assert isinstance(four.formats[0], Template)


def test_too_many_formats_in_training_are_a_fault_when_planning() -> None:
    words = "[{words: {negative: bad, positive: good}}]"
    with pytest.raises(UserFault, match="prompt formats are asked for"):
        planning.make(
            load(
                ["suite=smoke", "model=random:tiny-gpt2", "strategies=lora", "data.source=sample", "predict=false",
                 f"tasks.sst2.formats.wordings={words}", "strategies.lora.formats_in_training=5000"]
            )
        )  # fmt: skip
