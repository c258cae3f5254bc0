"""Tasks of lm-eval: every option as a continuation of its prompt, tokenised, cut and scored as lm-eval does it.

lm-eval tokenises prompt and option together and takes what lies behind the prompt's own tokens as the option's
(`TemplateLM._encode_pair` of lm-eval 0.4), so that an option's first token may differ from the one it has alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.budget import Meter
from bench.config.harness import OPENING, QUESTION
from bench.config.schema import Task, Template
from bench.data.prompts import fill
from bench.data.rows import Rows
from bench.measured import Score
from bench.models.base import Base, positions_of
from bench.score.adapted import Adapted
from bench.score.answers import AnswerReader
from bench.score.batch import Batch, Encoded, mask_of, pad, stack
from bench.score.beside import ABSENT, Beside
from bench.stats.metrics import score
from bench.strategy import TaskContext, Unsupported

Pair = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Continued(Encoded):
    """A prompt's tokens and an option's behind them, for every option of a row; `ids` are the longest of these rows."""

    pairs: tuple[Pair, ...] = ()

    @property
    def head_reads(self) -> int:
        """Tokens that the LM head reads for it: each predicts one of an option's."""
        return sum(len(after) for _, after in self.pairs)


class ContinuedReader(AnswerReader):
    """Summed log-probability of each option's tokens behind the prompt's, for causal models.

    What is scored is cut to the model's context only, which is as long as lm-eval takes it to be, unless the task names
    a `sequence`; what is trained on is cut to the cell's `sequence`.
    """

    fronted = True  # by lm-eval's own demonstrations, where these are the same for all

    def __init__(self, base: Base, context: TaskContext) -> None:
        super().__init__(base, context)
        self.longest = lm_evals_length(base) if context.task.sequence is None else self.within(context.task.sequence)
        tokenizer = base.tokenizer
        self.most_choices = len(self.labels)
        start = tokenizer.bos_token_id
        self.start: int | None = tokenizer.eos_token_id if start is None else start
        self.opening: str | None = None if self.start is None else tokenizer.decode([self.start])
        """How a text begins that brings its first special token along."""

    def within(self, length: int) -> int:
        """A length, or the model's context where that is shorter."""
        return min(length, self.base.max_length or length)

    def encode(self, fields: Sequence[dict[str, str]]) -> list[Encoded]:
        """Every option of every row, as lm-eval would ask."""
        return [self.row(f, self.longest) for f in fields]

    def encode_training(self, rows: Rows) -> list[Encoded]:
        """The same, no longer than `sequence`."""
        return [self.row(f, self.within(self.sequence)) for f in rows.fields]

    def row(self, fields: dict[str, str], limit: int) -> Continued:
        """One row's pairs, each without its front where it is longer than the model reads (`limit` tokens: the last one
        is only predicted). Raises `Unsupported` for an option that is as long."""
        prompt = fill(self.template, fields)
        # the options stand in the labels' order; a row that has fewer lacks the last ones
        pairs = self.pairs(prompt, [fields[label] for label in self.labels if label in fields])
        self.truncated += any(len(before) + len(after) > limit + 1 for before, after in pairs)
        kept = tuple(cut(pair, limit) for pair in pairs)
        before, after = max(kept, key=lambda pair: len(pair[0]) + len(pair[1]))
        return Continued([*before, *after[:-1]], pairs=kept)

    def pairs(self, prompt: str, options: Sequence[str]) -> list[Pair]:
        """Tokens of a prompt and of each option behind it. Raises `Unsupported` where one of them has none."""
        if not prompt:
            found = [self.begun(option) for option in options]
        else:
            before = prompt.rstrip()
            front, *wholes = self.joined([before, *(prompt + option for option in options)])
            found = [(tuple(front), tuple(whole[len(front) :])) for whole in wholes]
        if not all(asked and told for asked, told in found):
            raise Unsupported("a prompt or an option has no token of its own in this model's vocabulary: use another")
        return found

    def begun(self, option: str) -> Pair:
        """An option behind an empty prompt. Raises `Unsupported` where the model has no token to begin with."""
        if self.start is None:
            raise Unsupported("the prompt is empty and the model has no token to begin with: use another model")
        alone = tuple(self.tokens(option))
        return ((self.start,), alone) if alone[:1] != (self.start,) else (alone[:1], alone[1:])

    def joined(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts as the tokenizer gives them, special tokens once."""
        tokenizer = self.base.tokenizer
        ids: list[list[int]] = tokenizer([*texts])["input_ids"]
        if self.opening is None:
            return ids
        return [
            self.tokens(text) if text.startswith(self.opening) else own for text, own in zip(texts, ids, strict=True)
        ]

    def collate(self, encoded: Sequence[Encoded]) -> Batch:
        """A row an option."""
        items = [one for one in encoded if isinstance(one, Continued)]
        placed = [(item, place, pair) for item, one in enumerate(items) for place, pair in enumerate(one.pairs)]
        targets = [list(after) for _, _, (_, after) in placed]
        rows = [Encoded([*before, *after[:-1]]) for _, _, (before, after) in placed]
        batch = stack(rows, self.base.tokenizer.pad_token_id, self.base.max_length, self.device)
        batch.items = len(items)
        lengths = torch.tensor([len(after) for after in targets])
        width = int(lengths.max())
        starts = torch.tensor([len(before) - 1 for _, _, (before, _) in placed])
        real = mask_of(lengths, width)
        batch.extra["positions"] = (starts.unsqueeze(1) + torch.arange(width)) * real
        batch.extra["targets"] = pad(targets, 0, width)
        batch.extra["real"] = real
        batch.extra["item"] = torch.tensor([item for item, _, _ in placed])
        batch.extra["option"] = torch.tensor([place for _, place, _ in placed])
        return self.to_device(batch)

    def beside(self, encoded: Encoded) -> Beside:
        """All options of a row side by side, the prompt being what they have in common: an option may change its
        prompt's last token, and a long one cuts its own prompt shorter."""
        assert isinstance(encoded, Continued)
        return Beside.joined(encoded.pairs)

    def scores(self, module: nn.Module, batch: Batch, **past: object) -> torch.Tensor:
        """Float32 (items, labels): summed log-probability of each option's tokens; `ABSENT` where a row has none."""
        logp = (self.token_scores(module, batch) * batch.extra["real"]).sum(-1)
        return self.placed(logp, batch, ABSENT)

    def word_lengths(self, batch: Batch) -> torch.Tensor:
        """Int64 (items, labels): tokens of each option."""
        return self.placed(batch.extra["real"].sum(-1), batch, 0)

    def placed(self, values: torch.Tensor, batch: Batch, absent: float) -> torch.Tensor:
        """Values of all options in a table of items and labels."""
        empty = torch.full((batch.items, len(self.labels)), absent, dtype=values.dtype, device=values.device)
        return empty.index_put((batch.extra["item"], batch.extra["option"]), values)

    def loss(self, module: nn.Module, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
        """Cross-entropy over the options' scores, as for label words."""
        return nn.functional.cross_entropy(self.scores(module, batch), labels)


NAMED = ("n_positions", "max_position_embeddings", "n_ctx")
"""Where lm-eval looks for a context's length in a configuration, the first that is given."""
NAMED_NOWHERE = 2048
"""Tokens that lm-eval reads of a model that names no length."""


def lm_evals_length(base: Base) -> int:
    """Tokens of a context as lm-eval has it (`resolve_max_length` of lm-eval 0.4): what the configuration names, else
    the tokenizer, else 2,048. No more than there are positions: lm-eval would read past RoBERTa's table."""
    from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

    whole: Any = base.module.config
    config = getattr(whole, "text_config", None) or whole
    named = [value for name in NAMED if (value := getattr(config, name, None)) is not None]
    if not named and (told := getattr(base.tokenizer, "model_max_length", None)) not in (None, VERY_LARGE_INTEGER):
        named = [told]
    length = int(named[0]) if named else NAMED_NOWHERE
    return min(length, positions_of(config) or length)


def cut(pair: Pair, limit: int) -> Pair:
    """A pair whose prompt lost its front, so that all but the last token are no more than `limit`."""
    before, after = pair
    if len(after) > limit:
        raise Unsupported(f"an option of {len(after)} tokens is longer than the {limit} that are read: raise sequence")
    return before[max(0, len(before) + len(after) - limit - 1) :], after


def reader_of(base: Base, context: TaskContext) -> ContinuedReader:
    """The reader of a task of lm-eval. Raises `Unsupported` where the model cannot continue text."""
    if base.kind != "causal":
        raise Unsupported(
            f"options of lm-eval's tasks continue their prompt, and this model is {base.kind}: use a causal one, or "
            "readout=head where all rows have the same options"
        )
    return ContinuedReader(base, context)


@dataclass
class Shown:
    """Answers with demonstrations in front, written as lm-eval writes them: question, right option and what follows
    it. `rows` are fixed for the cell, or chosen for each item by `choose`."""

    inner: Adapted
    labels: list[str]
    between: str
    rows: Rows | None = None
    choose: Callable[[dict[str, str]], Rows] | None = None

    @property
    def truncated(self) -> int:
        """Inputs that lost their front so far."""
        return self.inner.truncated

    def text(self, rows: Rows) -> str:
        """Demonstrations as they stand between a description and the question."""
        pairs = zip(rows.fields, rows.labels, strict=True)
        return "".join(f[QUESTION] + f[self.labels[label]] + self.between for f, label in pairs)

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Float64 scores (rows, labels) in the order given."""
        texts = [self.text(self.rows if self.choose is None else self.choose(f)) for f in fields]  # type: ignore[arg-type]
        shown = [f | {OPENING: f[OPENING] + text} for f, text in zip(fields, texts, strict=True)]
        return self.inner.predict(shown, meter)

    def through(self, template: Template) -> Shown:
        """Raises `Unsupported`: the prompt is lm-eval's."""
        raise Unsupported("the prompts of a task of lm-eval stand as they are")


def shown(base: Base, context: TaskContext) -> Shown:
    """Demonstrations, none chosen yet. Raises `Unsupported` where prompts hold some already, or lm-eval writes them in
    a way of their own."""
    harness = context.task.harness
    assert harness is not None
    if harness.shots:
        raise Unsupported(
            f"every prompt holds {harness.shots} demonstrations of lm-eval's own already: give data.shots=0, or use "
            "zero_shot"
        )
    if harness.between is None:
        raise Unsupported(
            "lm-eval writes demonstrations of this task otherwise than its questions: use zero_shot with data.shots"
        )
    return Shown(Adapted(base.module, reader_of(base, context)), context.task.labels, harness.between)


def measures(scores: np.ndarray, test: Rows, task: Task) -> dict[str, Score]:
    """lm-eval's metrics beside accuracy. `acc_norm` divides an option's log-likelihood by its letters and `acc_bytes`
    by its bytes (UTF-8), both without the delimiter before it (`ConfigurableTask.process_results`)."""
    assert task.harness is not None
    skipped, found = len(task.harness.delimiter), {}
    plain = scores.argmax(-1)
    for name in task.harness.measures:
        picked = plain
        if name in ("acc_norm", "acc_bytes"):
            size = len if name == "acc_norm" else lambda text: len(text.encode())
            lengths = [[size(f[label][skipped:]) if label in f else 1 for label in task.labels] for f in test.fields]
            with np.errstate(divide="ignore"):
                picked = (scores / np.array(lengths, dtype=float)).argmax(-1)
        metric = name if name in ("f1", "matthews") else "accuracy"
        if metric == "f1" and len(task.labels) > 2:
            continue  # lm-eval itself has none for more than two
        found[name] = score(metric, test.labels, picked.tolist(), positive=len(task.labels) - 1)
    return found
