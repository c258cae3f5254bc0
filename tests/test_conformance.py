"""What every strategy must hold, on every family of model. A new file in `adapters/` joins by existing."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import tiny
from tiny import FAMILIES, STRATEGIES, drive, driven, folder_bytes

from bench import plan as planning
from bench import registry
from bench.budget import Meter
from bench.config import load
from bench.errors import UserFault
from bench.job import Job
from bench.records import Status
from bench.store import read_result
from bench.strategy import TaskContext
from bench.worker import run_cell

NAMES = sorted(STRATEGIES)
CAUSAL = ("tiny-gpt2", "tiny-llama")
CELLS = [(n, f, r) for n in NAMES for f in FAMILIES for r in STRATEGIES[n].readouts]
every_strategy = pytest.mark.parametrize("name", NAMES)
every_cell = pytest.mark.parametrize(("name", "family", "readout"), CELLS, ids=["-".join(c) for c in CELLS])
ALTERNATIVE = re.compile(r"\b(use|raise|lower|choose)\b")
AXES = {"train_tokens": 500, "train_flops": 6e7, "train_seconds": 0.08}


def supported(name: str, family: str, readout: str) -> tiny.Driven:
    """The finished cell; a pair that is refused in words has nothing further to hold."""
    done = driven(name, family, readout)
    if done.refused is not None:
        pytest.skip(f"unsupported, as it says: {done.refused}")
    return done


@every_strategy
def test_options_round_trip_and_have_valid_defaults(name: str) -> None:
    """Options travel to the worker as JSON and come back equal; defaults pass their own validation."""
    kind = STRATEGIES[name].Options
    defaults = kind()
    assert kind.model_validate(json.loads(json.dumps(defaults.model_dump(mode="json")))) == defaults
    small = tiny.options(name)
    assert kind.model_validate_json(small.model_dump_json()) == small


@every_strategy
def test_an_unknown_option_is_refused(name: str) -> None:
    """A misspelt option is one worded fault that names the place."""
    with pytest.raises(UserFault, match=rf"unknown key 'strategies\.{name}\.learnig_rate'"):
        registry.variant(name, {"learnig_rate": 1}, STRATEGIES)


@every_strategy
def test_it_says_what_it_is(name: str) -> None:
    """`list strategies` shows family, what trains and the paper; readouts are ones that exist."""
    strategy = STRATEGIES[name]
    assert strategy.name == name
    assert strategy.family and strategy.trains and re.search(r"\d{4}", strategy.paper)
    assert set(strategy.readouts) <= {"head", "verbalizer"} and strategy.readouts
    assert all(f.description for f in strategy.Options.model_fields.values()), "every option has a docstring"


@pytest.mark.parametrize("cell", [c for c in CELLS if c[1] in CAUSAL and c[2] == "verbalizer"], ids="-".join)
def test_choices_side_by_side_score_as_a_row_each(cell: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of several tokens: within 1e-4, the likeliest one equal, in whatever order the rows come."""
    done = supported(*cell)
    assert done.plan is not None
    test = tiny.rows_of(cell[0]).test.fields
    with tiny.plainly(monkeypatch):
        plain = done.plan.answer.predict(test, Meter())
    np.testing.assert_allclose(done.scores, plain, atol=1e-4)
    assert (done.scores.argmax(-1) == plain.argmax(-1)).all()
    np.testing.assert_allclose(done.plan.answer.predict(test[::-1], Meter())[::-1], done.scores, atol=1e-4)


@every_cell
def test_a_pair_answers_or_is_refused_in_words(name: str, family: str, readout: str) -> None:
    """Either finite float64 scores, one row an item and one column a label; or a sentence naming an alternative."""
    done = driven(name, family, readout)
    if done.refused is not None:
        assert len(done.refused.split()) > 5 and ALTERNATIVE.search(done.refused), done.refused
        return
    assert done.scores.shape == (len(tiny.rows_of(name).test), 2) and done.scores.dtype == np.float64
    assert np.isfinite(done.scores).all()


@every_strategy
def test_each_declared_readout_works_with_some_family(name: str) -> None:
    """No readout is declared that every family refuses, and no family its `needs` name is refused outright."""
    for readout in STRATEGIES[name].readouts:
        assert any(driven(name, family, readout).refused is None for family in FAMILIES)


@every_strategy
@pytest.mark.parametrize("family", FAMILIES)
def test_a_readout_it_lacks_is_refused(name: str, family: str) -> None:
    """Asking for the other readout is `unsupported`, with the one to use."""
    for readout in {"head", "verbalizer"} - set(STRATEGIES[name].readouts):
        refused = driven(name, family, readout).refused
        assert refused and ALTERNATIVE.search(refused)


