"""The driver with models made by hand: one that reads, one that has learnt its test items by heart, one that guesses."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from data_rows import make

from bench.config.probes import ContaminationProbe
from bench.config.schema import Task, Template
from bench.data.rows import Rows, TaskRows
from bench.data.sources import Located
from bench.probed import Check, ContaminationFindings
from bench.probes.contamination import POOL, Subject, examine, rows_read
from bench.probes.membership import draw_members
from bench.stats.contamination import against_twin, difference_in_differences, holm_verdicts
from bench.strategy import TaskContext, Unsupported

ASKED = ContaminationProbe(items=100, permutations=999)
WORDS = "river stone cloud lamp bread horse glass paper wheel garden window letter bottle candle music"
CHOICE = {"kind": "choose", "labels": ["A", "B", "C", "D"], "columns": {"question": "q", "options": "o", "label": "a"}}


def noise(text: str, salt: str = "") -> float:
    """A standard normal number that depends on the text alone."""
    return float(np.random.default_rng(zlib.crc32((salt + text).encode())).normal())


@dataclass
class Model:
    """Scores two labels: it reads the text's true label with some error, and may know whole texts by heart."""

    skill: float = 2.0
    heart: dict[str, int] = field(default_factory=dict)
    salt: str = ""
    """What this training left beside the base."""
    exchanged: bool = False
    reads_prompts: bool = True
    truncated: int = 0
    asked: int = 0

    def predict(self, fields: Sequence[dict[str, str]], meter: object) -> np.ndarray:
        self.asked += len(fields)
        return np.array([self.scores(f) for f in fields])

    def scores(self, fields: dict[str, str]) -> list[float]:
        text = fields["text"]
        lean = self.skill * (1 if "good" in text.lower() else -1) + 1.5 * noise(text.lower())
        if self.salt:
            lean += 0.5 * noise(text.lower(), self.salt)
        if text in self.heart:  # by heart: the wording as it was, whatever the prompt says
            return [4.0, -4.0] if self.heart[text] == 0 else [-4.0, 4.0]
        return [lean / 2, -lean / 2] if self.exchanged else [-lean / 2, lean / 2]

    def through(self, template: Template) -> Model:
        if not self.reads_prompts:
            raise Unsupported("a head reads no prompt")
        return Model(self.skill, self.heart, self.salt, not self.exchanged)


def rows(n: int, split: str, twice: float = 0.0) -> Rows:
    random, names = np.random.default_rng(zlib.crc32(split.encode())), WORDS.split()
    labels = random.integers(0, 2, n).tolist()
    texts = [
        f"{split} {i} The film with {' '.join(random.choice(names, 9))} is {'good' if y else 'dull'}."
        for i, y in enumerate(labels)
    ]
    return Rows([{"text": text} for text in texts], labels, list(range(n)))


def data(n: int = 500) -> TaskRows:
    pool = rows(n, "test")
    return TaskRows(rows(200, "train"), pool, Located("path", {}, "x"), pool=pool)


def context(task: Task, train: Rows, seed: int = 0) -> TaskContext:
    return TaskContext("a", task, train, seed, "verbalizer", 8, 64)


def cell(seed: int = 0, dose: int = 0, hits: float = 1.0, **more) -> ContaminationFindings:
    """A trained cell, with a dose of its own test items learnt by heart."""
    given = data()
    tests, _ = draw_members(given.pool, ASKED.items, seed)
    known = {f["text"]: y for f, y in zip(tests.fields, tests.labels, strict=True)} if dose else {}
    here = context(make(), given.train.take(range(64)), seed)
    model = Model(2.2, dict(list(known.items())[: int(hits * len(known))]), f"seed {seed}")
    read = rows_read(here, tests if dose else None)
    subject = Subject(
        answer=model, context=here, rows=given, base=Model(2.0), read=read, pool=given.train.fields, dose=dose, **more
    )
    return examine(subject, ASKED, None)  # type: ignore[arg-type]


def named(findings: ContaminationFindings, name: str) -> Check:
    return next(check for check in findings.checks if check.name == name)


