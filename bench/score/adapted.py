"""An adapted model that answers: length-sorted batches in, label scores out, in the order asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import DynamicCache

from bench.budget import Meter
from bench.config.schema import Template
from bench.measure.allocators import is_shortage
from bench.score.batch import Batch, Encoded
from bench.score.beside import Beside, can_stand_beside, scores_beside, side_by_side
from bench.score.fronts import LEAST, common, expanded, shared_front
from bench.score.readers import Reader, VerbalizerReader
from bench.strategy import Answerer, Diverged

TOKENS_A_BATCH = 1024
"""Padded tokens of a scoring batch: enough to fill the cores, small beside the weights."""
CACHED_TOKENS_A_BATCH = 16 * 1024
"""Tokens of a scoring batch with those whose keys and values every row copies: 0.7 GiB for the default model."""


def length_sorted(encoded: Sequence[Encoded], overhead: int = 0, cached: int = 0) -> Iterator[list[int]]:
    """Indexes in batches of like length, each within the token budget; `overhead` tokens a row come on top, and
    `cached` ones take memory and no work."""
    order = sorted(range(len(encoded)), key=lambda i: encoded[i].length)
    batch: list[int] = []
    for i in order:
        # ascending order: the newest is the longest, so it sets the padded width of the whole batch
        rows, tokens = len(batch) + 1, encoded[i].length + overhead
        if batch and (rows * tokens > TOKENS_A_BATCH or rows * (tokens + cached) > CACHED_TOKENS_A_BATCH):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@dataclass
class Adapted:
    """A module with its readout."""

    module: nn.Module
    reader: Reader

    @property
    def truncated(self) -> int:
        """Inputs that lost their front so far."""
        return self.reader.truncated

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Float64 scores (rows, labels) in the order given. Raises `Diverged` where a score is not finite."""
        self.module.eval()
        return Asking(self.module, self.reader).ask(self.reader.encode(fields), meter)

    def through(self, template: Template) -> Adapted:
        """The same module asked through another prompt. Raises `Unsupported` where the reader reads none."""
        return Adapted(self.module, self.reader.through(template))


@dataclass
class Asking:
    """How a module is asked: a row an item with all its choices where they can stand side by side, else as it trains.

    Here alone is decided which. Labels of one token need no more than the prompt's row either way.
    """

    module: nn.Module
    reader: Reader
    front: DynamicCache | None = None
    """Keys and values of what stands in front of every row, of one row."""

    def __post_init__(self) -> None:
        reader = self.reader
        # what says an item's choices, where these stand side by side
        self.beside: VerbalizerReader | None = None
        if isinstance(reader, VerbalizerReader) and reader.shares and not reader.single:
            self.beside = reader if can_stand_beside(reader.base, self.module) else None

    @property
    def before(self) -> int:
        """Tokens in front of every row."""
        return 0 if self.front is None else self.front.get_seq_length()

    def rows(self, encoded: Sequence[Encoded]) -> Sequence[Encoded]:
        """What is forwarded of encoded items, one each."""
        if (reader := self.beside) is None:
            return encoded
        return [reader.beside(e) for e in encoded]

    def batch(self, rows: Sequence[Any]) -> Batch:
        """A batch of them."""
        if (reader := self.beside) is not None:
            pad_id = reader.base.tokenizer.pad_token_id
            return side_by_side(rows, pad_id, reader.device, self.before, reader.most_choices)
        batch = self.reader.collate(rows)
        if self.before:
            mask = batch.inputs["attention_mask"]
            batch.inputs["attention_mask"] = torch.cat([mask.new_ones(mask.shape[0], self.before), mask], dim=1)
        return batch

    def scores(self, batch: Batch) -> torch.Tensor:
        """Float32 (items, choices)."""
        past: dict[str, Any] = {}
        if self.front is not None:
            rows = batch.inputs["input_ids"].shape[0]
            past = {"past_key_values": expanded(self.front, rows), "use_cache": True}
        if self.beside is not None:
            return scores_beside(self.beside.base, self.module, batch, **past)
        return self.reader.scores(self.module, batch, **past)

    def ask(self, encoded: Sequence[Encoded], meter: Meter) -> np.ndarray:
        """Float64 (items, choices) in the order given. Raises `Diverged` where a score is not finite."""
        rows = self.rows(encoded)
        if (shared := self.alike(rows)) == 0:
            return self.scored(rows, meter)
        # positions never pass a row's tokens: choices stand at the places that they would have as the only one
        front = shared_front(self.module, rows[0].ids[:shared], max(row.length for row in rows), meter)
        if front is None:
            return self.scored(rows, meter)
        behind = [row.behind(shared) for row in rows if isinstance(row, Beside)]
        return Asking(self.module, self.reader, front).scored(behind, meter)

    def alike(self, rows: Sequence[Encoded]) -> int:
        """How many tokens of all prompts are worth reading once: each keeps one, from which choices are predicted."""
        told = [row for row in rows if isinstance(row, Beside)]
        if self.beside is None or not self.beside.fronted or self.before or len(told) < 2:
            return 0
        shared = min(common(row.ids[: row.prompt] for row in told), min(row.prompt for row in told) - 1)
        return shared if shared >= LEAST else 0

    def scored(self, rows: Sequence[Encoded], meter: Meter) -> np.ndarray:
        """Float64 (items, choices) of what `rows` gave, in the order given."""
        before = self.before

        def collate(part: Sequence[Encoded]) -> tuple[Batch, tuple[Any, ...]]:
            batch = self.batch(part)
            return batch, batch.shape

        return scored(rows, meter, collate, self.scores, cached=before)


