"""A prompt of lm-eval and its options as ids: tokenised together, each text once, and cut where lm-eval cuts them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from harness_runs import context_of, needs_lm_eval, rows_of, task_of
from tokenizers import processors

from bench.models.base import Base
from bench.models.tokenizer import byte_tokenizer
from bench.score.continued import ContinuedReader, cut, lm_evals_length
from bench.strategy import Unsupported

pytest_plugins = ("harness_runs",)


def merging(base) -> None:
    """A tokenizer of bytes that writes `ab` as one token, and no special tokens."""
    from tokenizers import Tokenizer, models

    known = {token: n for n, token in enumerate(["<|bos|>", "<|pad|>", "<|eos|>", "a", "b", "c", "x", "ab"])}
    known |= {chr(288): len(known)}  # a space, as bytes are written
    backend = Tokenizer(models.BPE(vocab=known, merges=[("a", "b")]))
    backend.pre_tokenizer = byte_tokenizer().backend_tokenizer.pre_tokenizer
    base.tokenizer = type(byte_tokenizer())(
        tokenizer_object=backend, bos_token="<|bos|>", pad_token="<|pad|>", eos_token="<|eos|>"
    )


def test_prompt_and_option_are_tokenised_together(cached: Path) -> None:
    """By hand: bos 0, pad 1, eos 2, a 3, b 4, c 5, x 6, ab 7, space 8."""
    base = tiny.base("tiny-llama")
    merging(base)
    reader = ContinuedReader(base, replace(tiny.context("verbalizer"), task=tiny.task()))
    assert reader.pairs("x", ["ab"]) == [((6,), (7,))]
    assert reader.pairs("xa", ["bc"]) == [((6, 3), (5,))], "x ab c: what lies behind the two tokens of the prompt"
    assert reader.pairs("x ", ["c"]) == [((6,), (8, 5))], "a space at the prompt's end belongs to the option"
    assert reader.pairs("", ["ab"]) == [((0,), (7,))], "an empty prompt is the first special token"
    with pytest.raises(Unsupported, match="a prompt or an option has no token of its own"):
        reader.pairs("xa", ["b"])
    for option in ("", "<|bos|>"):  # the second is the prompt's token; lm-eval stops at both
        with pytest.raises(Unsupported, match="a prompt or an option has no token of its own"):
            reader.pairs("", [option])
    base.tokenizer.bos_token = base.tokenizer.eos_token = None
    silent = ContinuedReader(base, replace(tiny.context("verbalizer"), task=tiny.task()))
    with pytest.raises(Unsupported, match="the prompt is empty and the model has no token to begin with"):
        silent.pairs("", ["ab"])


def test_a_long_prompt_loses_its_front() -> None:
    """Of limit + 1 tokens the last is only predicted (lm-eval: `(context + continuation)[-(max_length + 1):][:-1]`)."""
    assert cut(((1, 2, 3, 4), (5, 6)), 5) == ((1, 2, 3, 4), (5, 6))
    assert cut(((1, 2, 3, 4), (5, 6)), 3) == ((3, 4), (5, 6))
    with pytest.raises(Unsupported, match="an option of 2 tokens is longer than the 1 that are read"):
        cut(((1,), (5, 6)), 1)


def asked_one_by_one(base: Base, prompt: str, option: str) -> tuple[list[int], list[int]]:
    """A pair's ids text by text, as `TemplateLM._encode_pair` has it (lm-eval 0.4.13)."""
    spaces = len(prompt) - len(prompt.rstrip())
    option = prompt[len(prompt) - spaces :] + option
    prompt = prompt[: len(prompt) - spaces]
    opening = base.tokenizer.decode([base.tokenizer.bos_token_id])

    def ids(text: str) -> list[int]:
        more = {"add_special_tokens": False} if text.startswith(opening) else {}
        found: list[int] = base.tokenizer.encode(text, **more)
        return found

    whole, before = ids(prompt + option), ids(prompt)
    return before, whole[len(before) :]


