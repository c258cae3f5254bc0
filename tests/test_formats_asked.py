"""A finished cell asked in other prompt formats, chat templates among them, on tiny models."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
import tiny
from tiny import FAMILIES, PROBE, STRATEGIES, driven

from bench.budget import Meter
from bench.config.probes import FormatProbe
from bench.config.schema import Template
from bench.data.prompts import fill
from bench.data.rows import limited
from bench.models.base import Base
from bench.probed import FormatFindings
from bench.probes.formats import ask
from bench.score.adapted import Calibrated
from bench.score.demonstrations import Demonstrations
from bench.score.readers import VerbalizerReader, make_reader
from bench.strategy import Plan, Unsupported

NAMES = sorted(STRATEGIES)
CELLS = [(n, f, r) for n in NAMES for f in FAMILIES for r in STRATEGIES[n].readouts]
every_cell = pytest.mark.parametrize(("name", "family", "readout"), CELLS, ids=["-".join(c) for c in CELLS])
CHATML = (
    "{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
OTHER = Template(pattern="{text}\n\nThat was", verbalizer={"negative": " awful", "positive": " fine"})
PAIRED = Template(pattern="Somebody wrote this!")
"""Where rows hold the answers."""


@every_cell
def test_asked_through_its_own_template_it_answers_the_same(name: str, family: str, readout: str) -> None:
    """Bit by bit, whatever the strategy; an encoder's head reads no prompt and says so, as what runs no model does. Another prompt is another
    answer, and leaves the first as it was."""
    done = driven(name, family, readout)
    if done.refused is not None:
        pytest.skip(done.refused)
    assert done.plan is not None
    fields, answer, own = tiny.rows_of(name).test.fields, done.plan.answer, tiny.task_of(name).templates[0]
    if not done.plan.seen or (readout == "head" and done.base.kind in ("masked", "encoder")):  # or no model is run
        with pytest.raises(
            Unsupported, match="reads the bare text, which no prompt can change: use (readout=verbalizer|zero_shot)"
        ):
            answer.through(own)
        return
    assert np.array_equal(answer.through(own).predict(fields, Meter()), done.scores)
    other = answer.through(PAIRED if STRATEGIES[name].needs.pairs else OTHER).predict(fields, Meter())
    assert other.shape == done.scores.shape and np.isfinite(other).all()
    if not STRATEGIES[name].needs.replies:  # a reply is right or wrong, whatever its words
        assert not np.array_equal(other, done.scores)
    assert np.array_equal(answer.predict(fields, Meter()), done.scores)


def test_another_template_brings_its_own_words() -> None:
    """The same scores as a reader made for that template, also calibrated and with demonstrations."""
    base, fields = tiny.base("tiny-gpt2"), tiny.rows().test.fields
    there = tiny.context("verbalizer", task=tiny.task().model_copy(update={"templates": [OTHER]}))
    for name, options in (
        ("zero_shot", {"calibrate": True}),
        ("few_shot", {"k": 2}),
        ("few_shot", {"k": 2, "selection": "retrieved"}),
    ):
        chosen = STRATEGIES[name].Options.model_validate(options)
        here = STRATEGIES[name].prepare(base, tiny.context("verbalizer"), chosen).answer.through(OTHER)
        made = STRATEGIES[name].prepare(base, there, chosen).answer
        assert np.array_equal(here.predict(fields, Meter()), made.predict(fields, Meter())), (name, options)


def chatting(family: str = "tiny-gpt2") -> Base:
    """A tiny model whose tokenizer has a chat template and adds a beginning of its own."""
    base = tiny.base(family)
    base.tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|end|>", "<|assistant|>"]})
    base.tokenizer.chat_template = CHATML
    base.module.resize_token_embeddings(len(base.tokenizer))  # type: ignore[operator]
    return base


TURN = Template(pattern="{text}\nIs it good?", verbalizer={"negative": "no", "positive": "yes"}, chat=True)


@pytest.mark.parametrize("readout", ["verbalizer", "head"])
def test_a_chat_template_stands_around_the_prompt_once(readout: str) -> None:
    """Ids are those of the whole rendered chat, its special tokens single and one beginning of sequence."""
    base = chatting()
    reader = make_reader(base, tiny.context(readout, sequence=200)).through(TURN)
    fields = tiny.rows().test.fields[:2]
    for one, row in zip(reader.encode(fields), fields, strict=True):
        turns = [{"role": "user", "content": fill(TURN, row)}]
        text = base.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert one.ids == base.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert one.ids.count(base.tokenizer.bos_token_id) == 1
        assert one.ids[-1] == base.tokenizer.convert_tokens_to_ids("<|assistant|>")


@pytest.mark.parametrize("readout", ["verbalizer", "head"])
def test_a_long_turn_loses_its_front_and_no_part_of_the_template(readout: str) -> None:
    base = chatting()
    reader = make_reader(base, tiny.context(readout, sequence=20)).through(TURN)
    [one] = reader.encode([{"text": "a" * 100}])
    assert one.length == 20 and reader.truncated == 1
    assert base.tokenizer.decode(one.ids) == "<|bos|><|user|>aaaa\nIs it good?<|end|><|assistant|>"


@pytest.mark.parametrize("readout", ["verbalizer", "head"])
def test_a_template_that_leaves_no_room_is_refused(readout: str) -> None:
    base = chatting()
    base.tokenizer.chat_template = "Be kind and helpful." + CHATML
    reader = make_reader(base, tiny.context(readout, sequence=8)).through(TURN)
    with pytest.raises(Unsupported, match="leaves no token of 8 for .*: raise sequence"):
        reader.encode([{"text": "aaaa"}])


@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-bert"])
def test_without_a_chat_template_a_turn_is_refused(family: str) -> None:
    with pytest.raises(Unsupported, match="this model has no chat template: use one without chat"):
        make_reader(tiny.base(family), tiny.context("verbalizer")).through(TURN)


def test_a_chat_template_that_changes_the_text_is_refused() -> None:
    base = chatting()
    base.tokenizer.chat_template = "{{ messages[0]['content'] | upper }}"
    with pytest.raises(Unsupported, match="changes the user's text: use a prompt without chat"):
        make_reader(base, tiny.context("verbalizer")).through(TURN)


def test_demonstrations_stand_inside_the_users_turn() -> None:
    """And the shared keys and values give what joining the ids gives."""
    base, context = chatting(), tiny.context("verbalizer", sequence=100)
    shown = Demonstrations(make_reader(base, context), base.module, context).through(TURN)  # type: ignore[arg-type]
    shown.rows = context.train.take([0, 1])
    assert isinstance(shown.reader, VerbalizerReader)
    [question] = shown.reader.encode([{"text": "zz"}])
    text = base.tokenizer.decode(shown.joined(shown.prefix(shown.rows), question).ids)
    first, second = (fill(TURN, f) for f in shown.rows.fields)
    said = [TURN.verbalizer[context.task.labels[y]] for y in shown.rows.labels]
    inside = f"{first} {said[0]}\n\n{second} {said[1]}\n\nzz\nIs it good?"
    assert text == f"<|bos|><|user|>{inside}<|end|><|assistant|>"
    fields = tiny.rows().test.fields[:3]
    cached = shown.predict(fields, Meter())
    shown.choose, shown.rows = (lambda rows: lambda _: rows)(shown.rows), None
    np.testing.assert_allclose(cached, shown.predict(fields, Meter()), atol=1e-4)


def test_demonstrations_are_drawn_anew() -> None:
    """Number 0 is the cell's own; others differ; retrieved ones have no draw; a calibrated one stays so."""
    base, fields = tiny.base("tiny-gpt2"), tiny.rows().test.fields

    def prepare(**given: Any) -> Plan:
        return STRATEGIES["few_shot"].prepare(base, tiny.context("verbalizer"), tiny.options("few_shot", **given))

    plan = prepare()
    assert plan.redrawn is not None
    drawn = [plan.redrawn(i).predict(fields, Meter()) for i in range(3)]
    assert np.array_equal(drawn[0], plan.answer.predict(fields, Meter()))
    assert not np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[1], drawn[2])
    assert prepare(selection="retrieved").redrawn is None
    calibrated = prepare(calibrate=True)
    assert calibrated.redrawn is not None and isinstance(calibrated.redrawn(1), Calibrated)