def test_a_planted_leak_is_seen_by_every_family():
    got = cell(dose=8)
    assert got.dose == 8 and len(got.test_items) == 100 and got.test_accuracy == 1.0
    assert got.control_accuracy is not None and got.control_accuracy < 0.97
    assert len(got.control_items) >= 95 and not set(got.control_items) & set(got.test_items)
    member = named(got, "membership")
    assert member.verdict == "seen" and member.statistic is not None and member.statistic > 0.1
    assert named(got, "overlap").verdict == "seen" and named(got, "overlap").figures["items found whole"] == 100
    assert named(got, POOL).verdict == "not seen", "planted items are not of the pool"
    swapped = named(got, "perturbation: label words")
    assert (swapped.verdict, swapped.reference, swapped.kind) == ("seen", "controls", "directional")
    assert "More than brittleness: the test items were learnt as they stand." in swapped.says
    assert {"base, plain", "base, changed", "p, Holm"} <= set(swapped.figures)
    assert next(iter(got.correct)) == "plain" and all(
        len(v) == 100 for v in [*got.correct.values(), *got.touched.values()]
    )


def test_clean_cells_raise_no_alarm():
    findings = [cell(seed) for seed in range(20)]
    seen = [check.name for one in findings for check in one.checks if check.verdict == "seen"]
    assert len(seen) <= 2, seen
    assert {named(one, "overlap").verdict for one in findings} == {"not seen"}
    assert {named(one, "membership").verdict for one in findings} <= {"not seen", "no power", "seen"}
    assert findings[0] == cell(0), "nothing depends on chance"


def test_a_change_the_model_does_not_see_tells_nothing():
    upper = named(cell(), "perturbation: upper case")  # this model lowers every text first
    assert (upper.verdict, upper.p, upper.n) == ("no power", None, len(cell().control_items))
    assert upper.says.startswith("No answer is right or wrong for this change: the model may not even see it")


def test_under_a_head_there_is_no_base_and_no_prompt():
    given = data()
    model = Model(2.2, reads_prompts=False)
    here = context(make(), given.train.take(range(64)))
    got = examine(Subject(answer=model, context=here, rows=given, read=rows_read(here)), ASKED, None)  # type: ignore[arg-type]
    words = named(got, "perturbation: label words")
    assert words.verdict == "not applicable" and words.says == "It cannot be asked here: a head reads no prompt"
    assert "label words" not in got.touched and named(got, "membership").p is not None
    assert named(got, "membership").says.endswith("the controls are matched on the label only.")


def test_items_in_what_was_trained_on_are_no_controls():
    given = data(220)
    leaked = given.pool.take(range(0, 220, 2))
    here = context(make(), leaked)
    got = examine(Subject(answer=Model(), base=Model(), context=here, rows=given, read=rows_read(here)), ASKED, None)  # type: ignore[arg-type]
    assert not set(got.control_items) & set(leaked.index) and got.control_items
    assert named(got, "overlap").figures["items equal to a trained text"] == 110
    everything = context(make(), given.pool)
    got = examine(
        Subject(answer=Model(), base=Model(), context=everything, rows=given, read=rows_read(everything)), ASKED, None
    )  # type: ignore[arg-type]
    assert named(got, "membership").verdict == "not applicable" and got.control_items == []
    assert "no item is left that nobody trained on" in named(got, "membership").says


# ---- nothing trained


@dataclass
class Chooser:
    """Takes the option that says `yes`, if it sees it; otherwise always the first place."""

    sees: bool
    truncated: int = 0

    def predict(self, fields: Sequence[dict[str, str]], meter: object) -> np.ndarray:
        return np.array(
            [[2.0 * (self.sees and f[label] == "yes") - i for i, label in enumerate("ABCD")] for f in fields]
        )

    def through(self, template: Template) -> Chooser:
        return self


def questions(n: int = 75) -> TaskRows:
    labels = [i * 7 % 4 for i in range(n)]
    fields = [
        {"question": f"Is it {i}?", **{k: "yes" if j == y else f"no {j}" for j, k in enumerate("ABCD")}}
        for i, y in enumerate(labels)
    ]
    pool = Rows(fields, labels, list(range(n)))
    return TaskRows(pool, pool, Located("path", {}, "x"), pool=pool)