@every_cell
def test_the_label_budget_holds(name: str, family: str, readout: str) -> None:
    """No more labels than the budget's, and what it is shown holds no test row."""
    done = supported(name, family, readout)
    assert 0 <= done.labels_used <= done.budget.labels == len(done.context.train)
    assert {f.name for f in fields(TaskContext)} == {
        "name",
        "task",
        "train",
        "seed",
        "readout",
        "batch",
        "sequence",
        "micro_batch",
        "sources",
        "position",
        "device",
        "foreach",
        "formats",
        "features",  # a folder of features named by digests: no text, no row number, no label
    }
    test = {tuple(f.values()) for f in tiny.rows_of(name).test.fields}
    assert not test & {tuple(f.values()) for f in done.context.train.fields}


@every_strategy
def test_without_labels_it_reads_none_or_is_refused(name: str) -> None:
    """`budget.labels=0`: what needs a label says so and names the key; the rest reads none."""
    for readout in STRATEGIES[name].readouts:
        done = drive(name, "tiny-gpt2", readout, labels=0)
        if STRATEGIES[name].needs.train_labels > 0 or STRATEGIES[name].other_types:
            assert done.refused and "budget.labels" in done.refused
        else:
            assert done.refused is None and done.labels_used == 0


@every_cell
def test_the_meter_stops_it(name: str, family: str, readout: str) -> None:
    """Never more examples than the budget's; a gradient strategy uses them to the last one, losses one a step."""
    done = supported(name, family, readout)
    assert done.plan is not None
    assert done.meter.examples <= tiny.EXAMPLES
    if done.plan.groups:
        steps = [step for step in done.meter.steps if not step.aside]
        assert done.meter.examples == tiny.EXAMPLES and done.trained.ended_by == "train_examples"
        assert len(done.trained.losses) == len(steps) == -(-tiny.LABELS // tiny.BATCH) * 2
        assert done.meter.tokens > 0 and all(s.flops > 0 for s in done.meter.steps)


@every_strategy
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-t5"])
def test_no_axis_is_overshot(name: str, family: str, axis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens are known before a step, so their limit is never passed; FLOPs and seconds by less than one step.

    Every step takes as many seconds as the next by its clock here: how a machine's own steps vary is not the strategy's.
    """
    tiny.steps_take(monkeypatch, 0.01)
    done = drive(name, family, STRATEGIES[name].readouts[0], **{axis: AXES[axis]})
    if done.refused is not None:
        assert ALTERNATIVE.search(done.refused)
        return
    steps, limit = done.meter.steps, AXES[axis]
    assert done.plan is not None and done.meter.spent() >= 0
    if not steps:
        assert not done.plan.groups
        return
    if axis == "train_tokens":
        assert done.meter.tokens <= limit
    largest = max(getattr(s, axis.removeprefix("train_")) for s in steps)
    assert done.meter.spent() <= limit + largest
    if done.plan.groups:
        assert done.trained.ended_by == axis and done.meter.spent() >= limit - 2 * largest, "it stops near the limit"


@every_cell
def test_a_step_that_would_overshoot_its_tokens_is_not_taken(name: str, family: str, readout: str) -> None:
    """With one token less than the first two steps use, exactly one step is taken: virtual tokens count too."""
    done = supported(name, family, readout)
    if len(done.meter.steps) < 2:
        pytest.skip("it takes fewer than two steps")
    limit = done.meter.steps[0].tokens + done.meter.steps[1].tokens - 1
    tight = drive(name, family, readout, train_tokens=limit)
    assert tight.refused is None and tight.meter.tokens <= limit
    assert done.plan is not None
    if done.plan.wants is None:  # a plan of stages takes other rows where the budget is shorter
        assert len(tight.meter.steps) == 1


@every_cell
def test_the_base_stays_as_it_was(name: str, family: str, readout: str) -> None:
    """Bit-identical weights of the base where the strategy claims so; else the claim is false for a reason."""
    done = supported(name, family, readout)
    if STRATEGIES[name].base_unchanged:
        assert changed_names(done.originals) == []
    else:
        assert changed_names(done.originals) != [] or (done.plan is not None and done.plan.created > 0)


def changed_names(before: tiny.Snapshot) -> list[str]:
    """Names of parameters that changed, sorted."""
    return sorted(tiny.changed(before).values())


def variants(name: str) -> list[tuple[str, Any]]:
    """Every choice an option offers beside its default: the other truth value, the other names of a list."""
    found: list[tuple[str, Any]] = []
    for key, field in STRATEGIES[name].Options.model_fields.items():
        kinds = [field.annotation, *(a for a in get_args(field.annotation) if not isinstance(a, str))]
        choices = [c for kind in kinds if get_origin(kind) is Literal for c in get_args(kind)]
        choices += [True, False] if bool in kinds else []
        found += [(key, c) for c in choices if key != "readout" and c != field.default]
    return found


VARIANTS = [(n, k, v, f) for n in NAMES for k, v in variants(n) for f in ("tiny-gpt2", "tiny-llama")]


@pytest.mark.parametrize(("name", "key", "value", "family"), VARIANTS, ids=["-".join(map(str, v)) for v in VARIANTS])
def test_every_choice_of_an_option_works_or_is_refused(name: str, key: str, value: Any, family: str) -> None:
    """No documented choice ends in another library's exception, and none breaks the claim about the base."""
    done = drive(name, family, STRATEGIES[name].readouts[0], more={key: value})
    if done.refused is not None:
        assert len(done.refused.split()) > 5 and ALTERNATIVE.search(done.refused), done.refused
        return
    assert np.isfinite(done.scores).all()
    if STRATEGIES[name].base_unchanged:
        assert changed_names(done.originals) == [], "base_unchanged is not true under this option"


@every_cell
def test_only_what_should_train_changed(name: str, family: str, readout: str) -> None:
    """Gradient strategies: parameters in their groups, each once, and nothing else. The others: no parameter of a group."""
    done = supported(name, family, readout)
    assert done.plan is not None
    listed = [id(p) for g in done.plan.groups for p in g.params]
    moved = tiny.changed(done.prepared)
    if not done.plan.groups:
        assert moved == {}
        return
    assert len(listed) == len(set(listed)), "a parameter in two groups would be stepped twice"
    assert sum(p.numel() for g in done.plan.groups for p in g.params) > 0
    assert moved and set(moved) <= set(listed), [moved[i] for i in set(moved) - set(listed)]
    assert set(moved) == set(listed), "a listed parameter that never moves is counted as trained and is not"


@every_cell
def test_the_same_seed_gives_the_same_scores(name: str, family: str, readout: str) -> None:
    """Twice the same cell from fresh weights: bit-identical scores and losses."""
    done = supported(name, family, readout)
    again = drive(name, family, readout)
    assert np.array_equal(done.scores, again.scores)
    assert done.trained.losses == again.trained.losses


@every_cell
def test_answers_do_not_depend_on_their_order(name: str, family: str, readout: str) -> None:
    """Rows come back in the order asked, whatever batches they were in, also when asked alone."""
    done = supported(name, family, readout)
    assert done.plan is not None
    fields_ = tiny.rows_of(name).test.fields
    order = [5, 2, 7, 0, 3, 6, 1, 4]
    shuffled = done.plan.answer.predict([fields_[i] for i in order], Meter())
    np.testing.assert_allclose(shuffled, done.scores[order], atol=1e-5)
    alone = done.plan.answer.predict([fields_[3]], Meter())
    np.testing.assert_allclose(alone, done.scores[[3]], atol=1e-5)


@every_strategy
@pytest.mark.parametrize("family", FAMILIES)
def test_the_record_says_what_was_stored(name: str, family: str, tmp_path: Path) -> None:
    """A worker's record: stored bytes are those of the files `save` wrote, counts are positive where it trains."""
    job = job_of(name, family, tmp_path)
    Path(job.folder).mkdir(parents=True)  # the host's task
    assert run_cell(job, partial(tiny.base, family), lambda phase, share: None) == 0
    record = read_result(Path(job.folder) / "result.json")
    if record.outcome.status is Status.unsupported:
        assert record.outcome.reason and ALTERNATIVE.search(record.outcome.reason) and record.scores is None
        return
    assert record.outcome.status is Status.ok, record.outcome.reason
    assert record.parameters is not None and record.used is not None and record.data.test_rows == 8
    assert record.parameters.stored_bytes == folder_bytes(Path(job.folder) / "adapted")
    assert record.used.labels <= 12 and record.used.train_examples <= tiny.EXAMPLES
    base_size = sum(p.numel() for p in tiny.base(family).module.parameters())
    assert record.parameters.total == base_size + (record.parameters.created or 0)
    if record.training is not None or record.used.ended_by == "converged":
        assert 0 < record.parameters.trainable <= record.parameters.total
        kept = record.parameters.stored_bytes >= 4 * (record.parameters.created or 0)
        assert kept == STRATEGIES[name].keeps_all, "what was made must be kept, unless it says otherwise"
    else:
        assert record.parameters.trainable == 0
    assert set(record.phases) == {"load", "adapt", "predict"}


def job_of(name: str, family: str, tmp_path: Path) -> Job:
    """A planned cell of the smoke suite with the test's budget."""
    small = [f"strategies.{name}.{k}={json.dumps(v)}" for k, v in tiny.SMALL.get(name, {}).items()]
    tokens = ["suite=smoke", f"model=random:{family}", f"strategies={name}", "tasks.sst2.limit=8", "budget.labels=12",
              f"budget.train_examples={tiny.EXAMPLES}", "batch=4", "sequence=48", "threads=1", "device=cpu",
              "data.source=sample", f"results_dir={tmp_path}", *small]  # fmt: skip
    [job] = planning.make(load(tokens)).jobs
    return job