@cache
def found(name: str, family: str, readout: str = "verbalizer") -> FormatFindings:
    """The probe's findings about a finished tiny cell."""
    done = driven(name, family, readout)
    assert done.plan is not None, done.refused
    meter = Meter()
    meter.watch(done.plan.seen)
    findings = ask(done.plan, done.context, tiny.rows().test, PROBE, meter)
    meter.unwatch()
    return findings


@pytest.mark.parametrize(
    ("name", "family"), [(n, f) for n in ("zero_shot", "lora") for f in ("tiny-gpt2", "tiny-bert", "tiny-t5")]
)
def test_a_cell_is_asked_in_every_format(name: str, family: str) -> None:
    """All items in all formats, calibrated and not; format 0 scores what the cell's record does."""
    findings, done = found(name, family), driven(name, family, "verbalizer")
    assert [a.number for a in findings.answers] == list(range(10)) and findings.items == tiny.rows().test.index
    own = findings.answers[0]
    assert own.answers == np.bincount(done.scores.argmax(-1), minlength=2).tolist()
    assert own.scores["accuracy"] == np.mean(done.scores.argmax(-1) == tiny.rows().test.labels)
    for answer in findings.answers:
        assert sum(answer.answers) == sum(answer.calibrated_answers or []) == 8 and answer.demonstrations is None
        assert answer.calibrated is not None and set(answer.calibrated) == set(answer.scores) == {"accuracy"}
        assert answer.described["chat"] == "no"
    assert [a.trained_on for a in findings.answers] == [name == "lora"] + [False] * 9
    assert "the model has no chat template" in findings.notes[0]