def scored(encoded: Sequence[Encoded], meter: Meter, collate: Any, score: Any, cached: int = 0) -> np.ndarray:
    """Run `score` over length-sorted batches and put the rows back in order; `cached` tokens stand before every row.

    A batch that runs out of memory is cut in two. Raises what ran out with one row, and `Diverged` where a score is not
    finite.
    """
    rows: dict[int, np.ndarray] = {}
    batches = list(length_sorted(encoded, cached=cached))
    waiting = deque(meter.chosen(batches, [len(b) * encoded[b[-1]].length for b in batches]))
    with torch.inference_mode():
        while waiting:
            indexes = waiting.popleft()
            values = attempted([encoded[i] for i in indexes], meter, collate, score)
            if values is None:
                half = (len(indexes) + 1) // 2
                waiting.extendleft([indexes[half:], indexes[:half]])
            else:
                rows.update(zip(indexes, values, strict=True))
    unread = np.zeros_like(next(iter(rows.values()), np.zeros(0)))  # of a batch the meter left out
    out = np.stack([rows.get(i, unread) for i in range(len(encoded))]) if encoded else np.zeros((0, 0))
    if not np.isfinite(out).all():
        raise Diverged("scores of test items are not finite: the adapted weights hold NaN or infinity; lower lr")
    return out


def attempted(part: Sequence[Encoded], meter: Meter, collate: Any, score: Any) -> np.ndarray | None:
    """Scores of one batch; None where memory ran out and fewer rows may fit. What was held is free by then: the error,
    which knows every frame's tensors, ends with this function."""
    try:
        batch, shape = collate(part)
        with meter.step(shape, len(part)):
            values: np.ndarray = score(batch).double().cpu().numpy()
        return values
    except (MemoryError, RuntimeError) as error:
        if len(part) == 1 or not is_shortage(error):
            raise
    meter.halved += 1
    if meter.device == "cuda":
        torch.cuda.empty_cache()  # blocks of the wrong size
    return None


CONTENT_FREE = ("N/A", "[MASK]", "")
"""Inputs that say nothing (Zhao et al. 2021, section 4)."""


@dataclass
class Calibrated:
    """Contextual calibration (Zhao et al. 2021, section 4): divide each label's probability by what the same
    prompt gives it for content-free inputs, so that a bias of prompt and label words cancels."""

    inner: Answerer
    fields: list[str]
    content_free: tuple[str, ...] = CONTENT_FREE

    @property
    def truncated(self) -> int:
        return self.inner.truncated

    def through(self, template: Template) -> Calibrated:
        """Asked through another prompt, which is calibrated by its own bias."""
        return Calibrated(self.inner.through(template), self.fields, self.content_free)

    def predict(self, fields: Sequence[dict[str, str]], meter: Meter) -> np.ndarray:
        """Calibrated log-probabilities over the labels, (rows, labels)."""
        free = self.inner.predict(blank(self.fields, self.content_free), meter)
        return unbiased(self.inner.predict(fields, meter), free)


def blank(fields: Sequence[str], content_free: Sequence[str] = CONTENT_FREE) -> list[dict[str, str]]:
    """Rows that hold nothing but content-free text, one a text."""
    return [dict.fromkeys(fields, text) for text in content_free]


def unbiased(scores: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Log-probabilities (rows, labels) less the log of the mean probability (labels) of the content-free rows `free`,
    scored by the same prompt: W = diag(p_cf)^-1, b = 0 (Zhao et al. 2021, section 4)."""
    bias: np.ndarray = np.log(np.exp(normalised(free)).mean(0))
    return normalised(scores) - bias


def normalised(scores: np.ndarray) -> np.ndarray:
    """Log-probabilities renormalised over the labels."""
    shifted = scores - scores.max(-1, keepdims=True)
    out: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return out