def prompted(sees: bool) -> ContaminationFindings:
    given = questions()
    here = context(make(**CHOICE), given.train.take([]))
    return examine(Subject(answer=Chooser(sees), context=here, rows=given, trained=False), ASKED, None)  # type: ignore[arg-type]


def test_at_chance_nothing_follows():
    order = named(prompted(False), "perturbation: option order")
    assert order.verdict == "no power" and order.reference is None and order.p is None
    assert order.says == (
        "The model answers at chance (0.25 [0.17, 0.36], chance 0.25) in every option order: this check has no power "
        "here; nothing follows about contamination."
    )
    typos = named(prompted(False), "perturbation: typos")
    assert "The model answers at chance (0.25 [" in typos.says or typos.says.startswith("It changes")


def test_a_drop_alone_is_brittleness():
    got = prompted(True)
    order = named(got, "perturbation: option order")
    assert order.verdict == "no power" and order.plain is not None and order.changed is not None
    assert order.statistic == pytest.approx(order.plain - order.changed) and order.plain > 0.4
    assert "a drop alone is brittleness, not evidence" in order.says and "on 75 items" in order.says
    assert named(got, "membership").verdict == "not applicable" and named(got, "overlap").verdict == "not applicable"
    assert got.control_items == [] and got.test_items == list(range(75))
    assert got.notes == ["75 test items, not 100: those the cell is scored on"]
    assert [key for key in got.correct if key.startswith("option")] == [f"option order #{i}" for i in (1, 2, 3)]


def test_a_small_pool_is_said() -> None:
    given = data(120)
    here = context(make(), given.train.take(range(64)))
    got = examine(Subject(answer=Model(), base=Model(), context=here, rows=given, read=rows_read(here)), ASKED, None)  # type: ignore[arg-type]
    assert got.notes == ["60 test items, not 100: half of the test split's 120 rows"]


def test_few_changed_items_are_not_compared():
    got = named(prompted(True), "perturbation: paraphrase")
    assert (got.verdict, got.n) == ("no power", 0)
    assert got.says == "It changes 0 items or pairs of items; below 20 nothing is compared."


# ---- the report's side


def test_holm_takes_back_what_one_of_many_would_show_by_chance():
    def check(p: float | None, verdict: str = "not seen") -> Check:
        return Check.model_validate({"name": "x", "family": "perturbation", "p": p, "verdict": verdict, "says": "said"})

    checks = holm_verdicts([check(0.03, "seen"), check(0.5), check(None, "seen"), check(0.001, "seen")])
    assert [one.verdict for one in checks] == ["no power", "not seen", "seen", "seen"]
    assert checks[0].says == "Alone p is 0.03, but 0.06 among all checks of this cell (Holm): no evidence."
    assert checks[3].figures == {"p, Holm": pytest.approx(0.003)} and checks[2].figures == {}
    assert holm_verdicts(checks) == checks


def test_the_difference_in_differences():
    ones, zeros, half = np.ones(40), np.zeros(40), np.r_[np.ones(20), np.zeros(20)]
    leak = difference_in_differences(ones, zeros, ones, ones)
    assert (leak.value, leak.n) == (1.0, 40) and leak.p < 0.001
    brittle = difference_in_differences(ones, half, ones, half)
    assert brittle.value == 0 and brittle.p == 1.0
    with pytest.raises(ValueError, match="four vectors of one length are needed"):
        difference_in_differences([1], [1], [1], [1, 0])


def test_against_a_clean_twin():
    checks = against_twin(cell(dose=8), cell())
    words = next(check for check in checks if check.name == "perturbation: label words")
    assert (words.verdict, words.reference, words.kind, words.n) == ("seen", "clean twin", "directional", 100)
    assert "More than brittleness" in words.says and "in the clean twin from" in words.says
    same = against_twin(cell(), cell())
    assert {check.statistic for check in same} == {0.0} and {check.verdict for check in same} == {"not seen"}
    assert all("brittleness, no evidence" in check.says for check in same)


def test_false_alarms_of_the_difference_in_differences():
    random, alarms, times = np.random.default_rng(0), 0, 1000
    for _ in range(times):
        four = random.random((4, 100)) < np.array([[0.9], [0.7], [0.85], [0.65]])
        alarms += difference_in_differences(*four, draws=299).p <= 0.05
    assert alarms / times <= 0.065, alarms
