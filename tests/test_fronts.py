"""What prompts begin alike with is read once, and options that continue their prompt stand side by side."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import transformers
from transformers import DynamicCache

from bench.budget import Meter
from bench.config.schema import Task
from bench.models.base import Base
from bench.score.adapted import Adapted, Asking
from bench.score.beside import ABSENT, Beside, side_by_side
from bench.score.continued import ContinuedReader
from bench.score.decode import Writer, lengthen
from bench.score.demonstrations import Demonstrations
from bench.score.fronts import LEAST, common, empty, read_front, shareable, shared_front
from bench.score.readers import VerbalizerReader
from bench.strategy import Unsupported

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


# ---- models that keep of a front less than all of it, or keep it otherwise

SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048, "initializer_range": 0.3,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0, 8.0, 16.0, 32.0],
    "original_max_position_embeddings": 158, "factor": 8.0,
}  # fmt: skip
TURNING = {"sliding_window": None, "rope_parameters": LONGROPE, "original_max_position_embeddings": 158}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "head_dim": 8}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "window": ("Mistral", {"sliding_window": 64}),
    "wide window": ("Mistral", {"sliding_window": 170}),
    "some windows": ("Gemma3Text", {"sliding_window": 64, **MIXED}),
    "longer rows turn otherwise": ("Phi3", TURNING),
    "no row is so long": ("Phi3", TURNING | {"original_max_position_embeddings": 300}),
    "convolutions": ("Lfm2", {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8}),
    "states": ("Mamba", {"state_size": 4}),
}  # fmt: skip
"""Tiny random models by what is particular to them. Fronts have 157 tokens here, rows 160 to 227 with them."""
KEEP = ("wide window", "no row is so long")
"""Whose fronts are shared."""


def other(name: str) -> Base:
    """One of `OTHERS`, with the byte tokenizer."""
    of, more = OTHERS[name]
    given = tiny.base("tiny-llama")
    ids = {key: getattr(given.module.config, key) for key in ("vocab_size", "pad_token_id", "bos_token_id")}
    torch.manual_seed(0)
    config = getattr(transformers, f"{of}Config")(**deepcopy(SIZES | ids | {"eos_token_id": 2} | more))
    model = getattr(transformers, f"{of.removesuffix('Text')}ForCausalLM")(config)
    return replace(given, module=model.eval(), max_length=2048)


def alone(module: Any, ids: list[int]) -> torch.Tensor:
    """Log-probabilities (tokens, vocabulary) of one bare row, no cache."""
    with torch.inference_mode():
        return torch.log_softmax(module(torch.tensor([ids]), use_cache=False).logits[0].float(), -1)


@pytest.mark.parametrize("name", OTHERS)
def test_demonstrations_score_as_in_a_bare_row_whatever_a_model_keeps(name: str) -> None:
    """Words of several tokens behind demonstrations, each row alone in full; the front is a pass of its own for all."""
    base, words = other(name), {"negative": " awful", "positive": " very good"}
    raw = tiny.task().model_dump() | {"templates": [{"pattern": "{text}\nSo:", "verbalizer": words}]}
    context = tiny.context("verbalizer", task=Task.model_validate(raw), sequence=60)
    reader, meter = VerbalizerReader(base, context), Meter()
    shown = Demonstrations(reader, base.module, context)
    shown.rows = context.train.take(range(2))
    prefix, fields = shown.prefix(shown.rows), tiny.rows().test.fields
    assert len(prefix) == 157

    def bare(asked: list[int], word: list[int]) -> float:
        told = alone(base.module, [*asked, *word])[len(asked) - 1 :]
        return sum(told[place, token].item() for place, token in enumerate(word))

    expected = [[bare([*prefix, *q.ids], word) for word in reader.words] for q in reader.encode(fields)]
    meter.watch([base.module])
    np.testing.assert_allclose(shown.predict(fields, meter), expected, atol=1e-4)
    assert (meter.tokens < len(fields) * len(prefix)) == (name in KEEP)


@pytest.mark.parametrize("name", [name for name in OTHERS if name != "states"])
def test_what_is_written_behind_a_front_whatever_a_model_keeps(name: str) -> None:
    """Two rows of unlike lengths in a batch; the whole text through the model at every step says the same."""
    base, meter = other(name), Meter()
    encode = lambda text: base.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    front, prompts = encode(SHOWN * 4)[:157], [encode(text) for text in ("One", SHOWN, "Then two")]
    expected = []
    for prompt in prompts:
        ids = [*front, *prompt]
        for _ in range(8):
            ids.append(int(alone(base.module, ids)[-1].argmax()))
        expected.append(ids[-8:])
    meter.watch([base.module])
    assert Writer(base.module, 0, frozenset(), tuple(front), rows=2).write(prompts, 8, meter) == expected
    assert (meter.tokens < len(prompts) * len(front)) == (name in KEEP)


@pytest.mark.parametrize("name", ["longer rows turn otherwise", "no row is so long"])
def test_options_behind_what_all_show_when_longer_rows_turn_otherwise(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tasks of lm-eval show is shared on the same terms."""
    reader = reader_of("tiny-llama")
    reader.base = other(name)
    told, meter, slow, _ = both(reader, rows_of(SHOWN * 3), monkeypatch)
    np.testing.assert_allclose(told, slow, atol=1e-4)
    assert reader.base.max_length == 2048 and (meter.tokens < 8 * len(SHOWN * 3)) == (name in KEEP)


def test_who_gives_no_cache_writes_nothing() -> None:
    """Its second token would be written from the first alone."""
    with pytest.raises(Unsupported, match="MambaForCausalLM gives no cache to write on from"):
        Writer(other("states").module, 0, frozenset()).write([[5, 6, 7]], 3, Meter())


def test_which_caches_are_shared() -> None:
    """None at all, another kind, one that begins with virtual tokens, and rotary embeddings by the length asked for."""
    module = tiny.base("tiny-llama").module
    front, config = list(range(20, 40)), module.config
    cache = read_front(module, front, Meter())
    assert shareable(cache, config, 20, 500) and shared_front(module, front, 500, Meter()) is not None
    assert not shareable(None, config, 20, 500) and not shareable(cache, config, 16, 500)
    assert not shareable(transformers.StaticCache(config, max_cache_len=20), config, 20, 500)
    for turning, limit in [
        ({"rope_type": "dynamic", "factor": 2.0}, 512), ({"rope_type": "default"}, 9999), (LONGROPE, 158),
        ({"full_attention": LONGROPE, "sliding_attention": {"rope_type": "default"}}, 158),
    ]:  # fmt: skip
        told = SimpleNamespace(rope_parameters=turning, max_position_embeddings=512)
        assert shareable(cache, told, 20, limit) and shareable(cache, told, 20, limit + 1) == (limit == 9999)


def test_a_rehearsal_lengthens_what_grows() -> None:
    """A state takes as much room for a thousand tokens as for one."""
    module = other("convolutions").module
    cache = empty(module.config)
    module(input_ids=torch.ones(1, 5, dtype=torch.int64), past_key_values=cache, use_cache=True)
    lengthen(cache, 7)
    state, grown = cache.layers
    assert not hasattr(state, "keys") and grown.keys.shape[-2] == 12
    assert not empty(tiny.base("tiny-llama").module.config).layers and isinstance(cache, DynamicCache)
