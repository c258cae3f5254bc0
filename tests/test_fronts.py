"""What prompts begin alike with is read once, and options that continue their prompt stand side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiny
import torch

from bench.budget import Meter
from bench.config.schema import Task
from bench.score.adapted import Adapted, Asking
from bench.score.beside import ABSENT, Beside, side_by_side
from bench.score.continued import ContinuedReader
from bench.score.fronts import LEAST, common

LABELS = ["one", "two", "three"]
SHOWN = "A lamp is old. A river is wide. A ladder is tall.\n\n"


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """As a cell has here."""
    torch.set_num_threads(1)


def reader_of(family: str, sequence: int | None = None) -> ContinuedReader:
    """Options that stand in a row's own fields, as those of lm-eval's tasks do."""
    verbalizer = {name: f" {name}" for name in LABELS}
    raw = tiny.task().model_dump() | {"labels": LABELS, "sequence": sequence}
    task = Task.model_validate(raw | {"templates": [{"pattern": "{text}", "verbalizer": verbalizer}]})
    return ContinuedReader(tiny.base(family), tiny.context("verbalizer", task=task, sequence=200))


def rows_of(
    front: str, options: tuple[str, ...] = (" yes, it is", " no", " who knows it at all")
) -> list[dict[str, str]]:
    """Questions of unlike lengths behind one front; every second one lacks the last option."""
    asked = [f"{front}Is thing {'x' * number} wide?" for number in range(1, 9)]
    fields = [{"text": text} | dict(zip(LABELS, options, strict=False)) for text in asked]
    return [f if number % 2 else {k: v for k, v in f.items() if k != "three"} for number, f in enumerate(fields)]


def both(reader: ContinuedReader, fields: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> tuple[Any, ...]:
    """Scores and meter as they are, then those of a row an option."""
    meter, plain, module = Meter(), Meter(), reader.base.module
    meter.watch([module])
    told = Adapted(module, reader).predict(fields, meter)
    meter.unwatch()
    plain.watch([module])
    with tiny.plainly(monkeypatch):
        slow = Adapted(module, reader).predict(fields, plain)
    plain.unwatch()
    return told, meter, slow, plain


def test_what_rows_begin_alike_with() -> None:
    assert common([]) == 0 == common([[]]) == common([[1], [2]]) == common([[1, 2], []])
    assert common([[1, 2, 3]]) == 3 == common([[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 3]])


def test_a_row_of_options_by_hand() -> None:
    """Prompt 5 6 7; behind it 1 2 scored, then 8 asked and 9 scored; a third option is absent."""
    row = Beside.joined([((5, 6, 7), (1, 2)), ((5, 6, 7, 8), (9,))])
    assert (row.ids, row.prompt, row.choices, row.asked) == ([5, 6, 7, 1, 8], 3, ((1, 2), (8, 9)), (0, 1))
    extra = side_by_side([row.behind(1)], 0, torch.device("cpu"), before=1, most=3).extra
    assert extra["positions"].tolist() == [[1, 2, 3]]
    assert extra["by"].tolist() == [[[0, 1], [0, 2], [0, 0]]] and extra["targets"].tolist() == [
        [[1, 2], [8, 9], [0, 0]]
    ]
    assert extra["real"].tolist() == [[[1, 1], [0, 1], [0, 0]]]


def test_options_with_nothing_in_common_stand_apart_in_one_row() -> None:
    """Prompts that were cut to unlike fronts: each option reads its own from position 0."""
    row = Beside.joined([((5, 6), (1,)), ((6,), (2, 3))])
    assert (row.ids, row.prompt, row.places, row.blocks) == ([5, 6, 6, 2], 0, [0, 1, 0, 1], [1, 1, 2, 2])
    batch = side_by_side([row], 0, torch.device("cpu"))
    assert batch.extra["positions"].tolist() == [[0, 0, 1, 2, 3]] and batch.extra["real"].tolist() == [
        [[0, 0, 1], [0, 1, 1]]
    ]
    assert batch.extra["by"].tolist() == [[[0, 1, 2], [0, 3, 4]]]
    assert batch.inputs["attention_mask"][0, 0].int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 1, 1],
    ]


@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama"])
def test_demonstrations_that_all_show_are_read_once(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same scores, absent options absent, and no token of the front forwarded twice."""
    reader, fields = reader_of(family), rows_of(SHOWN)
    told, meter, slow, plain = both(reader, fields, monkeypatch)
    np.testing.assert_allclose(told, slow, atol=1e-4)
    assert (told[::2, 2] == ABSENT).all() and (told[1::2, 2] > ABSENT / 2).all()
    rows = Asking(reader.base.module, reader).rows(reader.encode(fields))
    front = common(row.ids[: row.prompt] for row in rows)  # type: ignore[attr-defined]
    assert front > LEAST and meter.rows == len(fields) + 1 and plain.rows == 20
    assert meter.tokens == front + sum(row.length - front for row in rows) < plain.tokens / 3


@pytest.mark.parametrize("front", ["", "So: "])
def test_a_short_front_is_no_pass_of_its_own(front: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of("tiny-llama")
    told, meter, slow, _ = both(reader, rows_of(front), monkeypatch)
    np.testing.assert_allclose(told, slow, atol=1e-4)
    assert meter.rows == 8


@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama"])
def test_prompts_that_lost_their_fronts(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long option leaves its prompt less room than a short one does."""
    reader = reader_of(family, sequence=40)
    told, meter, slow, _ = both(reader, rows_of(SHOWN), monkeypatch)
    assert reader.truncated == 16 and meter.rows == 8
    np.testing.assert_allclose(told, slow, atol=1e-4)


def test_one_row_has_no_front() -> None:
    """What only one row shows is not worth a pass."""
    reader, meter = reader_of("tiny-llama"), Meter()
    meter.watch([reader.base.module])
    Adapted(reader.base.module, reader).predict(rows_of(SHOWN)[:1], meter)
    assert meter.rows == 1
