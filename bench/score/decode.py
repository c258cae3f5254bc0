"""Writing on from a prompt: batched decoding with the keys and values of a shared beginning computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from bench.budget import Meter
from bench.score.fronts import empty, expanded, shared_front
from bench.strategy import Unsupported


@dataclass(frozen=True)
class Sampling:
    """How the next token is taken."""

    temperature: float = 0.0
    """0: the likeliest one. Otherwise drawn from softmax(logits / temperature)."""
    generator: torch.Generator | None = None


GREEDY = Sampling()


@dataclass(frozen=True)
class Writer:
    """A causal model that writes; prompts share the ids `prefix` in front."""

    module: nn.Module
    pad: int
    ends: frozenset[int]
    """Tokens that end a text."""
    prefix: tuple[int, ...] = ()
    rows: int = 8
    """Rows of a batch."""
    aside: bool = False
    """Whether the writing is part of training, where it reads no labelled example."""

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        most: int,
        meter: Meter,
        sampling: Sampling = GREEDY,
        finished: Callable[[list[int]], bool] = lambda ids: False,
    ) -> list[list[int]]:
        """New ids after each prompt, at most `most`, without the token that ends them.

        A row also ends where `finished` says so of its new ids. Raises `Unsupported` for virtual tokens, and for a
        model that gives no cache to go on from.
        """
        config = getattr(self.module, "active_peft_config", None)
        if getattr(config, "is_prompt_learning", False):
            raise Unsupported("writing on from virtual tokens is not offered: use lora or full, or a task with labels")
        self.module.eval()
        cache = self.shared(max(map(len, prompts), default=0) + most, meter)
        if self.prefix and cache is None:
            joined = [[*self.prefix, *prompt] for prompt in prompts]
            return replace(self, prefix=()).write(joined, most, meter, sampling, finished)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        out: list[list[int]] = [[] for _ in prompts]
        with torch.inference_mode():
            parts = [order[start : start + self.rows] for start in range(0, len(order), self.rows)]
            for part in meter.chosen(parts, [len(part) * len(prompts[part[-1]]) for part in parts]):
                written = self.batch([prompts[i] for i in part], most, cache, meter, sampling, finished)
                for i, ids in zip(part, written, strict=True):
                    out[i] = ids
        return out

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.module.parameters()).device

    def shared(self, behind: int, meter: Meter) -> DynamicCache | None:
        """Keys and values of the shared beginning, one row, for up to `behind` tokens after it; None where there is
        none, or where each row has to hold it itself."""
        if not self.prefix:
            return None
        return shared_front(self.module, self.prefix, len(self.prefix) + behind, meter, self.aside)

    def padded(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids (rows, longest prompt) with padding in front, and their mask behind the shared beginning."""
        width, before = max(map(len, prompts)), len(self.prefix)
        ids = torch.full((len(prompts), width), self.pad, dtype=torch.int64)
        mask = torch.zeros((len(prompts), before + width), dtype=torch.int64)
        mask[:, :before] = 1
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, before + width - len(prompt) :] = 1
        return ids.to(self.device), mask.to(self.device)

    def batch(
        self,
        prompts: Sequence[Sequence[int]],
        most: int,
        cache: DynamicCache | None,
        meter: Meter,
        sampling: Sampling,
        finished: Callable[[list[int]], bool],
    ) -> list[list[int]]:
        """One batch, padded on the left so that all rows go on at one place."""
        rows, width, before = len(prompts), max(map(len, prompts)), len(self.prefix)
        ids, mask = self.padded(prompts)
        past = empty(self.module.config) if cache is None else expanded(cache, rows)
        places = mask.cumsum(-1)[:, before:] - 1
        new: list[list[int]] = [[] for _ in prompts]
        open_rows = set(range(rows))
        shape: tuple[Any, ...] = ("prompt", before, rows, 0, width)
        for step in range(most):
            with meter.step(shape, rows if step == 0 and not self.aside else 0, self.aside):
                found = self.module(
                    input_ids=ids, attention_mask=mask, position_ids=places.clamp(min=0), past_key_values=past,
                    use_cache=True, logits_to_keep=1,
                )  # fmt: skip
            if getattr(found, "past_key_values", None) is None:
                kind = type(self.module).__name__
                raise Unsupported(f"{kind} gives no cache to write on from: use a task with labels")
            chosen = picked(found.logits[:, -1].float(), sampling)
            if meter.rehearses:
                if step:
                    break
                lengthen(past, most - 2)
                mask = torch.cat([mask, mask.new_ones(rows, max(1, most - 1))], dim=1)
                ids, places = chosen.unsqueeze(1), mask.sum(-1, keepdim=True) - 1
                continue
            for row in sorted(open_rows):
                token = int(chosen[row])
                if token not in self.ends:
                    new[row].append(token)
                if token in self.ends or finished(new[row]):
                    open_rows.discard(row)
            if not open_rows:
                break
            ids, places = chosen.unsqueeze(1), places[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(rows, 1)], dim=1)
            shape = ("next", rows, 0, mask.shape[1])
        return new


def lengthen(cache: DynamicCache, tokens: int) -> None:
    """Room in a cache as if so many more tokens had been written: a rehearsal looks at the last step only."""
    for index, layer in enumerate(cache.layers):
        if tokens > 0 and isinstance(layer, DynamicLayer):  # a state does not grow
            rows, heads, _, width = layer.keys.shape
            cache.update(
                layer.keys.new_zeros(rows, heads, tokens, width),
                layer.values.new_zeros(rows, heads, tokens, width),
                index,
            )


def picked(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """The next token of every row, (rows,), of logits (rows, vocabulary)."""
    if sampling.temperature <= 0:
        return logits.argmax(-1)
    chances = torch.softmax(logits / sampling.temperature, dim=-1)
    drawn: torch.Tensor = torch.multinomial(chances, 1, generator=sampling.generator).squeeze(1)
    return drawn