def test_ten_formats_cost_at_most_twelve_plain_scores() -> None:
    """A hundred items as the default asks: three content-free rows a format are all that comes on top."""
    done = driven("zero_shot", "tiny-gpt2", "verbalizer")
    assert done.plan is not None
    rows = limited(tiny.rows().train, 100)
    plain, meter = Meter(), Meter()
    plain.watch(done.plan.seen)
    done.plan.answer.predict(rows.fields, plain)
    plain.unwatch()
    meter.watch(done.plan.seen)
    findings = ask(done.plan, done.context, rows, FormatProbe(), meter)
    meter.unwatch()
    assert findings.plain_forwards == plain.rows and findings.forwards == meter.rows
    assert meter.rows <= 12 * plain.rows and meter.examples == 10 * 103


def test_few_shot_is_asked_with_several_draws_and_one_cache_each() -> None:
    """Ten formats, two draws: twenty passes over the demonstrations, and the cell's own draw first."""
    done, calls = driven("few_shot", "tiny-gpt2", "verbalizer"), Counter[str]()
    assert done.plan is not None
    watch = done.base.module.register_forward_pre_hook(
        lambda m, a, k: calls.update(["prefix" if "past_key_values" not in k else "rows"]), with_kwargs=True
    )
    findings = found.__wrapped__("few_shot", "tiny-gpt2")
    watch.remove()
    assert calls["prefix"] == 20
    assert [(a.number, a.demonstrations) for a in findings.answers] == [(n, d) for n in range(10) for d in (0, 1)]
    assert findings.answers[0].answers == np.bincount(done.scores.argmax(-1), minlength=2).tolist()
    assert not any(a.trained_on for a in findings.answers)


def test_calibration_from_one_pass_is_the_strategys_own() -> None:
    """Format 0 calibrated here is `zero_shot` with calibrate=true."""
    base, test = tiny.base("tiny-gpt2"), tiny.rows().test
    plan = STRATEGIES["zero_shot"].prepare(base, tiny.context("verbalizer"), tiny.options("zero_shot", calibrate=True))
    scores = plan.answer.predict(test.fields, Meter())
    counts = np.bincount(scores.argmax(-1), minlength=2).tolist()
    assert found("zero_shot", "tiny-gpt2").answers[0].calibrated_answers == counts
    assert ask(plan, tiny.context("verbalizer"), test, PROBE, Meter()).answers[0].calibrated_answers == counts


def test_a_head_is_asked_without_calibration_and_an_encoders_not_at_all() -> None:
    assert all(a.calibrated is None for a in found("lora", "tiny-gpt2", "head").answers)
    with pytest.raises(Unsupported, match="reads the bare text"):
        found("lora", "tiny-bert", "head")


def test_a_format_the_model_cannot_read_is_left_out_with_a_note() -> None:
    """A chat template that leaves no room: its formats are named, the others stand."""
    base = chatting()
    base.tokenizer.chat_template = "Be a most kind and helpful assistant to everybody you meet today." + CHATML
    plan = STRATEGIES["zero_shot"].prepare(base, tiny.context("verbalizer"), tiny.options("zero_shot"))
    findings = ask(plan, tiny.context("verbalizer"), tiny.rows().test, PROBE, Meter())
    missing = set(range(10)) - {a.number for a in findings.answers}
    assert missing and {f"format {n} was not asked" for n in missing} <= {n.split(":")[0] for n in findings.notes}
    assert findings.forwards is None, "nobody watched"