@pytest.mark.parametrize("bos", [False, True])
def test_options_tokenised_at_once_have_the_ids_that_each_has_alone(bos: bool) -> None:
    """Spaces at the prompt's end, none, several; a prompt or only the whole text that begins with the first special
    token; tokenizers that write it and that do not; and the prompt is tokenised once for all its options."""
    base = tiny.base("tiny-llama")
    merging(base)
    if bos:
        first = [("<|bos|>", 0)]
        base.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", special_tokens=first
        )
    reader = ContinuedReader(base, replace(tiny.context("verbalizer"), task=tiny.task()))
    options = ["c", " ab", "bc x", "bos|>c"]
    for prompt in ("xa", "xa ", "xa  ", " x", "<|bos|>xa", "<|bos|>x ", "xab ab", *(["<|"] if bos else [])):
        found = reader.pairs(prompt, options)
        assert [tuple(map(list, pair)) for pair in found] == [asked_one_by_one(base, prompt, one) for one in options]
    assert reader.joined(["a", "<|bos|>a"]) == ([[0, 3], [0, 3]] if bos else [[3], [0, 3]])
    calls, own = [], base.tokenizer
    reader.base.tokenizer = lambda texts, **_: calls.append(texts) or own(texts, **_)
    reader.pairs("xa ", options)
    assert calls == [["xa", *(f"xa {option}" for option in options)]]


UNNAMED = 1000000000000000019884624838656
"""What transformers gives for a tokenizer that names no length."""
LENGTHS: list[tuple[dict[str, Any], int, int]] = [
    ({"model_type": "bloom", "seq_length": 4096}, UNNAMED, 2048),
    ({"model_type": "mpt", "max_seq_len": 8192}, UNNAMED, 2048),
    ({"model_type": "mamba"}, 1024, 1024),
    ({"model_type": "llama", "max_position_embeddings": 131072}, 16384, 131072),
    ({"model_type": "gpt2", "n_positions": 1024, "n_ctx": 512}, 256, 1024),
    ({"model_type": "own", "n_ctx": 768}, UNNAMED, 768),
    ({"model_type": "many", "max_position_embeddings": 9, "text_config": {"max_position_embeddings": 70}}, 5, 70),
]
"""Configurations, what their tokenizers name, and the length of a context."""


@needs_lm_eval
@pytest.mark.parametrize(("given", "told", "length"), LENGTHS)
def test_a_context_is_as_long_as_lm_eval_has_it(given: dict[str, Any], told: int, length: int) -> None:
    from lm_eval.models.utils import resolve_max_length

    more = {"text_config": SimpleNamespace(model_type="", **given["text_config"])} if "text_config" in given else {}
    config, tokenizer = SimpleNamespace(**given | more), SimpleNamespace(model_max_length=told)
    base: Any = SimpleNamespace(module=SimpleNamespace(config=config), tokenizer=tokenizer)
    assert lm_evals_length(base) == length == resolve_max_length(config, tokenizer)  # type: ignore[arg-type]


def test_no_context_is_longer_than_a_table_of_positions() -> None:
    """RoBERTa's 514 rows begin at 2: lm-eval would read the last two past its end."""
    base = tiny.base("tiny-roberta")
    assert base.module.config.max_position_embeddings == 514 and lm_evals_length(base) == 512 == base.max_length


@needs_lm_eval
@pytest.mark.parametrize("family", ["tiny-gpt2", "tiny-llama"])
def test_our_context_is_lm_evals_where_both_name_one(cached: Path, family: str) -> None:
    """And where the tokenizer names less, scoring reads the model's and training stays within both."""
    task, base = task_of(cached, "quiz"), tiny.base(family)
    assert ContinuedReader(base, context_of("quiz", task)).longest == base.max_length == 512
    less = ContinuedReader(
        replace(base, max_length=40, tokenizer=byte_tokenizer(max_length=40)), context_of("quiz", task)
    )
    fields = rows_of("quiz", task).test.fields
    assert less.longest == 512 and max(e.length for e in less.encode(fields)) > 40 == less.within(less.sequence)


@needs_lm_eval
def test_scoring_reads_what_the_model_can_and_training_what_the_cell_may(cached: Path) -> None:
    task = task_of(cached, "quiz")
    base, rows = tiny.base("tiny-llama"), rows_of("quiz", task)
    reader = ContinuedReader(base, context_of("quiz", task))
    assert min(e.length for e in reader.encode(rows.test.fields)) > tiny.SEQUENCE and reader.truncated == 0
    assert max(e.length for e in reader.encode_training(rows.train)) == tiny.SEQUENCE and reader.truncated == 24
    narrow = ContinuedReader(base, context_of("quiz", task.model_copy(update={"sequence": 60})))
    assert max(e.length for e in narrow.encode(rows.test.fields)) == 60
